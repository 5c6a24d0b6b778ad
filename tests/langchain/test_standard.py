"""LangChain's standard suites, on a tiny random model and on the embedded one."""

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from finch_integrations import FinchEngine
from finch_integrations.langchain import ChatFinch
from tests.tiny import make_model, make_tokenizer


class Declared:
    """What ChatFinch says about itself; its methods for tools only raise."""

    model_override_value = None

    @property
    def chat_model_class(self):
        return ChatFinch

    @property
    def has_tool_calling(self):
        return False

    @property
    def has_structured_output(self):
        return False


class TestUnit(Declared, ChatModelUnitTests):
    @property
    def chat_model_params(self):
        return {"model": "embedded"}


class TestTinyModel(Declared, ChatModelIntegrationTests):
    engine = FinchEngine(make_model(), make_tokenizer())

    @property
    def chat_model_params(self):
        return {"engine": self.engine, "seed": 3, "max_tokens": 12}


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
        return {"model": "embedded", "device": "cpu", "dtype": "float32", "max_tokens": 12}
