"""Files to answers over more than the window, on the embedded model's real weights."""

from pathlib import Path
from typing import Any

import pytest
from llama_index.core import SimpleDirectoryReader, SummaryIndex, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import MetadataMode

from finch_integrations.llama_index import FinchLLM, FinchSynthesizer, FullDocumentPostprocessor

pytestmark = pytest.mark.model

HANDBOOK = Path(__file__).parents[2] / "examples" / "station-handbook"
QUESTION = "What is the door code of the chemical store?"
TARGET, WINDOW = 1024, 8192


class EncoderEmbedding(BaseEmbedding):
    encoder: Any

    def _get_query_embedding(self, query):
        return self.encoder.encode_query(query).tolist()

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text):
        return self.encoder.encode_documents([text])[0].tolist()


@pytest.fixture(scope="module")
def documents(embedded_engine):
    """Files of the handbook that together are a little longer than the model's window."""
    tokenize = embedded_engine.backbone.tokenizer.tokenize
    found, tokens = [], 0
    for document in SimpleDirectoryReader(HANDBOOK, recursive=True).load_data():
        found.append(document)
        tokens += len(tokenize(document.text))
        if tokens > WINDOW:
            return found
    raise AssertionError("the handbook is shorter than the window")


@pytest.fixture
def llm(embedded_engine):
    return FinchLLM(engine=embedded_engine, target_size=TARGET, max_tokens=24)


def check(statistics):
    assert statistics["document_tokens"] > WINDOW
    assert statistics["kept_tokens"] == TARGET
    assert statistics["peak_kv_tokens"] < TARGET + 1024 + 250


def test_a_query_engine_answers_over_more_than_the_models_window(
    embedded_engine, embedded_encoder, documents, llm, finch
):
    assert embedded_engine.backbone.spec.window == WINDOW
    index = VectorStoreIndex.from_documents(
        documents,
        transformations=[SentenceSplitter(chunk_size=512, chunk_overlap=0)],
        embed_model=EncoderEmbedding(encoder=embedded_encoder),
    )
    query_engine = index.as_query_engine(llm=llm, similarity_top_k=len(index.docstore.docs))
    response = query_engine.query(QUESTION)
    assert "7316" in response.response
    assert "7316" in "".join(node.text for node in response.source_nodes[:3])
    assert len(response.source_nodes) == len(index.docstore.docs)
    (statistics,) = finch()
    assert statistics["documents_from"] == "template"
    check(statistics)


def test_a_summary_index_answers_over_whole_documents(documents, llm):
    index = SummaryIndex(nodes=documents)
    query_engine = index.as_query_engine(
        llm=llm,
        node_postprocessors=[FullDocumentPostprocessor(documents=documents)],
        response_synthesizer=FinchSynthesizer(llm=llm),
    )
    response = query_engine.query(QUESTION)
    assert "7316" in response.response
    statistics = response.metadata["finch"]
    check(statistics)
    assert [node.node.get_content(MetadataMode.NONE) for node in response.source_nodes] == [
        document.text for document in documents
    ]
    scores = statistics["document_scores"]
    assert [score["document_id"] for score in scores] == [d.node_id for d in documents]
    assert sum(score["kept_tokens"] for score in scores) == pytest.approx(TARGET)
