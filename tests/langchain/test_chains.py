"""Existing chains with only the model replaced: the retrieved documents are compressed."""

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_classic.chains import (
    ConversationalRetrievalChain,
    create_history_aware_retriever,
    create_retrieval_chain,
)
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from langchain_core.tools import create_retriever_tool

from finch_integrations import Document, FinchRAG, HybridRetriever, RetrievalConfig
from finch_integrations.langchain import (
    ChatFinch,
    FinchDocumentsMiddleware,
    document_prompt,
    format_docs,
)
from tests.tiny import text_of

Q = "Where is it?"
BASED = "Answer any use questions based solely on the context below:"
STUFF = ChatPromptTemplate.from_messages(
    [
        ("system", f"{BASED}\n\n<context>\n{{context}}\n</context>"),
        MessagesPlaceholder("chat_history", optional=True),
        ("human", "{input}"),
    ]
)


def joined(documents):
    return "\n\n".join(document.page_content for document in documents)


def finch(message):
    return message.response_metadata["finch"]


def test_retrieval_chain(chat, retriever, answer):
    chain = create_retrieval_chain(retriever, create_stuff_documents_chain(chat, STUFF))
    result = chain.invoke({"input": Q})
    assert len(result["context"]) == 3
    apart = [document.page_content for document in result["context"]]
    expected = answer(apart, Q, system=BASED, instruction="Question:")
    assert result["answer"] == expected


def test_retrieval_chain_with_a_document_prompt_keeps_the_documents_apart(chat, retriever, answer):
    stuff = create_stuff_documents_chain(
        chat, STUFF, document_prompt=document_prompt("source", "page")
    )
    result = create_retrieval_chain(retriever, stuff).invoke({"input": Q})
    apart = [document.page_content for document in result["context"]]
    assert result["answer"] == answer(apart, Q, system=BASED, instruction="Question:")


def test_conversational_retrieval(chat, retriever, answer):
    rephrase = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("chat_history"), ("human", "{input}"), ("human", "Rephrase it.")]
    )
    aware = create_history_aware_retriever(chat, retriever, rephrase)
    chain = create_retrieval_chain(aware, create_stuff_documents_chain(chat, STUFF))
    history = [HumanMessage("Hello."), AIMessage("Hi.")]
    result = chain.invoke({"input": Q, "chat_history": history})
    assert result["answer"] == answer(
        [document.page_content for document in result["context"]],
        Q,
        system=BASED,
        history=[
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hi."},
        ],
        instruction="Question:",
    )


def test_a_second_turn_reads_nothing_that_the_first_has_read(chat, retriever):
    stuff = STUFF | chat
    context = joined(retriever.invoke(Q))
    history = []
    turns = []
    for question in (Q, "And whose is it?"):
        answer = stuff.invoke({"context": context, "input": question, "chat_history": history})
        turns.append(finch(answer))
        history += [HumanMessage(question), answer]
    first, second = turns
    assert first["read_tokens"] > 0
    assert second["read_tokens"] < first["read_tokens"]
    assert second["rated_tokens"] == first["rated_tokens"]


INTRO = "Use the following pieces of retrieved context to answer the question. Be concise."
PROMPTS = {
    "question first": (
        f"{INTRO}\nQuestion: {{question}} \nContext: {{context}} \nAnswer:",
        f"{INTRO}\n\nContext:",
    ),
    "context first": (
        f"{INTRO}\n\nContext: {{context}}\n\nQuestion: {{question}}",
        f"{INTRO}\n\nContext:",
    ),
    "tags": (
        f"{INTRO}\n\n<context>\n{{context}}\n</context>\n\nQuestion: {{question}}\n\nAnswer:",
        INTRO,
    ),
    "announced": (
        "Answer the question based only on the following context:\n{context}\n\n"
        "Question: {question}\n",
        "Answer the question based only on the following context:",
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_lcel_chain(chat, retriever, answer, name):
    template, system = PROMPTS[name]
    chain = (
        {"context": retriever | joined, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template(template)
        | chat
    )
    message = chain.invoke(Q)
    apart = [document.page_content for document in retriever.invoke(Q)]
    closing = "Answer:" if template.endswith("Answer:") else ""
    expected = answer(apart, Q, system=system, instruction="Question:", closing=closing)
    assert message.text == expected
    assert finch(message)["documents_from"] == "evidence"
    assert finch(message)["kept_tokens"] == 60


@pytest.mark.parametrize("name", PROMPTS)
def test_lcel_chain_with_format_docs_keeps_the_documents_apart(chat, retriever, name):
    template, _ = PROMPTS[name]
    chain = (
        {"context": retriever | format_docs, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template(template)
        | chat
    )
    metadata = finch(chain.invoke(Q))
    assert metadata["documents_from"] == "mark"
    ids = [score["document_id"] for score in metadata["document_scores"]]
    assert sorted(ids) == ["d1", "d2", "d3"]


async def test_chains_stream_and_run_async(chat, retriever):
    chain = (
        {"context": retriever | format_docs, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template(PROMPTS["announced"][0])
        | chat
        | StrOutputParser()
    )
    text = chain.invoke(Q)
    assert "".join(chain.stream(Q)) == text
    assert await chain.ainvoke(Q) == text
    assert "".join([piece async for piece in chain.astream(Q)]) == text


def test_agent_answers_from_a_retrieval_tool(chat, retriever, answer):
    """A tool-calling model chooses the tool, ChatFinch answers from its result."""
    call = {"name": "search", "args": {"query": Q}, "id": "1", "type": "tool_call"}

    class Chooser(GenericFakeChatModel):
        def bind_tools(self, tools, **kwargs):
            return self

    @wrap_model_call
    def answer_with_finch(request, handler):
        if request.messages[-1].type == "tool":
            request = request.override(model=chat, tools=[])
        return handler(request)

    tool = create_retriever_tool(
        retriever, "search", "Search.", response_format="content_and_artifact"
    )
    agent = create_agent(
        Chooser(messages=iter([AIMessage("", tool_calls=[call])])),
        tools=[tool],
        middleware=[answer_with_finch],
        system_prompt="Be brief.",
    )
    result = agent.invoke({"messages": [HumanMessage(Q)]})
    message = result["messages"][-1]
    found = [document.page_content for document in retriever.invoke(Q)]
    assert finch(message)["documents_from"] == "artifact"
    assert message.text == answer(found, Q, system="Be brief.")


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_middleware_retrieves_and_hands_over(chat, retriever, answer, call):
    agent = create_agent(
        chat,
        tools=[],
        middleware=[FinchDocumentsMiddleware(retriever)],
        system_prompt="Be brief.",
    )
    state = {"messages": [HumanMessage(Q)]}
    result = await agent.ainvoke(state) if call == "ainvoke" else agent.invoke(state)
    found = retriever.invoke(Q)
    assert result["documents"] == found
    message = result["messages"][-1]
    assert finch(message)["documents_from"] == "argument"
    texts = [Document(document.page_content) for document in found]
    assert message.text == answer(texts, Q, system="Be brief.")


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_middleware_hands_over_what_finch_rag_finds(engine, call):
    """Found, counted and answered as by `FinchRAG` alone, and cited by file and section."""
    documents = [
        Document(f"# Boats\n{text_of(60, seed=1)} boat.", id="a", metadata={"source": "a.md"}),
        Document(f"# Doors\nThe code is 4711. {text_of(60, seed=2)} boat.", id="b", title="B"),
    ]
    options = {"compression": {"target_size": 60}, "sampling": {"max_tokens": 8}}
    search = HybridRetriever.from_documents(
        documents, chunk_size=40, config=RetrievalConfig(max_document_tokens=70)
    )
    rag = FinchRAG(search, engine, **options)
    agent = create_agent(
        ChatFinch(engine=rag.handle, target_size=60, max_tokens=8),
        tools=[],
        middleware=[FinchDocumentsMiddleware(rag)],
    )
    state = {"messages": [HumanMessage("Which boat?")]}
    result = await agent.ainvoke(state) if call == "ainvoke" else agent.invoke(state)
    expected = rag.answer("Which boat?")
    assert [d.id for d in result["documents"]] == [d.id for d in expected.documents]
    assert len(expected.documents) < len(search.retrieve("Which boat?"))
    message = result["messages"][-1]
    assert message.text == expected.text
    scores = finch(message)["document_scores"]
    assert [s["kept_tokens"] for s in scores] == [
        share.kept_tokens for share in expected.details.document_shares
    ]


def test_middleware_without_hits_asks_without_documents(chat, retriever):
    retriever.search_kwargs["k"] = 0
    agent = create_agent(chat, tools=[], middleware=[FinchDocumentsMiddleware(retriever)])
    result = agent.invoke({"messages": [HumanMessage(Q)]})
    assert result["documents"] == []
    assert finch(result["messages"][-1])["documents_from"] == "none"


def test_middleware_needs_a_question(chat, retriever):
    agent = create_agent(chat, tools=[], middleware=[FinchDocumentsMiddleware(retriever)])
    with pytest.raises(RuntimeError, match="no human message with text"):
        agent.invoke({"messages": [AIMessage("Hi.")]})


@pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")
def test_a_conversational_chains_second_turn_reads_nothing_again_and_answers_its_own_question(
    engine, documents
):
    second = documents[2].page_content[40:90]
    turns = []

    class Whole(BaseRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            return documents

    class Recorder(BaseCallbackHandler):
        def on_llm_end(self, response, **_):
            turns.append(response.generations[0][0].message.response_metadata.get("finch"))

    # All is read: another question may need what the first one left out.
    chat = ChatFinch(engine=engine, max_tokens=8, target_size=60, compression={"read_size": "all"})
    condense = GenericFakeChatModel(messages=iter([AIMessage(second)]))
    chain = ConversationalRetrievalChain.from_llm(
        chat, retriever=Whole(), condense_question_llm=condense
    )
    result = {}
    for question in (documents[0].page_content[40:90], "And that?"):
        history = [(result["question"], result["answer"])] if result else []
        asked = {"question": question, "chat_history": history}
        result = chain.invoke(asked, config={"callbacks": [Recorder()]})
    first, _, last = turns
    assert first["read_tokens"] == first["rated_tokens"] == last["rated_tokens"] > 400
    assert last["read_tokens"] == 0
    kept = [
        max(turn["document_scores"], key=lambda one: one["kept_share"])["document_id"]
        for turn in (first, last)
    ]
    assert kept == ["d1", "d3"]
