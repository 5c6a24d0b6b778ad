"""FinchLLM among LlamaIndex's settings: reported, stored, pickled, refused."""

import copy
import json
import pickle
import re
import weakref

import pytest
import torch

from finch_integrations import (
    ConfigurationError,
    FinchEngine,
    SamplingParams,
)
from finch_integrations.llama_index import FinchLLM
from finch_integrations.pipeline.shared_engine import SharedEngine

Q = "Where is it?"


def usage(response):
    return response.raw["usage"]


def test_it_is_a_chat_model_and_takes_how_to_load(folder):
    assert FinchLLM().metadata.is_chat_model
    llm = FinchLLM(
        model=folder,
        device="cpu",
        dtype="float64",
        model_kwargs={"attn_implementation": "sdpa"},
        max_tokens=2,
    )
    assert llm.complete(Q).text
    assert llm.handle.engine.backbone.model.dtype == torch.float64
    llm.close()


def test_settings_can_be_stored_and_hold_no_secret(folder):
    llm = FinchLLM(
        model=folder,
        dtype=torch.float64,
        device=torch.device("cpu"),
        max_tokens=3,
        model_kwargs={"token": "hf_secret", "x": 1},
        context_patterns=[re.compile("(?P<context>x)", re.IGNORECASE | re.DOTALL)],
    )
    stored = llm.to_json()
    assert "hf_secret" not in stored + repr(llm)
    assert "hf_secret" not in json.dumps(llm.to_payload())
    again = FinchLLM.from_json(stored)
    assert again.to_json() == stored
    assert (again.dtype, again.device, again.model_kwargs) == ("float64", "cpu", {"x": 1})
    assert again.context_patterns[0].flags & (re.IGNORECASE | re.DOTALL)


def test_what_is_reported_is_not_the_models_window(llm, model, folder):
    assert llm.metadata.context_window == 1_000_000 > model.config.max_position_embeddings
    named = FinchLLM(model=folder)
    assert named.metadata.model_name == str(folder)
    assert not named.handle.loaded


def test_the_longest_answer_is_the_engines_or_the_settings(model, tokenizer):
    engine = FinchEngine(model, tokenizer, sampling=SamplingParams(max_tokens=4))
    assert FinchLLM(engine=engine).metadata.num_output == 4
    assert FinchLLM(engine=engine, max_tokens=5).metadata.num_output == 5
    with pytest.raises(ConfigurationError, match=r"above max_tokens \(256\), got 256"):
        FinchLLM(context_window=256)


def test_copies_keep_patterns_and_weights(folder, llm):
    named = FinchLLM(model=folder, max_tokens=3, context_patterns=["(?i)(?P<context>x)"])
    assert pickle.loads(pickle.dumps(named)).to_dict() == named.to_dict()
    weights = weakref.ref(llm.handle.engine.backbone.model)
    assert copy.deepcopy(llm).handle.engine.backbone.model is weights()
    by_handle = FinchLLM(engine=SharedEngine(folder), max_tokens=3)
    assert pickle.loads(pickle.dumps(by_handle)).handle == by_handle.handle


def test_a_scorer_is_stored_by_its_name(folders):
    llm = FinchLLM(model=folders[0], scorer=folders[1])
    again = FinchLLM.from_json(llm.to_json())
    assert again.handle == llm.handle
    assert again.handle.scorer == SharedEngine(folders[1])
