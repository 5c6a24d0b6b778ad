"""What every adapter promises and what LlamaIndex expects of an LLM, kept by LlamaIndex's."""

import pytest

from finch_integrations.llama_index import FinchLLM, FinchNodePostprocessor
from tests.adapters.contract import AdapterContract, Answer, AnswerContract
from tests.llama_index.conftest import say
from tests.llama_index.contract import LLMContract


class TestFinchNodePostprocessor(AdapterContract):
    adapter = FinchNodePostprocessor


class TestFinchLLM(AnswerContract):
    adapter = FinchLLM

    def ask(self, llm, question, **options):
        return read(llm.chat([say(question)], **options))

    async def aask(self, llm, question, **options):
        return read(await llm.achat([say(question)], **options))

    def stream(self, llm, question, **options):
        return (response.delta for response in llm.stream_chat([say(question)], **options))

    async def astream(self, llm, question, **options):
        async for response in await llm.astream_chat([say(question)], **options):
            yield response.delta


def read(response):
    usage = response.raw["usage"]
    return Answer(
        text=response.message.content,
        prompt_tokens=usage["prompt_tokens"],
        generated_tokens=usage["completion_tokens"],
        finish_reason=response.raw["finish_reason"],
        model=response.raw["model"],
        finch=response.raw["finch"],
    )


class TestTinyModel(LLMContract):
    @pytest.fixture
    def llm(self, engine):
        return FinchLLM(engine=engine, max_tokens=12, temperature=1.0, seed=3)


@pytest.mark.model
class TestEmbeddedModel(LLMContract):
    @pytest.fixture
    def llm(self, embedded_engine):
        """Made by name; the weights are shared with the engine's."""
        return FinchLLM(model="embedded", device="cpu", dtype="float32", max_tokens=6)
