"""What ChatFinch answers with: metadata, chunks, callbacks."""

import asyncio

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import (
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
)

from finch_integrations import FinchEngine, PassageStore
from finch_integrations.engine.generate import join_responses
from finch_integrations.langchain import ChatFinch
from tests.busy import busy_until
from tests.tiny import text_of

Q = "Where is it?"


TEXTS = [text_of(150, seed=1), text_of(120, seed=2)]


def finch(message):
    return message.response_metadata["finch"]


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
