"""ChatFinch itself: options, metadata, streaming, cancelling, tracing, sharing, errors.

Section by section this also covers what is known to go wrong in LangChain's own local chat model:
async calls, stop strings, ignored options, echoed prompts, missing metadata, agent histories.
"""

import asyncio
import pickle
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.documents import Document
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.content import create_plaintext_block, create_text_block
from langchain_core.runnables import ConfigurableField

import finch_integrations.langchain as langchain_package
from finch_integrations import (
    CompressionConfig,
    ConfigurationError,
    ContextTooLongError,
    FinchEngine,
    FinchError,
    InvalidInputError,
    SamplingParams,
    UnsupportedModelError,
)
from finch_integrations.engine.generate import join_responses
from finch_integrations.langchain import ChatFinch, format_docs
from finch_integrations.pipeline.shared_engine import SharedEngine
from tests.tiny import DYNAMIC, make_model, make_tokenizer, text_of

Q = "Where is it?"
TEXTS = [text_of(150, seed=1), text_of(120, seed=2)]


@pytest.fixture
def forwards(model):
    lengths = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return lengths


@pytest.fixture
def slow(model, forwards):
    """Slows every forward down, and counts them."""
    model.register_forward_pre_hook(lambda *_: time.sleep(0.01))
    return forwards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def finch(message):
    return message.response_metadata["finch"]


# The answer and its metadata


def test_the_text_is_the_engines_new_text_only(chat, engine):
    message = chat.invoke([SystemMessage("Be brief."), HumanMessage(Q)])
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": Q}]
    expected = join_responses(engine.chat(turns, max_tokens=8))
    assert message.content == expected.text
    assert message.usage_metadata == {
        "input_tokens": expected.prompt_tokens,
        "output_tokens": 8,
        "total_tokens": expected.prompt_tokens + 8,
    }
    metadata = message.response_metadata
    assert metadata["model_name"] == "LlamaForCausalLM"
    assert metadata["model_provider"] == "finch"
    assert metadata["finish_reason"] == "length"


def test_statistics_and_scores_of_documents_are_reported(chat, engine):
    documents = [Document(TEXTS[0], id="a", metadata={"title": "T"}), Document(TEXTS[1])]
    message = chat.invoke(Q, documents=documents)
    statistics = finch(message)
    context = engine.compress(
        [{"text": TEXTS[0], "id": "a", "title": "T"}, {"text": TEXTS[1]}], Q, target_size=60
    )
    assert message.usage_metadata["input_tokens"] == context.prompt_tokens
    assert statistics["documents_from"] == "kwarg"
    assert statistics["documents"] == 2
    assert statistics["document_tokens"] == context.stats.document_tokens
    assert statistics["kept_tokens"] == 60
    assert statistics["compression_ratio"] == context.stats.compression_ratio
    scores = statistics["document_scores"]
    assert [(s["document_id"], s["title"]) for s in scores] == [("a", "T"), ("doc-2", None)]
    assert [s["kept_tokens"] for s in scores] == [d.kept_tokens for d in context.documents]
    assert sum(s["kept_tokens"] for s in scores) == pytest.approx(60)


def test_usage_is_collected_by_langchains_callback(chat):
    with get_usage_metadata_callback() as usage:
        message = chat.invoke(Q)
    assert usage.usage_metadata == {"LlamaForCausalLM": dict(message.usage_metadata)}


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_stream_and_invoke_say_the_same(engine, version):
    chat = ChatFinch(engine=engine, output_version=version, max_tokens=30, seed=4, temperature=1.0)
    whole = chat.invoke(Q, documents=TEXTS)
    chunks = list(chat.stream(Q, documents=TEXTS))
    assert len(chunks) > 5
    joined = sum(chunks[1:], chunks[0])
    assert isinstance(joined, AIMessageChunk)
    assert joined.text == whole.text
    assert len(joined.content_blocks) == len(whole.content_blocks) == 1
    assert joined.usage_metadata == whole.usage_metadata
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    without_times = lambda m: {k: v for k, v in finch(m).items() if not k.endswith("_s")}  # noqa: E731
    assert without_times(joined) == without_times(whole)


async def test_async_and_sync_say_the_same(chat):
    text = chat.invoke(Q, documents=TEXTS).text
    assert (await chat.ainvoke(Q, documents=TEXTS)).text == text
    assert "".join([c.text async for c in chat.astream(Q, documents=TEXTS)]) == text


def test_stop_strings_end_the_answer_and_are_left_out(engine):
    chat = ChatFinch(engine=engine, max_tokens=60, temperature=1.0, seed=3)
    text = chat.invoke(Q).text
    stop = text[20:23]
    assert len(stop) == 3
    chunks = list(chat.stream(Q, stop=[stop]))
    for message in (
        chat.invoke(Q, stop=[stop]),
        ChatFinch(engine=engine, max_tokens=60, temperature=1.0, seed=3, stop=[stop]).invoke(Q),
        sum(chunks[1:], chunks[0]),
    ):
        assert message.text == text[: text.find(stop)]
        assert message.response_metadata["finish_reason"] == "stop"


def test_a_calls_stop_strings_replace_the_models(engine):
    chat = ChatFinch(engine=engine, max_tokens=60, temperature=1.0, seed=3)
    text = chat.invoke(Q).text
    chat.stop = [text[5:8]]
    assert chat.invoke(Q, stop=["never said"]).text == text


def test_callbacks_see_every_token(chat):
    class Tokens(BaseCallbackHandler):
        def __init__(self):
            self.texts = []

        def on_llm_new_token(self, token, **kwargs):
            self.texts.append(token)

    tokens = Tokens()
    chunks = list(chat.stream(Q, config={"callbacks": [tokens]}))
    assert tokens.texts == [chunk.content for chunk in chunks]


# Options


def test_options_reach_the_engine(engine):
    chat = ChatFinch(
        engine=engine,
        max_tokens=20,
        temperature=0.7,
        top_p=0.9,
        top_k=20,
        seed=5,
        target_size=70,
        compression={"method": "finch", "chunk_length": 40, "pooling": "max"},
        instruction="Please say:",
    )
    message = chat.invoke(Q, documents=TEXTS)
    compression = {"method": "finch", "target_size": 70, "chunk_length": 40, "pooling": "max"}
    context = engine.compress(TEXTS, Q, instruction="Please say:", **compression)
    sampling = {"max_tokens": 20, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "seed": 5}
    assert message.text == engine.generate(context, **sampling).text


def test_options_of_a_call_come_before_the_models(chat, engine):
    message = chat.invoke(
        Q, documents=TEXTS, max_tokens=20, temperature=0.7, seed=5, compression_ratio=0.5
    )
    context = engine.compress(TEXTS, Q, compression_ratio=0.5)
    expected = engine.generate(context, max_tokens=20, temperature=0.7, seed=5)
    assert message.text == expected.text
    bound = chat.bind(max_new_tokens=3)
    assert bound.invoke(Q).usage_metadata["output_tokens"] == 3


def test_a_ready_engines_defaults_hold(model, tokenizer):
    engine = FinchEngine(
        model,
        tokenizer,
        compression=CompressionConfig(target_size=33),
        sampling=SamplingParams(max_tokens=4),
    )
    message = ChatFinch(engine=engine).invoke(Q, documents=TEXTS)
    assert finch(message)["kept_tokens"] == 33
    assert message.usage_metadata["output_tokens"] == 4


def test_template_variables_reach_the_template(model):
    engine = FinchEngine(model, make_tokenizer("{{ mood }} {{ messages[0]['content'] }}"))
    calm = ChatFinch(engine=engine, chat_template_kwargs={"mood": "calm"}, max_tokens=1)
    tokens = lambda message: message.usage_metadata["input_tokens"]  # noqa: E731
    assert tokens(calm.invoke("Hi")) == len("calm Hi")
    assert tokens(calm.invoke("Hi", chat_template_kwargs={"mood": "x"})) == len("x Hi")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temprature": 1}, "no option 'temprature'; known: "),
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"max_tokens": 0}, "max_tokens must be a whole number"),
        ({"max_tokens": 5, "max_new_tokens": 5}, "another name of max_tokens"),
        ({"target_size": 5, "compression_ratio": 0.5}, "give one budget"),
        ({"compression": {"pooling": "x"}}, "pooling must be one of"),
        ({"compression": {"polling": "max"}}, "did you mean 'pooling'"),
        ({"compression": {"target_size": 5}}, "give target_size directly"),
        ({"context_patterns": [re.compile("x")]}, "no group named 'context'"),
        ({"model": 5}, "model must be a name"),
        ({"tokenizer": object()}, "Leave the tokenizer out"),
    ],
)
def test_wrong_constructor_options_are_named(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        ChatFinch(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temprature": 1}, "a call takes no option 'temprature'; known: "),
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"stop": [""]}, "stop must hold non-empty strings"),
        ({"target_size": 5, "compression_ratio": 0.5}, "give one budget"),
        ({"context_detection": "maybe"}, "one of auto, marked, off, got 'maybe'"),
        ({"model": 5}, "must name a model, got int"),
    ],
)
def test_wrong_options_of_a_call_are_named(chat, options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        chat.invoke(Q, **options)


def test_what_hosted_models_take_is_accepted(folder):
    ChatFinch(model=str(folder), api_key="secret", timeout=60, max_retries=2)


@pytest.mark.parametrize(
    "use",
    [
        lambda chat: chat.bind_tools([]),
        lambda chat: chat.with_structured_output(dict),
        lambda chat: chat.invoke(Q, tools=[{"name": "x"}]),
        lambda chat: chat.invoke(Q, response_format={"type": "json_schema"}),
    ],
)
def test_tools_and_schemas_say_what_to_do_instead(chat, use):
    with pytest.raises(NotImplementedError, match="FinchDocumentsMiddleware"):
        use(chat)


# Documents


@pytest.mark.parametrize(
    "documents",
    [
        [Document(text) for text in TEXTS],
        TEXTS,
        tuple(TEXTS),
        [{"text": text} for text in TEXTS],
        [{"page_content": text, "metadata": {"page": 1}} for text in TEXTS],
    ],
)
def test_documents_of_every_kind_are_taken(chat, answer, documents):
    expected = answer(TEXTS, Q)
    assert chat.invoke(Q, documents=documents).text == expected
    assert chat.bind(documents=documents).invoke(Q).text == expected
    assert [m.text for m in chat.batch([Q, Q], documents=documents)] == [expected] * 2
    message = HumanMessage(Q, additional_kwargs={"documents": documents})
    beside = chat.invoke([message])
    assert beside.text == expected
    assert finch(beside)["documents_from"] == "message"


BLOCKS = {
    "text-plain": lambda text: create_plaintext_block(text=text, title="T", source="x.md"),
    "document, text": lambda text: {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": text},
        "title": "T",
    },
    "document, content": lambda text: {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "text", "text": text}]},
        "title": "T",
    },
    "search_result": lambda text: {
        "type": "search_result",
        "title": "T",
        "source": "x.md",
        "content": [{"type": "text", "text": text}],
        "citations": {"enabled": True},
    },
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_documents_in_content_blocks_are_taken(chat, answer, kind):
    blocks = [BLOCKS[kind](text) for text in TEXTS]
    message = chat.invoke([HumanMessage([*blocks, create_text_block(Q)])])
    assert message.text == answer([{"text": text, "title": "T"} for text in TEXTS], Q)
    assert finch(message)["documents_from"] == "blocks"
    named = "x.md" in str(blocks)
    expected = ["x.md", "x.md#2"] if named else ["doc-1", "doc-2"]
    assert [s["document_id"] for s in finch(message)["document_scores"]] == expected


def test_documents_without_id_are_called_by_their_source(chat):
    metadata = [{"source": "lab.md"}, {}, {"source": "lab.md"}, {"source": ""}, {"source": "b"}]
    documents = [Document(TEXTS[0], metadata=given) for given in metadata]
    documents[-1].id = "an id of its own"
    message = chat.invoke(Q, documents=documents)
    names = ["lab.md", "doc-2", "lab.md#2", "doc-4", "an id of its own"]
    assert [s["document_id"] for s in finch(message)["document_scores"]] == names
    marked = chat.invoke(f"{format_docs(documents)}\n\n{Q}")
    assert [s["document_id"] for s in finch(marked)["document_scores"]] == names


def test_search_results_of_a_tool_are_taken(chat, answer):
    call = {"name": "search", "args": {}, "id": "1", "type": "tool_call"}
    history = [HumanMessage(Q), AIMessage("", tool_calls=[call])]
    result = ToolMessage([BLOCKS["search_result"](text) for text in TEXTS], tool_call_id="1")
    message = chat.invoke([*history, result])
    assert message.text == answer([{"text": text, "title": "T"} for text in TEXTS], Q)


def test_repeated_ids_are_numbered(chat):
    documents = [Document(text, id="a") for text in TEXTS] + [Document("x", id="a#2")]
    scores = finch(chat.invoke(Q, documents=documents))["document_scores"]
    assert [score["document_id"] for score in scores] == ["a", "a#3", "a#2"]


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([], "documents is an empty list. Leave it out"),
        ("text", "documents must be a list of documents, got str"),
        (Document("text"), "must be a list of documents, got Document"),
        ([5], r"documents\[0\] must be a Document, a string or a mapping, got int"),
        ([{"body": "x"}], r"documents\[0\] must have the key 'text' or 'page_content'.*'body'"),
        ([{"text": "x", "page_content": "y"}], "must have the key"),
        ([{"text": "x", "author": "y"}], "got the keys 'text', 'author'"),
        (["  "], "document 'doc-1' is empty"),
        ([{"text": 5}], "must be a string, got int"),
    ],
)
def test_unusable_documents_are_named(chat, documents, reason):
    with pytest.raises(InvalidInputError, match=reason):
        chat.invoke(Q, documents=documents)


def test_documents_given_twice_are_an_error(chat):
    message = HumanMessage(Q, additional_kwargs={"documents": TEXTS})
    with pytest.raises(InvalidInputError, match="given twice"):
        chat.invoke([message], documents=TEXTS)
    blocks = HumanMessage([BLOCKS["text-plain"]("x"), create_text_block(Q)])
    with pytest.raises(InvalidInputError, match="given twice"):
        chat.invoke([blocks], documents=TEXTS)


def test_strict_and_detection_can_be_set_per_call(chat):
    prompt = f"Context: {TEXTS[0]}\nQuestion: {Q}"
    assert finch(chat.invoke(prompt))["documents_from"] == "pattern"
    assert finch(chat.invoke(prompt, context_detection="off"))["documents_from"] == "none"
    with pytest.raises(InvalidInputError, match="strict is on"):
        chat.invoke(prompt, strict=True)


# Messages


def tokens(chat, messages):
    return chat.invoke(messages, max_tokens=1).usage_metadata["input_tokens"]


def rendered(*turns):
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return len(make_tokenizer()(text + "<|im_start|>assistant\n").input_ids)


CALLS = [{"name": "add", "args": {"a": 1}, "id": "1", "type": "tool_call"}]
WRITTEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([HumanMessage(["Hel", {"type": "text", "text": "lo"}])], [("user", "Hel\nlo")]),
        ([HumanMessage("Hello", name="ann")], [("user", "ann: Hello")]),
        ([HumanMessage("A"), AIMessage("B")], [("user", "A"), ("assistant", "B")]),
        ([HumanMessage("A"), HumanMessage("B")], [("user", "A"), ("user", "B")]),
        ([ChatMessage("A", role="user")], [("user", "A")]),
        ([ChatMessage("A", role="developer"), HumanMessage("B")], [("system", "A"), ("user", "B")]),
        ([HumanMessage("A"), AIMessage("")], [("user", "A")]),
        (
            [
                HumanMessage("A"),
                AIMessage([{"type": "thinking", "thinking": "x"}, "B"], tool_calls=CALLS),
                ToolMessage("3", tool_call_id="1", name="add"),
            ],
            [
                ("user", "A"),
                ("assistant", f"B\n{WRITTEN}"),
                ("user", "Result of the tool add:\n3"),
            ],
        ),
        (
            [
                HumanMessage("A"),
                AIMessage("", tool_calls=CALLS),
                ToolMessage("bad", tool_call_id="1", status="error"),
                AIMessage("Sorry."),
                HumanMessage("B"),
            ],
            [
                ("user", "A"),
                ("assistant", WRITTEN),
                ("user", "Error of the tool:\nbad"),
                ("assistant", "Sorry."),
                ("user", "B"),
            ],
        ),
    ],
)
def test_messages_in_any_order_reach_the_template(chat, messages, turns):
    assert tokens(chat, messages) == rendered(*turns)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])], "'image_url', which"),
        ([HumanMessage([{"type": "file", "file_id": "x"}])], "a text model cannot read"),
        (
            [HumanMessage([{"type": "document", "source": {"type": "url", "url": "x"}}, "Q"])],
            "document block without text",
        ),
        ([ChatMessage("A", role="judge")], "has the role 'judge'. Use one of"),
        ([HumanMessage("")], "message 1 of the chat is empty"),
        ([SystemMessage("A"), HumanMessage("  ")], "message 2 of the chat is empty"),
        ([HumanMessage("a\x00b")], "NUL character"),
    ],
)
def test_unusable_messages_are_named(chat, messages, reason):
    with pytest.raises(InvalidInputError, match=reason):
        chat.invoke(messages)


def test_too_long_messages_are_an_error_not_cut(chat):
    with pytest.raises(ContextTooLongError, match="window of 2048 tokens"):
        chat.invoke(text_of(2100))


# Streaming, cancelling, concurrency


def test_tokens_arrive_while_the_model_works(chat, slow):
    seen = []
    for _ in chat.stream(Q, max_tokens=30):
        seen.append(len(slow))
    assert seen[0] < 15
    assert len(slow) == 30


def settled(slow):
    """Wait until no forward is added any more; return their number."""
    count = -1
    while count != len(slow):
        count = len(slow)
        time.sleep(0.1)
    return count


def test_breaking_out_of_a_stream_stops_the_decoding(chat, slow):
    for _ in chat.stream(Q, max_tokens=1000):
        break
    begun = len(slow)
    assert settled(slow) <= begun + 1


@pytest.mark.parametrize("how", ["break", "aclose", "cancel ainvoke", "cancel astream"])
async def test_async_cancelling_stops_the_decoding(chat, slow, how):
    if how == "break":
        async for _ in chat.astream(Q, max_tokens=1000):
            break
        await asyncio.sleep(0.05)  # the event loop closes what was left
    elif how == "aclose":
        stream = chat.astream(Q, max_tokens=1000)
        await anext(stream)
        await stream.aclose()
    else:

        async def read():
            async for _ in chat.astream(Q, max_tokens=1000):
                pass

        reading = read() if "astream" in how else chat.ainvoke(Q, max_tokens=1000)
        task = asyncio.create_task(reading)
        while not slow:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    begun = len(slow)
    assert await asyncio.to_thread(settled, slow) <= begun + 1


async def test_cancelling_stops_a_compression(chat, slow):
    options = {"documents": [text_of(1500)], "chunk_length": 10}
    task = asyncio.create_task(chat.ainvoke(Q, **options))
    while len(slow) < 5:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    begun = len(slow)
    assert await asyncio.to_thread(settled, slow) <= begun + 2  # a chunk and its question


async def test_the_event_loop_is_never_blocked(chat, slow):
    beats = 0

    async def heart():
        nonlocal beats
        while True:
            await asyncio.sleep(0.005)
            beats += 1

    beating = asyncio.create_task(heart())
    await chat.ainvoke(Q, max_tokens=20)
    beating.cancel()
    assert beats > 15


async def test_concurrent_calls_do_not_disturb_each_other(chat):
    questions = [f"What is {number}?" for number in range(5)]
    alone = [chat.invoke(question, documents=TEXTS).text for question in questions]
    assert len(set(alone)) > 1
    together = await asyncio.gather(*(chat.ainvoke(q, documents=TEXTS) for q in questions))
    assert [message.text for message in together] == alone
    assert [message.text for message in chat.batch(questions, documents=TEXTS)] == alone


def test_streams_can_be_read_in_turns(chat):
    streams = [chat.stream(Q, seed=seed, temperature=1.0) for seed in (1, 2)]
    alone = [chat.invoke(Q, seed=seed, temperature=1.0).text for seed in (1, 2)]
    read = ["", ""]
    for chunks in zip(*streams, strict=False):
        for number, chunk in enumerate(chunks):
            read[number] += chunk.text
    for number, stream in enumerate(streams):
        read[number] += "".join(chunk.text for chunk in stream)
        assert alone[number].startswith(read[number])
        assert read[number]


async def test_errors_in_the_worker_reach_the_caller(chat, model):
    class Broken(Exception):
        pass

    def fail(*_):
        raise Broken

    hook = model.register_forward_pre_hook(fail)
    with pytest.raises(Broken):
        chat.invoke(Q)
    with pytest.raises(Broken):
        await chat.ainvoke(Q)
    hook.remove()
    assert chat.invoke(Q).text


# Loading and sharing


def test_constructing_loads_nothing_and_models_of_a_process_share(folder):
    first, second = ChatFinch(model=folder, max_tokens=3), ChatFinch(model=str(folder))
    assert not first.handle.loaded
    assert first.warm_up().invoke(Q).text
    assert second.handle.engine is first.handle.engine
    first.close()
    assert not second.handle.loaded
    assert second.invoke(Q, max_tokens=3).text
    second.close()


def test_configurable_models_do_not_load_again(folder):
    chat = ChatFinch(model=folder, max_tokens=3).configurable_fields(
        temperature=ConfigurableField(id="temperature")
    )
    chat.invoke(Q)
    engine = ChatFinch(model=folder).handle.engine
    chat.with_config(configurable={"temperature": 0.5}).invoke(Q)
    assert ChatFinch(model=folder).handle.engine is engine
    engine_of_another = ChatFinch(model=folder, dtype="float64")
    assert not engine_of_another.handle.loaded
    ChatFinch(model=folder).close()


def test_a_configurable_model_that_was_given_stays_it(chat, engine):
    configurable = chat.configurable_fields(max_tokens=ConfigurableField(id="length"))
    message = configurable.with_config(configurable={"length": 3}).invoke(Q)
    assert message.usage_metadata["output_tokens"] == 3
    assert message.response_metadata["model_name"] == chat.model


def test_copies_and_pickles_carry_no_weights(folder, chat):
    named = ChatFinch(model=folder, max_tokens=3)
    copy = pickle.loads(pickle.dumps(named))
    assert copy == named
    assert named.model_copy(deep=True).handle == named.handle
    assert not copy.handle.loaded
    assert chat.model_copy(deep=True).handle.engine is chat.handle.engine
    with pytest.raises(FinchError, match="cannot be pickled"):
        pickle.dumps(chat)


def test_another_model_can_be_set_where_none_was_given(folder, chat):
    named = ChatFinch(model="embedded", max_tokens=3)
    copy = named.model_copy(update={"model": str(folder), "dtype": "float64"})
    named.model = str(folder)
    for other in (named, copy):
        assert other.invoke(Q).response_metadata["model_name"] == str(folder)
        assert repr(str(folder)) in other._identifying_params["identity"]
    assert copy.handle.engine is not named.handle.engine
    for other in (named, copy):
        other.close()
    with pytest.raises(ConfigurationError, match="two models are given: 'other' and"):
        chat.model_copy(update={"model": "other"}).invoke(Q)
    chat.model = "other"
    with pytest.raises(ConfigurationError, match="two models are given: 'other' and"):
        chat.invoke(Q)


def test_a_loaded_model_is_taken_with_its_tokenizer(model, tokenizer, chat):
    own = ChatFinch(model=model, tokenizer=tokenizer, max_tokens=8)
    assert own.model == "LlamaForCausalLM"
    assert own.invoke(Q).text == chat.invoke(Q).text
    with pytest.raises(ConfigurationError, match="needs its tokenizer"):
        ChatFinch(model=model)
    with pytest.raises(ConfigurationError, match="device cannot be applied"):
        ChatFinch(model=model, tokenizer=tokenizer, device="cpu")
    with pytest.raises(ConfigurationError, match="two models are given: 'embedded' and"):
        ChatFinch(model="embedded", engine=FinchEngine(model, tokenizer))
    with pytest.raises(ConfigurationError, match="given twice"):
        ChatFinch(model=model, engine=FinchEngine(model, tokenizer))


def test_unsupported_models_are_refused_when_given(tokenizer):
    with pytest.raises(UnsupportedModelError):
        ChatFinch(model=make_model(rope=DYNAMIC), tokenizer=tokenizer)


def test_a_call_can_name_another_model(folder, chat):
    message = chat.invoke(Q, model=str(folder))
    assert message.response_metadata["model_name"] == str(folder)
    assert message.text == chat.invoke(Q).text  # the same weights
    ChatFinch(model=folder).close()


def test_loading_in_one_call_makes_another_wait(folder):
    chats = [ChatFinch(model=folder, max_tokens=3) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        texts = set(pool.map(lambda chat: chat.invoke(Q).text, chats))
    assert len(texts) == 1
    chats[0].close()


# What LangChain asks about the model


def test_tokens_are_counted_with_the_models_own_tokenizer(chat):
    assert chat.get_token_ids("né<|im_end|>") == make_tokenizer()("né<|im_end|>").input_ids
    assert chat.get_num_tokens("né<|im_end|>") == 4
    messages = [SystemMessage("Be brief."), HumanMessage(Q)]
    assert chat.get_num_tokens_from_messages(messages) == tokens(chat, messages)


@pytest.mark.parametrize("text", [Q, ""])
def test_tokens_of_documents_inside_messages_are_counted(chat, text):
    document = chat.get_num_tokens(TEXTS[0])
    rest = tokens(chat, [HumanMessage(text)]) if text else 0
    beside = HumanMessage(text, additional_kwargs={"documents": [Document(TEXTS[0])]})
    assert chat.get_num_tokens_from_messages([beside]) == rest + document
    texts = [create_text_block(text)] if text else []
    block = HumanMessage([create_plaintext_block(TEXTS[0]), *texts])
    assert chat.get_num_tokens_from_messages([block]) == rest + document


def test_tracing_names_the_model_and_leaves_the_documents_out(chat):
    started = []

    class Tracer(BaseCallbackHandler):
        def on_chat_model_start(self, serialized, messages, **kwargs):
            started.append(repr((serialized, kwargs)))

    chat.invoke(Q, documents=TEXTS, config={"callbacks": [Tracer()]})
    list(chat.stream(Q, documents=TEXTS, config={"callbacks": [Tracer()]}))
    assert len(started) == 2
    for text in started:
        assert "<2 documents>" in text
        assert TEXTS[0] not in text
        assert "LlamaForCausalLM" in text
    params = chat._get_ls_params(temperature=0.3, stop=["x"])
    assert params == {
        "ls_provider": "finch",
        "ls_model_type": "chat",
        "ls_model_name": "LlamaForCausalLM",
        "ls_temperature": 0.3,
        "ls_max_tokens": 8,
        "ls_stop": ["x"],
    }


def test_a_global_cache_keeps_models_options_and_documents_apart(engine, forwards):
    cache = InMemoryCache()
    chat = ChatFinch(engine=engine, cache=cache, max_tokens=4)
    asked = [
        lambda: chat.invoke(Q),
        lambda: chat.invoke(Q, documents=TEXTS),
        lambda: chat.invoke(Q, documents=TEXTS[:1]),
        lambda: chat.invoke(Q, temperature=1.0, seed=1),
        lambda: ChatFinch(engine=engine, cache=cache, max_tokens=5).invoke(Q),
        lambda: ChatFinch(
            engine=FinchEngine(make_model(num_hidden_layers=3), make_tokenizer()),
            cache=cache,
            max_tokens=4,
        ).invoke(Q),
    ]
    texts = [ask().text for ask in asked]
    assert len(cache._cache) == len(asked)
    begun = len(forwards)
    assert [ask().text for ask in asked] == texts
    assert len(forwards) == begun


def test_secrets_stay_out_of_traces_and_cache_keys():
    chat = ChatFinch(model="some/model", model_kwargs={"token": "hf_secret", "x": 1})
    params = repr(chat._get_invocation_params())
    assert "hf_secret" not in params + repr(chat._get_ls_params()) + chat._get_llm_string()
    assert "('x', 1)" in params
    assert "hf_secret" not in repr(chat) + repr(dumpd(chat))


def test_an_engine_handle_by_name_is_taken_and_not_loaded(folder):
    handle = SharedEngine(folder, dtype="float64")
    chat = ChatFinch(engine=handle)
    assert chat._identifying_params != ChatFinch(model=folder)._identifying_params
    assert "max_input_tokens" not in chat.profile
    assert not handle.loaded


def test_the_profile_is_truthful(chat, folder):
    assert chat.profile["max_input_tokens"] == 2048
    assert not chat.profile["tool_calling"]
    assert not chat.profile["structured_output"]
    named = ChatFinch(model=folder)
    assert "max_input_tokens" not in named.profile  # not known without loading
    assert not named.handle.loaded


def test_versions_are_recorded(chat):
    assert chat.metadata["lc_versions"]["finch-integrations"]


# The package


def test_the_public_names_are_sorted_and_there():
    assert langchain_package.__all__ == sorted(langchain_package.__all__)
    for name in langchain_package.__all__:
        assert getattr(langchain_package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'ChatFlinch'"):
        _ = langchain_package.ChatFlinch


@pytest.mark.parametrize(
    ("missing", "name", "install"),
    [
        ("langchain_core", "ChatFinch", 'pip install "finch-integrations[langchain]"'),
        ("langchain", "FinchDocumentsMiddleware", "pip install langchain"),
    ],
)
def test_a_missing_package_is_named_with_its_command(missing, name, install):
    code = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "import finch_integrations.langchain\n"
        f"from finch_integrations.langchain import {name}\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"MissingExtraError: {name} needs the package {missing}" in output.stderr
    assert output.stderr.strip().endswith(install)


def test_the_dtype_is_chosen_by_the_device_unless_given():
    assert ChatFinch().dtype == "auto"


def test_constructing_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from finch_integrations.langchain import ChatFinch\n"
        "ChatFinch(target_size=2048)\n"
        "print(sorted({'torch', 'transformers', 'langchain'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (output.stdout.strip(), output.stderr) == ("[]", "")


def test_an_interrupt_reaches_a_waiting_caller(folder):
    code = (
        "import _thread, signal, threading\n"
        # Of a shell's background job interrupts are ignored, and its children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from finch_integrations.langchain import ChatFinch\n"
        f"chat = ChatFinch(model={str(folder)!r}, max_tokens=100_000).warm_up()\n"
        "threading.Timer(0.3, _thread.interrupt_main).start()\n"
        "try:\n"
        "    while True:\n"
        "        chat.invoke('Hi')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (output.returncode, output.stdout.strip()) == (0, "interrupted"), output.stderr


def test_the_worker_ends_with_the_process(folder):
    code = (
        "from finch_integrations.langchain import ChatFinch\n"
        f"stream = ChatFinch(model={str(folder)!r}, max_tokens=100_000).stream('Hi')\n"
        "print(len([next(stream) for _ in range(3)]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (output.returncode, output.stdout.strip()) == (0, "3"), output.stderr
