"""Documents as LangChain has them: its own class, content blocks, tools' results."""

import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.messages.content import create_plaintext_block, create_text_block

from finch_integrations import (
    InvalidInputError,
)
from finch_integrations.langchain import format_docs
from tests.tiny import text_of

Q = "Where is it?"


TEXTS = [text_of(150, seed=1), text_of(120, seed=2)]


def finch(message):
    return message.response_metadata["finch"]


@pytest.mark.parametrize(
    "documents",
    [
        [Document(text) for text in TEXTS],
        TEXTS,
        tuple(TEXTS),
        [{"text": text} for text in TEXTS],
        [{"page_content": text, "metadata": {"page": 1}} for text in TEXTS],
    ],
)
def test_documents_of_every_kind_are_taken(chat, answer, documents):
    expected = answer(TEXTS, Q)
    assert chat.invoke(Q, documents=documents).text == expected
    assert chat.bind(documents=documents).invoke(Q).text == expected
    assert [m.text for m in chat.batch([Q, Q], documents=documents)] == [expected] * 2
    message = HumanMessage(Q, additional_kwargs={"documents": documents})
    beside = chat.invoke([message])
    assert beside.text == expected
    assert finch(beside)["documents_from"] == "argument"


BLOCKS = {
    "text-plain": lambda text: create_plaintext_block(text=text, title="T", source="x.md"),
    "document, text": lambda text: {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": text},
        "title": "T",
    },
    "document, content": lambda text: {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "text", "text": text}]},
        "title": "T",
    },
    "search_result": lambda text: {
        "type": "search_result",
        "title": "T",
        "source": "x.md",
        "content": [{"type": "text", "text": text}],
        "citations": {"enabled": True},
    },
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_documents_in_content_blocks_are_taken(chat, answer, kind):
    blocks = [BLOCKS[kind](text) for text in TEXTS]
    message = chat.invoke([HumanMessage([*blocks, create_text_block(Q)])])
    assert message.text == answer([{"text": text, "title": "T"} for text in TEXTS], Q)
    assert finch(message)["documents_from"] == "argument"
    named = "x.md" in str(blocks)
    expected = ["x.md", "x.md#2"] if named else ["doc-1", "doc-2"]
    assert [s["document_id"] for s in finch(message)["document_scores"]] == expected


def test_documents_without_id_are_called_by_their_source(chat):
    metadata = [{"source": "lab.md"}, {}, {"source": "lab.md"}, {"source": ""}, {"source": "b"}]
    documents = [Document(TEXTS[0], metadata=given) for given in metadata]
    documents[-1].id = "an id of its own"
    message = chat.invoke(Q, documents=documents)
    names = ["lab.md", "doc-2", "lab.md#2", "doc-4", "an id of its own"]
    assert [s["document_id"] for s in finch(message)["document_scores"]] == names
    marked = chat.invoke(f"{format_docs(documents)}\n\n{Q}")
    assert [s["document_id"] for s in finch(marked)["document_scores"]] == names


def test_search_results_of_a_tool_are_taken(chat, answer):
    call = {"name": "search", "args": {}, "id": "1", "type": "tool_call"}
    history = [HumanMessage(Q), AIMessage("", tool_calls=[call])]
    result = ToolMessage([BLOCKS["search_result"](text) for text in TEXTS], tool_call_id="1")
    message = chat.invoke([*history, result])
    assert message.text == answer([{"text": text, "title": "T"} for text in TEXTS], Q)


def test_repeated_ids_are_numbered(chat):
    documents = [Document(text, id="a") for text in TEXTS] + [Document("x", id="a#2")]
    scores = finch(chat.invoke(Q, documents=documents))["document_scores"]
    assert [score["document_id"] for score in scores] == ["a", "a#3", "a#2"]


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ("text", "documents must be a list of documents, got str"),
        (Document("text"), "must be a list of documents, got Document"),
        ([5], r"documents\[0\] must be a Document, a string or a mapping, got int"),
        ([{"body": "x"}], r"documents\[0\] must have its text under one of .*page_content.*'body'"),
        ([{"text": "x", "page_content": "y"}], "got the keys 'text', 'page_content'"),
        (["  "], r"all of documents are blank \(1\)"),
        ([{"text": 5}], "must be a string, got int"),
    ],
)
def test_unusable_documents_are_named(chat, documents, reason):
    with pytest.raises(InvalidInputError, match=reason):
        chat.invoke(Q, documents=documents)


def test_documents_given_twice_are_an_error(chat):
    message = HumanMessage(Q, additional_kwargs={"documents": TEXTS})
    with pytest.raises(InvalidInputError, match="given twice"):
        chat.invoke([message], documents=TEXTS)
    blocks = HumanMessage([BLOCKS["text-plain"]("x"), create_text_block(Q)])
    with pytest.raises(InvalidInputError, match="given twice"):
        chat.invoke([blocks], documents=TEXTS)
