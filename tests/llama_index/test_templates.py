"""Where templates put context and query; whatever is not certain stays verbatim."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, RichPromptTemplate

from finch_integrations.llama_index.messages import to_turns
from finch_integrations.llama_index.templates import MarkedPrompt, format_marked, read_spans
from finch_integrations.pipeline.detection import detect
from tests.llama_index.conftest import say
from tests.llama_index.test_query_engines import Place

CONTEXT, Q = "The boat leaves at nine.\n\nIt is blue.", "When does it leave?"


def marked(template, **values):
    values = {"context_str": CONTEXT, "query_str": Q, **values}
    return format_marked(template.format_messages, template, values)


def found_in(template, **values):
    return detect(to_turns(marked(template, **values)))


def spans_of(message):
    return [(kind, message.content[start:end]) for kind, start, end in read_spans(message)]


def test_messages_are_what_the_template_makes_with_spans_beside_them():
    template = PromptTemplate("Read {context_str} and say: {query_str}")
    (message,) = marked(template)
    assert message.content == f"Read {CONTEXT} and say: {Q}"
    assert spans_of(message) == [("context", CONTEXT), ("query", Q)]
    # Plain data: messages are stored and sent.
    again = ChatMessage.model_validate_json(message.model_dump_json())
    assert read_spans(again) == read_spans(message)


def test_values_filled_in_earlier_count_and_later_ones_come_first():
    template = PromptTemplate("{context_str} {query_str}").partial_format(query_str="Old?")
    assert spans_of(
        format_marked(template.format_messages, template, {"context_str": CONTEXT})[0]
    ) == [
        ("context", CONTEXT),
        ("query", "Old?"),
    ]
    assert spans_of(marked(template)[0])[1] == ("query", Q)


def test_several_blocks_of_a_message():
    template = ChatPromptTemplate(
        [
            ChatMessage(
                blocks=[TextBlock(text="Read this:"), TextBlock(text="{context_str}\n{query_str}")]
            )
        ]
    )
    assert spans_of(marked(template)[0]) == [("context", CONTEXT), ("query", Q)]


@pytest.mark.parametrize(
    "template",
    [
        PromptTemplate("Only {query_str}"),
        RichPromptTemplate("{{ context_str | truncate(10) }} {{ query_str }}"),
        PromptTemplate(
            "{context_str} {query_str}",
            function_mappings={"context_str": lambda **kw: str(len(kw["context_str"]))},
        ),
        PromptTemplate(
            "{context_str} {query_str}",
            function_mappings={
                "context_str": lambda **kw: f"{kw['context_str']} ({len(kw['context_str'])})"
            },
        ),
        PromptTemplate(
            "{context_str} {query_str}",
            function_mappings={"context_str": lambda **kw: kw["context_str"][::-1]},
        ),
        PromptTemplate(
            "{context_str} {query_str}",
            function_mappings={"context_str": lambda **kw: kw["context_str"].replace("1", "")},
        ),
    ],
)
def test_a_template_that_hides_where_the_context_is_stays_as_it_is(template):
    values = {"context_str": CONTEXT, "query_str": Q}
    messages = marked(template)
    assert not any(map(read_spans, messages))
    assert messages[0].content == template.format_messages(**values)[0].content
    assert not re.search("[\ue000-\uf8ff]", messages[0].content)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.upper(),
        lambda text: text.title(),
        lambda text: re.sub(r"\s+", " ", text),
        lambda text: f"<<{text}>>",
    ],
)
def test_a_function_that_only_changes_the_words_is_followed(change):
    template = PromptTemplate(
        "Read {context_str} and say: {query_str}",
        function_mappings={"context_str": lambda **kw: change(kw["context_str"])},
    )
    (message,) = marked(template)
    assert message.content == f"Read {change(CONTEXT)} and say: {Q}"
    assert spans_of(message)[0][1] in change(CONTEXT)


def test_spans_of_a_changed_message_do_not_count():
    (message,) = marked(PromptTemplate("Read {context_str} and say: {query_str}"))
    message.content = "Now " + message.content
    assert read_spans(message) == ()
    assert detect(to_turns([message]), mode="marked").source == "none"


def test_text_behind_the_spans_may_be_added():
    (message,) = marked(PromptTemplate("Read {context_str} and say: {query_str}"))
    message.content += "\n\nAnswer in JSON."
    found = detect(to_turns([message]))
    assert found.source == "template"
    assert (found.messages[-1]["content"], found.closing) == (Q, "Answer in JSON.")


def test_marked_prompts_format_like_the_one_inside():
    inner = PromptTemplate("{context_str} {query_str} {more}")
    prompt = MarkedPrompt.around(inner).partial_format(more="x")
    assert prompt.get_template() == inner.get_template()
    assert prompt.format(context_str="a", query_str="b") == "a b x"
    prompt.output_parser = PydanticOutputParser(Place)
    (message,) = prompt.format_messages(context_str=CONTEXT, query_str=Q)
    assert "JSON schema" in message.content
    assert spans_of(message) == [("context", CONTEXT), ("query", Q)]
    assert inner.output_parser is None


SPLITS = {
    "context, then query": (
        "Read this.\n-----\n{context_str}\n-----\nBe brief.\nQuery: {query_str}\nAnswer: ",
        ("Read this.", "Be brief.\nQuery:", "Answer:"),
    ),
    "query, then context": (
        "Check this.\nClaim: {query_str}\nSource: {context_str}\nVerdict? Answer:",
        ("Check this.\n\nSource:", "Claim:", "Verdict? Answer:"),
    ),
    "query on a line with more": (
        "Check.\nIs {query_str} true in\n{context_str}\nor not?",
        ("Check.\n\ntrue in", "Is", "or not?"),
    ),
    "text after the query": (
        "{context_str}\n{query_str}\nOriginal Answer: x\nNew Answer: ",
        ("", "", "Original Answer: x\nNew Answer:"),
    ),
    "query twice": (
        "You get {query_str}\n{context_str}\nQuery: {query_str}",
        (f"You get {Q}", "Query:", ""),
    ),
    "fence": ("Read:\n```\n{context_str}\n```\nQuery: {query_str}", ("Read:", "Query:", "")),
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_prompt_around_the_context_keeps_its_order(name):
    template, (system, instruction, closing) = SPLITS[name]
    found = found_in(PromptTemplate(template))
    *lead, asked = found.messages
    assert [m["content"] for m in lead] == ([system] if system else [])
    assert (found.instruction, asked["content"]) == (instruction, Q)
    assert found.closing == closing
    assert [document.text for document in found.documents] == [CONTEXT]
    assert found.source == "template"


def test_context_in_an_earlier_turn_is_asked_about_by_the_last():
    template = ChatPromptTemplate(
        [say("Read {context_str} now."), say("Done.", "assistant"), say("So: {query_str}")]
    )
    found = found_in(template)
    assert list(found.messages) == [
        {"role": "user", "content": "Read\n\nnow."},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": Q},
    ]
    assert found.instruction == "So:"


def test_messages_of_a_context_are_documents_each():
    template = RichPromptTemplate(
        "{% for m in context_messages %}{% for b in m.blocks %}{{ b.text }}\n\n{% endfor %}"
        "{% endfor %}Query: {{ query_str }}"
    )
    values = {"context_messages": [say("One."), say("Two.")], "query_str": Q}
    found = detect(to_turns(format_marked(template.format_messages, template, values)))
    assert [document.text for document in found.documents] == ["One.", "Two."]
    assert found.messages[-1]["content"] == Q


WORDS = st.lists(st.sampled_from(["red", "blue", "so:", "\n", "---", "(a)", "why?"]), max_size=6)


@given(
    st.lists(st.tuples(st.sampled_from(["{context_str}", "{query_str}", ""]), WORDS), max_size=5)
)
def test_no_word_is_ever_lost(parts):
    text = " ".join(" ".join([variable, *words]) for variable, words in parts)
    template = PromptTemplate(f"start {text} end")
    try:
        found = found_in(template)
    except Exception as error:
        raise AssertionError(text) from error
    kept = " ".join([m["content"] for m in found.messages])
    kept += f" {found.instruction} {found.closing} " + " ".join(d.text for d in found.documents)
    shown = template.format(context_str="", query_str="")
    for word in {"start", "end", "red", "blue", "so:", "(a)", "why?"}:
        assert kept.split().count(word) == shown.split().count(word)
    if "{context_str}" in text:
        assert CONTEXT in kept
    if "{query_str}" in text:
        assert Q in kept


def test_regions_say_where_a_template_put_the_context():
    template = ChatPromptTemplate(
        [say("Read {context_str} now."), say("Again: {context_str}\nSo: {query_str}")]
    )
    messages = marked(template)
    found = detect(to_turns(messages))
    assert [messages[r.turn].content[r.start : r.end] for r in found.regions] == [CONTEXT] * 2
    assert [r.document for r in found.regions] == [*found.documents] * 2
