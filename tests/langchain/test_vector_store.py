"""FinchRetriever over a real vector store: Qdrant, in memory."""

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_qdrant import QdrantVectorStore
from qdrant_client import QdrantClient, models

from finch_integrations.langchain import FinchRetriever

EMBEDDINGS = DeterministicFakeEmbedding(size=16)
TEXTS = ["The door code is 4711.", "The red boat leaks.", "Food is in the store.", "A red door."]
QUERY = "red door of the store"


@pytest.fixture(params=["ids", "no ids"])
def documents(request):
    """Qdrant takes UUIDs for ids, and makes them where there are none."""
    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(4)]
    return [
        Document(text, id=id if request.param == "ids" else None, metadata={"page": page})
        for page, (id, text) in enumerate(zip(ids, TEXTS, strict=True), start=1)
    ]


@pytest.fixture
def store(documents):
    client = QdrantClient(":memory:")
    vectors = models.VectorParams(size=16, distance=models.Distance.COSINE)
    client.create_collection("documents", vectors_config=vectors)
    store = QdrantVectorStore(client=client, collection_name="documents", embedding=EMBEDDINGS)
    store.add_documents(documents)
    yield store
    client.close()


def pages(hits):
    return [hit.metadata["page"] for hit in hits]


async def test_its_hits_and_those_by_words_are_the_same_documents(documents, store):
    retriever = FinchRetriever.from_documents(documents, vectorstore=store)
    dense = pages(store.similarity_search(QUERY, k=4))
    assert pages(retriever.invoke(QUERY, bm25_weight=0)) == dense
    hits = retriever.invoke(QUERY)
    assert sorted(pages(hits)) == [1, 2, 3, 4]
    scores = [hit.metadata["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    words = {page: rank for rank, page in enumerate(pages(retriever.invoke(QUERY, dense_weight=0)))}
    for hit in hits:
        page = hit.metadata["page"]
        assert hit.metadata["score"] == pytest.approx(
            1 / (61 + dense.index(page)) + 1 / (61 + words[page])
        )
    assert retriever.invoke(QUERY, k=2) == hits[:2]
    assert await retriever.ainvoke(QUERY) == hits


def test_filters_on_both_sides(documents, store):
    retriever = FinchRetriever.from_documents(documents, vectorstore=store)
    assert sorted(pages(retriever.invoke(QUERY, filter={"page": [2, 3]}))) == [2, 3]
    condition = models.FieldCondition(key="metadata.page", match=models.MatchValue(value=3))
    filtered = FinchRetriever.from_documents(
        documents, vectorstore=store, store_kwargs={"filter": models.Filter(must=[condition])}
    )
    assert pages(filtered.invoke(QUERY, bm25_weight=0)) == [3]


def test_saved_and_loaded_it_finds_the_same(documents, store, tmp_path):
    retriever = FinchRetriever.from_documents(documents, vectorstore=store)
    retriever.save(tmp_path / "index")
    loaded = FinchRetriever.load(tmp_path / "index", vectorstore=store)
    assert loaded.invoke(QUERY) == retriever.invoke(QUERY)
