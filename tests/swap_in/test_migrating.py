"""The tables of docs/migrating.md, against the real signatures."""

import re
from pathlib import Path

import pytest
from langchain_openai import ChatOpenAI

from finch_integrations import ConfigurationError
from finch_integrations.langchain import ChatFinch
from finch_integrations.llama_index import FinchLLM

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


@pytest.mark.parametrize(
    "option", [option for maker, _, option, _ in ROWS if maker == "ChatOpenAI"]
)
def test_the_options_of_chat_openai_are_real(option):
    assert option in ChatOpenAI.model_fields
