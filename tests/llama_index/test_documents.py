"""Documents as LlamaIndex has them, and where their quotes are."""

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    TextBlock,
)
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import NodeWithScore, TextNode

from finch_integrations import (
    Document,
    DocumentShare,
    InvalidInputError,
)
from finch_integrations.llama_index.call import AnswerSoFar, Call
from finch_integrations.llama_index.documents import as_documents
from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece, AskRequest
from finch_integrations.pipeline.shared_engine import SharedEngine
from tests.llama_index.conftest import say
from tests.llama_index.contract import CHAT, COMPLETE, collect
from tests.tiny import text_of

Q = "Where is it?"


TEXTS = [text_of(150, seed=1), text_of(120, seed=2)]


def argument(method, text=Q):
    return [say(text)] if "chat" in method else text


NODES = [TextNode(text=text, id_=f"n{n}") for n, text in enumerate(TEXTS)]


@pytest.mark.parametrize(
    "documents",
    [
        NODES,
        tuple(NODES),
        [NodeWithScore(node=node, score=0.5) for node in NODES],
        [LlamaDocument(text=text) for text in TEXTS],
        [Document(text) for text in TEXTS],
        TEXTS,
        [{"text": text} for text in TEXTS],
    ],
)
@pytest.mark.parametrize("method", CHAT + COMPLETE)
async def test_documents_of_every_kind_are_taken(llm, answer, method, documents):
    response = (await collect(llm, method, argument(method), documents=documents))[-1]
    assert (response.message.content if "chat" in method else response.text) == answer(TEXTS, Q)
    assert response.raw["finch"]["documents_from"] == "argument"


def test_nodes_are_shown_as_llama_index_shows_them(llm, answer):
    node = TextNode(
        text=TEXTS[0],
        id_="n",
        metadata={"author": "Ann", "path": "x"},
        excluded_llm_metadata_keys=["path"],
    )
    response = llm.chat([say(Q)], documents=[NodeWithScore(node=node, score=0.5)])
    assert response.message.content == answer([f"author: Ann\n\n{TEXTS[0]}"], Q)
    assert response.raw["finch"]["document_scores"][0]["document_id"] == "n"


def test_citable_blocks_are_documents(llm, answer):
    blocks = [CitableBlock(title="T", source=f"s{n}", content=t) for n, t in enumerate(TEXTS)]
    response = llm.chat([ChatMessage(blocks=[*blocks, TextBlock(text=Q)])])
    assert response.message.content == answer([{"text": t, "title": "T"} for t in TEXTS], Q)
    assert response.raw["finch"]["documents_from"] == "argument"
    ids = [score["document_id"] for score in response.raw["finch"]["document_scores"]]
    assert ids == ["s0", "s1"]


def citations_of(said, document):
    """What `raw` cites of a document in an answer."""
    details = AnswerDetails(
        text=said,
        finish_reason="stop",
        prompt_tokens=20,
        generation_tokens=9,
        generation_seconds=0.1,
        compression=None,
        document_shares=(DocumentShare(id=document.id, title=None, tokens=10, kept_tokens=5.0),),
    )
    call = Call(SharedEngine("x"), AskRequest(messages=(), documents=(document,)), "argument")
    return call.respond(AnswerSoFar(said), AnswerPiece(text=said, details=details)).raw["citations"]


def test_what_an_answer_quotes_is_reported():
    document = Document("The boat leaves at nine! Be early.", id="boat")
    said = "They say the boat leaves at nine."
    assert citations_of(said, document) == [
        {
            "text": "the boat leaves at nine",
            "start": 9,
            "end": 32,
            "document_id": "boat",
            "source_start": 0,
            "source_end": 23,
        }
    ]


SAID = "They say the boat leaves at nine."


CONTENT_FIRST = {"text_template": "{content}\n{metadata_str}", "metadata": {"page": "3"}}


@pytest.mark.parametrize(
    ("node", "said", "cited"),
    [
        ({}, SAID, "The boat leaves at nine"),
        ({"metadata": {"page": "3"}}, SAID, "The boat leaves at nine"),
        (CONTENT_FIRST, SAID, "The boat leaves at nine"),
        ({"metadata": {"title": "boats of the old store"}}, "Boats of the old store.", None),
        ({"metadata": {"title": "boats"}}, "It is: boats the boat leaves.", None),
    ],
)
def test_quotes_of_nodes_have_their_place_in_the_nodes_text(node, said, cited):
    node = TextNode(text="  The boat leaves at nine! Be early. ", id_="n", **node)
    (document,) = as_documents([node], "documents")
    (citation,) = citations_of(said, document)
    if cited is None:
        assert (citation["source_start"], citation["source_end"]) == (None, None)
    else:
        assert node.text[citation["source_start"] : citation["source_end"]] == cited


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ("text", "documents must be a list of nodes or documents, got str"),
        (NODES[0], "must be a list of nodes or documents, got TextNode"),
        ([5], r"documents\[0\] must be a node, a Document, a string or a mapping, got int"),
        ([{"body": "x"}], r"documents\[0\] must have its text under one of .*'body'"),
        (["  "], r"all of documents are blank \(1\)"),
        ([TextNode(text="", id_="n")], r"all of documents are blank \(1\)"),
    ],
)
def test_unusable_documents_are_named(llm, documents, reason):
    with pytest.raises(InvalidInputError, match=reason):
        llm.chat([say(Q)], documents=documents)


def test_documents_given_twice_are_an_error(llm):
    block = CitableBlock(title="T", source="s", content="x")
    with pytest.raises(InvalidInputError, match="given twice: 2 with the call and 1 as content"):
        llm.chat([ChatMessage(blocks=[block, TextBlock(text=Q)])], documents=TEXTS)
    messages = llm._get_messages(
        PromptTemplate("{context_str}\n{query_str}"), context_str="x y", query_str=Q
    )
    with pytest.raises(InvalidInputError, match="2 with the call and 1 by the prompt's template"):
        llm.chat(messages, documents=TEXTS)


def test_detection_can_be_switched_off(llm):
    prompt = PromptTemplate("{context_str}\nQuestion: {query_str}")
    values = {"context_str": TEXTS[0], "query_str": Q}
    llm.context_detection = "off"
    assert llm.predict(prompt, **values) == llm.complete(prompt.format(**values)).text
