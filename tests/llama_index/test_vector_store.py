"""FinchNodeRetriever over a real vector store: Qdrant, in memory."""

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from finch_integrations.llama_index import FinchNodeRetriever
from tests.llama_index.embedding import HashEmbedding

# Qdrant's own, about the client in memory.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")

TEXTS = ["The door code is 4711.", "The red boat leaks.", "Food is in the store.", "A red door."]
NODES = [
    TextNode(id_=f"00000000-0000-4000-8000-00000000000{n}", text=text, metadata={"page": n})
    for n, text in enumerate(TEXTS, start=1)
]
QUERY = "red door of the store"


@pytest.fixture
def index():
    client = QdrantClient(":memory:")
    store = QdrantVectorStore(client=client, collection_name="nodes")
    yield VectorStoreIndex(
        [node.model_copy() for node in NODES],
        embed_model=HashEmbedding(),
        storage_context=StorageContext.from_defaults(vector_store=store),
    )
    client.close()


def ids(hits):
    return [hit.node.node_id for hit in hits]


async def test_its_hits_and_those_by_words_are_the_same_nodes(index):
    dense = ids(index.as_retriever(similarity_top_k=4).retrieve(QUERY))
    only_dense = FinchNodeRetriever.from_nodes(NODES, vector_index=index, bm25_weight=0)
    assert ids(only_dense.retrieve(QUERY)) == dense
    words = ids(FinchNodeRetriever.from_nodes(NODES).retrieve(QUERY))
    retriever = FinchNodeRetriever.from_nodes(NODES, vector_index=index)
    hits = retriever.retrieve(QUERY)
    assert len(hits) == len(NODES)
    for hit in hits:
        ranks = [ranking.index(hit.node.node_id) for ranking in (dense, words)]
        assert hit.score == pytest.approx(sum(1 / (61 + rank) for rank in ranks))
    assert ids(await retriever.aretrieve(QUERY)) == ids(hits)
    two = FinchNodeRetriever.from_nodes(NODES, vector_index=index, similarity_top_k=2)
    assert ids(two.retrieve(QUERY)) == ids(hits)[:2]


def test_a_filter_applies_to_both_sides(index):
    retriever = FinchNodeRetriever.from_nodes(NODES, vector_index=index, filter={"page": [2, 3]})
    assert {hit.node.metadata["page"] for hit in retriever.retrieve(QUERY)} == {2, 3}


def test_saved_and_loaded_it_finds_the_same(index, tmp_path):
    retriever = FinchNodeRetriever.from_nodes(NODES, vector_index=index)
    retriever.save(tmp_path / "index")
    loaded = FinchNodeRetriever.load(tmp_path / "index", vector_index=index)
    assert ids(loaded.retrieve(QUERY)) == ids(retriever.retrieve(QUERY))
