"""A tiny ChatFinch, and documents with a retriever over them."""

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from finch_integrations.langchain import ChatFinch
from tests.tiny import text_of

OPTIONS = {"max_tokens": 8, "target_size": 60}


@pytest.fixture
def chat(engine):
    return ChatFinch(engine=engine, **OPTIONS)


@pytest.fixture
def documents():
    return [
        Document(text_of(150, seed=n), id=f"d{n}", metadata={"source": f"{n}.md", "page": n})
        for n in (1, 2, 3)
    ]


@pytest.fixture
def retriever(documents):
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents(documents)
    return store.as_retriever(search_kwargs={"k": len(documents)})


@pytest.fixture
def answer(engine):
    """The engine's own answer: what a chain's must be equal to."""

    def ask(documents, question, **prompt):
        context = engine.compress(documents, question, target_size=60, **prompt)
        return engine.generate(context, max_tokens=8).text

    return ask
