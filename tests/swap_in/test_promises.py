"""What was once broken without a test noticing it."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core import SummaryIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import RichPromptTemplate
from llama_index.core.schema import TextNode

from finch_integrations import ContextTooLongError
from finch_integrations.langchain import ChatFinch, FinchCompressor, FinchRetriever
from finch_integrations.langchain.middleware import FinchDocumentsMiddleware
from finch_integrations.llama_index import FinchLLM
from finch_integrations.pipeline.evidence import RETRIEVED
from tests.heartbeat import count_beats
from tests.swap_in.engines import RecorderLLM
from tests.swap_in.test_prompts import (
    DOCUMENTS,
    PARAGRAPH,
    Fixed,
    Q,
    Recorder,
    chain_of,
    plain,
    read_by_the_model,
    texts_of,
)
from tests.tiny import text_of


class Settings(AgentMiddleware):
    """Sets an option of every call."""

    def wrap_model_call(self, request, handler):
        return handler(request.override(model_settings={"max_tokens": 3}))


def test_the_middleware_keeps_the_settings_of_others():
    model = Recorder()
    middleware = [Settings(), FinchDocumentsMiddleware(Fixed())]
    create_agent(model, tools=[], middleware=middleware).invoke({"messages": [HumanMessage(Q)]})
    (call,) = model.calls
    assert call.request.sampling["max_tokens"] == 3
    assert len(call.request.documents) == 3


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("seed", 1, 2),
        ("target_size", 100, 200),
        ("compression_ratio", 0.5, 0.6),
        ("max_tokens", 5, 6),
        ("temperature", 0.5, 0.6),
        ("min_p", 0.1, 0.2),
        ("repetition_penalty", 1.1, 1.2),
        ("stop", ["a"], ["b"]),
        ("context_detection", "auto", "marked"),
        ("instruction", "a", "b"),
        ("revision", "a", "b"),
        ("n", 1, 2),
    ],
)
def test_a_cache_tells_answers_of_other_options_apart(name, one, other):
    first, second = ChatFinch(**{name: one}), ChatFinch(**{name: other})
    assert first._get_llm_string() == ChatFinch(**{name: one})._get_llm_string()
    assert first._get_llm_string() != second._get_llm_string()


async def test_compressing_does_not_block_the_event_loop(engine, model):
    model.register_forward_pre_hook(lambda *_: time.sleep(0.02))
    compressor = FinchCompressor(engine=engine, target_size=30)
    documents = [Document(text_of(150, seed=n)) for n in range(4)]
    async with count_beats() as beats:
        await compressor.acompress_documents(documents, Q)
    assert beats[0] > 5


async def test_the_number_of_hits_can_be_set_per_call():
    retriever = FinchRetriever.from_documents(DOCUMENTS, k=3, chunk_size=None)
    query = "boat doors store"
    assert [len(await retriever.ainvoke(query, k=k)) for k in (1, 2)] == [1, 2]
    assert [len(retriever.invoke(query, k=k)) for k in (1, 2)] == [1, 2]


def test_what_the_assistant_said_is_no_document_of_another_run():
    Fixed().invoke("Something else?")
    model = Recorder()
    said = f"I found this: {DOCUMENTS[0].page_content}"
    model.invoke([HumanMessage("Tell me."), AIMessage(said), HumanMessage(Q)])
    (call,) = model.calls
    assert call.source == "none"
    assert said in read_by_the_model(call.request)


def test_a_question_that_is_a_document_s_text_stays_the_question():
    """Collections of questions and answers have the question itself."""
    model = Recorder()
    found = [*DOCUMENTS, Document(Q, id="q")]
    search = Fixed(found=found)
    prompt = f"Context:\n{plain(search.invoke(Q))}\n\nQuestion: {Q}"
    human = "Context:\n{context}\n\nQuestion: {question}"
    chain_of(None, human, model, lambda _: plain(found)).invoke(Q)
    (call,) = model.calls
    assert call.request.messages[-1]["content"] == Q
    assert texts_of(call) == [d.page_content for d in DOCUMENTS]
    assert read_by_the_model(call.request).count(Q) == prompt.count(Q)


def test_a_question_right_before_a_document_is_not_its_label():
    model = Recorder()
    chain = chain_of(None, "Answer from what follows.\n\n{question}\n{context}", model)
    chain.invoke("Document 7?")
    (call,) = model.calls
    assert call.request.messages[-1]["content"] == "Document 7?"
    assert texts_of(call) == [d.page_content for d in DOCUMENTS]


def test_what_a_run_asked_is_forgotten_when_it_ends():
    run = uuid4()
    chain_of(None, "{context}\n\n{question}", Recorder()).invoke(Q, config={"run_id": run})
    assert RETRIEVED.recall(run).queries == ()
    assert all(one.own for one in RETRIEVED.recall(run).texts)


def test_text_after_the_question_counts(engine):
    documents = [text_of(150, seed=1)]
    plain_context = engine.compress(documents, Q, target_size=30)
    closing = "Be brief. " * 30
    context = engine.compress(documents, Q, target_size=30, closing=closing)
    more = context.stats.suffix_tokens - plain_context.stats.suffix_tokens
    assert more >= len(closing.strip())  # a token is a byte here
    with pytest.raises(ContextTooLongError):
        engine.compress(documents, Q, target_size=30, closing="x" * engine.window)


class Watched(list):
    """Documents that note in which thread they are read."""

    threads = ()

    def __iter__(self):
        self.threads = (*self.threads, threading.current_thread())
        return super().__iter__()


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
async def test_documents_are_found_off_the_event_loop(engine, framework):
    documents = Watched([text_of(60, seed=1)])
    options = {"documents": documents, "max_tokens": 2, "target_size": 30}
    if framework == "langchain":
        await ChatFinch(engine=engine).ainvoke(Q, **options)
    else:
        await FinchLLM(engine=engine).achat([ChatMessage(role="user", content=Q)], **options)
    assert documents.threads
    assert threading.main_thread() not in documents.threads


# Users at once, in LlamaIndex

SLICED = RichPromptTemplate("Notes:\n{{context_str[:200]}}\n\nAsk: {{query_str}}")


def user(number):
    """An engine whose prompt only evidence can tell apart, over one user's node."""
    text = f"User {number} likes the number {number * 7919}. " + PARAGRAPH * 3
    node = TextNode(text=text, id_=f"u{number}", metadata={"secret": number})
    llm = RecorderLLM()
    return SummaryIndex([node]).as_query_engine(llm=llm, text_qa_template=SLICED), llm


async def test_engines_at_once_have_only_their_own_nodes(thread_loop):
    users = [user(number) for number in range(20)]

    def query(pair):
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            pair[0].query(Q)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(query, users[:10]))
    await asyncio.gather(*(engine.aquery(Q) for engine, _ in users[10:]))
    for number, (_, llm) in enumerate(users):
        (call,) = llm.calls
        (document,) = call.request.documents
        assert call.source == "evidence"
        assert (document.id, document.metadata["secret"]) == (f"u{number}", number)
