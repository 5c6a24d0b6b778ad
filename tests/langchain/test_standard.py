"""LangChain's standard suites, on a tiny random model and on the embedded one."""

import pytest
import torch
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from finch_integrations import FinchEngine
from finch_integrations.langchain import ChatFinch
from tests.tiny import make_model, make_tokenizer


class Declared:
    """What ChatFinch says about itself."""

    model_override_value = None

    @property
    def chat_model_class(self):
        return ChatFinch

    @property
    def supports_json_mode(self):
        return True


class TestUnit(Declared, ChatModelUnitTests):
    @property
    def chat_model_params(self):
        return {"model": "embedded"}


def talkative_engine():
    """A tiny random model that soon ends its strings: others write in them for ever."""
    model, tokenizer = make_model(max_position_embeddings=8192), make_tokenizer()
    likes = torch.zeros(model.config.vocab_size)
    likes[tokenizer('"').input_ids] = 20
    model.lm_head.register_forward_hook(lambda _, __, logits: logits + likes)
    return FinchEngine(model, tokenizer)


class TestTinyModel(Declared, ChatModelIntegrationTests):
    engine = talkative_engine()

    @property
    def chat_model_params(self):
        return {"engine": self.engine, "seed": 3, "max_tokens": 200}


@pytest.fixture(autouse=True, scope="module")
def _another_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("another")
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    Declared.model_override_value = str(folder)
    yield
    ChatFinch(model=folder).close()


@pytest.mark.model
class TestEmbeddedModel(Declared, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _fetched(self, embedded_engine):
        """Asks for the weights, which are then shared."""

    @property
    def chat_model_params(self):
        return {"model": "embedded", "device": "cpu", "dtype": "float32", "max_tokens": 120}
