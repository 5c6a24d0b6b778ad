"""All eight methods of FinchLLM; first of all what goes wrong in LlamaIndex's own local LLM."""

import asyncio
import gc
import time

import pytest
import torch
from llama_index.core.prompts import PromptTemplate

from finch_integrations import (
    ConfigurationError,
    FinchError,
)
from finch_integrations.engine.generate import join_responses
from finch_integrations.llama_index import FinchLLM
from tests.heartbeat import count_beats
from tests.llama_index.conftest import say, tiny_engine
from tests.llama_index.contract import CHAT, COMPLETE, collect
from tests.tiny import make_tokenizer, text_of

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


def argument(method, text=Q):
    return [say(text)] if "chat" in method else text


def usage(response):
    return response.raw["usage"]


@pytest.mark.parametrize("method", [m for m in CHAT + COMPLETE if m.startswith("a")])
async def test_async_calls_do_not_block_the_event_loop(llm, slow, method):
    async with count_beats() as beats:
        await collect(llm, method, argument(method), max_tokens=20)
    assert beats[0] > 15


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


def test_responses_keep_no_tensor_alive(llm):
    def tensors():
        gc.collect()
        return sum(type(item) is torch.Tensor for item in gc.get_objects())

    llm.complete(Q, documents=TEXTS)
    before = tensors()
    responses = [llm.complete(Q, documents=TEXTS) for _ in range(3)]
    assert tensors() <= before
    assert len(responses) == 3


def test_errors_of_the_libraries_below_are_no_value_errors():
    engine = tiny_engine()

    def fail(*_):
        raise TypeError("bad shape")

    engine.backbone.model.register_forward_pre_hook(fail)
    with pytest.raises(FinchError, match="the model failed: TypeError: bad shape") as caught:
        FinchLLM(engine=engine).complete(Q)
    assert isinstance(caught.value.__cause__, TypeError)
