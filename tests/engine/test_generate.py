"""Decoding: equal to transformers' own generate, streaming, limits, sampling."""

import pytest
import torch

from finch_integrations import ContextTooLongError, FinchEngine, SamplingParams
from finch_integrations.engine.sampling import Sampler
from tests.tiny import CONFIGS, make_input, make_model, text_of

DOCUMENTS = [text_of(120, seed=1), text_of(80, seed=2)]


def plain_generate(model, tokenizer, documents, question, **kwargs):
    inputs = make_input(documents, question, tokenizer)
    ids = torch.tensor([[*inputs.frame.prefix, *inputs.tokens.ids, *inputs.frame.suffix]])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **kwargs)
    return output[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("architecture", CONFIGS)
def test_with_a_budget_for_everything_the_tokens_are_those_of_generate(architecture, tokenizer):
    model = make_model(architecture)
    engine = FinchEngine(model, tokenizer)
    context = engine.compress(DOCUMENTS, "What?", target_size=10_000, chunk_length=64)
    assert context.stats.kept_tokens == context.stats.document_tokens == 202
    expected = plain_generate(model, tokenizer, DOCUMENTS, "What?", max_new_tokens=40)
    assert list(engine.generate(context, max_tokens=40).tokens) == expected


def test_a_small_budget_changes_the_answer(tokenizer):
    """The equality above is not an accident of models that always say the same."""
    model = make_model()
    engine = FinchEngine(model, tokenizer)
    context = engine.compress(DOCUMENTS, "What?", target_size=20, chunk_length=64)
    expected = plain_generate(model, tokenizer, DOCUMENTS, "What?", max_new_tokens=40)
    assert list(engine.generate(context, max_tokens=40).tokens) != expected


def test_joined_stream_is_generate_and_the_context_stays_as_it_is(engine):
    context = engine.compress(DOCUMENTS, "What?", target_size=50)
    before = [layer.keys.clone() for layer in context.cache.layers]
    pieces = list(engine.stream(context, max_tokens=30))
    answer = engine.generate(context, max_tokens=30)
    assert "".join(piece.text for piece in pieces) == answer.text
    assert tuple(t for piece in pieces for t in piece.tokens) == answer.tokens
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason == answer.finish_reason == "length"
    assert answer.generation_tokens == len(answer.tokens) == 30
    assert answer.prompt_tokens == context.prompt_tokens
    for layer, keys in zip(context.cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)


def test_streams_over_one_context_can_be_interleaved(engine):
    context = engine.compress(DOCUMENTS, "What?", target_size=50)
    options = {"max_tokens": 20, "temperature": 1.0}
    alone = [engine.generate(context, seed=seed, **options).tokens for seed in (1, 2)]
    streams = [engine.stream(context, seed=seed, **options) for seed in (1, 2)]
    tokens = [[], []]
    for pieces in zip(*streams, strict=False):
        for number, piece in enumerate(pieces):
            tokens[number] += piece.tokens
    for number, stream in enumerate(streams):
        tokens[number] += [t for piece in stream for t in piece.tokens]
        assert tokens[number] == list(alone[number])[: len(tokens[number])]
        assert len(tokens[number]) > 10


def test_stop_token_ends_the_answer_and_is_not_shown(model, tokenizer):
    engine = FinchEngine(model, tokenizer)
    context = engine.compress(DOCUMENTS, "What?")
    free = engine.generate(context, max_tokens=10)
    model.generation_config.eos_token_id = [free.tokens[4]]
    first = free.tokens.index(free.tokens[4])
    stopped = engine.generate(context, max_tokens=10)
    assert stopped.finish_reason == "stop"
    assert stopped.tokens == free.tokens[: first + 1]
    assert free.text.startswith(stopped.text)


def test_stop_string_is_matched_across_tokens(engine):
    context = engine.compress(DOCUMENTS, "What?", target_size=50)
    options = {"temperature": 1.0, "seed": 3, "max_tokens": 60}
    text = engine.generate(context, **options).text
    stop = text[20:23]
    answer = engine.generate(context, stop=[stop], **options)
    assert len(stop) == 3
    assert answer.text == text[: text.find(stop)]
    assert answer.finish_reason == "stop"


def test_answers_end_at_the_models_window(tokenizer):
    engine = FinchEngine(make_model(max_position_embeddings=300), tokenizer)
    context = engine.compress(DOCUMENTS, "What?", target_size=100, chunk_length=50)
    held = context.stats.prefix_tokens + 100 + context.stats.suffix_tokens
    answer = engine.generate(context, max_tokens=1000)
    assert answer.finish_reason == "length"
    assert answer.generation_tokens == 300 - held


def test_a_context_without_room_for_an_answer_is_an_error(tokenizer):
    big = FinchEngine(make_model(max_position_embeddings=400), tokenizer)
    context = big.compress(DOCUMENTS, "What?", target_size=100)
    small = FinchEngine(make_model(max_position_embeddings=150), tokenizer)
    object.__setattr__(context, "fingerprint", small.backbone.fingerprint)
    with pytest.raises(ContextTooLongError, match="window of 150 tokens"):
        small.generate(context)


def test_temperature_zero_is_deterministic_and_seeds_repeat(engine):
    context = engine.compress(DOCUMENTS, "What?", target_size=50)
    run = lambda **kw: engine.generate(context, max_tokens=20, **kw).tokens  # noqa: E731
    assert run() == run() == run(seed=1) == run(seed=2)
    assert run(temperature=1.0, seed=1) == run(temperature=1.0, seed=1)
    assert run(temperature=1.0, seed=1) != run(temperature=1.0, seed=2)
    assert run(temperature=1.0, top_k=1) == run()
    assert run(temperature=1.0, top_p=1e-6) == run()


def test_sampling_follows_the_distribution():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    for params, allowed in [
        (SamplingParams(temperature=1.0, seed=0), {0, 1, 2, 3}),
        (SamplingParams(temperature=1.0, top_k=2, seed=0), {1, 2}),
        (SamplingParams(temperature=1.0, top_p=0.8, seed=0), {1, 2}),
    ]:
        sampler = Sampler(params)
        counts = torch.bincount(torch.tensor([sampler(logits) for _ in range(3000)]), minlength=4)
        assert {i for i, count in enumerate(counts.tolist()) if count} == allowed
        kept = torch.tensor([i in allowed for i in range(4)])
        expected = logits.masked_fill(~kept, float("-inf")).softmax(0)
        torch.testing.assert_close(counts / 3000, expected, atol=0.03, rtol=0)
