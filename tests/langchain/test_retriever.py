"""FinchRetriever: LangChain's standard suite, options, wrapped stores, chains, saving."""

import pickle

import pytest
from langchain_classic.chains import create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests

from finch_integrations import ConfigurationError, InvalidInputError
from finch_integrations.langchain import FinchRetriever
from finch_integrations.retrieval import HybridRetriever, reciprocal_rank_fusion

EMBEDDINGS = DeterministicFakeEmbedding(size=16)
DOCUMENTS = [
    Document("The door code is 4711.", id="door", metadata={"page": 1, "title": "Doors"}),
    Document("The red boat leaks.", id="boat", metadata={"page": 2}),
    Document("Food is in the store.", id="food", metadata={"page": 3}),
    Document("The store has a red door.", metadata={"page": 4}),
]
QUERY = "red door of the store"


def make(**options):
    return FinchRetriever.from_documents(DOCUMENTS, **{"embeddings": EMBEDDINGS, **options})


@pytest.fixture
def store():
    store = InMemoryVectorStore(EMBEDDINGS)
    store.add_documents(DOCUMENTS)
    return store


def ids(documents):
    return [document.id for document in documents]


class TestStandard(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self):
        return FinchRetriever

    @property
    def retriever_constructor_params(self):
        return {"hybrid": make().hybrid}

    @property
    def retriever_query_example(self):
        return QUERY


def test_found_documents_keep_title_and_metadata_and_gain_scores():
    first = make().invoke("door code")[0]
    assert (first.page_content, first.id) == ("The door code is 4711.", "door#1")
    assert first.metadata["page"] == 1
    assert first.metadata["title"] == "Doors"
    assert first.metadata["document_id"] == "door"
    assert {"bm25_score", "dense_score", "fused_score", "score"} <= first.metadata.keys()
    assert DOCUMENTS[0].metadata == {"page": 1, "title": "Doors"}


def test_the_ranking_is_the_hybrid_retrievers():
    retriever = make(k=3)
    expected = retriever.hybrid.retrieve(QUERY, top_k=3)
    assert ids(retriever.invoke(QUERY)) == [document.id for document in expected]


async def test_options_come_from_the_constructor_and_from_the_call():
    retriever = make(search_kwargs={"filter": {"page": [1, 2, 3]}, "dense_weight": 0})
    assert "dense_score" not in retriever.invoke("red")[0].metadata
    assert ids(retriever.invoke("red")) == ["boat#1"]
    assert ids(await retriever.ainvoke("door", filter={"page": 4})) == ["doc-4#1"]
    assert ids(retriever.invoke("door", return_parents=True)) == ["door"]
    with pytest.raises(ConfigurationError, match="did you mean 'top_k'"):
        retriever.invoke("door", topk=3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"top_k": 25}, "no option 'top_k'; here it is called k"),
        ({"score_threshold": 99, "filter": {}}, r"search_kwargs=\{'filter': …, 'score_thresh"),
        ({"search_kwarg": {}}, "no option 'search_kwarg'; known: hybrid, k,"),
    ],
)
def test_unknown_constructor_options_are_named(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        FinchRetriever.from_documents(DOCUMENTS, **options)


def test_a_store_is_the_dense_leg(store):
    retriever = FinchRetriever.from_documents(DOCUMENTS, vectorstore=store)
    dense = [hit.page_content for hit in store.similarity_search(QUERY, k=4)]
    words = [hit.page_content for hit in retriever.invoke(QUERY, dense_weight=0)]
    expected = [key for key, _ in reciprocal_rank_fusion([words, dense])]
    texts = [hit.page_content for hit in retriever.invoke(QUERY)]
    assert sorted(texts) == sorted(expected)
    fused = dict(reciprocal_rank_fusion([words, dense]))
    assert [fused[text] for text in texts] == sorted(fused.values(), reverse=True)
    only_dense = retriever.invoke(QUERY, bm25_weight=0)
    assert [hit.page_content for hit in only_dense] == dense
    assert {"door", "boat", "food"} <= set(ids(only_dense))


def test_what_only_the_store_has_is_found_too(store):
    store.add_documents([Document("The ladder is green.", id="ladder", metadata={"page": 9})])
    retriever = FinchRetriever.from_documents(DOCUMENTS, vectorstore=store)
    for options in ({}, {"return_parents": True}):
        found = {hit.id: hit for hit in retriever.invoke("ladder", **options)}
        assert found["ladder"].page_content == "The ladder is green."
    assert ids(retriever.invoke("ladder", filter={"page": 9})) == ["ladder"]


def test_the_store_gets_its_own_options(store):
    retriever = FinchRetriever.from_documents(
        DOCUMENTS,
        vectorstore=store,
        store_kwargs={"filter": lambda document: document.metadata["page"] == 2},
    )
    assert ids(retriever.invoke(QUERY, bm25_weight=0)) == ["boat"]


def test_equal_chunks_of_one_file_are_all_kept():
    twins = [Document("A door.", id="x"), Document("A door.", id="x")]
    retriever = FinchRetriever.from_documents(twins)
    assert sorted(hit.metadata["document_id"] for hit in retriever.invoke("door")) == ["x", "x#2"]


def test_saved_and_loaded_it_finds_the_same(tmp_path, store):
    make().save(tmp_path / "own")
    loaded = FinchRetriever.load(tmp_path / "own", embeddings=EMBEDDINGS, k=2)
    assert loaded.invoke(QUERY) == make(k=2).invoke(QUERY)

    wrapped = FinchRetriever.from_documents(DOCUMENTS, vectorstore=store)
    wrapped.save(tmp_path / "store")
    again = FinchRetriever.load(tmp_path / "store", vectorstore=store)
    assert again.invoke(QUERY) == wrapped.invoke(QUERY)

    with pytest.raises(ConfigurationError, match="not built for a vector store"):
        FinchRetriever.load(tmp_path / "own", vectorstore=store)


def test_contradictions_and_nothing_are_refused(store):
    with pytest.raises(ConfigurationError, match="Give one of them"):
        FinchRetriever.from_documents(DOCUMENTS, vectorstore=store, embeddings=EMBEDDINGS)
    with pytest.raises(InvalidInputError, match="there is no document"):
        FinchRetriever.from_documents([])
    with pytest.raises(InvalidInputError, match="has no word"):
        make().invoke("?!")


def test_it_works_in_a_classic_chain(chat, answer):
    prompt = ChatPromptTemplate.from_template(
        "Answer from this context:\n\n{context}\n\nQuestion: {input}"
    )
    retriever = make(k=2)
    chain = create_retrieval_chain(retriever, create_stuff_documents_chain(chat, prompt))
    result = chain.invoke({"input": QUERY})
    assert result["context"] == retriever.invoke(QUERY)
    assert isinstance(result["answer"], str)
    expected = create_stuff_documents_chain(chat, prompt).invoke(
        {"input": QUERY, "context": retriever.invoke(QUERY)}
    )
    assert result["answer"] == expected


def test_it_wraps_a_retriever_that_exists():
    hybrid = HybridRetriever.from_documents(["A door."])
    assert FinchRetriever(hybrid=hybrid).invoke("door")[0].page_content == "A door."


@pytest.mark.parametrize("how", ["words", "embeddings", "store", "loaded"])
def test_it_can_be_pickled(how, store, tmp_path):
    options = {}
    if how == "embeddings":
        options = {"embeddings": DeterministicFakeEmbedding(size=8)}
    if how == "store":
        options = {"vectorstore": store, "store_kwargs": {}}
    retriever = FinchRetriever.from_documents(DOCUMENTS, k=3, **options)
    if how == "loaded":
        retriever.save(tmp_path / "index")
        retriever = FinchRetriever.load(tmp_path / "index", k=3)
    again = pickle.loads(pickle.dumps(retriever))
    for query in ("boat", "the store", "door code"):
        assert again.invoke(query) == retriever.invoke(query)
