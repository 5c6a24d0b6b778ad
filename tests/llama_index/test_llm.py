"""FinchLLM itself; first of all what goes wrong in LlamaIndex's own local LLM, one by one."""

import asyncio
import copy
import gc
import json
import pickle
import re
import subprocess
import sys
import time
import weakref

import pytest
import torch
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitableBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import NodeWithScore, TextNode

import finch_integrations.llama_index as package
from finch_integrations import (
    CompressionConfig,
    ConfigurationError,
    ContextTooLongError,
    Document,
    DocumentShare,
    FinchEngine,
    FinchError,
    InvalidInputError,
    SamplingParams,
    UnsupportedModelError,
)
from finch_integrations.engine.generate import join_responses
from finch_integrations.llama_index import FinchLLM
from finch_integrations.llama_index.call import Call
from finch_integrations.llama_index.documents import as_documents
from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece, AskRequest
from finch_integrations.pipeline.shared_engine import SharedEngine
from tests.llama_index.conftest import say, tiny_engine
from tests.llama_index.contract import CHAT, COMPLETE, collect
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


def argument(method, text=Q):
    return [say(text)] if "chat" in method else text


def usage(response):
    return response.raw["usage"]


# What goes wrong in HuggingFaceLLM


@pytest.mark.parametrize("method", [m for m in CHAT + COMPLETE if m.startswith("a")])
async def test_async_calls_do_not_block_the_event_loop(llm, slow, method):
    beats = 0

    async def heart():
        nonlocal beats
        while True:
            await asyncio.sleep(0.005)
            beats += 1

    beating = asyncio.create_task(heart())
    await collect(llm, method, argument(method), max_tokens=20)
    beating.cancel()
    assert beats > 15


class Broken(Exception):
    pass


@pytest.mark.parametrize("method", CHAT + COMPLETE)
async def test_an_error_while_generating_reaches_the_reader(llm, model, forwards, method):
    def fail(*_):
        if len(forwards) > 3:
            raise Broken

    model.register_forward_pre_hook(fail)
    with pytest.raises(Broken):
        await asyncio.wait_for(collect(llm, method, argument(method)), timeout=20)


def settled(slow):
    """Wait until no forward is added any more; return their number."""
    count = -1
    while count != len(slow):
        count = len(slow)
        time.sleep(0.1)
    return count


@pytest.mark.parametrize("method", ["stream_chat", "stream_complete"])
def test_leaving_a_stream_stops_the_decoding(llm, slow, method):
    for _ in getattr(llm, method)(argument(method), max_tokens=1000):
        break
    begun = len(slow)
    assert settled(slow) <= begun + 1


@pytest.mark.parametrize("method", ["astream_chat", "astream_complete"])
@pytest.mark.parametrize("how", ["break", "aclose", "cancel"])
async def test_leaving_an_async_stream_stops_the_decoding(llm, slow, method, how):
    async def read():
        stream = await getattr(llm, method)(argument(method), max_tokens=1000)
        async for _ in stream:
            if how == "break":
                break
            if how == "aclose":
                await stream.aclose()
                break

    task = asyncio.create_task(read())
    if how == "cancel":
        while not slow:
            await asyncio.sleep(0.005)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.05)  # the event loop closes what was left
    begun = len(slow)
    assert await asyncio.to_thread(settled, slow) <= begun + 1


@pytest.mark.parametrize("method", ["achat", "acomplete"])
async def test_cancelling_a_call_stops_a_compression(llm, slow, method):
    options = {"documents": [text_of(1500)], "compression_ratio": 0.9, "chunk_length": 10}
    call = getattr(llm, method)(argument(method), **options)
    task = asyncio.create_task(call)
    while len(slow) < 5:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    begun = len(slow)
    assert await asyncio.to_thread(settled, slow) <= begun + 2  # a chunk and its question


@pytest.mark.parametrize("method", CHAT + COMPLETE)
async def test_options_of_a_call_reach_the_engine(llm, engine, method):
    options = {"temperature": 0.7, "seed": 5, "top_p": 0.9, "top_k": 20}
    response = (await collect(llm, method, argument(method), max_new_tokens=20, **options))[-1]
    turns = [{"role": "user", "content": Q}]
    expected = join_responses(engine.chat(turns, max_tokens=20, **options)).text
    assert (response.message.content if "chat" in method else response.text) == expected


@pytest.mark.parametrize("method", COMPLETE)
@pytest.mark.parametrize("formatted", [False, True])
async def test_all_completions_render_the_prompt_alike(llm, engine, method, formatted):
    response = (await collect(llm, method, Q, formatted=formatted))[-1]
    expected = join_responses(engine.chat([{"role": "user", "content": Q}], max_tokens=8))
    assert response.text == expected.text
    assert usage(response)["prompt_tokens"] == expected.prompt_tokens


@pytest.mark.parametrize("name", ["messages_to_prompt", "completion_to_prompt"])
def test_own_ways_to_render_a_prompt_are_refused_not_ignored(engine, name):
    with pytest.raises(ConfigurationError, match="model's own chat template. Leave"):
        FinchLLM(engine=engine, **{name: lambda x: "<s>" + str(x)})
    with pytest.raises(ConfigurationError, match="query_wrapper_prompt"):
        FinchLLM(engine=engine, query_wrapper_prompt=PromptTemplate("{query_str}"))


def test_a_prompt_has_one_bos(model):
    tokenizer = make_tokenizer("{{ bos_token }}" + make_tokenizer().chat_template)
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    tokenizer.add_bos_token = True
    seen = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"][0].tolist()), with_kwargs=True
    )
    FinchLLM(model=model, tokenizer=tokenizer, max_tokens=1).chat([say(Q)])
    bos = tokenizer.bos_token_id
    # The BOS, and the template's own marks before the two turns.
    assert seen[0][:2] == [bos, bos]
    assert seen[0].count(bos) == 3


STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}[{{ m['role'] }}] {{ m['content'] }}\n"
    "{% endfor %}"
)


def test_models_without_a_system_role_get_the_system_text(model):
    llm = FinchLLM(model=model, tokenizer=make_tokenizer(STRICT), max_tokens=2)
    response = llm.chat([say("Be brief.", "system"), say(Q)])
    assert usage(response)["prompt_tokens"] == len(f"[user] Be brief.\n\n{Q}\n")


def test_the_models_own_window_counts_whatever_is_reported(llm, model):
    assert llm.metadata.context_window == 1_000_000
    window = model.config.max_position_embeddings
    with pytest.raises(ContextTooLongError, match=f"window of {window} tokens"):
        llm.complete(text_of(window + 50))
    assert llm.complete(text_of(window - 100)).text


def test_stop_strings_end_the_answer_and_are_left_out(engine):
    llm = FinchLLM(engine=engine, max_tokens=60, temperature=1.0, seed=3)
    text = llm.complete(Q).text
    stop = text[20:23]
    assert len(stop) == 3
    responses = list(llm.stream_complete(Q, stop=[stop]))
    always = FinchLLM(engine=engine, max_tokens=60, temperature=1.0, seed=3, stop=[stop])
    for response in (llm.complete(Q, stop=stop), always.complete(Q), responses[-1]):
        assert response.text == text[: text.find(stop)]
        assert response.raw["finish_reason"] == "stop"


def test_responses_keep_no_tensor_alive(llm):
    def tensors():
        gc.collect()
        return sum(type(item) is torch.Tensor for item in gc.get_objects())

    llm.complete(Q, documents=TEXTS)
    before = tensors()
    responses = [llm.complete(Q, documents=TEXTS) for _ in range(3)]
    assert tensors() <= before
    assert len(responses) == 3


def test_it_is_a_chat_model_and_takes_how_to_load(folder):
    assert FinchLLM().metadata.is_chat_model
    llm = FinchLLM(
        model=folder,
        device="cpu",
        dtype="float64",
        model_kwargs={"attn_implementation": "sdpa"},
        max_tokens=2,
    )
    assert llm.complete(Q).text
    assert llm.handle.engine.backbone.model.dtype == torch.float64
    llm.close()


async def test_concurrent_calls_do_not_disturb_each_other(llm):
    questions = [f"What is {number}?" for number in range(5)]
    alone = [llm.chat([say(q)], documents=TEXTS).message.content for q in questions]
    assert len(set(alone)) > 1
    together = await asyncio.gather(*(llm.achat([say(q)], documents=TEXTS) for q in questions))
    assert [response.message.content for response in together] == alone


def test_tokens_arrive_while_the_model_works(llm, slow):
    seen = [len(slow) for _ in llm.stream_chat([say(Q)], max_tokens=30)]
    assert seen[0] < 15
    assert len(slow) == 30


# Documents

NODES = [TextNode(text=text, id_=f"n{n}") for n, text in enumerate(TEXTS)]


@pytest.mark.parametrize(
    "documents",
    [
        NODES,
        tuple(NODES),
        [NodeWithScore(node=node, score=0.5) for node in NODES],
        [LlamaDocument(text=text) for text in TEXTS],
        [Document(text) for text in TEXTS],
        TEXTS,
        [{"text": text} for text in TEXTS],
    ],
)
@pytest.mark.parametrize("method", CHAT + COMPLETE)
async def test_documents_of_every_kind_are_taken(llm, answer, method, documents):
    response = (await collect(llm, method, argument(method), documents=documents))[-1]
    assert (response.message.content if "chat" in method else response.text) == answer(TEXTS, Q)
    assert response.raw["finch"]["documents_from"] == "kwarg"


def test_nodes_are_shown_as_llama_index_shows_them(llm, answer):
    node = TextNode(
        text=TEXTS[0],
        id_="n",
        metadata={"author": "Ann", "path": "x"},
        excluded_llm_metadata_keys=["path"],
    )
    response = llm.chat([say(Q)], documents=[NodeWithScore(node=node, score=0.5)])
    assert response.message.content == answer([f"author: Ann\n\n{TEXTS[0]}"], Q)
    assert response.raw["finch"]["document_scores"][0]["document_id"] == "n"


def test_citable_blocks_are_documents(llm, answer):
    blocks = [CitableBlock(title="T", source=f"s{n}", content=t) for n, t in enumerate(TEXTS)]
    response = llm.chat([ChatMessage(blocks=[*blocks, TextBlock(text=Q)])])
    assert response.message.content == answer([{"text": t, "title": "T"} for t in TEXTS], Q)
    assert response.raw["finch"]["documents_from"] == "blocks"
    ids = [score["document_id"] for score in response.raw["finch"]["document_scores"]]
    assert ids == ["s0", "s1"]


def citations_of(said, document):
    """What `raw` cites of a document in an answer."""
    details = AnswerDetails(
        text=said,
        finish_reason="stop",
        prompt_tokens=20,
        generation_tokens=9,
        generation_seconds=0.1,
        compression=None,
        document_shares=(DocumentShare(id=document.id, title=None, tokens=10, kept_tokens=5.0),),
    )
    call = Call(SharedEngine("x"), AskRequest(messages=(), documents=(document,)), "kwarg")
    return call.respond(said, AnswerPiece(text=said, details=details)).raw["citations"]


def test_what_an_answer_quotes_is_reported():
    document = Document("The boat leaves at nine! Be early.", id="boat")
    said = "They say the boat leaves at nine."
    assert citations_of(said, document) == [
        {
            "text": "the boat leaves at nine",
            "start": 9,
            "end": 32,
            "document_id": "boat",
            "source_start": 0,
            "source_end": 23,
        }
    ]


SAID = "They say the boat leaves at nine."
CONTENT_FIRST = {"text_template": "{content}\n{metadata_str}", "metadata": {"page": "3"}}


@pytest.mark.parametrize(
    ("node", "said", "cited"),
    [
        ({}, SAID, "The boat leaves at nine"),
        ({"metadata": {"page": "3"}}, SAID, "The boat leaves at nine"),
        (CONTENT_FIRST, SAID, "The boat leaves at nine"),
        ({"metadata": {"title": "boats of the old store"}}, "Boats of the old store.", None),
        ({"metadata": {"title": "boats"}}, "It is: boats the boat leaves.", None),
    ],
)
def test_quotes_of_nodes_have_their_place_in_the_nodes_text(node, said, cited):
    node = TextNode(text="  The boat leaves at nine! Be early. ", id_="n", **node)
    (document,) = as_documents([node], "documents")
    (citation,) = citations_of(said, document)
    if cited is None:
        assert (citation["source_start"], citation["source_end"]) == (None, None)
    else:
        assert node.text[citation["source_start"] : citation["source_end"]] == cited


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([], "documents is an empty list. Leave it out"),
        ("text", "documents must be a list of nodes or documents, got str"),
        (NODES[0], "must be a list of nodes or documents, got TextNode"),
        ([5], r"documents\[0\] must be a node, a Document, a string or a mapping, got int"),
        ([{"body": "x"}], r"documents\[0\] must have the key 'text'.*'body'"),
        (["  "], "document 'doc-1' is empty"),
        ([TextNode(text="", id_="n")], "document 'n' is empty"),
    ],
)
def test_unusable_documents_are_named(llm, documents, reason):
    with pytest.raises(InvalidInputError, match=reason):
        llm.chat([say(Q)], documents=documents)


def test_documents_given_twice_are_an_error(llm):
    block = CitableBlock(title="T", source="s", content="x")
    with pytest.raises(InvalidInputError, match="given twice: 2 handed over and 1 as content"):
        llm.chat([ChatMessage(blocks=[block, TextBlock(text=Q)])], documents=TEXTS)
    messages = llm._get_messages(
        PromptTemplate("{context_str}\n{query_str}"), context_str="x y", query_str=Q
    )
    with pytest.raises(InvalidInputError, match="2 handed over and 1 by the prompt's template"):
        llm.chat(messages, documents=TEXTS)


def test_strict_and_detection_can_be_set_per_call(llm):
    prompt = f"Context: {TEXTS[0]}\nQuestion: {Q}"
    source = lambda **kw: llm.complete(prompt, **kw).raw["finch"]["documents_from"]  # noqa: E731
    assert source() == "pattern"
    assert source(context_detection="marked") == "none"
    with pytest.raises(InvalidInputError, match="strict is on"):
        llm.complete(prompt, strict=True)


def test_own_patterns_and_instruction(engine, answer):
    llm = FinchLLM(
        engine=engine,
        max_tokens=8,
        target_size=60,
        context_patterns=[r"(?s)DOCS(?P<context>.*)ASK(?P<question>.*)"],
        instruction="Say:",
    )
    response = llm.complete(f"DOCS {TEXTS[0]} ASK {Q}")
    assert response.text == answer([TEXTS[0]], Q, system="DOCS\n\nASK", instruction="Say:")


def test_detection_can_be_switched_off(llm):
    prompt = PromptTemplate("{context_str}\nQuestion: {query_str}")
    values = {"context_str": TEXTS[0], "query_str": Q}
    llm.context_detection = "off"
    assert llm.predict(prompt, **values) == llm.complete(prompt.format(**values)).text


# Messages


def tokens(llm, messages):
    return usage(llm.chat(messages, max_tokens=1))["prompt_tokens"]


def rendered(*turns):
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return len(make_tokenizer()(text + "<|im_start|>assistant\n").input_ids)


CALL = ToolCallBlock(tool_name="add", tool_kwargs={"a": 1})
WRITTEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([ChatMessage(blocks=[TextBlock(text="A"), TextBlock(text="B")])], [("user", "A\nB")]),
        (
            [say("A"), say("B", "assistant"), say("C")],
            [("user", "A"), ("assistant", "B"), ("user", "C")],
        ),
        ([say("A", "developer"), say("B")], [("system", "A"), ("user", "B")]),
        (
            [say("A"), say("B", "chatbot"), say("C")],
            [("user", "A"), ("assistant", "B"), ("user", "C")],
        ),
        (
            [
                say("A"),
                ChatMessage(role="assistant", blocks=[ThinkingBlock(content="x"), CALL]),
                ChatMessage("3", role="tool", additional_kwargs={"name": "add"}),
            ],
            [("user", "A"), ("assistant", WRITTEN), ("user", "Result of the tool add:\n3")],
        ),
        (
            [ChatMessage(blocks=[TextBlock(text="A"), CachePoint(cache_control={"type": "x"})])],
            [("user", "A")],
        ),
    ],
)
def test_messages_of_every_kind_reach_the_template(llm, messages, turns):
    assert tokens(llm, messages) == rendered(*turns)


def test_every_role_has_a_place(llm):
    for role in MessageRole:
        assert tokens(llm, [say("Hello."), say("A", role), say(Q)])


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([ChatMessage(blocks=[ImageBlock(url="http://x")])], "ImageBlock, which a text model"),
        ([ChatMessage(blocks=[DocumentBlock(url="http://x")])], "CitableBlock with text for doc"),
        (
            [
                ChatMessage(
                    blocks=[
                        CitableBlock(title="T", source="s", content=[ImageBlock(url="http://x")])
                    ]
                )
            ],
            r"CitableBlock \('T'\) whose content is not only text",
        ),
        ([say("")], "message 1 of the chat is empty"),
        ([say("a\x00b")], "NUL character"),
        ([], "no message to answer"),
    ],
)
def test_unusable_messages_are_named(llm, messages, reason):
    with pytest.raises(InvalidInputError, match=reason):
        llm.chat(messages)


# Options


def test_options_reach_the_engine(engine):
    compression = {"method": "finch", "chunk_length": 40, "pooling": "max"}
    llm = FinchLLM(
        engine=engine,
        max_tokens=20,
        temperature=0.7,
        seed=5,
        target_size=70,
        compression=compression,
        instruction="Please say:",
    )
    context = engine.compress(TEXTS, Q, target_size=70, instruction="Please say:", **compression)
    expected = engine.generate(context, max_tokens=20, temperature=0.7, seed=5)
    assert llm.complete(Q, documents=TEXTS).text == expected.text


def test_a_ready_engines_defaults_hold(model, tokenizer):
    engine = FinchEngine(
        model,
        tokenizer,
        compression=CompressionConfig(target_size=33),
        sampling=SamplingParams(max_tokens=4),
    )
    llm = FinchLLM(engine=engine)
    response = llm.complete(Q, documents=TEXTS)
    assert response.raw["finch"]["kept_tokens"] == 33
    assert usage(response)["completion_tokens"] == 4
    assert llm.metadata.num_output == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temprature": 1}, "FinchLLM has no option 'temprature'; known: "),
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"max_tokens": 0}, "max_tokens must be a whole number"),
        ({"max_tokens": 5, "max_new_tokens": 5}, "another name of max_tokens"),
        ({"target_size": 5, "compression_ratio": 0.5}, "give one budget"),
        ({"compression": {"polling": "max"}}, "did you mean 'pooling'"),
        ({"context_patterns": [re.compile("x")]}, "no group named 'context'"),
        ({"context_window": 256}, r"context_window must be above max_tokens \(256\), got 256"),
        ({"model": 5}, "model must be a name"),
        ({"tokenizer": object()}, "Leave the tokenizer out"),
    ],
)
def test_wrong_constructor_options_are_named(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        FinchLLM(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temprature": 1}, "a call takes no option 'temprature'; known: "),
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"stop": [""]}, "stop must hold non-empty strings"),
        ({"context_detection": "maybe"}, "one of auto, marked, off, got 'maybe'"),
        ({"model": 5}, "must name a model, got int"),
    ],
)
def test_wrong_options_of_a_call_are_named(llm, options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        llm.chat([say(Q)], **options)


def test_tools_say_what_to_do_instead(llm):
    with pytest.raises(NotImplementedError, match="Use ReActAgent"):
        llm.chat([say(Q)], tools=[{"name": "x"}])


# Loading, sharing, copying


def test_constructing_loads_nothing_and_models_of_a_process_share(folder):
    from finch_integrations.langchain import ChatFinch

    first, second = FinchLLM(model=folder, max_tokens=3), FinchLLM(model=str(folder))
    chat = ChatFinch(model=folder)
    assert first.metadata.model_name == str(folder)
    assert not first.handle.loaded
    assert first.warm_up().complete(Q).text
    assert second.handle.engine is first.handle.engine
    assert chat.handle.engine is first.handle.engine
    first.close()
    assert not second.handle.loaded


def test_another_model_can_be_set_where_none_was_given(folder, llm):
    named = FinchLLM(model="embedded", max_tokens=3)
    named.model = str(folder)
    assert named.complete(Q).raw["model"] == named.metadata.model_name == str(folder)
    named.close()
    llm.model = "other"
    with pytest.raises(ConfigurationError, match="two models are given: 'other' and"):
        llm.complete(Q)


def test_copies_and_pickles_carry_no_weights(folder, llm):
    named = FinchLLM(model=folder, max_tokens=3, context_patterns=["(?i)(?P<context>x)"])
    loaded = pickle.loads(pickle.dumps(named))
    assert loaded.to_dict() == named.to_dict()
    assert loaded.handle == named.handle
    assert not loaded.handle.loaded
    weights = weakref.ref(llm.handle.engine.backbone.model)
    twin = copy.deepcopy(llm)
    assert twin.handle.engine.backbone.model is weights()
    with pytest.raises(FinchError, match="cannot be pickled"):
        pickle.dumps(llm)
    by_handle = FinchLLM(engine=SharedEngine(folder), max_tokens=3)
    assert pickle.loads(pickle.dumps(by_handle)).handle == by_handle.handle


def test_settings_can_be_stored_and_hold_no_secret(folder):
    llm = FinchLLM(
        model=folder,
        dtype=torch.float64,
        device=torch.device("cpu"),
        max_tokens=3,
        model_kwargs={"token": "hf_secret", "x": 1},
        context_patterns=[re.compile("(?P<context>x)", re.IGNORECASE | re.DOTALL)],
    )
    stored = llm.to_json()
    assert "hf_secret" not in stored + repr(llm)
    assert "hf_secret" not in json.dumps(llm.to_payload())
    again = FinchLLM.from_json(stored)
    assert again.to_json() == stored
    assert (again.dtype, again.device, again.model_kwargs) == ("float64", "cpu", {"x": 1})
    assert again.context_patterns[0].flags & (re.IGNORECASE | re.DOTALL)


def test_a_loaded_model_is_taken_with_its_tokenizer(model, tokenizer, llm):
    own = FinchLLM(model=model, tokenizer=tokenizer, max_tokens=8)
    assert own.model == "LlamaForCausalLM"
    assert own.complete(Q).text == llm.complete(Q).text
    with pytest.raises(ConfigurationError, match="needs its tokenizer"):
        FinchLLM(model=model)
    with pytest.raises(ConfigurationError, match="device cannot be applied"):
        FinchLLM(model=model, tokenizer=tokenizer, device="cpu")
    with pytest.raises(ConfigurationError, match="given twice"):
        FinchLLM(model=model, engine=FinchEngine(model, tokenizer))
    with pytest.raises(ConfigurationError, match="two models are given: 'embedded' and"):
        FinchLLM(model="embedded", engine=FinchEngine(model, tokenizer))
    with pytest.raises(UnsupportedModelError):
        FinchLLM(model=make_model(rope=DYNAMIC), tokenizer=tokenizer)


def test_a_call_can_name_another_model(folder, llm):
    response = llm.complete(Q, model=str(folder))
    assert response.raw["model"] == str(folder)
    assert response.text == llm.complete(Q).text  # the same weights
    FinchLLM(model=folder).close()


def test_errors_of_the_libraries_below_are_no_value_errors():
    engine = tiny_engine()

    def fail(*_):
        raise TypeError("bad shape")

    engine.backbone.model.register_forward_pre_hook(fail)
    with pytest.raises(FinchError, match="the model failed: TypeError: bad shape") as caught:
        FinchLLM(engine=engine).complete(Q)
    assert isinstance(caught.value.__cause__, TypeError)


# The package


def test_the_public_names_are_sorted_and_there():
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'FlinchLLM'"):
        _ = package.FlinchLLM


@pytest.mark.parametrize("name", package.__all__)
def test_the_missing_extra_is_named_with_its_command(name):
    code = (
        "import sys\n"
        "sys.modules['llama_index'] = None\n"
        "import finch_integrations.llama_index\n"
        f"from finch_integrations.llama_index import {name}\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"MissingExtraError: {name} needs the package llama_index" in output.stderr
    assert output.stderr.strip().endswith('pip install "finch-integrations[llama-index]"')


def test_constructing_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from finch_integrations.llama_index import FinchLLM\n"
        "FinchLLM(target_size=2048).metadata\n"
        "print(sorted({'torch', 'transformers', 'langchain_core'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (output.stdout.strip(), output.stderr) == ("[]", "")
