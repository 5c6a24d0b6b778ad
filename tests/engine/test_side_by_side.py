"""Answers that run at the same time are fed together; each is the one given alone."""

import threading

import pytest
import torch

from finch_integrations import FinchEngine
from finch_integrations.engine.cache import cache_length, new_cache, share_cache
from finch_integrations.engine.generate import join_responses
from finch_integrations.engine.steps import Steps
from tests.tiny import CONFIGS, make_model, text_of

QUESTIONS = ["What?", "Who was it, and when did that happen?", "Why?", "Where to?"]
LENGTHS = [5, 90, 21, 130]  # of their documents; some are longer than a sliding window
WINDOWED = {"mistral": {"sliding_window": 48}, "phi3": {"sliding_window": 48}}
each_architecture = pytest.mark.parametrize(
    ("architecture", "options"),
    [*((name, {}) for name in CONFIGS), *WINDOWED.items()],
    ids=lambda value: value if isinstance(value, str) else ("windowed" if value else "plain"),
)


def contexts_of(engine):
    return [
        engine.compress([text_of(length, seed=length)], question, target_size=200)
        for length, question in zip(LENGTHS, QUESTIONS, strict=True)
    ]


def take_turns(streams):
    """Read all streams in rounds, as the scheduler does; return the answers."""
    pieces = {number: [] for number in range(len(streams))}
    running = dict(enumerate(streams))
    while running:
        for number, stream in list(running.items()):
            piece = next(stream, None)
            if piece is None:
                del running[number]
            else:
                pieces[number].append(piece)
    return [join_responses(iter(one)) for one in pieces.values()]


@each_architecture
def test_answers_that_take_turns_are_those_given_alone(architecture, options, tokenizer):
    engine = FinchEngine(make_model(architecture, **options), tokenizer)
    # Greedy, and sampled: some tiny models say the same to everything when they are greedy.
    calls = [
        (context, {"temperature": temperature, "seed": 1, "max_tokens": 25})
        for context in contexts_of(engine)
        for temperature in (0, 4.0)
    ]
    alone = [engine.generate(context, **options).tokens for context, options in calls]
    sizes = count_batches(engine)
    streams = [engine.stream(context, **options) for context, options in calls]
    assert [answer.tokens for answer in take_turns(streams)] == alone
    assert max(sizes) > len(calls) // 2  # some answers may be one token long
    assert len(set(alone)) >= len(calls) // 2


def count_batches(engine):
    """Watch how many tokens are fed at a time."""
    sizes, steps = [], engine.backbone._steps
    run = steps._run
    steps._run = lambda batch: (sizes.append(len(batch)), run(batch))[1]
    return sizes


@each_architecture
def test_logits_side_by_side_are_those_of_each_cache_by_itself(architecture, options, tokenizer):
    model = make_model(architecture, **options)
    backbone = FinchEngine(model, tokenizer).backbone
    caches = [new_cache() for _ in LENGTHS]
    for cache, length in zip(caches, LENGTHS, strict=True):
        backbone.forward(range(length), cache)
    tokens = [7, 8, 9, 10]
    alone = torch.stack(
        [backbone.forward((t,), share_cache(c)) for t, c in zip(tokens, caches, strict=True)]
    )
    together = backbone.forward_each(tokens, caches)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert [cache_length(cache) for cache in caches] == [length + 1 for length in LENGTHS]
    assert backbone.model.config._attn_implementation == "sdpa"


def test_a_model_with_another_attention_function_is_fed_one_by_one(tokenizer):
    model = make_model()
    model.set_attn_implementation("eager")
    engine = FinchEngine(model, tokenizer)
    contexts = contexts_of(engine)
    alone = [engine.generate(context, max_tokens=10).tokens for context in contexts]
    streams = [engine.stream(context, max_tokens=10) for context in contexts]
    assert [answer.tokens for answer in take_turns(streams)] == alone
    assert model.config._attn_implementation == "eager"


def test_seeds_and_limits_stay_those_of_each_answer(engine):
    contexts = contexts_of(engine)
    options = [
        {"temperature": 1.0, "seed": 1, "max_tokens": 25},
        {"temperature": 0.5, "seed": 2, "max_tokens": 3},
        {"temperature": 1.0, "seed": 3, "max_tokens": 40, "top_k": 5},
        {"max_tokens": 1},
    ]
    pairs = list(zip(contexts, options, strict=True))
    alone = [engine.generate(context, **kw) for context, kw in pairs]
    together = take_turns([engine.stream(context, **kw) for context, kw in pairs])
    assert together == alone
    assert [answer.generation_tokens for answer in together] == [25, 3, 40, 1]


def test_threads_that_stream_from_one_engine_get_the_answers_given_alone(engine):
    contexts = contexts_of(engine)
    alone = [engine.generate(context, max_tokens=25).tokens for context in contexts]
    answers = {}

    def read(number):
        answers[number] = engine.generate(contexts[number], max_tokens=25).tokens

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(contexts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answers[number] for number in range(len(contexts))] == alone


def test_an_answer_that_is_left_or_has_ended_is_not_fed_any_more(engine):
    contexts = contexts_of(engine)
    sizes = count_batches(engine)
    streams = [engine.stream(context, max_tokens=20) for context in contexts]
    for stream in streams:
        next(stream)
    streams[0].close()
    del streams[1]
    next(streams[1])
    assert sizes == [2]
    ended = engine.stream(contexts[0], max_tokens=1)
    assert next(ended).finish_reason == "length"
    next(streams[1])
    next(streams[2])
    next(streams[1])
    assert sizes[1:] == [1, 2]


class Failing:
    """Runs steps; fails for batches above a size and for one token."""

    def __init__(self, limit, bad=None, error=MemoryError):
        self.limit, self.bad, self.error = limit, bad, error
        self.sizes = []

    def forward_each(self, tokens, caches):
        self.sizes.append(len(tokens))
        for cache in caches:
            cache.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), 0)
        if len(tokens) > self.limit or self.bad in tokens:
            raise self.error
        for cache in caches:
            cache.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), 1)
        return torch.tensor([[float(token)] for token in tokens])


def test_a_batch_that_fails_is_run_step_by_step_and_no_token_is_fed_twice():
    model = Failing(limit=2)
    steps = Steps()
    caches = [new_cache() for _ in range(3)]
    announced = [steps.announce(model, number, cache) for number, cache in enumerate(caches)]
    assert [step.logits().item() for step in announced] == [0, 1, 2]
    assert model.sizes == [3, 1, 1, 1]
    for cache in caches:
        assert [layer.keys.shape[2] for layer in cache.layers] == [1, 1]


def test_a_step_at_fault_fails_alone():
    model, steps = Failing(limit=8, bad=1, error=ValueError("too hot")), Steps()
    announced = [steps.announce(model, number, new_cache()) for number in range(3)]
    assert announced[0].logits().item() == 0
    with pytest.raises(ValueError, match="too hot"):
        announced[1].logits()
    assert announced[2].logits().item() == 2


def test_an_interrupted_batch_is_left_to_the_others():
    model = Failing(limit=8, bad=0, error=KeyboardInterrupt)
    steps = Steps()
    first, second = (steps.announce(model, number, new_cache()) for number in range(2))
    with pytest.raises(KeyboardInterrupt):
        first.logits()
    assert second.logits().item() == 1
