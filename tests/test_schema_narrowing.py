"""Schemas without a grammar are written with keywords that have one, never laxer."""

import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema.exceptions import _WrappedReferencingError as Unresolvable
from jsonschema_specifications import REGISTRY as SPECIFICATIONS

from finch_integrations.schema_narrowing import prepare
from finch_integrations.schema_negation import negate

SUITE = json.loads((Path(__file__).parent / "engine" / "json_schema_suite.json").read_text())
STANDARD = "https://json-schema.org/draft/2020-12/schema"
SCHEMAS = [e for e in SUITE["schemas"] if e["schema"].get("$schema", STANDARD) == STANDARD]


def valid(schema, data):
    # With this registry nothing is ever fetched.
    return jsonschema.Draft202012Validator(schema, registry=SPECIFICATIONS).is_valid(data)


def test_what_is_valid_after_narrowing_was_valid_before_in_the_whole_public_suite():
    count = Counter()
    for entry in SCHEMAS:
        narrowed = prepare(entry["schema"])
        for data, expected in entry["tests"]:
            try:
                allowed = valid(narrowed, data)
            except Unresolvable:  # a part of it is elsewhere
                continue
            if allowed:
                assert expected, (entry["description"], data)
            count[expected, allowed] += 1
    # Most of what was valid still is.
    assert count[True, True] > 600
    assert count[True, False] < 0.1 * count[True, True]


def test_a_negation_allows_nothing_that_the_schema_allows_in_the_whole_public_suite():
    opposed = 0
    for entry in SCHEMAS:
        # In the schema, so that its references are found.
        opposite = {"$ref": "#/$defs/opposite"}
        defs = entry["schema"].get("$defs", {})
        opposite["$defs"] = {**defs, "opposite": negate(entry["schema"], entry["schema"])}
        for data, expected in entry["tests"]:
            try:
                if valid(opposite, data):
                    assert not expected, (entry["description"], data)
                    opposed += 1
            except Unresolvable:  # it refers to another place
                continue
    assert opposed > 150


DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 7) | st.sampled_from(["", "a", "ab", "b", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=5,
)
PARTS = st.recursive(
    st.sampled_from(
        [
            True,
            {"type": "string"},
            {"type": ["integer", "null"]},
            {"type": "number"},
            {"const": "a"},
            {"enum": ["a", "ab", 2, None, True]},
            {"minimum": 2},
            {"exclusiveMaximum": 3},
            {"minLength": 1, "maxLength": 1},
            {"required": ["a"]},
            {"minItems": 2},
            {"maxProperties": 1},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"oneOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"allOf": [a, b]}, inner, inner),
        st.builds(lambda a: {"not": a}, inner),
        st.builds(lambda a, b: {"if": a, "then": b}, inner, inner),
        st.builds(lambda a, b: {"if": a, "else": b}, inner, inner),
        st.builds(lambda a: {"items": a}, inner),
        st.builds(lambda a: {"contains": a, "maxContains": 2}, inner),
        st.builds(lambda a: {"properties": {"a": a}}, inner),
        st.builds(lambda a: {"properties": {"a": a}, "unevaluatedProperties": False}, inner),
        st.builds(lambda a: {"properties": {"b": {}}, "allOf": [a]}, inner),
        st.builds(lambda a: {"dependentSchemas": {"a": a}}, inner),
        st.builds(lambda a: {"items": a, "uniqueItems": True}, inner),
        st.builds(lambda a: {"propertyNames": a}, inner),
    ),
    max_leaves=6,
)


@given(PARTS, DATA)
def test_narrowing_and_negation_hold_for_any_combination(schema, data):
    if valid(prepare(schema) if isinstance(schema, dict) else schema, data):
        assert valid(schema, data)
    if valid(negate(schema, {}), data):
        assert not valid(schema, data)


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        # Conditions, as forms have them.
        (
            {
                "type": "object",
                "properties": {"country": {"enum": ["US", "CA"]}, "zip": {"type": "string"}},
                "required": ["country"],
                "if": {"properties": {"country": {"const": "US"}}},
                "then": {"required": ["zip"]},
                "else": {"properties": {"zip": False}},
            },
            [{"country": "US", "zip": "1"}, {"country": "CA"}],
        ),
        ({"not": {"enum": ["a", "ab"]}, "type": "string"}, ["", "b", "aa", "abc", "a."]),
        ({"type": "integer", "not": {"minimum": 3}}, [2, -1]),
        ({"not": {"type": "string", "minLength": 2}}, [1, "a"]),
        ({"oneOf": [{"minimum": 2}, {"type": "integer"}]}, ["a", 1]),
        ({"type": "array", "contains": {"const": 1}, "minContains": 2}, [[1, 1], [1, 1, 5]]),
        (
            {"type": "array", "items": {"enum": ["x", "y"]}, "uniqueItems": True},
            [[], ["x"], ["x", "y"]],
        ),
        ({"propertyNames": {"pattern": "^a"}, "type": "object"}, [{}, {"ab": 1}]),
        ({"propertyNames": {"enum": ["a"]}, "type": "object"}, [{}, {"a": 1}]),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, [{}, {"b": 1}, {"a": 1, "b": 1}]),
        ({"type": "array", "minItems": 2.0, "maxItems": 2.0}, [[1, 2]]),
        # A part beside others is not closed: it would forbid the others' properties.
        (
            {
                "type": "object",
                "properties": {"a": {}},
                "required": ["a"],
                "anyOf": [{"properties": {"b": {}}, "required": ["b"]}, {"required": ["a"]}],
            },
            [{"a": 1, "b": 1}, {"a": 1}],
        ),
        (
            {
                "allOf": [{"$ref": "#/$defs/base"}],
                "properties": {"b": {}},
                "$defs": {"base": {"properties": {"a": {}}}},
            },
            [{"a": 1, "b": 1}],
        ),
        (
            {
                "properties": {"a": {"properties": {"x": {}}}},
                "allOf": [{"properties": {"a": {"properties": {"y": {}}}}}],
            },
            [{"a": {"x": 1, "y": 1}}],
        ),
        (
            {"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}
            | {"unevaluatedProperties": False},
            [{"a": 1, "b": 2}],
        ),
    ],
)
def test_what_a_keyword_is_used_for_stays_possible(schema, data):
    narrowed = prepare(schema)
    for one in data:
        assert valid(schema, one)
        assert valid(narrowed, one), one


def test_objects_have_only_named_properties_also_where_they_are_made_of_parts():
    base = {"type": "object", "properties": {"a": {}}, "required": ["a"]}
    for schema in (
        base,
        {"allOf": [base, {"properties": {"b": {}}}]},
        {"$ref": "#/$defs/base", "$defs": {"base": base}},
        {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"b": {}}}], "$defs": {"base": base}},
        {"anyOf": [base, {"type": "null"}]},
    ):
        assert valid(prepare(schema), {"a": 1})
        assert not valid(prepare(schema), {"a": 1, "c": 1})


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": 3},
        {"properties": ["a"]},
        {"required": 5, "properties": {"a": {}}},
        {"type": 5, "not": {"type": 5}},
        {"oneOf": [{"required": 3}, {"required": 3}]},
        {"if": {"minLength": "x"}, "then": {"a": 1}},
        {"dependentSchemas": [1]},
        {"contains": {}, "minContains": "x"},
        {"anyOf": {"a": 1}, "properties": {"a": {}}},
    ],
)
def test_what_is_no_schema_is_left_to_the_compiler(schema):
    prepare(schema)


@pytest.mark.parametrize(
    ("pattern", "texts", "others"),
    [
        (r"^\d+$", ["1"], ["١", "𜳴"]),
        (r"^[\d-]+$", ["1-"], ["١"]),
        (r"^\w$", ["_", "a", "0"], ["é"]),
        (r"^[\[\w]$", ["[", "a"], ["é"]),
        (r"^\\d$", ["\\d"], ["1"]),
        (r"^[^\d]$", ["a"], ["1"]),
    ],
)
def test_digits_and_words_in_patterns_are_ascii(pattern, texts, others):
    for schema, wrap in (
        ({"type": "string", "pattern": pattern}, lambda text: text),
        ({"patternProperties": {pattern: {}}, "additionalProperties": False}, lambda t: {t: 1}),
    ):
        narrowed = prepare(schema)
        assert all(valid(narrowed, wrap(text)) for text in texts)
        assert not any(valid(narrowed, wrap(text)) for text in others)


def test_data_in_schemas_stays():
    schema = {"enum": [{"not": {"format": "path", "minItems": 1.0}}], "default": {"format": "path"}}
    assert prepare(schema) == schema
