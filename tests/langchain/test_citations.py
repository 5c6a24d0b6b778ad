"""Quotes as standard citations: in the metadata, and as annotations of the text block."""

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.prompts import format_document

from finch_integrations import Document, DocumentShare, HybridRetriever
from finch_integrations.documents import with_unique_ids
from finch_integrations.langchain import document_prompt, format_docs
from finch_integrations.langchain.call import Call
from finch_integrations.langchain.citations import make_citations
from finch_integrations.langchain.documents import from_langchain, to_langchain
from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece, AskRequest
from finch_integrations.pipeline.citations import cite
from finch_integrations.pipeline.document_tags import find_tagged
from finch_integrations.pipeline.quotes import find_quotes
from finch_integrations.pipeline.shared_engine import SharedEngine

ANSWER = "They say the boat leaves at nine."
DOCUMENTS = (
    Document("Tea is at four.", id="tea"),
    Document(
        "The boat leaves at nine! Be early.",
        id="boat",
        metadata={"source": "https://example.org/boat"},
    ),
)
SHARES = tuple(DocumentShare(id=str(d.id), title=None, tokens=9, kept_tokens=3) for d in DOCUMENTS)
CITATION = {
    "type": "citation",
    "url": "https://example.org/boat",
    "title": "https://example.org/boat",
    "start_index": 9,
    "end_index": 32,
    "cited_text": "The boat leaves at nine",
    "extras": {
        "document_index": 1,
        "document_id": "boat",
        "source_start": 0,
        "source_end": 23,
        "place": {
            "document_id": "boat",
            "source": "https://example.org/boat",
            "section": None,
            "start": None,  # nothing says whether the text is the whole page
            "end": None,
        },
    },
}


@pytest.fixture
def chunks():
    """The chunks of an answer, as ChatFinch makes them."""
    request = AskRequest(messages=(), documents=DOCUMENTS)
    call = Call(SharedEngine("model"), request, "argument")
    details = AnswerDetails(
        text=ANSWER,
        finish_reason="stop",
        prompt_tokens=30,
        generation_tokens=8,
        generation_seconds=0.1,
        compression=None,
        document_shares=SHARES,
    )
    pieces = [AnswerPiece(text=ANSWER[:10]), AnswerPiece(text=ANSWER[10:], details=details)]
    assert call.make_chunk(AnswerPiece(text="")) is None
    return [call.make_chunk(piece).message for piece in pieces]


def test_quotes_become_citations():
    quotes = find_quotes(ANSWER, DOCUMENTS)
    assert make_citations(quotes, DOCUMENTS, SHARES) == [CITATION]
    assert ANSWER[9:32] == "the boat leaves at nine"


def test_a_title_comes_before_the_source_and_paths_are_no_urls():
    documents = [Document(DOCUMENTS[1].text, title="Boats", metadata={"source": "boat.md"})]
    (citation,) = make_citations(find_quotes(ANSWER, documents), documents, SHARES[:1])
    assert citation["title"] == "Boats"
    assert "url" not in citation
    documents = [Document(DOCUMENTS[1].text, metadata={"source": "boat.md"})]
    (citation,) = make_citations(find_quotes(ANSWER, documents), documents, SHARES[:1])
    assert citation["title"] == "boat.md"


def test_the_last_chunk_brings_the_citations(chunks):
    assert "citations" not in chunks[0].response_metadata
    assert chunks[1].response_metadata["citations"] == [CITATION]


def test_the_joined_answer_is_one_string_and_one_block_with_annotations(chunks):
    joined = chunks[0] + chunks[1]
    assert joined.content == ANSWER
    assert joined.response_metadata["model_provider"] == "finch"
    assert joined.content_blocks == [{"type": "text", "text": ANSWER, "annotations": [CITATION]}]


def test_answers_without_citations_have_a_plain_block():
    for kind in (AIMessage, AIMessageChunk):
        message = kind("Hi.", response_metadata={"model_provider": "finch"})
        assert message.content_blocks == [{"type": "text", "text": "Hi."}]
        assert kind("", response_metadata={"model_provider": "finch"}).content_blocks == []


def test_content_that_is_blocks_already_is_left_to_langchain():
    blocks = [{"type": "text", "text": "Hi."}]
    message = AIMessage(blocks, response_metadata={"model_provider": "finch"})
    assert message.content_blocks == blocks


def test_the_place_of_a_chunk_is_its_files():
    whole = Document("# Boats\nNone.\n# Doors\nThe code of the store is 4711.", id="lab.md")
    search = HybridRetriever.from_documents([whole], chunk_size=40)
    chunk = from_langchain(to_langchain(search.retrieve("code")[0]))
    share = DocumentShare(id=chunk.id, title=None, tokens=9, kept_tokens=3)
    quotes = find_quotes("I think the code of the store is 4711.", [chunk])
    (citation,) = make_citations(quotes, [chunk], [share])
    place = citation["extras"]["place"]
    assert (place["document_id"], place["source"], place["section"]) == (
        "lab.md",
        "lab.md",
        "Doors",
    )
    assert whole.text[place["start"] : place["end"]] == citation["cited_text"]
    extras = citation["extras"]
    assert extras["document_id"] == chunk.id
    cited = chunk.text[extras["source_start"] : extras["source_end"]]
    assert cited == citation["cited_text"]


@pytest.mark.parametrize(
    "write",
    [
        format_docs,
        lambda chunks: format_document(
            chunks[0], document_prompt("document_id", "section", "start_index")
        ),
    ],
)
def test_the_place_of_a_chunk_goes_through_a_prompts_text(write):
    whole = Document("# Boats\nNone.\n# Doors\nThe code of the store is 4711.", id="lab.md")
    search = HybridRetriever.from_documents([whole], chunk_size=40)
    chunk = to_langchain(search.retrieve("code")[0])
    ((place,),) = [cut.places for cut in find_tagged(write([chunk]))]
    (marked,) = with_unique_ids([place.document])
    share = DocumentShare(id=marked.id or "doc-1", title=None, tokens=9, kept_tokens=3)
    quotes = find_quotes("I think the code of the store is 4711.", [marked])
    (citation,) = make_citations(quotes, [marked], [share])
    place = citation["extras"]["place"]
    assert (place["document_id"], place["section"]) == ("lab.md", "Doors")
    assert whole.text[place["start"] : place["end"]] == citation["cited_text"]


@pytest.mark.parametrize(
    ("metadata", "start"),
    [
        ({}, 0),
        ({"document_id": "x", "source": "boat.md"}, 0),  # the whole document
        ({"document_id": "boat.md"}, None),
        ({"source": "boat.md"}, None),
        ({"source": "boat.md", "start_index": -1}, None),  # a splitter that did not find it
        ({"source": "boat.md", "start_index": 7}, 7),
        ({"source": "boat.md", "start_index": "7"}, 7),
    ],
)
def test_a_part_whose_place_is_unknown_has_none(metadata, start):
    document = Document("The boat leaves at nine.", id="x", metadata=metadata)
    (citation,) = cite(find_quotes(ANSWER, [document]), [document])
    end = None if start is None else start + 23
    assert (citation.source_start, citation.source_end) == (start, end)


def test_documents_without_id_and_odd_metadata_are_cited_all_the_same():
    document = Document("The boat leaves at nine.", metadata={"start_index": "odd"})
    share = DocumentShare(id="doc-1", title=None, tokens=9, kept_tokens=3)
    (citation,) = make_citations(find_quotes(ANSWER, [document]), [document], [share])
    assert citation["extras"]["place"] == {
        "document_id": "doc-1",
        "source": "doc-1",
        "section": None,
        "start": 0,
        "end": 23,
    }
