"""FullDocumentPostprocessor: from chunks to whole documents, and what does not fit is said."""

import logging

import pytest
from llama_index.core import Document, SummaryIndex, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import MetadataMode, NodeRelationship, NodeWithScore, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore

from finch_integrations import ConfigurationError, ContextTooLongError
from finch_integrations.llama_index import FullDocumentPostprocessor

SPLITTER = SentenceSplitter(chunk_size=45, chunk_overlap=15)
SENTENCES = ["The boat leaves at nine.", "It is blue.", "Tea is at four, they say.", "So be it."]


def prose(name, paragraphs=6):
    lines = [
        " ".join(f"{name}{n}: {sentence}" for sentence in SENTENCES) for n in range(paragraphs)
    ]
    return "\n\n".join(lines)


@pytest.fixture
def documents():
    return [
        Document(text=prose(name), id_=name, metadata={"file_path": f"{name}.md"})
        for name in ("a", "b", "c")
    ]


@pytest.fixture
def index(documents):
    return VectorStoreIndex.from_documents(
        documents, transformations=[SPLITTER], embed_model=MockEmbedding(embed_dim=8)
    )


@pytest.fixture
def chunks(index):
    """Chunks of b and a, as if retrieved in this order."""
    of = {}
    for node in index.docstore.docs.values():
        of.setdefault(node.ref_doc_id, []).append(node)
    return [
        NodeWithScore(node=of["b"][2], score=0.5),
        NodeWithScore(node=of["a"][1], score=0.7),
        NodeWithScore(node=of["b"][0], score=0.9),
    ]


def run(nodes, **options):
    return FullDocumentPostprocessor(**options).postprocess_nodes(nodes)


def texts(nodes):
    return [node.node.get_content(MetadataMode.NONE) for node in nodes]


def stored(documents):
    store = SimpleDocumentStore()
    IngestionPipeline(
        transformations=[SPLITTER],
        docstore=store,
        docstore_strategy="duplicates_only",
        disable_cache=True,
    ).run(documents=documents)
    return store


SOURCES = {
    "documents": lambda documents, index: {"documents": documents},
    "whole documents in a docstore": lambda documents, index: {"docstore": stored(documents)},
    "chunks in a docstore": lambda documents, index: {"docstore": index.docstore},
    "loader": lambda documents, index: {
        "loader": lambda node: prose(node.node.metadata["file_path"][0])
    },
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("group_by", ["ref_doc_id", "file_path"])
def test_chunks_become_whole_documents(documents, index, chunks, name, group_by):
    found = run(chunks, group_by=group_by, **SOURCES[name](documents, index))
    assert texts(found) == [prose("b"), prose("a")]
    assert [node.score for node in found] == [0.9, 0.7]
    assert [node.node.metadata["file_path"] for node in found] == ["b.md", "a.md"]
    ids = {"ref_doc_id": ["b", "a"], "file_path": ["b.md", "a.md"]}
    assert [node.node.node_id for node in found] == ids[group_by]


def test_the_found_chunks_are_named_and_hidden_from_models(documents, chunks):
    found = run(chunks, documents=documents)
    assert found[0].node.metadata["finch_chunks"] == [
        chunks[0].node.node_id,
        chunks[2].node.node_id,
    ]
    shown = found[0].node.get_content(MetadataMode.LLM)
    assert "finch" not in shown
    assert "finch" not in found[0].node.get_content(MetadataMode.EMBED)
    assert shown == f"file_path: b.md\n\n{prose('b')}"


def test_the_index_and_the_given_nodes_stay_as_they_are(documents, index, chunks):
    before = [node.model_copy(deep=True) for node in chunks]
    stored_before = {id: node.to_dict() for id, node in index.docstore.docs.items()}
    run(chunks, docstore=index.docstore)
    run(chunks, documents=documents)
    assert chunks == before
    assert {id: node.to_dict() for id, node in index.docstore.docs.items()} == stored_before
    assert all("finch_chunks" not in document.metadata for document in documents)


async def test_async(documents, chunks):
    postprocessor = FullDocumentPostprocessor(documents=documents)
    assert texts(await postprocessor.apostprocess_nodes(chunks)) == [prose("b"), prose("a")]


def test_white_space_between_chunks_is_put_back():
    text = "One one.\n\n\nTwo two.   Three."
    pieces = [("One one.", 0), ("Two two.", 11), ("Three.", 22)]
    nodes = [
        TextNode(
            text=piece,
            start_char_idx=start,
            end_char_idx=start + len(piece),
            relationships={
                NodeRelationship.SOURCE: Document(text=text, id_="d").as_related_node_info()
            },
        )
        for piece, start in pieces
    ]
    store = SimpleDocumentStore()
    store.add_documents(nodes[::-1])
    (found,) = run([NodeWithScore(node=nodes[1])], docstore=store)
    assert found.node.get_content().split() == text.split()
    assert len(found.node.get_content()) == len(text)
    assert found.score is None


def test_pages_of_a_file_become_one_document():
    pages = [
        Document(
            text=f"Page {n} text.",
            id_=f"p{n}",
            metadata={"file_path": "x.pdf", "page_label": str(n)},
        )
        for n in (1, 2, 10)
    ]
    other = Document(text="Other.", id_="o", metadata={"file_path": "y.pdf", "page_label": "1"})
    hit = [NodeWithScore(node=pages[1], score=0.5), NodeWithScore(node=other, score=0.1)]
    found = run(hit, documents=[pages[2], other, pages[0], pages[1]], group_by="file_path")
    assert texts(found) == ["Page 1 text.\n\nPage 2 text.\n\nPage 10 text.", "Other."]


def test_parts_of_a_file_are_in_their_order():
    parts = [
        Document(text=f"Part {n}.", id_=f"x.txt_part_{n}", metadata={"file_path": "x.txt"})
        for n in (0, 1, 2, 10)
    ]
    store = SimpleDocumentStore()
    store.add_documents([parts[3], parts[0], parts[2], parts[1]])
    found = run([NodeWithScore(node=parts[2])], docstore=store, group_by="file_path")
    assert texts(found) == ["Part 0.\n\nPart 1.\n\nPart 2.\n\nPart 10."]


def test_whole_documents_stay_whole():
    document = Document(text="\n All of it. \n", id_="d")
    store = SimpleDocumentStore()
    store.add_documents([document])
    (found,) = run([NodeWithScore(node=document, score=1.0)], docstore=store)
    assert (found.node.node_id, found.node.get_content()) == ("d", document.text)


def test_chunks_stay_if_no_source_has_the_document_and_it_is_said(chunks, caplog):
    found = run(chunks, docstore=SimpleDocumentStore())
    assert found == [chunks[0], chunks[2], chunks[1]]
    assert "No source has the whole document b; its chunks stay" in caplog.text


# Without links between the chunks nothing tells that the end is missing.
@pytest.mark.parametrize(
    ("lost", "linked"),
    [
        (slice(1), True),
        (slice(2, 6), True),
        (slice(-1, None), True),
        (slice(1), False),
        (slice(2, 6), False),
    ],
)
def test_a_document_with_a_chunk_missing_is_not_taken_for_whole(
    index, chunks, caplog, lost, linked
):
    of_a = [node for node in index.docstore.docs.values() if node.ref_doc_id == "a"]
    if not linked:
        for node in of_a:
            for link in (NodeRelationship.PREVIOUS, NodeRelationship.NEXT):
                node.relationships.pop(link, None)
        index.docstore.add_documents(of_a)
    for node in of_a[lost]:
        index.docstore.delete_document(node.node_id)
    found = run(chunks, docstore=index.docstore)
    assert texts(found)[0] == prose("b")
    assert found[1] == chunks[1]
    assert "No source has the whole document a" in caplog.text


def test_a_budget_drops_the_lowest_ranked_documents_and_says_so(documents, chunks, caplog):
    count = lambda text: text.split()  # noqa: E731
    one = len(count(f"file_path: a.md {prose('a')}"))
    options = {"documents": documents, "tokenizer": count}
    with caplog.at_level(logging.WARNING):
        assert texts(run(chunks, max_document_tokens=2 * one, **options)) == [
            prose("b"),
            prose("a"),
        ]
        assert caplog.text == ""
        (kept,) = run(chunks, max_document_tokens=2 * one - 1, **options)
    assert kept.node.node_id == "b"
    assert kept.node.metadata["finch_dropped_documents"] == ["a"]
    assert "finch" not in kept.node.get_content(MetadataMode.LLM)
    assert "The documents a are left out" in caplog.text
    with pytest.raises(ContextTooLongError, match=f"document, b, has {one} tokens, .* more than"):
        run(chunks, max_document_tokens=one - 1, **options)


def test_the_budget_is_counted_with_llama_indexs_tokenizer(documents, chunks):
    assert len(run(chunks, documents=documents, max_document_tokens=100_000)) == 2
    with pytest.raises(ContextTooLongError):
        run(chunks, documents=documents, max_document_tokens=10)


def test_no_nodes_are_no_documents(documents):
    assert run([], documents=documents, max_document_tokens=5) == []


def test_without_retrieval_a_summary_index_holds_whole_documents(documents):
    nodes = SummaryIndex(nodes=documents).as_retriever().retrieve("x")
    assert texts(run(nodes, documents=documents)) == [prose("a"), prose("b"), prose("c")]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "nothing to take whole documents from. Give documents=…, docstore=…"),
        ({"docstor": 1}, "FullDocumentPostprocessor has no option 'docstor'; known: "),
        (
            {"documents": [], "max_document_tokens": 0},
            "max_document_tokens must be at least 1, got 0",
        ),
    ],
)
def test_wrong_options_are_named(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        FullDocumentPostprocessor(**options)
