"""A tiny FinchLLM, an index over three documents, and a record of every call to a model."""

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import MetadataMode

from finch_integrations import FinchEngine
from finch_integrations.llama_index import FinchLLM
from tests.tiny import make_model, make_tokenizer, text_of

OPTIONS = {"max_tokens": 8, "target_size": 60}


@pytest.fixture
def model():
    """With room for LlamaIndex's prompts, which are long for a tokenizer of bytes."""
    return make_model(max_position_embeddings=4096)


@pytest.fixture
def llm(engine):
    return FinchLLM(engine=engine, **OPTIONS)


@pytest.fixture
def documents():
    return [
        Document(text=text_of(150, seed=n), id_=f"d{n}", metadata={"file_path": f"{n}.md"})
        for n in (1, 2, 3)
    ]


@pytest.fixture
def index(documents):
    # All nodes are equally similar, and LlamaIndex then orders them by their ids.
    splitter = SentenceSplitter(id_func=lambda number, document: f"{document.node_id}-{number}")
    return VectorStoreIndex.from_documents(
        documents, embed_model=MockEmbedding(embed_dim=8), transformations=[splitter]
    )


@pytest.fixture
def retriever(index):
    return index.as_retriever(similarity_top_k=3)


@pytest.fixture
def context(retriever):
    """The retrieved nodes' texts as LlamaIndex writes them into one prompt."""
    nodes = retriever.retrieve("Where is it?")
    return "\n\n".join(node.node.get_content(MetadataMode.LLM) for node in nodes)


@pytest.fixture
def answer(engine):
    """The engine's own answer: what an adapter's must be equal to."""

    def ask(documents, question, **prompt):
        found = engine.compress(documents, question, target_size=60, **prompt)
        return engine.generate(found, max_tokens=8).text

    return ask


class _Recorder(BaseEventHandler):
    calls: list = Field(default_factory=list)

    def handle(self, event, **kwargs):
        if isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            self.calls.append(event)


@pytest.fixture
def calls():
    """The end events of all calls, as LlamaIndex reports them."""
    dispatcher = get_dispatcher()
    recorder = _Recorder()
    dispatcher.add_event_handler(recorder)
    yield recorder.calls
    dispatcher.event_handlers.remove(recorder)


@pytest.fixture
def finch(calls):
    """The statistics of all calls; a structured LLM's own events have none."""

    def statistics():
        raws = [call.response.raw for call in calls]
        return [raw["finch"] for raw in raws if isinstance(raw, dict)]

    return statistics


def say(text, role="user"):
    return ChatMessage(role=role, content=text)


def tiny_engine(**options):
    return FinchEngine(make_model(**options), make_tokenizer())


@pytest.fixture(autouse=True)
def _thread_loop(thread_loop):
    """Every test here may run LlamaIndex's coroutines."""
