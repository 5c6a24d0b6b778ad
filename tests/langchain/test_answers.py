"""What ChatFinch answers with: metadata, chunks, callbacks."""

import asyncio

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import (
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
)

from finch_integrations import ConfigurationError, FinchEngine, PassageStore
from finch_integrations.engine.generate import join_responses
from finch_integrations.langchain import ChatFinch
from tests.busy import busy_until
from tests.tiny import make_model, text_of

Q = "Where is it?"


TEXTS = [text_of(150, seed=1), text_of(120, seed=2)]


def finch(message):
    return message.response_metadata["finch"]


def test_usage_is_collected_by_langchains_callback(chat):
    with get_usage_metadata_callback() as usage:
        message = chat.invoke(Q)
    name = f"LlamaForCausalLM {chat.handle.engine.backbone.fingerprint[-16:-8]}"
    assert usage.usage_metadata == {name: dict(message.usage_metadata)}


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


def test_callbacks_see_every_token(chat):
    class Tokens(BaseCallbackHandler):
        def __init__(self):
            self.texts = []

        def on_llm_new_token(self, token, **kwargs):
            self.texts.append(token)

    tokens = Tokens()
    chunks = list(chat.stream(Q, config={"callbacks": [tokens]}))
    assert tokens.texts == [chunk.content for chunk in chunks]


def test_the_metadata_is_where_langchain_looks_for_it(chat, engine):
    message = chat.invoke([SystemMessage("Be brief."), HumanMessage(Q)])
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": Q}]
    expected = join_responses(engine.chat(turns, max_tokens=8))
    assert message.content == expected.text
    assert message.usage_metadata == {
        "input_tokens": expected.prompt_tokens,
        "output_tokens": 8,
        "total_tokens": expected.prompt_tokens + 8,
    }
    assert message.response_metadata["model_provider"] == "finch"


def test_a_batch_answers_every_question_as_alone(chat):
    questions = [f"What is {number}?" for number in range(3)]
    alone = [chat.invoke(question, documents=TEXTS).text for question in questions]
    assert [message.text for message in chat.batch(questions, documents=TEXTS)] == alone


@pytest.mark.parametrize("how", ["batch", "abatch"])
def test_a_batch_over_the_same_documents_reads_them_once(model, tokenizer, how):
    questions = [f"Where is number {number}?" for number in range(4)]

    def make():
        engine = FinchEngine(model, tokenizer, store=PassageStore(memory_bytes=0))
        return ChatFinch(
            engine=engine, max_tokens=8, target_size=60, compression={"read_size": "all"}
        )

    alone = [make().invoke(question, documents=TEXTS) for question in questions]
    chat = make().bind(documents=TEXTS)
    with busy_until(model, waiting=len(questions)):
        found = chat.batch(questions) if how == "batch" else asyncio.run(chat.abatch(questions))
    assert [message.text for message in found] == [message.text for message in alone]
    read = sorted(finch(message)["read_tokens"] for message in found)
    assert read == [0, 0, 0, finch(alone[0])["read_tokens"]]


# Options of other makers' models


def test_what_a_ready_engine_has_read_ahead_no_question_reads_again(model, tokenizer):
    engine = FinchEngine(model, tokenizer)
    chat = ChatFinch(engine=engine, target_size=60, max_tokens=4)
    assert engine.read_ahead(TEXTS, system="Be brief.", target_size=60) > 200
    asked = [SystemMessage("Be brief."), HumanMessage(Q)]
    message = chat.invoke(asked, documents=TEXTS)
    assert finch(message)["read_tokens"] == 0 < finch(message)["rated_tokens"]
    other = chat.invoke(Q, documents=TEXTS)  # under another system text it is of no use
    assert finch(other)["read_tokens"] == finch(other)["rated_tokens"]


def test_logprobs_are_in_the_answer_s_metadata(chat):
    message = chat.invoke(Q, logprobs=True, top_logprobs=2)
    content = message.response_metadata["logprobs"]["content"]
    assert "".join(one["token"] for one in content).startswith(message.text[:3])
    assert len(content) == message.usage_metadata["output_tokens"]
    assert all(one["logprob"] <= 0 and len(one["top_logprobs"]) == 2 for one in content)
    assert "logprobs" not in chat.invoke(Q).response_metadata
    streamed = None
    for chunk in chat.stream(Q, logprobs=True, top_logprobs=2):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed.response_metadata["logprobs"]["content"] == content


async def test_several_answers_to_one_prompt(engine):
    chat = ChatFinch(engine=engine, max_tokens=8, temperature=1.0, seed=3, n=3)
    (answers,) = chat.generate([[HumanMessage(Q)]]).generations
    texts = [answer.text for answer in answers]
    assert len(set(texts)) == 3
    for number, text in enumerate(texts):
        assert chat.invoke(Q, n=1, seed=3 + number).text == text
    assert chat.invoke(Q).text == texts[0]
    (again,) = (await chat.agenerate([[HumanMessage(Q)]], n=2)).generations
    assert [answer.text for answer in again] == texts[:2]
    with pytest.raises(ConfigurationError, match="n must be a whole number of at least 1, got -1"):
        chat.generate([[HumanMessage(Q)]], n=-1)
    free = ChatFinch(engine=engine, max_tokens=8, temperature=1.0, streaming=True)
    (answers,) = free.generate([[HumanMessage(Q)]], n=2).generations
    assert len(answers) == 2


def test_the_profile_has_the_window_once_the_model_is_loaded(folder):
    chat = ChatFinch(model=str(folder), max_tokens=2)
    assert "max_input_tokens" not in chat.profile
    other = ChatFinch(model=str(folder), max_tokens=2)
    chat.warm_up()
    window = chat.handle.engine.window
    assert chat.profile["max_input_tokens"] == window
    other.invoke(Q)
    assert other.profile["max_input_tokens"] == window
    assert ChatFinch(model=str(folder)).profile["max_input_tokens"] == window
    own = ChatFinch(model=str(folder), profile={"max_input_tokens": 7}).warm_up()
    assert own.profile["max_input_tokens"] == 7
    chat.close()


def test_usage_tells_loaded_models_apart(engine, tokenizer):
    smaller = FinchEngine(make_model(num_hidden_layers=1), tokenizer)
    with get_usage_metadata_callback() as usage:
        for one in (engine, smaller, engine):
            ChatFinch(engine=one, max_tokens=2).invoke(Q)
    assert len(usage.usage_metadata) == 2
    assert all(name.startswith("LlamaForCausalLM ") for name in usage.usage_metadata)
