"""LangChain's standard suites, on a tiny random model and on the embedded one."""

import json

import pytest
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


def call_of(name, **arguments):
    facts = {"name": name, "arguments": arguments}
    return f"<tool_call>\n{json.dumps(facts, ensure_ascii=False)}\n</tool_call><|im_end|>"


# What the suite asks about, and what it wants a model that understands it to say. That calls are
# made where they must be, and follow their schemas, is the constraint's work.
WISHES = {
    "magic_function": call_of("magic_function", input=3),
    "greeting_generator": call_of("greeting_generator", answer_style="pirate"),
    "get_weather": call_of("get_weather", location="San Francisco, CA"),
    "unicode_customer": call_of(
        "unicode_customer", customer_name="你好啊集团", description="Technology"
    ),
    "こんにちは": call_of(
        "unicode_customer", customer_name="こんにちは株式会社", description="Retail"
    ),
}


def wishing_engine():
    """A tiny random model that wants to say what the suite expects, and soon ends its strings."""
    model, tokenizer = make_model(max_position_embeddings=8192), make_tokenizer()
    quote = tokenizer('"').input_ids
    state = {"wish": [], "step": 0, "read": ""}

    def note(_, args, kwargs):
        ids = kwargs["input_ids"][0].tolist()
        if len(ids) == 1:
            state["step"] += 1
            state["read"] = ""
            return
        state["read"] += tokenizer.decode(ids)  # prompts are read in several pieces
        wishes = [wish for needle, wish in WISHES.items() if needle in state["read"]]
        state["wish"] = tokenizer(wishes[-1]).input_ids if wishes else []
        state["step"] = 0

    def wish(_, args, logits):
        logits = logits.clone()
        logits[..., quote] += 20
        if state["step"] < len(state["wish"]):
            logits[..., state["wish"][state["step"]]] += 100
        return logits

    model.register_forward_pre_hook(note, with_kwargs=True)
    model.lm_head.register_forward_hook(wish)
    return FinchEngine(model, tokenizer)


class TestTinyModel(Declared, ChatModelIntegrationTests):
    engine = wishing_engine()

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
@pytest.mark.slow
class TestEmbeddedModel(Declared, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _fetched(self, embedded_engine):
        """Asks for the weights, which are then shared."""

    @property
    def chat_model_params(self):
        # Greedy, a model this small repeats itself for ever.
        options = {"temperature": 0.7, "seed": 1, "max_tokens": 200}
        return {"model": "embedded", "device": "cpu", "dtype": "float32", **options}

    @pytest.mark.xfail(
        reason="The suite gives no tool_choice here, and at 135 million parameters the model calls "
        "a tool only if it must. The suite names this mark for such models; the loop with a "
        "required first call is in test_real_agent.py."
    )
    def test_agent_loop(self, model):
        super().test_agent_loop(model)
