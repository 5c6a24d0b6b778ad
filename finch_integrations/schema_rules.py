"""Keywords of JSON schemas for which there is no grammar, written with others for which there is.

Each rule takes a schema and what its references are in, and returns a schema that is no laxer; it
returns the same one where it can do nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

from finch_integrations.json_schema import NOTES, resolve
from finch_integrations.schema_negation import (
    all_of,
    any_of,
    are_disjoint,
    negate,
    same,
    values_of,
)

_COUNTS = ("Contains", "Items", "Length", "Properties")
# So many different items can be in lists without repetitions: the grammar has all these lists.
_LARGEST_SET = 7


def joined(schema: dict[str, Any], part: Any) -> dict[str, Any]:
    """A schema with another one that must hold as well."""
    if part is True:
        return schema
    if isinstance(part, Mapping) and part.keys() <= {"anyOf", "enum", "type"} - schema.keys():
        return {**schema, **part}
    return {**schema, "allOf": [*schema.get("allOf", ()), part]}


def _without(schema: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


def _whole_counts(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    def whole(key: str, value: Any) -> Any:
        count = key.startswith(("min", "max")) and key.endswith(_COUNTS)
        return int(value) if count and isinstance(value, float) and value == int(value) else value

    return {key: whole(key, value) for key, value in schema.items()}


def _ascii_classes(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """Let digits and word characters be ASCII, as the standard says; grammars have all scripts'."""
    changed = dict(schema)
    if isinstance(schema.get("pattern"), str):
        changed["pattern"] = _ascii_pattern(schema["pattern"])
    if "patternProperties" in schema:
        named = schema["patternProperties"].items()
        changed["patternProperties"] = {_ascii_pattern(name): part for name, part in named}
    return changed


def _ascii_pattern(pattern: str) -> str:
    written, in_class = "", False
    for part in re.findall(r"\\[\s\S]|[\s\S]", pattern):
        ranges = {r"\d": "0-9", r"\w": "A-Za-z0-9_"}.get(part)
        if ranges is None:
            in_class = part == "[" or (in_class and part != "]")
            written += part
        else:
            written += ranges if in_class else f"[{ranges}]"
    return written


def _not(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    if "not" not in schema:
        return schema
    opposite = negate(schema["not"], root)
    if opposite is False and schema["not"] not in (True, {}):
        return schema
    return joined(_without(schema, "not"), opposite)


def _one_of(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    options = schema.get("oneOf")
    if not isinstance(options, list) or not options:
        return schema
    if are_disjoint(options, root):
        return joined(_without(schema, "oneOf"), any_of(options))
    opposites = [negate(option, root) for option in options]
    only = [
        all_of([option, *opposites[:number], *opposites[number + 1 :]])
        for number, option in enumerate(options)
    ]
    only = [option for option in only if option is not False]
    return joined(_without(schema, "oneOf"), any_of(only))


def _condition(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    then, other = schema.get("then", True), schema.get("else", True)
    rest = _without(schema, "if", "then", "else")
    if "if" not in schema or (then in (True, {}) and other in (True, {})):
        return rest
    unmet = negate(schema["if"], root)
    options = [all_of([schema["if"], then]), all_of([unmet, other])]
    if unmet is False and schema["if"] not in (True, {}):
        # What follows both ways is right whether or not the condition is met.
        options[1] = all_of([then, other])
    return joined(rest, any_of([option for option in options if option is not False]))


def _dependent(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    dependencies: list[tuple[str, Any]] = []
    for key in ("dependentRequired", "dependentSchemas", "dependencies"):
        for name, value in schema.get(key, {}).items():
            dependencies.append((name, {"required": value} if isinstance(value, list) else value))
    schema = _without(schema, "dependentRequired", "dependentSchemas", "dependencies")
    for name, value in dependencies:
        if value in (True, {}, {"required": []}):
            continue
        absent = {"properties": {name: False}}
        schema = joined(schema, any_of([o for o in (value, absent) if o is not False]))
    return schema


def _contains(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    wanted = schema.get("contains", True)
    least, most = schema.get("minContains", 1), schema.get("maxContains")
    rest = _without(schema, "contains", "minContains", "maxContains")
    if "contains" not in schema or (least == 0 and most is None):
        return rest
    if most is not None and most < least:
        return joined(rest, _of_other_type_than_array())
    before = len(schema.get("prefixItems", ()))
    part: dict[str, Any] = {}
    if least:
        part = {"prefixItems": [{}] * before + [wanted] * least, "minItems": before + least}
    if most is not None and before:
        return schema
    if most is not None:
        # Nothing that comes after them may be wanted, or nothing comes after them.
        opposite = negate(wanted, root)
        part |= {"maxItems": most} if opposite is False else {"items": opposite}
    return joined(rest, part)


def _of_other_type_than_array() -> Any:
    return negate({"type": "array"}, {})


def _property_names(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    names = schema.get("propertyNames", True)
    rest = _without(schema, "propertyNames")
    if names in (True, {}):
        return rest
    if names is False:
        return joined(rest, {"maxProperties": 0})
    further = schema.get("additionalProperties", True)
    if "properties" in schema or "patternProperties" in schema:
        return schema
    values = values_of(names, root)
    said = names.keys() - NOTES - {"type"}
    if values is not None:
        texts = [value for value in values if isinstance(value, str)]
        return {**rest, "properties": dict.fromkeys(texts, further), "additionalProperties": False}
    if said == {"pattern"}:
        pattern = names["pattern"]
    elif said and said <= {"minLength", "maxLength"}:
        least, most = int(names.get("minLength", 0)), names.get("maxLength", "")
        pattern = rf"^[\s\S]{{{least},{most if most == '' else int(most)}}}$"
    else:
        return schema
    return {**rest, "patternProperties": {pattern: further}, "additionalProperties": False}


def _unique_items(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    rest = _without(schema, "uniqueItems")
    prefix, most = schema.get("prefixItems", []), schema.get("maxItems")
    if schema.get("uniqueItems") is not True or (most is not None and most <= 1):
        return rest
    if prefix:
        ends = schema.get("items") is False or (most is not None and most <= len(prefix))
        return rest if ends and are_disjoint(prefix, root) else schema
    values = values_of(schema.get("items", True), root)
    if values is None or schema.get("enum") or "const" in schema:
        return schema
    different = [v for n, v in enumerate(values) if not any(same(v, e) for e in values[:n])]
    if len(different) > _LARGEST_SET:
        return schema
    least = schema.get("minItems", 0)
    most = len(different) if most is None else min(most, len(different))
    lists = [list(c) for size in range(least, most + 1) for c in combinations(different, size)]
    kind = schema.get("type")
    if kind == "array" or kind == ["array"]:
        return {**_without(rest, "items", "minItems", "maxItems"), "enum": lists}
    return joined(rest, any_of([{"enum": lists}, _of_other_type_than_array()]))


def _unevaluated_properties(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    further = schema.get("unevaluatedProperties", True)
    rest = _without(schema, "unevaluatedProperties")
    parts = list(_always(schema, root, frozenset()))
    if further in (True, {}) or any("additionalProperties" in part for part in parts):
        return rest
    names = [name for part in parts for name in part.get("properties", ())]
    patterns = [name for part in parts for name in part.get("patternProperties", ())]
    part = {"properties": dict.fromkeys(names, True), "additionalProperties": further}
    if patterns:
        part["patternProperties"] = dict.fromkeys(patterns, True)
    return joined(rest, part)


def _unevaluated_items(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    further = schema.get("unevaluatedItems", True)
    rest = _without(schema, "unevaluatedItems")
    parts = list(_always(schema, root, frozenset()))
    if further in (True, {}) or any("items" in part for part in parts):
        return rest
    known = max(len(part.get("prefixItems", ())) for part in parts)
    part: dict[str, Any] = {"items": further}
    if known:
        part["prefixItems"] = [{}] * known
    return joined(rest, part)


def _always(
    schema: Any, root: Mapping[str, Any], refs: frozenset[str]
) -> Iterator[Mapping[str, Any]]:
    """A schema, and the parts of it that always hold for the same data."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for part in schema.get("allOf", ()):
        yield from _always(part, root, refs)
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref not in refs:
        yield from _always(resolve(ref, root), root, refs | {ref})


_Rule = Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]
# First those that look at keywords that others change.
RULES: tuple[_Rule, ...] = (
    _whole_counts,
    _ascii_classes,
    _unevaluated_properties,
    _unevaluated_items,
    _unique_items,
    _property_names,
    _contains,
    _dependent,
    _condition,
    _one_of,
    _not,
)
