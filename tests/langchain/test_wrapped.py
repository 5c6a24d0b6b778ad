"""ChatFinch(llm=…): what another chat model gets, and what comes back of it."""

import asyncio
import copy
import pickle
import re

import pytest
from langchain.agents import create_agent
from langchain_classic.chains import create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from finch_integrations import ConfigurationError, ContextTooLongError, FinchEngine
from finch_integrations.engine.prompt import INSTRUCTION
from finch_integrations.langchain import ChatFinch, document_prompt, format_docs
from tests.peer import Reply, serving
from tests.reference_passages import left_of

FILLER = "Nothing of that kind is said in here today. "
TEXTS = [
    FILLER * 4 + "The code of the store is 7316.\n\n" + FILLER * 3 + "End.",
    FILLER * 8 + "End.",
    "Ask for the store code at the gate. " + FILLER + "End.",
]
NAMED = list(zip("abc", TEXTS, strict=True))
DOCUMENTS = [
    Document(text, id=name, metadata={"source": f"{name}.md"})
    for name, text in zip("abc", TEXTS, strict=True)
]
QUESTION = "What is the code of the store?"
BUDGET = {"target_size": 200}


class Recorder(BaseChatModel):
    """Another maker's chat model: it says what it is told, and keeps what it was asked."""

    says: str = "The code of the store is 7316."
    asked: list = Field(default_factory=list)
    options: list = Field(default_factory=list)

    @property
    def _llm_type(self):
        return "recorder"

    def _answer(self, cls, text, **more):
        usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
        return cls(
            content=text,
            usage_metadata=usage,
            response_metadata={"model_name": "recorder-1"},
            **more,
        )

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.asked.append(messages)
        self.options.append({**kwargs, "stop": stop})
        message = self._answer(AIMessage, self.says)
        return ChatResult(generations=[ChatGeneration(message=message)])


class Streamer(Recorder):
    """The same, word by word."""

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        self.asked.append(messages)
        self.options.append({**kwargs, "stop": stop})
        for word in re.findall(r"\S+\s*", self.says):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        yield ChatGenerationChunk(message=self._answer(AIMessageChunk, ""))


class Found(BaseRetriever):
    """A retriever that finds everything."""

    def _get_relevant_documents(self, query, *, run_manager):
        return DOCUMENTS


@pytest.fixture
def inner():
    return Streamer()


@pytest.fixture
def chat(inner, engine):
    return ChatFinch(llm=inner, scorer=engine, **BUDGET)


def shortened(engine, texts=TEXTS, question=QUESTION):
    return left_of(engine, texts, question, **BUDGET)


def test_in_a_stuffing_chain_only_the_documents_change(chat, inner, engine):
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Answer from these.\n\n{context}\n\nBe brief; é."), ("human", " {input} ")]
    )
    stuff = create_stuff_documents_chain(
        chat, prompt, document_prompt=document_prompt("source"), document_separator="\n##\n"
    )
    chain = create_retrieval_chain(Found(), stuff)
    answer = chain.invoke({"input": QUESTION})
    assert answer["answer"] == inner.says
    left = shortened(engine)
    assert None in left  # a document of which nothing was kept
    parts = [
        f'<document source="{d.metadata["source"]}">\n{text}\n</document>\n'
        for d, text in zip(DOCUMENTS, left, strict=True)
    ]
    context = ""
    for number, (part, text) in enumerate(zip(parts, left, strict=True)):
        last = number == len(parts) - 1
        if text is not None:
            context += part.removesuffix("\n")
            context += "" if last else "\n##\n"
        else:
            context += "" if last else "##\n"
    (system, human) = inner.asked[0]
    assert system.content == f"Answer from these.\n\n{context}\n\nBe brief; é."
    assert human.content == f" {QUESTION} "


def test_a_prompt_without_marks_keeps_its_labels(chat, inner, engine):
    body = "\n\n".join(TEXTS)
    text = "Answer based only on the following context:\n{}\n\nQuestion: " + QUESTION
    own = re.compile("(?s)context:\n(?P<context>.*)\n\nQuestion: (?P<question>.*)")
    chat.model_copy(update={"context_patterns": [own]}).invoke(text.format(body))
    (left,) = shortened(engine, [body])
    assert inner.asked[0][0].content == text.format(left)


def test_documents_of_the_call_come_before_the_question(chat, inner, engine):
    messages = [SystemMessage("Brief."), HumanMessage(QUESTION, id="q")]
    answer = chat.invoke(messages, documents=DOCUMENTS)
    system, human = inner.asked[0]
    kept = [Document(t, id=d.id) for d, t in zip(DOCUMENTS, shortened(engine), strict=True) if t]
    assert system == messages[0]
    assert human.content == f"{format_docs(kept)}\n\n{INSTRUCTION} {QUESTION}"
    assert human.id == "q"
    assert messages[1].content == QUESTION
    scores = answer.response_metadata["finch"]["document_scores"]
    assert [score["document_id"] for score in scores] == list("abc")


def test_a_follow_up_is_chosen_for_after_the_question_before_it(chat, inner, engine):
    earlier, small = "Whom do I ask at the gate?", {"target_size": 60}
    messages = [HumanMessage(earlier), AIMessage("Them."), HumanMessage(QUESTION)]
    chat.invoke(messages, documents=DOCUMENTS, **small)
    *_, human = inner.asked[0]
    wanted, alone = (
        left_of(engine, TEXTS, question, **small)
        for question in (f"{earlier}\n{QUESTION}", QUESTION)
    )
    assert wanted != alone
    kept = [Document(t, id=d.id) for d, t in zip(DOCUMENTS, wanted, strict=True) if t]
    assert human.content == f"{format_docs(kept)}\n\n{INSTRUCTION} {QUESTION}"


def test_documents_in_a_message_are_taken_out_of_its_arguments(chat, inner):
    message = HumanMessage(QUESTION, additional_kwargs={"documents": DOCUMENTS, "x": 1})
    chat.invoke([message])
    assert inner.asked[0][0].additional_kwargs == {"x": 1}
    assert message.additional_kwargs["documents"] == DOCUMENTS


def test_document_blocks_become_text_in_their_place_and_images_stay(chat, inner, engine):
    image = {"type": "image", "url": "https://host/a.png"}
    content = [
        {"type": "text", "text": "Look:"},
        *({"type": "text-plain", "text": text, "id": name} for name, text in NAMED),
        image,
        {"type": "text", "text": QUESTION},
    ]
    chat.invoke([HumanMessage(content)])
    kept = [
        {"type": "text", "text": f'<document id="{n}">\n{text}\n</document>'}
        for n, text in zip("abc", shortened(engine, question=f"Look:\n{QUESTION}"), strict=True)
        if text
    ]
    assert inner.asked[0][0].content == [content[0], *kept, image, content[-1]]


def test_texts_in_blocks_are_edited_block_by_block(chat, inner, engine):
    marked = format_docs(DOCUMENTS)
    content = ["One.", {"type": "text", "text": marked, "cache": True}, QUESTION]
    chat.invoke([HumanMessage(content)])
    first, second, third = inner.asked[0][0].content
    assert (first, third, second["cache"]) == ("One.", QUESTION, True)
    assert "7316" in second["text"]
    assert len(second["text"]) < len(marked) / 2


def test_documents_in_a_tools_result_are_shortened_in_the_result(chat, inner):
    call = {"id": "1", "name": "search", "args": {"q": "code"}}
    messages = [
        HumanMessage(QUESTION),
        AIMessage("", tool_calls=[call]),
        ToolMessage(format_docs(DOCUMENTS), tool_call_id="1", name="search"),
    ]
    chat.invoke(messages)
    asked = inner.asked[0]
    assert asked[:2] == messages[:2]
    assert asked[2].tool_call_id == "1"
    assert "7316" in asked[2].content
    assert len(asked[2].content) < len(messages[2].content) / 2


def test_without_documents_messages_pass_as_the_same_objects(chat, inner):
    messages = [SystemMessage("x"), HumanMessage([{"type": "image", "url": "https://h/i.png"}])]
    answer = chat.invoke(messages)
    assert inner.asked[0] == messages
    assert answer.response_metadata["finch"] == {
        "documents_from": "none",
        "documents": 0,
        "document_characters": 0,
        "model": "recorder-1",
    }
    assert answer.response_metadata["citations"] == []


def test_documents_that_fit_stay_byte_for_byte(inner, engine):
    text = format_docs(DOCUMENTS) + "\n\n" + QUESTION
    ChatFinch(llm=inner, scorer=engine, target_size=5000).invoke(text)
    assert inner.asked[0][0].content == text


@pytest.mark.parametrize("kind", [Recorder, Streamer])
def test_the_answer_is_the_wrapped_models_with_citations_and_costs(kind, engine):
    model = ChatFinch(llm=kind(), scorer=engine, **BUDGET)
    whole = model.invoke(QUESTION, documents=DOCUMENTS)
    chunks = list(model.stream(QUESTION, documents=DOCUMENTS))
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined += chunk
    later = asyncio.run(model.ainvoke(QUESTION, documents=DOCUMENTS))

    async def collect():
        return [chunk async for chunk in model.astream(QUESTION, documents=DOCUMENTS)]

    assert [c.text for c in asyncio.run(collect())] == [c.text for c in chunks]
    assert (len(chunks) > 2) == (kind is Streamer)
    stats = engine.select(TEXTS, QUESTION, **BUDGET).stats
    for answer in (whole, joined, later):
        facts = answer.response_metadata
        assert answer.text == Recorder().says
        assert answer.usage_metadata["input_tokens"] == 9
        assert facts["finch"]["model"] == "recorder-1"
        (citation,) = facts["citations"]
        assert citation["extras"]["document_id"] == "a"
        assert citation["cited_text"] == "The code of the store is 7316"
        assert facts["finch"]["document_tokens"] == stats.document_tokens
        assert facts["finch"]["kept_tokens"] == stats.kept_tokens


def test_options_of_a_call_go_where_they_belong(chat, inner):
    chat.invoke(QUESTION, documents=DOCUMENTS, target_size=50, stop=["x"], temperature=0.3, k=1)
    assert inner.options[0] == {"temperature": 0.3, "k": 1, "stop": ["x"]}
    chat.bind(target_size=100).invoke(QUESTION, documents=DOCUMENTS)
    first, second = (len(asked[0].content) for asked in inner.asked)
    assert first < second


async def test_every_way_of_asking_passes_on_where_to_stop(engine):
    inner = Streamer()
    chat = ChatFinch(llm=inner, scorer=engine, target_size=200)
    options = {"documents": DOCUMENTS, "stop": ["x"], "k": 1}
    chat.invoke(QUESTION, **options)
    await chat.ainvoke(QUESTION, **options)
    list(chat.stream(QUESTION, **options))
    _ = [chunk async for chunk in chat.astream(QUESTION, **options)]
    assert inner.options == [{"k": 1, "stop": ["x"]}] * 4


class Runs(BaseCallbackHandler):
    """Keeps which runs start, and what tokens are heard."""

    def __init__(self):
        self.started, self.tokens = [], []

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, **_):
        self.started.append((run_id, parent_run_id, len(messages[0][-1].content)))

    def on_llm_new_token(self, token, *, run_id, **_):
        self.tokens.append((run_id, token))


def test_the_wrapped_models_run_is_a_child_run_with_the_compressed_prompt(chat):
    text = format_docs(DOCUMENTS) + "\n\n" + QUESTION
    for use in (chat.invoke, lambda *args: list(chat.stream(*args))):
        runs = Runs()
        use(text, {"callbacks": [runs]})
        (outer, root, before), (_, parent, after) = runs.started
        assert root is None
        assert parent == outer
        assert before == len(text)
        assert after < before / 2
    outer_tokens = "".join(token for run, token in runs.tokens if run == outer)
    assert outer_tokens == Recorder().says


def test_usage_is_counted_once(chat):
    with get_usage_metadata_callback() as usage:
        chat.invoke(QUESTION, documents=DOCUMENTS)
    assert usage.usage_metadata["recorder-1"]["total_tokens"] == 13


def test_callbacks_of_the_wrapped_model_are_called(engine):
    runs = Runs()
    ChatFinch(llm=Recorder(callbacks=[runs]), scorer=engine).invoke("Hi")
    assert len(runs.started) == 1


def test_langgraph_streams_every_token_once(chat):
    agent = create_agent(chat, tools=[])
    said = agent.stream({"messages": [HumanMessage("Hi")]}, stream_mode="messages")
    assert "".join(chunk.text for chunk, _ in said) == Recorder().says


class Answer(BaseModel):
    """An answer."""

    code: int


@tool
def search(query: str) -> str:
    """Search."""
    return format_docs(DOCUMENTS)


def call_of(name, arguments):
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
@pytest.mark.parametrize("include_raw", [False, True])
def test_structured_output_is_the_wrapped_models_own(engine, method, include_raw):
    said = call_of("Answer", '{"code": 7316}') if method == "function_calling" else '{"code": 7316}'
    reply = Reply(pieces=(said,))
    if isinstance(said, dict):
        message = {"role": "assistant", "content": None, **said}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        kind = {"id": "1", "model": "m", "object": "chat.completion", "created": 1}
        reply = Reply(content={**kind, "choices": [choice]})
    with serving(reply) as peer:
        inner = ChatOpenAI(base_url=peer.url, model="m", api_key="k", max_retries=0)
        model = ChatFinch(llm=inner, scorer=engine, **BUDGET)
        structured = model.with_structured_output(Answer, method=method, include_raw=include_raw)
        result = structured.invoke(format_docs(DOCUMENTS) + "\n\n" + QUESTION)
        plain = inner.with_structured_output(Answer, method=method).invoke(QUESTION)
    if include_raw:
        assert result["raw"].response_metadata["finch"]["documents"] == 3
        result = result["parsed"]
    assert result == plain == Answer(code=7316)
    ours, theirs = (request["body"] for request in peer.requests)
    assert "7316" in ours["messages"][0]["content"]
    assert len(ours.pop("messages")[0]["content"]) < sum(map(len, TEXTS)) / 2
    theirs.pop("messages")
    assert ours == theirs


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_an_agent_with_a_retriever_tool_gets_shortened_results(engine):
    with serving(
        Reply(pieces=(call_of("search", '{"query": "code"}'),), finish="tool_calls"), Reply()
    ) as peer:
        inner = ChatOpenAI(base_url=peer.url, model="m", api_key="k", max_retries=0, streaming=True)
        agent = create_agent(ChatFinch(llm=inner, scorer=engine, **BUDGET), tools=[search])
        state = agent.invoke({"messages": [HumanMessage(QUESTION)]})
    assert state["messages"][-1].text == "The code is 7316."
    assert state["messages"][-1].response_metadata["finch"]["documents"] == 3
    first, second = (request["body"] for request in peer.requests)
    assert first["tools"][0]["function"]["name"] == "search"
    result = second["messages"][-1]
    assert (result["role"], result["tool_call_id"]) == ("tool", "c1")
    assert "7316" in result["content"]
    assert len(result["content"]) < sum(map(len, TEXTS)) / 2


def test_a_model_without_tools_says_so_itself(chat):
    with pytest.raises(NotImplementedError):
        chat.bind_tools([search])


class Hiding(Recorder):
    """Its tools are bound to something that it is not found in."""

    def bind_tools(self, tools, **kwargs):
        return RunnableLambda(lambda messages: self.invoke(messages))


def test_a_model_that_hides_in_what_it_binds_is_refused_instead_of_passed_by(engine):
    chat = ChatFinch(llm=Hiding(), scorer=engine, **BUDGET)
    with pytest.raises(ConfigurationError, match="Hiding makes a RunnableLambda, in front of"):
        chat.bind_tools([search])


def test_the_budget_is_in_the_wrapped_models_tokens(engine):
    words = lambda text: text.split()  # noqa: E731
    kept = []
    for inner, options in (
        (Recorder(custom_get_token_ids=lambda t: [1] * len(words(t))), {}),
        (Recorder(), {"count_tokens": lambda t: len(words(t))}),
    ):
        model = ChatFinch(llm=inner, scorer=engine, target_size=30, **options)
        facts = model.invoke(QUESTION, documents=DOCUMENTS).response_metadata["finch"]
        assert facts["document_tokens"] == sum(len(words(text)) for text in TEXTS)
        assert 10 < facts["kept_tokens"] <= 30
        assert model.get_num_tokens("one two three") == 3
        kept.append(facts["kept_tokens"])
    assert kept[0] == kept[1]


def test_a_long_prompt_without_documents_is_reported_once_and_loads_no_model(caplog, folder):
    chat = ChatFinch(llm=Streamer(), scorer=folder, target_size=100)
    for question in (QUESTION, "Where?"):
        chat.invoke("Summarise what follows: " + FILLER * 20 + question)
    (record,) = caplog.records
    for way in ("format_docs", "documents=", "context_patterns", "evidence", "target_size is 100"):
        assert way in record.message
    chat.invoke("And this: " + FILLER * 20, documents=[])
    assert len(caplog.records) == 1
    assert not chat.handle.loaded


def test_a_prompt_that_does_not_fit_the_wrapped_models_window_is_refused(engine):
    inner = Recorder(profile={"max_input_tokens": 500})
    ChatFinch(llm=inner, scorer=engine, target_size=100).invoke(QUESTION, documents=DOCUMENTS)
    facts = ChatFinch(llm=inner, scorer=engine)
    facts = facts.invoke(QUESTION, documents=DOCUMENTS).response_metadata["finch"]
    assert facts["kept_tokens"] <= 250  # half of the window, where no budget is given
    with pytest.raises(ContextTooLongError, match="window of 500"):
        ChatFinch(llm=inner, scorer=engine, target_size=450).invoke(QUESTION, documents=DOCUMENTS)
    with pytest.raises(ContextTooLongError, match="window of 500"):
        ChatFinch(llm=inner, scorer=engine).invoke("x" * 600)


def history(turns, *last):
    """So many turns of about thirty characters each, after a system text."""
    chat = [SystemMessage("Be kind.")]
    for n in range(turns):
        chat += [HumanMessage(f"Question {n:03}?"), AIMessage(f"It is answer {n:03}.")]
    return [*chat, *(last or [HumanMessage(QUESTION)])]


@pytest.mark.parametrize("documents", [None, DOCUMENTS])
async def test_a_history_that_outgrows_the_wrapped_models_window_loses_its_oldest_turns(
    engine, caplog, documents
):
    inner = Recorder(profile={"max_input_tokens": 700})
    chat = ChatFinch(llm=inner, scorer=engine, target_size=200)
    assert "trimmed_messages" not in chat.invoke(history(3)).response_metadata["finch"]
    options = {} if documents is None else {"documents": documents}
    for answer in (
        chat.invoke(history(100), **options),
        await chat.ainvoke(history(100), **options),
        [*chat.stream(history(100), **options)][-1],
    ):
        trimmed = answer.response_metadata["finch"]["trimmed_messages"]
        assert 100 < trimmed < 200
        assert trimmed % 2 == 0
        asked = inner.asked[-1]
        assert [asked[0], *asked[1:-1]] == [history(0)[0], *history(100)[1 + trimmed : -1]]
        assert asked[-1].text.endswith(QUESTION)
        assert len(asked[-1].text) > 100 or not documents
        # Hardly more would have fitted.
        tokens = sum(chat.get_num_tokens(message.text) for message in asked)
        assert 700 - 40 < tokens < 700
    assert sum("oldest messages of a chat were left out" in r.message for r in caplog.records) == 1


def test_what_was_chosen_of_an_old_turn_is_never_left_out(engine):
    shown = "\n\n".join(f"<document>\n{text}\n</document>" for text in TEXTS)
    old = [HumanMessage(f"{shown}\n\nAnd these?"), AIMessage("Yes.")]
    inner = Recorder(profile={"max_input_tokens": 700})
    chat = ChatFinch(llm=inner, scorer=engine, target_size=200)
    chat.invoke([*history(3)[:-1], *old, HumanMessage(QUESTION)])
    assert "And these?" in inner.asked[-1][7].text
    chat.invoke([*history(100)[:-1], *old, HumanMessage(QUESTION)])
    assert "And these?" in inner.asked[-1][-3].text
    with pytest.raises(ContextTooLongError, match="window of 700"):
        chat.invoke([*old, *history(100)[1:]])


def test_calls_and_their_results_are_left_out_together(engine):
    step = [
        HumanMessage("Look!"),
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        ToolMessage("x" * 80, tool_call_id="1"),
        AIMessage("Seen."),
    ]
    inner = Recorder(profile={"max_input_tokens": 700})
    ChatFinch(llm=inner, scorer=engine, target_size=200).invoke(
        [*step * 20, HumanMessage(QUESTION)]
    )
    asked = inner.asked[-1]
    assert asked == [*step * (len(asked) // 4), HumanMessage(QUESTION)]
    assert 4 < len(asked) < 60


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"compression": {"method": "finch"}}, "prunes the cache"),
        ({"max_kv_bytes": 10**6}, "generated elsewhere"),
        ({"max_tokens": 5}, "max_tokens: with llm"),
        ({"temperature": 0.1}, "temperature: with llm"),
        ({"model": "embedded"}, "given once"),
        ({"token_ratio": -1}, "token_ratio"),
        ({"token_ratio": 1.0, "count_tokens": len}, "give one"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_options_that_make_no_sense_around_a_model_are_refused_when_it_is_made(
    inner, engine, options, reason
):
    with pytest.raises(ConfigurationError, match=reason):
        ChatFinch(llm=inner, scorer=engine, **options)


def test_how_to_count_says_nothing_without_a_wrapped_model(engine):
    with pytest.raises(ConfigurationError, match="llm="):
        ChatFinch(engine=engine, token_ratio=2.0)


def test_it_is_a_chat_finch_and_can_be_copied_and_pickled(folder):
    inner = ChatOpenAI(base_url="http://127.0.0.1:9", model="m", api_key="sk-secret")
    model = ChatFinch(llm=inner, scorer=str(folder), target_size=7)
    assert isinstance(model, ChatFinch)
    assert model.handle.name == str(folder)
    again = copy.copy(model)
    assert (type(again), again.llm) == (type(model), inner)
    assert "sk-secret" not in repr(model) + str(model.model_dump()) + str(model._identifying_params)
    recorder = ChatFinch(llm=Recorder(), scorer=str(folder), target_size=7)
    unpickled = pickle.loads(pickle.dumps(recorder))
    assert (unpickled.target_size, unpickled.llm) == (7, recorder.llm)


def test_two_wrapped_models_are_not_the_same_to_a_cache(folder):
    a, b = (ChatFinch(llm=ChatOpenAI(model=name, api_key="k"), scorer=str(folder)) for name in "ab")
    assert a._identifying_params != b._identifying_params


def test_the_default_scorer_is_the_embedded_model(inner):
    assert ChatFinch(llm=inner).handle.name == "embedded"
    assert isinstance(FinchEngine, type)
