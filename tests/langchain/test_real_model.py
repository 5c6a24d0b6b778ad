"""A retrieval chain from end to end on the embedded model's real weights."""

from pathlib import Path

import pytest
from langchain_classic.chains import create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore

from finch_integrations.langchain import ChatFinch, document_prompt
from finch_integrations.reading import read_documents

pytestmark = pytest.mark.model

HANDBOOK = Path(__file__).parents[2] / "examples" / "station-handbook"
PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer based solely on the context below:\n\n<context>\n{context}\n</context>"),
        ("human", "{input}"),
    ]
)
CHUNK_LENGTH, WINDOW = 1500, 8192


class LastMessage(BaseCallbackHandler):
    def on_llm_end(self, response, **kwargs):
        self.message = response.generations[0][0].message


def chunks(engine):
    """Pieces of the handbook that together are longer than the model's window."""
    found, tokens = [], 0
    for document in read_documents([HANDBOOK]).documents:
        for start in range(0, len(document.text), CHUNK_LENGTH):
            text = document.text[start : start + CHUNK_LENGTH].strip()
            source = Path(str(document.id)).name
            found.append(Document(text, metadata={"source": source}))
            tokens += len(engine.backbone.tokenizer.tokenize(text))
            if tokens > WINDOW:
                return found
    raise AssertionError("the handbook is shorter than the window")


class EncoderEmbeddings(Embeddings):
    def __init__(self, encoder):
        self.encoder = encoder

    def embed_documents(self, texts):
        return self.encoder.encode_documents(texts).tolist()

    def embed_query(self, text):
        return self.encoder.encode_query(text).tolist()


def test_a_retrieval_chain_answers_over_more_than_the_models_window(
    embedded_engine, embedded_encoder
):
    documents = chunks(embedded_engine)
    store = InMemoryVectorStore(EncoderEmbeddings(embedded_encoder))
    store.add_documents(documents)
    retriever = store.as_retriever(search_kwargs={"k": len(documents)})
    chat = ChatFinch(engine=embedded_engine, target_size=1024, max_tokens=24)
    stuff = create_stuff_documents_chain(chat, PROMPT, document_prompt=document_prompt("source"))
    chain = create_retrieval_chain(retriever, stuff)
    last = LastMessage()
    question = "What is the door code of the chemical store?"
    result = chain.invoke({"input": question}, config={"callbacks": [last]})

    assert "7316" in result["answer"]
    assert "7316" in "".join(document.page_content for document in result["context"][:3])
    assert len(result["context"]) == len(documents)
    assert embedded_engine.backbone.spec.window == WINDOW
    assert last.message.usage_metadata["input_tokens"] > WINDOW
    statistics = last.message.response_metadata["finch"]
    assert statistics["documents_from"] == "mark"
    assert statistics["document_tokens"] > WINDOW
    assert statistics["kept_tokens"] == 1024
    assert statistics["peak_kv_tokens"] < 1024 + 1024 + 150
    scores = statistics["document_scores"]
    assert len(scores) == len(documents)
    assert sum(score["kept_tokens"] for score in scores) == pytest.approx(1024)
    for citation in last.message.response_metadata["citations"]:
        cited = result["context"][citation["extras"]["document_index"]]
        assert citation["cited_text"] in cited.page_content
        assert citation["title"] == cited.metadata["source"]
