"""ChatFinch among LangChain's tools for models: configurable fields, caches, tracing, profiles."""

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd
from langchain_core.runnables import ConfigurableField

from finch_integrations import (
    FinchEngine,
)
from finch_integrations.langchain import ChatFinch
from finch_integrations.pipeline.shared_engine import SharedEngine
from tests.tiny import make_model, make_tokenizer, text_of

Q = "Where is it?"


TEXTS = [text_of(150, seed=1), text_of(120, seed=2)]


def finch(message):
    return message.response_metadata["finch"]


@pytest.fixture
def forwards(model):
    lengths = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return lengths


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
    assert message.response_metadata["model_name"] == chat.handle.label


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
    assert chat.profile["tool_calling"]
    assert chat.profile["structured_output"]
    named = ChatFinch(model=folder)
    assert "max_input_tokens" not in named.profile  # not known without loading
    assert not named.handle.loaded


def test_versions_are_recorded(chat):
    assert chat.metadata["lc_versions"]["finch-integrations"]


def test_a_copy_may_name_another_model(folder):
    named = ChatFinch(model="embedded", max_tokens=3)
    assert named.model_copy() == named
    copy = named.model_copy(update={"model": str(folder), "dtype": "float64"})
    assert copy.invoke(Q).response_metadata["model_name"] == str(folder)
    assert repr(str(folder)) in copy._identifying_params["identity"]
    copy.close()


def test_a_scorer_is_part_of_what_caches_go_by(folders):
    alone, scored = (ChatFinch(model=folders[0], scorer=scorer) for scorer in (None, folders[1]))
    assert alone._get_llm_string() != scored._get_llm_string()
