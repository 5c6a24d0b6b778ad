"""Sampling options against transformers' own processors and against plain arithmetic."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from finch_integrations import ConfigurationError, SamplingParams
from finch_integrations.engine.generate import join_responses
from finch_integrations.engine.sampling import Sampler, penalise

CHAT = [{"role": "user", "content": "Where is it?"}]
LOGITS = st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6).map(torch.tensor)
SAID = st.lists(st.integers(0, 5), max_size=8)


@given(LOGITS, SAID, st.floats(0.1, 3))
def test_the_repetition_penalty_is_that_of_transformers(logits, said, penalty):
    params = SamplingParams(repetition_penalty=penalty)
    expected = logits
    if said:
        processor = RepetitionPenaltyLogitsProcessor(penalty)
        expected = processor(torch.tensor([said]), logits[None])[0]
    torch.testing.assert_close(penalise(logits, said, params), expected)


@given(LOGITS, SAID, st.floats(-2, 2), st.floats(-2, 2))
def test_penalties_for_presence_and_frequency_are_openais_formula(
    logits, said, presence, frequency
):
    params = SamplingParams(presence_penalty=presence, frequency_penalty=frequency)
    before = logits.clone()
    expected = [
        value - (presence if number in said else 0) - frequency * said.count(number)
        for number, value in enumerate(logits.tolist())
    ]
    torch.testing.assert_close(penalise(logits, said, params), torch.tensor(expected))
    assert torch.equal(logits, before)


def test_what_a_constraint_forbids_stays_forbidden():
    logits = torch.tensor([-math.inf, 1.0, 2.0])
    params = SamplingParams(repetition_penalty=0.5, presence_penalty=-2, frequency_penalty=-2)
    assert penalise(logits, [0, 0, 1], params)[0] == -math.inf


def test_min_p_leaves_out_what_is_unlikely():
    logits = torch.tensor([0.8, 0.15, 0.05]).log()
    for min_p, allowed in ((0.0, {0, 1, 2}), (0.1, {0, 1}), (0.5, {0}), (1.0, {0})):
        sampler = Sampler(SamplingParams(temperature=1.0, min_p=min_p, seed=0))
        assert {sampler(logits) for _ in range(500)} == allowed


def test_all_options_together_follow_transformers_order(engine):
    options = {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "min_p": 0.02}
    params = SamplingParams(**options, repetition_penalty=1.3, seed=5)
    sampler, said = Sampler(params), []
    warpers = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.3),
            TemperatureLogitsWarper(0.9),
            TopKLogitsWarper(40),
            TopPLogitsWarper(0.95),
            MinPLogitsWarper(0.02),
        ]
    )
    own, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(5)
    for _ in range(50):
        logits = torch.randn(100, generator=own) * 3
        ids = torch.tensor([said or [0]])
        first = warpers[1:] if not said else warpers
        expected = LogitsProcessorList(first)(ids, logits[None]).softmax(-1)[0]
        token = int(torch.multinomial(expected, 1, generator=other))
        assert sampler(logits) == token
        said.append(token)


def test_a_greedy_answer_with_penalties_repeats_less(engine):
    plain = join_responses(engine.chat(CHAT, max_tokens=40)).tokens
    for options in ({"repetition_penalty": 5.0}, {"presence_penalty": 2.0}):
        answer = join_responses(engine.chat(CHAT, max_tokens=40, **options)).tokens
        assert len(set(answer)) > len(set(plain))
        assert answer == join_responses(engine.chat(CHAT, max_tokens=40, **options)).tokens


# Log-probabilities


def test_logprobs_are_those_of_the_model_s_own_logits(engine):
    options = {"temperature": 1.0, "seed": 2, "repetition_penalty": 1.5, "max_tokens": 6}
    answer = join_responses(engine.chat(CHAT, logprobs=True, top_logprobs=3, **options))
    backbone = engine.backbone
    from finch_integrations.engine.chat import build_chat

    ids = list(build_chat(backbone.tokenizer, CHAT))
    assert [one.id for one in answer.logprobs] == list(answer.tokens)
    for one, token in zip(answer.logprobs, answer.tokens, strict=True):
        with torch.inference_mode():
            logits = backbone.model(torch.tensor([ids])).logits[0, -1]
        expected = logits.float().log_softmax(-1)
        assert one.logprob == pytest.approx(float(expected[token]), abs=1e-4)
        assert one.token == backbone.tokenizer.decode([token])
        assert [other.id for other in one.top] == expected.topk(3).indices.tolist()
        assert [other.logprob for other in one.top] == sorted(
            (other.logprob for other in one.top), reverse=True
        )
        ids.append(token)


def test_without_being_asked_for_there_are_no_logprobs(engine):
    assert join_responses(engine.chat(CHAT, max_tokens=3)).logprobs == ()
    answer = join_responses(engine.chat(CHAT, max_tokens=3, logprobs=True))
    assert [one.top for one in answer.logprobs] == [()] * 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"min_p": 1.5}, "min_p must be between 0 and 1, got 1.5"),
        ({"min_p": "x"}, "min_p must be"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty must be above 0"),
        ({"presence_penalty": 3}, "presence_penalty must be between -2 and 2, got 3"),
        ({"frequency_penalty": math.nan}, "frequency_penalty must be between -2 and 2"),
        ({"logprobs": 5}, "logprobs must be True or False"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs must be at most 20"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs=True"),
    ],
)
def test_wrong_options_are_named(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        SamplingParams(**options)
