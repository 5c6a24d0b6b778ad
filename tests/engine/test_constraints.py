"""Constrained answers: always in the language, whatever the model would rather say."""

import json
import re

import jsonschema
import pytest
import torch

from finch_integrations import (
    Constraint,
    ConstraintError,
    FinchEngine,
    FinchError,
    MissingExtraError,
    UnsupportedModelError,
)
from finch_integrations.engine.constraining import make_matcher
from finch_integrations.engine.generate import join_responses
from finch_integrations.engine.reasoning import Thoughts, find_thoughts
from tests import templates
from tests.engine.test_tokenization import FAMILIES as CUTS
from tests.tiny import make_model, make_piece_tokenizer, make_tokenizer

ASK = [{"role": "user", "content": "Answer!"}]
TOKENIZERS = {"bytes": make_tokenizer, "pieces": make_piece_tokenizer}
FAMILIES = {name: made for name, made in CUTS.items() if name != "sentencepiece"}
FAMILIES |= {name: make() for name, make in TOKENIZERS.items()}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["é", "b"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
}


def engine_of(kind, **options):
    tokenizer = TOKENIZERS[kind]()
    stop = tokenizer.eos_token_id
    # More logits than tokens, as many models have.
    model = make_model(vocab_size=len(tokenizer) + 7, eos_token_id=stop, **options)
    return FinchEngine(model, tokenizer)


@pytest.fixture(params=TOKENIZERS)
def constrained(request):
    return engine_of(request.param)


ENDLESS = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}


def nested(depth):
    schema = {}
    for _ in range(depth):
        schema = {"items": schema, "type": "array", "minItems": 1}
    return schema


def follows(text, schema):
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def answer(engine, constraint, **options):
    options = {"max_tokens": 400, **options}
    return join_responses(engine.chat(ASK, constraint=constraint, **options))


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 1}, {"temperature": 3.0}])
@pytest.mark.parametrize(
    ("constraint", "valid"),
    [
        (Constraint.json_schema(PERSON), lambda text: follows(text, PERSON)),
        (Constraint.regex(r"[a-f]{3,9}-\d{2}"), re.compile(r"[a-f]{3,9}-\d{2}").fullmatch),
        (Constraint.choice(["yes (sure)", "no", "nö"]), {"yes (sure)", "no", "nö"}.__contains__),
        (
            Constraint.grammar('start: "(" inner ")"\ninner: /[a-c]{1,5}/ | "(" /[xy]{1,3}/ ")"'),
            re.compile(r"\(([a-c]{1,5}|\([xy]{1,3}\))\)").fullmatch,
        ),
    ],
)
def test_answers_are_in_the_language(constrained, constraint, valid, options):
    found = answer(constrained, constraint, **options)
    assert found.finish_reason == "stop"
    assert valid(found.text), found.text
    assert not valid(answer(constrained, None, max_tokens=20).text)


def test_documents_may_be_compressed_under_a_constrained_question(engine):
    context = engine.compress(["The door code is 4711."], "Which code?")
    found = engine.generate(context, constraint=Constraint.regex("[0-9]{4}"))
    assert re.fullmatch("[0-9]{4}", found.text)
    assert found.generation_tokens == 4


def test_the_likeliest_tokens_that_fit_are_taken(engine):
    """The slow way: all tokens are tried, one after the other, with the whole text so far."""
    pattern = re.compile(r"(ab|ba){3}c?")
    tokenizer, model = engine.backbone.tokenizer, engine.backbone.model
    prompt = tokenizer.apply_chat_template(ASK, add_generation_prompt=True)["input_ids"]
    words = {"".join(w) for w in _words(["ab", "ba"], 3)}
    language = words | {f"{word}c" for word in words}
    text, ids = "", list(prompt)
    while True:
        logits = model(torch.tensor([ids])).logits[0, -1]
        best = None
        for token in logits.argsort(descending=True).tolist():
            if token == tokenizer.eos_token_id:
                fits = text in language
            else:
                longer = text + tokenizer.decode([token])
                fits = any(word.startswith(longer) for word in language)
            if fits:
                best = token
                break
        if best == tokenizer.eos_token_id:
            break
        text += tokenizer.decode([best])
        ids.append(best)
        if text.endswith("c"):
            break
    assert answer(engine, Constraint.regex(pattern.pattern)).text == text


def _words(parts, times):
    return [""] if not times else [a + b for a in parts for b in _words(parts, times - 1)]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_with_tokens_of_any_family_is_in_the_language(family):
    """Random choices; the tokenizer's own decoder gives the text."""
    tokenizer = FAMILIES[family]
    size, generator = len(tokenizer), torch.Generator().manual_seed(5)
    quotes = torch.tensor([8.0 * ('"' in tokenizer.decode([t])) for t in range(size)])
    letters = {"type": "array", "items": {"enum": ["the", "ab c"]}, "minItems": 1, "maxItems": 3}
    schemas = [PERSON, letters] if family in TOKENIZERS else [letters]
    for schema in schemas * 5:
        constraint = Constraint.json_schema(schema)
        matcher = make_matcher(constraint, tokenizer, size, {size - 1}, Thoughts())
        ids = []
        while not matcher.done:
            logits = matcher.mask(torch.randn(size, generator=generator) + quotes)
            ids.append(int(torch.multinomial(logits.softmax(0), 1, generator=generator)))
            matcher.accept(ids[-1])
        assert follows(tokenizer.decode(ids), schema), tokenizer.decode(ids)


def test_a_tokenizer_that_cannot_write_every_text_is_refused():
    """Its pieces have no bytes to fall back on; models of today have."""
    with pytest.raises(UnsupportedModelError, match="cannot be constrained with this model's"):
        make_matcher(Constraint.regex("a"), CUTS["sentencepiece"], 80, {79}, Thoughts())


def test_an_answer_that_is_cut_says_so(constrained):
    found = answer(constrained, Constraint.json_schema(PERSON), max_tokens=5)
    assert found.finish_reason == "length"


def test_a_finished_answer_ends_without_a_stop_token(engine):
    found = answer(engine, Constraint.choice(["abc"]))
    assert (found.text, found.generation_tokens, found.finish_reason) == ("abc", 3, "stop")


def test_free_text_is_that_of_the_model_until_the_trigger():
    tokenizer = make_tokenizer()
    constraint = Constraint("grammar", 'start: "<x>" /[0-9]{3}/', trigger="<x>")
    matcher = make_matcher(constraint, tokenizer, 258, {256}, Thoughts())
    logits = torch.zeros(258)
    for token in tokenizer("Hello <x").input_ids:
        assert torch.equal(matcher.mask(logits), logits)
        matcher.accept(token)
    matcher.accept(tokenizer(">").input_ids[0])
    allowed = matcher.mask(logits).isfinite().nonzero().flatten().tolist()
    assert tokenizer.convert_ids_to_tokens(allowed) == list("0123456789")
    for token in tokenizer("123").input_ids:
        assert not matcher.done
        matcher.accept(token)
    assert matcher.done


def test_a_token_may_reach_over_the_triggers_end():
    tokenizer = make_tokenizer(merges=[(">", "1")])
    constraint = Constraint("grammar", 'start: "<x>" /[0-9]{3}/', trigger="<x>")
    matcher = make_matcher(constraint, tokenizer, 259, {257}, Thoughts())
    for token in tokenizer("<x>123").input_ids:
        matcher.accept(token)
    assert matcher.done


def test_a_trigger_at_the_start_counts_only_there():
    tokenizer = make_tokenizer()
    constraint = Constraint("grammar", 'start: "{x" "y"', trigger="{x", trigger_at_start=True)
    for text, counts in (("{x", True), (" {x", True), ("a {x", False)):
        matcher = make_matcher(constraint, tokenizer, 258, {256}, Thoughts())
        for token in tokenizer(text).input_ids:
            matcher.accept(token)
        assert (not matcher.mask(torch.zeros(258)).isfinite().all()) == counts


def test_thoughts_are_free_and_the_answer_after_them_is_not():
    tokenizer = make_tokenizer(templates.ALWAYS_THINKING)
    thoughts = Thoughts("<think>", "</think>", opened=True)
    matcher = make_matcher(Constraint.choice(["yes"]), tokenizer, 258, {256}, thoughts)
    for token in tokenizer("Hmm.</think>").input_ids:
        free = matcher.mask(torch.zeros(258)).isfinite()
        assert free.sum() == 257
        assert not free[256]  # the thoughts must end before the answer
        matcher.accept(token)
    allowed = matcher.mask(torch.zeros(258)).isfinite().nonzero().flatten().tolist()
    assert tokenizer.decode(allowed) == "y"


@pytest.mark.parametrize(
    "before", ["<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant", ""]
)
def test_the_answers_channel_is_constrained_and_the_others_are_not(before):
    tokenizer = make_tokenizer(templates.CHANNELS)
    marks = ["<|channel|>", "<|message|>", "<|end|>", "<|start|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    size = len(tokenizer)
    thoughts = find_thoughts(tokenizer)
    matcher = make_matcher(Constraint.choice(["yes"]), tokenizer, size, {256}, thoughts)
    first, *rest = tokenizer(f"{before}<|channel|>final<|message|>").input_ids
    # It may begin a channel or the answer itself.
    allowed = matcher.mask(torch.zeros(size)).isfinite().nonzero().flatten().tolist()
    assert sorted(tokenizer.decode([token]) for token in allowed) == ["<|channel|>", "y"]
    matcher.accept(first)
    for token in rest:
        assert matcher.mask(torch.zeros(size)).isfinite().sum() == size - 1
        matcher.accept(token)
    allowed = matcher.mask(torch.zeros(size)).isfinite().nonzero().flatten().tolist()
    assert tokenizer.decode(allowed) == "y"


# Errors


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "person"}, r"at #: Invalid type: person"),
        (
            {"properties": {"a": {"items": {"not": {"pattern": "a"}}}}},
            r'at #/properties/a/items: .*"not"',
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"uniqueItems": True}}},
            r'"uniqueItems"',
        ),
        ({"properties": {"p": {"type": "string", "pattern": "(?=a)"}}}, r"#/properties/p: .*look"),
        ({"$ref": "https://example.org/x"}, "at #: .*example.org"),
        ({"$ref": "#/$defs/missing"}, "missing"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "[Uu]nsatisfiable"),
        ({"enum": []}, "at #"),
    ],
)
def test_a_schema_that_cannot_be_compiled_says_which_part(engine, schema, reason):
    with pytest.raises(ConstraintError, match=reason):
        answer(engine, Constraint.json_schema(schema))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Constraint.json_schema([]), "must be an object, got list"),
        (lambda: Constraint.json_schema("{"), "is no JSON"),
        (lambda: Constraint.json_schema({"x": {1}}), "cannot be written as JSON"),
        (lambda: Constraint.json_schema({"description": "x" * 1_000_000}), "at most 131,072"),
        (lambda: Constraint.json_schema({"$ref": "#"}), "at #: .* contains itself"),
        (lambda: Constraint.json_schema(ENDLESS), "at #/properties/a: .* contains itself"),
        (lambda: Constraint.json_schema(nested(2000)), "nested too deeply"),
        (lambda: Constraint.choice([]), "a list of texts"),
        (lambda: Constraint.choice("yes"), "a list of texts"),
        (lambda: Constraint.choice(["a", ""]), "a list of texts"),
    ],
)
def test_unusable_constraints_are_named_when_they_are_made(make, reason):
    with pytest.raises(ConstraintError, match=reason):
        make()


@pytest.mark.parametrize(
    "constraint",
    [Constraint.regex("[a-"), Constraint.regex("(?=a)b"), Constraint.grammar("start: missing")],
)
def test_unusable_expressions_and_grammars_are_named(engine, constraint):
    with pytest.raises(ConstraintError, match=f"the {constraint.noun} cannot be compiled: .+"):
        answer(engine, constraint)


HOSTILE = {
    "nothing fits a required part": {
        "type": "object",
        "properties": {"a": False},
        "required": ["a"],
    },
    "no type": {"type": []},
    "a type that is a number": {"type": 3},
    "bounds the wrong way round": {"type": "integer", "minimum": 5, "maximum": 1},
    "a billion items": {"type": "array", "items": {"type": "null"}, "minItems": 10**9},
    "a pattern that is none": {"type": "string", "pattern": "("},
    "a pattern that looks behind": {"type": "string", "pattern": "(?<=a)b"},
    "a pattern that refers back": {"type": "string", "pattern": "(a)\\1"},
    "a reference to nothing": {"$ref": "#/$defs/x"},
    "a reference to a file": {"$ref": "file:///etc/passwd"},
    "a reference that is a number": {"$ref": 5},
    "references in a circle": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "a condition on itself": {"if": {"$ref": "#"}, "then": {"type": "integer"}},
    "a lone surrogate": {"const": "\ud800"},
    "a number of 400 digits": {"const": 10**400},
    "an infinite bound": {"maximum": float("inf")},
    "thousands of properties": {
        "type": "object",
        "properties": {f"p{n}": {"type": "integer"} for n in range(2000)},
    },
    "all types at once": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "nothing": {"not": {}},
    "a property that must not be there": {
        "type": "object",
        "required": ["z"],
        "additionalProperties": False,
    },
    "properties as a list": {"type": "object", "properties": ["a"]},
    "items that are no schema": {"type": "array", "items": ["x"]},
    "multiples of nothing": {"type": "integer", "multipleOf": 0},
    "a megabyte": {"enum": ["x" * 1000 + str(n) for n in range(1000)]},
}
STRANGE = {
    "names of methods": {"properties": {"__proto__": {"type": "null"}}, "required": ["__proto__"]},
    "a name with quotes": {"properties": {'a"b\\c\n': {"type": "null"}}, "required": ['a"b\\c\n']},
    "a NUL": {"const": "a\0b"},
    "a pattern that backtracks": {"type": "string", "pattern": "^(a+)+$", "maxLength": 9},
    "five hundred choices": {"anyOf": [{"const": f"v{n}"} for n in range(500)]},
    "values of all kinds": {"enum": [{"a": [1]}, [], None, 1.5, "x"]},
    "a format nobody knows": {"type": "string", "format": "no-such", "maxLength": 9},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_are_errors_and_no_answers(constrained, name):
    with pytest.raises(FinchError, match="JSON schema"):
        answer(constrained, Constraint.json_schema(HOSTILE[name]))


@pytest.mark.parametrize("name", STRANGE)
def test_strange_schemas_are_followed(constrained, name):
    text = answer(constrained, Constraint.json_schema(STRANGE[name]), max_tokens=400).text
    jsonschema.validate(json.loads(text), STRANGE[name])


def test_a_deeply_nested_schema_is_an_error(engine):
    with pytest.raises(ConstraintError, match="recursion limit"):
        answer(engine, Constraint.json_schema(nested(200)))


@pytest.mark.parametrize(
    "schema",
    [
        {**ENDLESS, "required": []},
        {"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 1}, {"type": "null"}]},
        {
            "$ref": "#/$defs/node",
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                    "required": ["next"],
                }
            },
        },
    ],
)
def test_recursion_that_can_end_is_followed(engine, schema):
    found = answer(engine, Constraint.json_schema(schema), temperature=1, seed=0, max_tokens=1500)
    assert found.finish_reason == "stop"
    assert follows(found.text, schema)


def test_without_llguidance_the_extra_is_named(engine, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    fresh = FinchEngine(engine.backbone.model, make_tokenizer())
    with pytest.raises(MissingExtraError, match=r"\[tools\]"):
        answer(fresh, Constraint.regex("a"))


def test_formats_without_a_grammar_are_notes_and_constants_stay(engine):
    schema = {"properties": {"a": {"const": {"format": "path"}}}, "required": ["a"]}
    schema = {"type": "object", **schema, "format": "path"}
    found = json.loads(answer(engine, Constraint.json_schema(schema)).text)
    assert found == {"a": {"format": "path"}}


def test_objects_have_only_the_properties_that_are_named_where_the_schema_does_not_say(engine):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    for temperature in (0, 1, 2):
        constraint = Constraint.json_schema(schema)
        found = answer(engine, constraint, temperature=temperature, seed=2)
        assert json.loads(found.text).keys() == {"a"}
    open_schema = {**schema, "required": ["a", "b"]}
    found = answer(engine, Constraint.json_schema(open_schema), max_tokens=1500)
    if found.finish_reason == "stop":
        assert {"a", "b"} <= json.loads(found.text).keys()
