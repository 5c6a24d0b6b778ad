"""Answers, however they are cut into pieces, are split into thoughts, text and calls."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations.engine.answer_parts import AnswerReader
from finch_integrations.engine.reasoning import Channels, Thoughts, find_thoughts, thinking_switch
from finch_integrations.engine.tool_format import find_tool_format
from finch_integrations.errors import ConfigurationError
from tests import templates
from tests.tiny import CHATML, make_tokenizer

THINK = Thoughts("<think>", "</think>")
FORMS = {
    name: find_tool_format(make_tokenizer(getattr(templates, name)))
    for name in ("HERMES", "LLAMA", "MISTRAL", "TEKKEN", "DEEPSEEK")
}
TWO = {
    "HERMES": '<tool_call>\n{"name": "a", "arguments": {"x": "}"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "b", "arguments": {}}\n</tool_call>',
    "MISTRAL": '[TOOL_CALLS] [{"name": "a", "arguments": {"x": "}"}, "id": "abcdefghi"}, '
    '{"name": "b", "arguments": {}, "id": "123456789"}]',
    "TEKKEN": '[TOOL_CALLS]a[ARGS]{"x": "}"}[TOOL_CALLS]b[ARGS]{}',
    "DEEPSEEK": '<calls><call>function<sep>a\n```json\n{"x": "}"}\n```</call>\n'
    "<call>function<sep>b\n```json\n{}\n```</call></calls>",
}


def read(pieces, thoughts=THINK, form=None, names=("a", "b")):
    reader = AnswerReader(thoughts, form, names)
    parts = [*(reader.push(piece) for piece in pieces), reader.finish()]
    calls = [(c["name"], c["arguments"]) for part in parts for c in part.calls]
    joined = "".join(p.text for p in parts), "".join(p.reasoning for p in parts)
    return *joined, calls, reader.invalid


@given(st.data())
def test_how_an_answer_is_cut_changes_nothing(data):
    name = data.draw(st.sampled_from([*TWO, None]))
    form = FORMS.get(name)
    thought = data.draw(st.sampled_from(["", "<think>Hm < m\n </thin hm.</think>\n\n"]))
    said = data.draw(st.sampled_from(["", "Let me see. <tool", "a < b [TOOL"]))
    whole = thought + said + (TWO[name] if name else "")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))))
    pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]
    text, reasoning, calls, invalid = read(pieces, form=form)
    assert text == said
    assert reasoning == ("Hm < m\n </thin hm." if thought else "")
    assert calls == ([("a", {"x": "}"}), ("b", {})] if name else [])
    assert invalid == ()


ANALYSIS = "<|channel|>analysis<|message|>Hm < m <|x|>.<|end|><|start|>assistant"
PREAMBLE = "<|channel|>commentary<|message|>I look.\n<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"


@given(st.data())
def test_how_channels_are_cut_changes_nothing(data):
    before = data.draw(st.sampled_from(["", ANALYSIS, ANALYSIS + PREAMBLE, ANALYSIS * 2]))
    said = data.draw(st.sampled_from(["", "At nine <b>.", "a <| b"]))
    whole = before + FINAL + said + data.draw(st.sampled_from(["", "<|end|>"]))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))))
    pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]
    text, reasoning, calls, invalid = read(pieces, Channels())
    assert (text, calls, invalid) == (said, [], ())
    hm = before.count("analysis") * ["Hm < m <|x|>."]
    assert reasoning.split("\n\n") == ([*hm, *(["I look."] if PREAMBLE in before else [])] or [""])


@pytest.mark.parametrize("text", ["At nine.", " At <nine", "<|start|>"])
def test_what_has_no_channel_is_said(text):
    assert read(text, Channels())[:2] == (text, "")


def test_channels_that_never_reach_the_answer_are_thoughts():
    assert read(ANALYSIS + "<|channel|>analysis<|message|>More.", Channels())[:2] == (
        "",
        "Hm < m <|x|>.\n\nMore.",
    )
    assert read("<|channel|>anal", Channels())[:2] == ("", "")


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        (' {"name": "a", "parameters": {"x": 1}}', "", [("a", {"x": 1})]),
        ('Use {"name": "a", "parameters": {}}', 'Use {"name": "a", "parameters": {}}', []),
        ('{"title": 1}', '{"title": 1}', []),
    ],
)
def test_bare_json_is_a_call_only_at_the_start(text, said, calls):
    assert (
        read(text, form=FORMS["LLAMA"])[0:3:2] == (said.strip() and said, calls)
        or read(text, form=FORMS["LLAMA"])[0].strip() == said
    )


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "a", "arguments": {"x": "cut',
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "a", "arguments": [1]}\n</tool_call>',
        "<tool_call>a(x)</tool_call>",
    ],
)
def test_what_is_no_call_is_invalid_and_nothing_is_lost(text):
    said, _, calls, invalid = read(f"See: {text}", form=FORMS["HERMES"])
    assert (said, calls) == ("See: ", [])
    assert [one.text for one in invalid] == [text]
    assert invalid[0].error


def test_a_call_whose_closing_tag_was_cut_is_a_call():
    text = '<tool_call>\n{"name": "a", "arguments": {"x": 1}'
    assert read(text, form=FORMS["HERMES"])[2] == [("a", {"x": 1})]


def test_white_space_in_a_call_may_differ():
    text = '<tool_call>{"name":"a","arguments":{"x":1}}</tool_call>'
    assert read(text, form=FORMS["HERMES"])[2] == [("a", {"x": 1})]


def test_thoughts_that_never_end_are_no_answer():
    assert read("<think>Hm. Hm.")[:2] == ("", "Hm. Hm.")
    assert read("Hm.", Thoughts("<think>", "</think>", opened=True))[:2] == ("", "Hm.")
    assert read("<thi")[:2] == ("<thi", "")


# Templates


@pytest.mark.parametrize(
    ("template", "kwargs", "expected"),
    [
        (CHATML, {}, Thoughts()),
        (templates.HERMES, {}, Thoughts()),
        (templates.THINKING, {}, THINK),
        (templates.THINKING, {"enable_thinking": False}, Thoughts()),
        (templates.ALWAYS_THINKING, {}, Thoughts("<think>", "</think>", opened=True)),
        (templates.THINKING.replace("think>", "THINK]").replace("<", "["), {}, None),
        (templates.CHANNELS, {}, Channels()),
        (
            templates.HERMES + "{# <|START_THINKING|> <|END_THINKING|> #}",
            {},
            Thoughts("<|START_THINKING|>", "<|END_THINKING|>"),
        ),
        (None, {}, Thoughts()),
    ],
)
def test_how_a_template_marks_thoughts_is_found_out(template, kwargs, expected):
    found = find_thoughts(make_tokenizer(template), kwargs)
    if expected is not None:
        assert found == expected


def test_thinking_is_turned_off_where_the_template_can():
    assert thinking_switch(make_tokenizer(CHATML), False) == {}
    assert thinking_switch(make_tokenizer(templates.THINKING), False) == {"enable_thinking": False}
    with pytest.raises(ConfigurationError, match="no switch"):
        thinking_switch(make_tokenizer(templates.ALWAYS_THINKING), False)
    assert thinking_switch(make_tokenizer(templates.ALWAYS_THINKING), True) == {}
