"""FinchNodeRetriever: options, wrapped indexes, query engines, saving."""

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeRelationship, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from finch_integrations import ConfigurationError, InvalidInputError
from finch_integrations.llama_index import FinchNodeRetriever, FullDocumentPostprocessor
from finch_integrations.retrieval import reciprocal_rank_fusion
from tests.llama_index.embedding import HashEmbedding

NODES = [
    TextNode(id_="door", text="The door code is 4711.", metadata={"page": 1}),
    TextNode(id_="boat", text="The red boat leaks.", metadata={"page": 2}),
    TextNode(id_="food", text="Food is in the store.", metadata={"page": 3}),
]
QUERY = "red door of the store"


def make(**options):
    return FinchNodeRetriever.from_nodes(NODES, **{"embed_model": HashEmbedding(), **options})


@pytest.fixture
def index():
    return VectorStoreIndex(NODES, embed_model=HashEmbedding())


def ids(found):
    return [hit.node.node_id for hit in found]


def test_nodes_come_back_as_copies_with_scores_that_models_do_not_see():
    retriever = make()
    hits = retriever.retrieve(QUERY)
    expected = retriever.hybrid.retrieve(QUERY)
    assert ids(hits) == [document.id for document in expected]
    assert [hit.score for hit in hits] == [document.metadata["score"] for document in expected]
    assert {"bm25_score", "dense_score"} <= hits[0].node.metadata.keys()
    original = next(node for node in NODES if node.node_id == hits[0].node.node_id)
    assert "score" not in original.metadata
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert hits[0].node.get_content(mode) == original.get_content(mode)


async def test_options_come_from_the_constructor():
    assert ids(make(similarity_top_k=1).retrieve("door code")) == ["door"]
    hits = await make(filter={"page": [2, 3]}, dense_weight=0).aretrieve("the red store")
    assert sorted(ids(hits)) == ["boat", "food"]
    with pytest.raises(ConfigurationError, match="did you mean 'top_k'"):
        make(topk=3).retrieve("door")


def test_a_vector_index_is_the_dense_leg(index):
    retriever = FinchNodeRetriever.from_nodes(NODES, vector_index=index)
    dense = ids(index.as_retriever(similarity_top_k=3).retrieve(QUERY))
    words = ids(FinchNodeRetriever.from_nodes(NODES).retrieve(QUERY))
    assert ids(retriever.retrieve(QUERY)) == [
        id for id, _ in reciprocal_rank_fusion([words, dense])
    ]


def test_what_only_the_vector_index_has_is_found_too(index):
    index.insert_nodes([TextNode(id_="ladder", text="The ladder is green.")])
    hits = FinchNodeRetriever.from_nodes(NODES, vector_index=index).retrieve("ladder")
    assert "ladder" in ids(hits)


def test_saved_and_loaded_it_finds_the_same(tmp_path, index):
    make().save(tmp_path / "own")
    loaded = FinchNodeRetriever.load(tmp_path / "own", embed_model=HashEmbedding())
    hits = loaded.retrieve(QUERY)
    assert [(h.node.node_id, h.text, h.score) for h in hits] == [
        (h.node.node_id, h.text, h.score) for h in make().retrieve(QUERY)
    ]
    assert hits[0].node.relationships[NodeRelationship.SOURCE].node_id == hits[0].node.node_id
    assert hits[0].node.get_content(MetadataMode.LLM).startswith("page: ")

    wrapped = FinchNodeRetriever.from_nodes(NODES, vector_index=index)
    wrapped.save(tmp_path / "store")
    again = FinchNodeRetriever.load(tmp_path / "store", vector_index=index)
    assert ids(again.retrieve(QUERY)) == ids(wrapped.retrieve(QUERY))
    with pytest.raises(ConfigurationError, match="not built for a vector store"):
        FinchNodeRetriever.load(tmp_path / "own", vector_index=index)


def test_saved_and_loaded_nodes_know_their_document_and_what_models_do_not_see(tmp_path):
    document = Document(
        id_="lab",
        text="The door code is 4711. " * 20,
        metadata={"page": 1, "path": "/private/lab.md"},
        excluded_llm_metadata_keys=["path"],
        excluded_embed_metadata_keys=["page"],
    )
    nodes = SentenceSplitter(chunk_size=60, chunk_overlap=0).get_nodes_from_documents([document])
    store = SimpleDocumentStore()
    store.add_documents([document])
    whole = FullDocumentPostprocessor(docstore=store)
    retriever = FinchNodeRetriever.from_nodes(nodes)
    retriever.save(tmp_path / "index")
    kept = retriever.retrieve("door code")[0]
    (loaded, *_) = hits = FinchNodeRetriever.load(tmp_path / "index").retrieve("door code")
    assert loaded.node.ref_doc_id == kept.node.ref_doc_id == "lab"
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert loaded.node.get_content(mode) == kept.node.get_content(mode)
    assert loaded.node.metadata.keys() - kept.node.metadata.keys() == {
        "document_id",
        "section",
        "start_index",
        "end_index",
    }
    assert [hit.node.text for hit in whole.postprocess_nodes(hits)] == [document.text]


def test_contradictions_and_nothing_are_refused(index):
    with pytest.raises(ConfigurationError, match="Give one of them"):
        make(vector_index=index)
    with pytest.raises(InvalidInputError, match="there is no document"):
        FinchNodeRetriever.from_nodes([])


def test_it_works_in_a_query_engine(llm):
    response = RetrieverQueryEngine.from_args(make(similarity_top_k=2), llm=llm).query(QUERY)
    assert ids(response.source_nodes) == ids(make(similarity_top_k=2).retrieve(QUERY))
    assert all(node.score is not None for node in response.source_nodes)


def keep(*filters, condition="and"):
    made = [
        one
        if isinstance(one, MetadataFilters)
        else MetadataFilter(key=one[0], operator=one[1], value=one[2])
        for one in filters
    ]
    return MetadataFilters(filters=made, condition=condition)


TWO = keep(("page", "==", 1), ("page", "==", 2), condition="or")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (keep(("page", "==", 2)), {"boat"}),
        (keep(("page", ">", 1)), {"boat", "food"}),
        (keep(("page", "!=", 1), ("page", "<", 3)), {"boat"}),
        (keep(("page", "==", 1), ("page", "==", 3), condition="or"), {"door", "food"}),
        (keep(("page", "==", 1), condition="not"), {"boat", "food"}),
        (keep(("page", "in", [1, 2])), {"door", "boat"}),
        (keep(("colour", "is_empty", None)), {"door", "boat", "food"}),
        (
            keep(keep(("page", "==", 1), ("page", "==", 2), condition="or"), ("page", ">", 1)),
            {"boat"},
        ),
        (keep(), {"door", "boat", "food"}),
    ],
)
@pytest.mark.parametrize("embed_model", [None, HashEmbedding()])
def test_metadata_filters_of_llama_index_are_followed(filters, found, embed_model):
    retriever = FinchNodeRetriever.from_nodes(NODES, embed_model=embed_model, filters=filters)
    assert {node.node_id for node in retriever.retrieve("door boat store food")} == found


def test_filters_that_cannot_be_used_are_named():
    with pytest.raises(ConfigurationError, match="filters must be MetadataFilters, got dict"):
        make(filters={"page": 1})
    with pytest.raises(ConfigurationError, match="filter and filters are given"):
        make(filters=keep(("page", "==", 1)), filter={"page": 1})
    with pytest.raises(InvalidInputError, match="the filter on 'page' cannot be applied to 1"):
        make(filters=keep(("page", ">", "x"))).retrieve(QUERY)
