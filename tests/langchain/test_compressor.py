"""FinchCompressor in LangChain's own contextual compression."""

import asyncio

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from finch_integrations import ConfigurationError
from finch_integrations.langchain import FinchCompressor

FILLER = "Nothing of that kind is said in here today. "
DOCUMENTS = [
    Document(
        FILLER * 4 + "The lamp oil is in the red shed. " + FILLER * 4, id="a", metadata={"n": 1}
    ),
    Document(FILLER * 6, metadata={"n": 2}),
    Document(
        "The lamp oil was moved to the red shed in May. " + FILLER * 5, id="a", metadata={"n": 3}
    ),
]
QUESTION = "Where is the lamp oil? In the red shed?"


@pytest.fixture
def compressor(engine):
    return FinchCompressor(engine=engine, target_size=160)


def test_documents_keep_ids_metadata_and_the_places_of_what_is_kept(compressor):
    shortened = compressor.compress_documents(DOCUMENTS, QUESTION)
    assert shortened
    originals = {document.metadata["n"]: document for document in DOCUMENTS}
    for document in shortened:
        original = originals[document.metadata["n"]]
        assert document.id == original.id
        assert len(document.page_content) < len(original.page_content)
        for excerpt in document.metadata["finch_excerpts"]:
            text = original.page_content[excerpt["start"] : excerpt["end"]]
            assert text == excerpt["text"]
            assert text in document.page_content
    assert [d.metadata["n"] for d in shortened] == sorted(d.metadata["n"] for d in shortened)
    assert any("lamp oil" in document.page_content for document in shortened)


def test_async_gives_the_same(compressor):
    shortened = asyncio.run(compressor.acompress_documents(DOCUMENTS, QUESTION))
    assert shortened == compressor.compress_documents(DOCUMENTS, QUESTION)


def test_it_works_in_a_contextual_compression_retriever(compressor):
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_documents([document.model_copy(update={"id": None}) for document in DOCUMENTS])
    retriever = ContextualCompressionRetriever(
        base_compressor=compressor, base_retriever=store.as_retriever(search_kwargs={"k": 3})
    )
    found = retriever.invoke(QUESTION)
    assert 1 <= len(found) <= 3
    assert all(document.metadata["finch_excerpts"] for document in found)


def test_blank_documents_are_left_out(compressor):
    blank = Document(" \n", id="blank")
    expected = compressor.compress_documents(DOCUMENTS, QUESTION)
    pages = [blank, *DOCUMENTS, blank]
    assert compressor.compress_documents(pages, QUESTION) == expected
    assert asyncio.run(compressor.acompress_documents(pages, QUESTION)) == expected


def test_no_documents_are_no_documents(compressor):
    assert compressor.compress_documents([], QUESTION) == []
    assert compressor.compress_documents([Document(" ")], QUESTION) == []


def test_mistakes_are_named_when_it_is_made():
    with pytest.raises(ConfigurationError, match="no option 'targetsize'"):
        FinchCompressor(targetsize=3)
    with pytest.raises(ConfigurationError, match="target_size must be"):
        FinchCompressor(target_size=0)
    with pytest.raises(ConfigurationError, match="unknown option 'bogus'"):
        FinchCompressor(compression={"bogus": 1})


def test_it_shows_no_secret():
    assert "hf_secret" not in repr(FinchCompressor(model_kwargs={"token": "hf_secret"}))


def test_settings_of_a_loaded_model_are_refused(engine):
    with pytest.raises(ConfigurationError, match="device, model_kwargs cannot be applied"):
        FinchCompressor(engine=engine, device="cpu", model_kwargs={"revision": "x"})
    with pytest.raises(ConfigurationError, match="given twice"):
        FinchCompressor(model=engine, engine=engine)
