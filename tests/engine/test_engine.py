"""The engine's public face: results, budgets, errors, threads, and leaving no trace."""

import threading

import pytest
import torch

from finch_integrations import (
    CompressionConfig,
    ConfigurationError,
    ContextTooLongError,
    Document,
    FinchEngine,
    InvalidInputError,
    PassageStore,
    SamplingParams,
)
from finch_integrations.engine.prompt import INSTRUCTION
from tests.tiny import make_model, make_tokenizer, text_of

LONG = [Document(text_of(400, seed=1), id="a"), Document(text_of(200, seed=2), id="b")]


def test_stats_and_shares_add_up(engine):
    context = engine.compress(LONG, "What?", target_size=90, chunk_length=100)
    stats = context.stats
    assert (stats.document_tokens, stats.kept_tokens) == (602, 90)
    assert stats.compression_ratio == pytest.approx(1 - 90 / 602)
    assert context.prompt_tokens == stats.prefix_tokens + 602 + stats.suffix_tokens
    question = len(f"\n\n{INSTRUCTION} What?")
    assert stats.peak_kv_tokens <= stats.prefix_tokens + 90 + 100 + question
    assert stats.peak_kv_tokens > stats.prefix_tokens + 90
    cached = [layer.keys.shape[-2] for layer in context.cache.layers]
    assert cached == [stats.prefix_tokens + 90] * 2
    assert context.nbytes == stats.kv_bytes == 2 * 2 * 2 * cached[0] * 16 * 4
    a, b = context.document_shares
    assert (a.id, a.tokens, b.id, b.tokens) == ("a", 402, "b", 200)  # a's separator is a's
    assert a.kept_tokens + b.kept_tokens == pytest.approx(90)
    by_hand = sum((layer < 402).sum().item() for layer in context.kept) / 2
    assert a.kept_tokens == by_hand
    assert a.kept_share == by_hand / 402


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        ({"target_size": 77}, 77),
        ({"compression_ratio": 0.75}, 150),
        ({"compression_ratio": 0.9999}, 1),
        ({"compression_ratio": 0.0}, 602),
        ({"target_size": 602}, 602),
    ],
)
@pytest.mark.parametrize(
    "method", [{}, {"method": "finch"}, {"method": "finch", "selection": "kv_head"}], ids=str
)
def test_budgets_are_spent_exactly(engine, budget, kept, method):
    context = engine.compress(LONG, "What?", **method, **budget)
    assert context.stats.kept_tokens == kept
    for layer, chosen in zip(context.cache.layers, context.kept, strict=True):
        assert layer.keys.shape[-2] == layer.values.shape[-2] == context.stats.prefix_tokens + kept
        assert chosen.shape[-1] == kept


def test_a_byte_budget_covers_the_whole_cache_at_the_start_of_the_answer(engine):
    stats = engine.compress(LONG, "What?", max_kv_bytes=100_000).stats
    per_token = engine.backbone.spec.kv_bytes_per_token
    total = stats.prefix_tokens + stats.kept_tokens + stats.suffix_tokens
    assert total == 100_000 // per_token
    assert per_token == 2 * 2 * 2 * 16 * 4


def test_without_a_budget_a_small_window_is_half_filled(tokenizer):
    engine = FinchEngine(make_model(max_position_embeddings=400), tokenizer)
    stats = engine.compress(LONG, "What?").stats
    room = 400 - stats.prefix_tokens - stats.suffix_tokens - 1
    assert stats.kept_tokens == room // 2
    assert stats.peak_kv_tokens <= 400


def test_defaults_of_the_engine_can_be_changed_per_call(model, tokenizer):
    engine = FinchEngine(
        model,
        tokenizer,
        compression=CompressionConfig(target_size=50),
        sampling=SamplingParams(max_tokens=3),
    )
    assert engine.compress(LONG, "What?").stats.kept_tokens == 50
    context = engine.compress(LONG, "What?", compression_ratio=0.5)
    assert context.stats.kept_tokens == 301
    assert engine.generate(context).generation_tokens == 3
    assert engine.generate(context, max_tokens=5).generation_tokens == 5


def test_progress_is_reported_after_every_chunk(engine):
    seen = []
    options = {"method": "finch", "chunk_length": 250, "target_size": 90}
    engine.compress(LONG, "What?", progress=seen.append, **options)
    assert [(p.tokens, p.total_tokens) for p in seen] == [(250, 602), (500, 602), (602, 602)]
    assert seen[0].seconds <= seen[1].seconds <= seen[2].seconds


def test_an_exception_from_progress_cancels(engine):
    calls = []

    def cancel(progress):
        calls.append(progress)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.compress(LONG, "What?", target_size=90, chunk_length=100, progress=cancel)
    assert len(calls) == 1


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_an_exception_in_a_forward_leaves_the_model_as_it_was(tokenizer, implementation):
    model = make_model()
    model.set_attn_implementation(implementation)
    # What would be kept would not be computed again.
    engine = FinchEngine(model, tokenizer, store=PassageStore(memory_bytes=0))
    before = engine.compress(LONG, "What?", target_size=90)
    state = {k: v for k, v in vars(model.config).items()}

    class Broken(Exception):
        pass

    def fail(*_):
        raise Broken

    handle = model.model.layers[1].mlp.register_forward_pre_hook(fail)
    with pytest.raises(Broken):
        engine.compress(LONG, "What?", target_size=90)
    handle.remove()
    assert model.config._attn_implementation == implementation
    assert vars(model.config) == state
    assert not any(module._forward_hooks for module in model.modules())
    after = engine.compress(LONG, "What?", target_size=90)
    assert all(torch.equal(x, y) for x, y in zip(before.kept, after.kept, strict=True))
    assert engine.generate(after, max_tokens=5) == engine.generate(before, max_tokens=5)


def test_both_attention_implementations_choose_the_same(tokenizer):
    results = []
    for implementation in ("sdpa", "eager"):
        model = make_model()
        model.set_attn_implementation(implementation)
        engine = FinchEngine(model, tokenizer)
        context = engine.compress(LONG, "What?", target_size=90, chunk_length=100)
        results.append((context.kept, engine.generate(context, max_tokens=20).tokens))
    assert all(torch.equal(x, y) for x, y in zip(results[0][0], results[1][0], strict=True))
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("shared", ["model", "configuration", "nothing"])
def test_engines_in_threads_do_not_disturb_each_other(tokenizer, shared):
    first = make_model()
    second = {"model": lambda: first, "configuration": lambda: type(first)(first.config).eval()}
    models = [first, second.get(shared, make_model)()]
    engines = [FinchEngine(model, tokenizer) for model in models]

    def work(number):
        engine, question = engines[number], f"What is {number}?"
        context = engine.compress(LONG, question, target_size=60 + number, chunk_length=50)
        return engine.generate(context, max_tokens=15).tokens

    expected = [work(0), work(1)]
    results = {0: [], 1: []}
    errors = []

    def loop(number):
        try:
            for _ in range(6):
                results[number].append(work(number))
        except BaseException as error:  # reported below
            errors.append(error)

    threads = [threading.Thread(target=loop, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert results == {0: [expected[0]] * 6, 1: [expected[1]] * 6}
    assert {model.config._attn_implementation for model in models} == {"sdpa"}


def test_a_model_in_training_mode_is_refused(model, tokenizer):
    with pytest.raises(ConfigurationError, match=r"call model\.eval|Call model\.eval"):
        FinchEngine(model.train(), tokenizer)


def test_a_closed_engine_says_so(engine):
    engine.close()
    with pytest.raises(ConfigurationError, match="closed"):
        engine.compress(LONG, "What?")
    engine.close()  # twice is fine


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        (
            {"target_size": 0},
            ConfigurationError,
            "target_size must be a whole number of at least 1",
        ),
        ({"target_size": -5}, ConfigurationError, "got -5"),
        ({"target_size": 2.5}, ConfigurationError, "got 2.5"),
        ({"target_size": True}, ConfigurationError, "got True"),
        ({"compression_ratio": 1.0}, ConfigurationError, "below 1, got 1.0"),
        ({"compression_ratio": -0.1}, ConfigurationError, "at least 0"),
        ({"compression_ratio": float("nan")}, ConfigurationError, "got nan"),
        ({"max_kv_bytes": 0}, ConfigurationError, "max_kv_bytes"),
        ({"max_kv_bytes": 5000}, ContextTooLongError, "holds 9 tokens of 512 bytes each"),
        ({"target_size": 5, "compression_ratio": 0.5}, ConfigurationError, "give one budget"),
        ({"target_sise": 5}, ConfigurationError, "did you mean 'target_size'"),
        ({"bogus": 5}, ConfigurationError, "unknown option 'bogus'; known: target_size"),
        ({"chunk_length": 0}, ConfigurationError, "chunk_length"),
        ({"selection": "head"}, ConfigurationError, "one of layer, kv_head, got 'head'"),
        ({"budget_schedule": "x"}, ConfigurationError, "one of linear, fill"),
        ({"pooling": "x"}, ConfigurationError, "one of none, max, mean"),
        ({"pooling_kernel": 4}, ConfigurationError, "must be odd"),
        (
            {"method": "finch", "pooling_kernel": 7},
            ConfigurationError,
            "pooling_kernel does nothing with pooling='none'.*Leave it out",
        ),
        ({"normalize_scores": 1}, ConfigurationError, "True or False"),
        ({"method": "magic"}, ConfigurationError, "unknown method 'magic'. Known: .*finch"),
    ],
)
def test_bad_options_are_named(engine, options, error, reason):
    with pytest.raises(error, match=reason):
        engine.compress(LONG, "What?", **options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": 5}, "stop must hold non-empty strings, got 5"),
        ({"stop": False}, "stop must hold non-empty strings, got False"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_bad_sampling_options_are_named(engine, options, reason):
    context = engine.compress(LONG, "What?", target_size=50)
    with pytest.raises(ConfigurationError, match=reason):
        engine.generate(context, **options)


@pytest.mark.parametrize("question", ["", "  \n", None, "a\x00b", "\udc00"])
def test_unusable_questions_are_an_error(engine, question):
    with pytest.raises(InvalidInputError, match="the question"):
        engine.compress(LONG, question)


def test_a_prompt_larger_than_the_window_is_an_error(tokenizer):
    engine = FinchEngine(make_model(max_position_embeddings=200), tokenizer)
    with pytest.raises(ContextTooLongError, match=r"fill the model's window of 200 tokens"):
        engine.compress(LONG, text_of(150))


def test_a_target_larger_than_the_window_is_an_error(tokenizer):
    engine = FinchEngine(make_model(max_position_embeddings=400), tokenizer)
    with pytest.raises(ContextTooLongError, match="Keep at most") as caught:
        engine.compress(LONG, "What?", target_size=500)
    most = int(str(caught.value).split("at most ")[1].split()[0])
    assert engine.compress(LONG, "What?", target_size=most).stats.peak_kv_tokens <= 400
    with pytest.raises(ContextTooLongError):
        engine.compress(LONG, "What?", target_size=most + 1)


def test_a_context_of_another_model_is_refused(tokenizer):
    ours = FinchEngine(make_model(), tokenizer)
    other = FinchEngine(make_model(num_hidden_layers=3), tokenizer)
    with pytest.raises(InvalidInputError, match="another model"):
        other.generate(ours.compress(LONG, "What?", target_size=50))


def test_a_tokenizer_may_be_made_anew(model):
    engine = FinchEngine(model, make_tokenizer())
    assert engine.compress(["text"], "What?").stats.kept_tokens == 4
