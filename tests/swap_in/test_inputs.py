"""Documents as applications hand them over: dumped, flat, blank, in artifacts, beside images."""

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from finch_integrations import InvalidInputError
from finch_integrations.langchain import ChatFinch, FinchRetriever
from finch_integrations.langchain.middleware import FinchDocumentsMiddleware
from finch_integrations.pipeline.evidence import RETRIEVED
from tests.swap_in.test_prompts import (
    DOCUMENTS,
    Fixed,
    Q,
    Recorder,
    plain,
    read_by_the_model,
    texts_of,
)
from tests.swap_in.tools import a_call, retriever_tool

BLANK = Document("  \n", id="scan")
TEXTS = [document.page_content for document in DOCUMENTS]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def searched(content, artifact):
    """A chat in which a tool has answered."""
    result = ToolMessage(content, tool_call_id="1", name="search", artifact=artifact)
    return [HumanMessage(Q), AIMessage("", tool_calls=[a_call()]), result]


ARTIFACTS = {
    "documents": DOCUMENTS,
    "dumped by pydantic": [d.model_dump() for d in DOCUMENTS],
    "dumped by LangChain": [dumpd(d) for d in DOCUMENTS],
    "in a mapping": {"documents": DOCUMENTS, "query": Q},
    "dumped in a mapping": {"documents": [d.model_dump() for d in DOCUMENTS]},
    "other order": [*reversed(DOCUMENTS)],
    "flat": [{"text": text, "source": "x"} for text in TEXTS],
    "search results": {"results": [{"title": "T", "url": "u", "content": t} for t in TEXTS]},
    "with blank ones": [BLANK, *DOCUMENTS, BLANK],
    "with scores": [(document, 0.5) for document in DOCUMENTS],
}


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_artifacts_of_tools_are_read(artifact):
    model = Recorder()
    model.invoke(searched(plain(DOCUMENTS), ARTIFACTS[artifact]))
    (call,) = model.calls
    assert call.source == "artifact"
    assert texts_of(call) == TEXTS
    assert call.request.messages[-1]["content"] == Q


def test_results_that_show_less_than_the_artifact():
    model = Recorder()
    shown = "\n\n".join(text[:300] for text in TEXTS[1:])
    model.invoke(searched(shown, DOCUMENTS))
    assert texts_of(model.calls[0]) == [text[:300] for text in TEXTS[1:]]


@pytest.mark.parametrize("artifact", [None, 7, "text", [7], {"rows": [[1, 2]]}, {"text": 5}])
def test_artifacts_that_are_no_documents_change_nothing(artifact):
    model = Recorder()
    model.invoke(searched("42 degrees", artifact))
    assert model.calls[0].source == "none"


def test_a_graph_with_a_checkpointer_recognises_its_documents_in_the_second_turn():
    """Checkpoints bring artifacts back as plain mappings; another process has no evidence."""
    model = Recorder()

    def search(state):
        (call,) = state["messages"][-1].tool_calls
        return {"messages": [retriever_tool().invoke({**call, "type": "tool_call"})]}

    def ask(state):
        last = state["messages"][-1]
        if isinstance(last, HumanMessage) and len(state["messages"]) == 1:
            return {"messages": [AIMessage("", tool_calls=[a_call()])]}
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("search", search)
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition, {"tools": "search", "__end__": "__end__"})
    graph.add_edge("search", "ask")
    app = graph.compile(checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    app.invoke({"messages": [HumanMessage(Q)]}, thread)
    RETRIEVED.forget()
    app.invoke({"messages": [HumanMessage("And on Mondays?")]}, thread)
    first, second = model.calls
    assert (first.source, second.source) == ("artifact", "artifact")
    assert texts_of(first) == texts_of(second) == TEXTS
    assert second.request.messages[-1]["content"] == "And on Mondays?"
    assert "Fine." in read_by_the_model(second.request)


def test_the_tool_node_of_langgraph_runs_a_retriever_tool_without_artifact():
    model = Recorder()
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([retriever_tool(response_format="content")]))
    graph.add_node("answer", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "tools")
    graph.add_edge("tools", "answer")
    messages = [HumanMessage(Q), AIMessage("", tool_calls=[a_call()])]
    graph.compile().invoke({"messages": messages})
    (call,) = model.calls
    assert call.source == "evidence"
    assert texts_of(call) == TEXTS


# Blank documents and none


@pytest.mark.parametrize("way", ["argument", "message", "middleware", "blocks"])
def test_blank_documents_among_others_are_set_aside(way):
    model = Recorder()
    documents = [DOCUMENTS[0], BLANK, *DOCUMENTS[1:]]
    if way == "argument":
        model.invoke(Q, documents=documents)
    elif way == "message":
        model.invoke([HumanMessage(Q, additional_kwargs={"documents": documents})])
    elif way == "blocks":
        blocks = [{"type": "text-plain", "text": d.page_content} for d in documents]
        model.invoke([HumanMessage([*blocks, {"type": "text", "text": Q}])])
    else:
        middleware = [FinchDocumentsMiddleware(Fixed(found=documents))]
        agent = create_agent(model, tools=[], middleware=middleware)
        agent.invoke({"messages": [HumanMessage(Q)]})
    (call,) = model.calls
    assert call.source == "argument"
    assert texts_of(call) == TEXTS


def test_only_blank_documents_are_an_error():
    for options in ({"documents": [BLANK]}, {"documents": [BLANK, ""]}):
        with pytest.raises(InvalidInputError, match="documents are blank"):
            Recorder().invoke(Q, **options)
    block = {"type": "text-plain", "text": " "}
    with pytest.raises(InvalidInputError, match="content blocks are blank"):
        Recorder().invoke([HumanMessage([block, {"type": "text", "text": Q}])])


def test_a_retriever_sets_blank_documents_aside():
    retriever = FinchRetriever.from_documents([BLANK, *DOCUMENTS], k=10, chunk_size=None)
    assert sorted(d.id for d in retriever.invoke("boat doors store")) == ["d0", "d1", "d2"]


@pytest.mark.parametrize("way", ["argument", "message"])
def test_an_empty_list_of_documents_is_a_chat_without_documents(way):
    model = Recorder()
    if way == "argument":
        model.invoke(Q, documents=[])
    else:
        model.invoke([HumanMessage(Q, additional_kwargs={"documents": []})])
    (call,) = model.calls
    assert (call.source, call.request.documents, call.request.advice) == ("none", (), "")


FLAT = {
    "flat": [{"text": t, "source": f"{n}.md"} for n, t in enumerate(TEXTS)],
    "content": [{"content": t, "source": f"{n}.md", "url": "u"} for n, t in enumerate(TEXTS)],
    "Cohere": [{"id": f"{n}.md", "data": {"snippet": t}} for n, t in enumerate(TEXTS)],
    "Cohere's texts": [{"id": f"{n}.md", "data": t} for n, t in enumerate(TEXTS)],
    "dumped": [dumpd(d) for d in DOCUMENTS],
}


@pytest.mark.parametrize("form", FLAT)
def test_mappings_of_others_are_taken(form):
    model = Recorder()
    model.invoke(Q, documents=FLAT[form])
    documents = model.calls[0].request.documents
    assert [document.text for document in documents] == TEXTS
    ids = [f"d{n}" for n in range(3)] if form == "dumped" else [f"{n}.md" for n in range(3)]
    assert [document.id for document in documents] == ids


# Images


def test_an_image_in_an_old_turn_does_not_fail_the_call():
    model = Recorder()
    old = [HumanMessage([{"type": "text", "text": "What is this?"}, IMAGE]), AIMessage("A boat.")]
    model.invoke([*old, HumanMessage(Q)], documents=DOCUMENTS)
    (call,) = model.calls
    assert call.request.messages[0]["content"] == "What is this?\n[image_url]"
    with pytest.raises(InvalidInputError, match="message 1 has a block of the type 'image_url'"):
        model.invoke(old[:1])
    with pytest.raises(InvalidInputError, match="message 4"):
        model.invoke([*old, HumanMessage(Q), ToolMessage([IMAGE], tool_call_id="1")])


def test_a_wrapped_model_gets_old_images_itself(engine):
    inner = Recorder()
    wrapped = ChatFinch(llm=inner, scorer=engine)
    old = [HumanMessage([{"type": "text", "text": "What is this?"}, IMAGE]), AIMessage("A boat.")]
    wrapped.invoke([*old, HumanMessage(Q)])
    assert "[image_url]" in read_by_the_model(inner.calls[0].request)
