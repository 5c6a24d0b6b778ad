"""Chains, agents and engines with only the model replaced; users at once; the memory's limits."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_classic.chains import (
    ConversationalRetrievalChain,
    RetrievalQA,
    RetrievalQAWithSourcesChain,
)
from langchain_classic.chains.question_answering import load_qa_chain
from langchain_classic.retrievers import MultiQueryRetriever
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool, tool

from finch_integrations import InvalidInputError
from finch_integrations.pipeline.evidence import RETRIEVED, RetrievedTexts
from finch_integrations.types import Document as Ours
from tests.swap_in.test_prompts import (
    DOCUMENTS,
    PARAGRAPH,
    Fixed,
    Q,
    Recorder,
    chain_of,
    plain,
    read_by_the_model,
)


def got(call):
    return [document.text for document in call.request.documents]


def holds_each_once(call, documents=DOCUMENTS):
    texts = got(call)
    counts = [sum(d.page_content in text for text in texts) for d in documents]
    return counts == [1] * len(documents) and len(texts) == len(documents)


@pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")
@pytest.mark.parametrize("number", [1, 3])
def test_retrieval_qa_with_its_default_prompt(number):
    model = Recorder()
    retriever = Fixed(found=DOCUMENTS[:number])
    RetrievalQA.from_chain_type(model, retriever=retriever).invoke({"query": Q})
    (call,) = model.calls
    assert holds_each_once(call, DOCUMENTS[:number])
    assert call.request.messages[-1]["content"] == Q


@pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")
def test_the_few_shot_example_of_the_sources_chain_is_no_document():
    model = Recorder()
    chain = RetrievalQAWithSourcesChain.from_chain_type(model, retriever=Fixed())
    chain.invoke({"question": Q})
    (call,) = model.calls
    assert holds_each_once(call)
    assert "state/country" not in "".join(got(call))
    assert "Michael Jackson" in read_by_the_model(call.request)
    assert call.request.messages[-1]["content"] == Q


@pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")
def test_conversational_retrieval_compresses_only_its_answering_call():
    model = Recorder()
    chain = ConversationalRetrievalChain.from_llm(model, retriever=Fixed())
    chain.invoke({"question": Q, "chat_history": [("Hello", "Hi")]})
    condensing, answering = model.calls
    assert condensing.source == "none"
    assert holds_each_once(answering)


@pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")
def test_later_steps_of_refine_are_compressed_too():
    model = Recorder()
    chain = load_qa_chain(model, chain_type="refine")
    chain.invoke({"input_documents": DOCUMENTS, "question": Q})
    for call, document in zip(model.calls, DOCUMENTS, strict=True):
        assert got(call) == [document.page_content]
        assert call.source == "evidence"


def test_documents_that_no_retriever_found_but_a_step_passed_on():
    model = Recorder()
    search = RunnableLambda(lambda question: DOCUMENTS)
    prompt = ChatPromptTemplate.from_template("Hier: {context}\nFrage: {question}")
    steps = {"context": search, "question": RunnablePassthrough()}
    chain = steps | RunnablePassthrough.assign(context=lambda s: plain(s["context"]))
    (chain | prompt | model).invoke(Q)
    assert holds_each_once(model.calls[0])


def test_under_strict_a_retriever_may_ask_for_other_queries():
    model = Recorder(strict=True)
    retriever = MultiQueryRetriever.from_llm(retriever=Fixed(), llm=model)
    assert len(retriever.invoke(Q)) == len(DOCUMENTS)
    (call,) = model.calls
    assert call.source == "none"
    with pytest.raises(InvalidInputError, match="strict is on"):
        model.invoke("What is it?")
    answer = ChatPromptTemplate.from_template("{context}\n\n{question}") | model
    ({"context": retriever | plain, "question": RunnablePassthrough()} | answer).invoke(Q)
    assert holds_each_once(model.calls[-1])


FORMS = {
    "json": lambda docs: json.dumps([{"text": d.page_content, "meta": d.metadata} for d in docs]),
    "utf-8 json": lambda docs: json.dumps([d.page_content for d in docs], ensure_ascii=False),
    "repr": str,
    "squeezed": lambda docs: " | ".join(" ".join(d.page_content.split()) for d in docs),
    "one line": lambda docs: "\n\n".join(d.page_content.replace("\n", " ") for d in docs),
    "indented": lambda docs: plain(docs).replace("\n", "\n    "),
    "headers": lambda docs: "\n\n".join(
        f"Quelle: {d.metadata['source']}\nInhalt: {d.page_content}" for d in docs
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_documents_in_other_spellings_are_found(form):
    model = Recorder()
    chain_of(None, "Context:\n{context}\n\nQuestion: {question}", model, FORMS[form]).invoke(Q)
    (call,) = model.calls
    assert call.source == "evidence"
    assert holds_each_once(call)
    assert call.request.messages[-1]["content"] == Q


def test_documents_that_are_cut_off_are_found():
    model = Recorder()
    cut = lambda docs: "\n\n".join(f"{d.page_content[:300]}…" for d in docs)  # noqa: E731
    chain_of(None, "{context}\n\nAlways in German.\n\nQuestion: {question}", model, cut).invoke(Q)
    (call,) = model.calls
    assert got(call) == [d.page_content[:300] for d in DOCUMENTS]
    assert "Always in German." in read_by_the_model(call.request)


def steps(content, **result):
    call = {"name": "search", "args": {"query": Q}, "id": "1", "type": "tool_call"}
    return [
        HumanMessage(Q),
        AIMessage("", tool_calls=[call]),
        ToolMessage(content, tool_call_id="1", name="search", **result),
    ]


@tool
def lookup(query: str) -> str:
    """Look something up."""
    return json.dumps([d.page_content for d in Fixed().invoke(query)])


@pytest.mark.parametrize("how", ["plain", "artifact", "json", "other order", "truncated"])
def test_results_of_tools_are_compressed(how):
    model = Recorder()
    result = {}
    if how == "json":
        content = lookup.invoke({"query": Q})
    elif how in ("plain", "artifact"):
        form = "content" if how == "plain" else "content_and_artifact"
        search = create_retriever_tool(Fixed(), "search", "Search.", response_format=form)
        call = {"name": "search", "args": {"query": Q}, "id": "1", "type": "tool_call"}
        message = search.invoke(call)
        content, result = message.content, {"artifact": message.artifact}
    else:
        shown = [*reversed(DOCUMENTS)] if how == "other order" else DOCUMENTS
        texts = [d.page_content[:300] if how == "truncated" else d.page_content for d in shown]
        content, result = "\n\n".join(texts), {"artifact": DOCUMENTS}
    model.invoke(steps(content, **result))
    (call,) = model.calls
    assert len(got(call)) == 3
    assert call.source == ("artifact" if result.get("artifact") else "evidence")
    assert call.request.messages[-1]["content"] == Q


# Users at once


async def test_runs_at_once_have_only_their_own_documents():
    def user(number):
        text = f"User {number} likes the number {number * 7919}. " + PARAGRAPH * 3
        return Document(text, id=f"u{number}", metadata={"secret": number})

    def run(number):
        model = Recorder()
        human = "Context:\n{context}\n\nQuestion: {question}"
        messages = ChatPromptTemplate.from_messages([("human", human)])
        retriever = Fixed(found=[user(number)])
        chain = {"context": retriever | plain, "question": RunnablePassthrough()}
        return chain | messages | model, model

    runs = [run(number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: pair[0].invoke(Q), runs[:20]))
    await asyncio.gather(*(chain.ainvoke(Q) for chain, _ in runs[20:]))
    for number, (_, model) in enumerate(runs):
        (call,) = model.calls
        (document,) = call.request.documents
        assert document.id == f"u{number}"
        assert document.metadata["secret"] == number


def test_another_run_s_text_brings_only_its_name_along():
    Fixed().invoke("Something else?")
    model = Recorder()
    model.invoke(f"Context:\n{DOCUMENTS[0].page_content}\n\nQuestion: {Q}")
    (document,) = model.calls[0].request.documents
    assert (document.id, dict(document.metadata)) == ("d0", {})


def test_the_memory_is_bounded_in_size_and_time(monkeypatch):
    texts = RetrievedTexts(max_bytes=200_000, max_seconds=60)
    for number in range(10_000):
        texts.remember([Ours(f"{number} {PARAGRAPH}")], run=number)
        texts.remember_query("What?", number)
    assert texts.nbytes <= 200_000
    evidence = texts.recall(9_999)
    assert 10 < len(evidence.texts) < 100
    assert [one.own for one in evidence.texts].count(True) == 1
    assert evidence.queries == ("What?",)
    assert texts.recall(0).queries == ()
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 61)
    assert texts.recall(9_999).texts == ()
    assert texts.nbytes == 0


def test_what_is_retrieved_or_asked_later_is_recalled_too():
    texts = RetrievedTexts()
    for number in range(3):
        texts.remember([Ours(f"{number} {PARAGRAPH}")], run=1)
        texts.remember_query(f"What is {number}?", 1)
        assert len(texts.recall(1).texts) == len(texts.recall(1).queries) == number + 1
        assert texts.recall(1) is texts.recall(1)
    texts.remember([Ours(f"One more {PARAGRAPH}")], run=1)
    assert len(texts.recall(1).texts) == 4
    texts.end_run(1)
    assert texts.recall(1).queries == ()
    texts.forget()
    assert texts.recall(1).texts == ()


def test_ten_thousand_runs_leave_no_runs_behind():
    from finch_integrations.langchain.evidence import _LISTENER

    before = len(_LISTENER._runs)
    chain = RunnableLambda(lambda question: question)
    for _ in range(10_000):
        chain.invoke(Q)
    assert len(_LISTENER._runs) <= before
    assert RETRIEVED.recall().queries == ()
