"""The tables of docs/migrating.md, against the real signatures."""

import re
from pathlib import Path

import pytest
from langchain_openai.chat_models.base import BaseChatOpenAI
from llama_index.core.prompts import PromptTemplate

from finch_integrations import ConfigurationError
from finch_integrations.langchain import ChatFinch
from finch_integrations.llama_index import FinchLLM
from finch_integrations.pipeline.options import _INSTEAD

PAGE = Path("docs/migrating.md").read_text(encoding="utf-8")
TABLE = re.compile(r"\| `(\w+)` \| `(ChatFinch|FinchLLM)` \|\n\|---\|---\|\n((?:\|.*\n)+)")
ROW = re.compile(r"\| `(\w+)` \| (.*) \|")
OURS = {"ChatFinch": ChatFinch, "FinchLLM": FinchLLM}
ROWS = [
    (table[1], table[2], row[1], row[2])
    for table in TABLE.finditer(PAGE)
    for row in ROW.finditer(table[3])
]
VALUES = {
    "stop": ["x"],
    "stop_sequences": ["x"],
    "logprobs": True,
    "model_kwargs": {},
    "device": "cpu",
    "n": 1,
    "context_window": 100_000,
    "query_wrapper_prompt": PromptTemplate("{query_str}"),
}


def test_every_maker_has_a_table():
    makers = {maker for maker, *_ in ROWS}
    assert makers >= {"ChatOllama", "ChatOpenAI", "HuggingFacePipeline", "HuggingFaceLLM", "Ollama"}
    assert len(ROWS) > 60


@pytest.mark.parametrize(("maker", "ours", "option", "here"), ROWS)
def test_options_of_other_makers_do_what_the_page_says(maker, ours, option, here, engine):
    adapter = OURS[ours]
    if here.startswith("an error"):
        with pytest.raises(ConfigurationError, match=f"no option '{option}'; {option}: "):
            adapter(**{option: 1})
    elif here.startswith("without effect"):
        assert adapter(**{option: 1}).model_dump() == adapter().model_dump()
    elif "loaded" in here:
        backbone = engine.backbone
        assert adapter(model=backbone.model, tokenizer=backbone.tokenizer).handle.loaded
    elif here.startswith("leave it out"):
        assert option in adapter.model_fields
    else:
        value = VALUES.get(option, "name" if "model" in option or "prompt" in option else 1)
        options = {option: value} | ({"logprobs": True} if option == "top_logprobs" else {})
        assert adapter(**options).model_dump() != adapter().model_dump() or value in ({}, 1)
    for name in re.findall(r"also `(\w+)`", here):
        assert adapter(**{name: VALUES.get(name, "x" if name.startswith("model") else 1)})


# What their classes declare themselves; with the arguments of `from_model_id` and of
# `pipeline_kwargs`, and those of `__init__`: langchain-ollama 1.1.0, langchain-openai 1.7.4,
# langchain-huggingface 1.2.3, llama-index-llms-huggingface 0.8.0, llama-index-llms-ollama 0.11.0.
NAMES = {
    "ChatOllama": """model reasoning validate_model_on_init mirostat mirostat_eta mirostat_tau
        num_ctx num_gpu num_thread num_predict repeat_last_n repeat_penalty temperature seed
        logprobs top_logprobs stop tfs_z top_k top_p format keep_alive base_url client_kwargs
        async_client_kwargs sync_client_kwargs""",
    "ChatOpenAI": """client async_client root_client root_async_client model_name model temperature
        model_kwargs openai_api_key api_key openai_api_base base_url openai_organization
        organization openai_proxy request_timeout timeout stream_usage max_retries presence_penalty
        frequency_penalty seed logprobs top_logprobs logit_bias streaming n top_p max_tokens
        max_completion_tokens reasoning_effort reasoning verbosity tiktoken_model_name
        default_headers default_query http_client http_async_client http_socket_options
        stream_chunk_timeout stop stop_sequences extra_body include_response_headers
        disabled_params context_management include prompt_cache_options service_tier store
        truncation use_previous_response_id use_responses_api""",
    "HuggingFacePipeline": """pipeline model_id model_kwargs pipeline_kwargs batch_size task device
        device_map do_sample max_new_tokens temperature stop seed n top_p max_tokens""",
    "HuggingFaceLLM": """model_name context_window max_new_tokens system_prompt model tokenizer
        query_wrapper_prompt tokenizer_name device_map stopping_ids tokenizer_outputs_to_remove
        tokenizer_kwargs model_kwargs generate_kwargs is_chat_model""",
    "Ollama": """base_url model temperature context_window request_timeout prompt_key json_mode
        additional_kwargs is_function_calling_model keep_alive thinking headers client
        async_client""",
}
OF_FINCH = {maker: ours for maker, ours, *_ in ROWS}


def test_the_names_of_chat_openai_are_those_of_the_installed_version():
    fields = BaseChatOpenAI.model_fields
    names = {*fields, *(field.alias for field in fields.values() if field.alias)}
    # An older version may lack some.
    assert len({*NAMES["ChatOpenAI"].split()} - names) < 8


@pytest.mark.parametrize(("maker", "option"), [(maker, option) for maker, _, option, _ in ROWS])
def test_the_options_of_the_tables_are_real(maker, option):
    assert option in NAMES[maker].split()


@pytest.mark.parametrize(
    ("maker", "option"), [(maker, name) for maker in NAMES for name in NAMES[maker].split()]
)
def test_every_option_of_other_makers_is_taken_or_has_its_advice(maker, option):
    value = VALUES.get(option, "name" if "model" in option or "prompt" in option else 1)
    options = {option: value} | ({"logprobs": True} if option == "top_logprobs" else {})
    if maker == "HuggingFaceLLM" and option in ("model", "tokenizer"):
        options = {"model": "name"}  # a loaded pair is tried above
    adapter = OURS[OF_FINCH[maker]]
    if option == "query_wrapper_prompt":
        with pytest.raises(ConfigurationError, match=f"Leave .*{option} out"):
            adapter(**options)
    elif option in adapter.model_fields or option not in _INSTEAD:
        assert adapter(**options)
    else:
        with pytest.raises(ConfigurationError, match=re.escape(f"; {option}: {_INSTEAD[option]}")):
            adapter(**options)
