"""Our contract suite for LLMs on a tiny random model and on the embedded one."""

import pytest

from finch_integrations.llama_index import FinchLLM
from tests.llama_index.contract import LLMContract


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
