"""A model by its settings: loaded once, shared, closed, with or without a scorer."""

import copy
import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from finch_integrations import (
    ConfigurationError,
    Document,
    FinchEngine,
    ModelLoadError,
)
from finch_integrations.engine import registry
from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.pipeline.shared_engine import SharedEngine
from tests.engine.test_side_by_side import count_batches
from tests.tiny import make_model, text_of

CHAT = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "What is new?"},
)


@pytest.fixture
def handle(engine):
    return SharedEngine(engine)


def request(**changes):
    options = {"messages": CHAT, "sampling": {"max_tokens": 12}}
    return AskRequest(**options | changes)


def text(pieces):
    return "".join(piece.text for piece in pieces)


def test_a_handle_by_name_loads_when_first_used_and_shares(folder):
    first, second = SharedEngine(folder), SharedEngine(str(folder))
    assert first == second
    assert hash(first) == hash(second)
    assert not first.loaded
    assert text(first.stream(request()))
    assert second.loaded
    assert second.engine is first.engine
    second.close()
    assert not first.loaded
    assert text(first.stream(request()))  # loads again
    first.close()


def test_handles_that_load_at_once_share_one_engine(folder):
    handles = [SharedEngine(folder) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(lambda handle: handle.engine, handles))
    assert len(set(map(id, engines))) == 1
    handles[0].close()


def test_copies_and_pickles_carry_settings_not_weights(folder, handle):
    named = SharedEngine(folder, dtype="float32")
    assert pickle.loads(pickle.dumps(named)) == named
    assert copy.deepcopy(named) is copy.copy(named) is named
    assert not named.loaded
    assert copy.deepcopy(handle).engine is handle.engine
    with pytest.raises(ConfigurationError, match="cannot be pickled. Name the model"):
        pickle.dumps(handle)


def test_a_loaded_model_is_taken_with_its_tokenizer(model, tokenizer):
    handle = SharedEngine(model, tokenizer)
    assert handle.loaded
    assert handle.engine.backbone.model is model
    handle.close()
    assert text(handle.stream(request()))  # its owner's to close
    assert handle != SharedEngine(FinchEngine(model, tokenizer))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (lambda m, t: {"model": m}, "needs its tokenizer"),
        (lambda m, t: {"model": "embedded", "tokenizer": t}, "Leave the tokenizer out"),
        (lambda m, t: {"model": FinchEngine(m, t), "tokenizer": t}, "leave tokenizer out"),
        (lambda m, t: {"model": m, "tokenizer": t, "dtype": "float16"}, "dtype cannot be applied"),
        (lambda m, t: {"model": 5}, "model must be a name.*got int"),
    ],
)
def test_contradictory_arguments_are_named(model, tokenizer, arguments, reason):
    with pytest.raises(ConfigurationError, match=reason):
        SharedEngine(**arguments(model, tokenizer))


def test_errors_of_loading_reach_the_caller(tmp_path):
    with pytest.raises(ModelLoadError, match="there is no model folder"):
        list(SharedEngine(tmp_path / "missing").stream(request()))


def leases(folder):
    return sum(entry.leases for key, entry in registry._entries.items() if str(folder) in key)


def test_equal_weights_are_one_however_they_are_asked_for(folder):
    first = SharedEngine(folder, dtype="float32")
    second = SharedEngine(folder, device=first.engine.backbone.device, dtype=torch.float32)
    assert first != second
    assert first.engine.backbone is second.engine.backbone
    first.close()  # for everyone
    assert not second.loaded
    second.close()


def test_closing_leaves_what_others_have_leased(folder):
    with FinchEngine.from_pretrained(folder) as own:
        shared = SharedEngine(folder)
        assert shared.engine.backbone is own.backbone
        shared.close()
        assert own.compress(["text"], "What?").stats.kept_tokens == 4
    assert not leases(folder)


def test_a_scorer_that_was_leased_for_a_ready_model_ends_with_it(folder, engine):
    scored = SharedEngine.of(SharedEngine(engine), scorer=folder)
    assert scored.engine.scorer.backbone.name == str(folder)
    assert leases(folder) == 1
    del scored
    gc.collect()
    assert not leases(folder)
    scored = SharedEngine(engine, scorer=folder)
    assert scored.engine.scorer
    scored.close()
    assert not leases(folder)
    assert scored.engine.scorer  # loads again
    scored.close()


def test_a_scorer_by_name_is_where_the_model_is(folder, tokenizer):
    engine = FinchEngine(make_model(dtype=torch.float64), tokenizer)
    scored = SharedEngine(engine, scorer=folder)
    assert scored.engine.scorer.backbone.model.dtype == torch.float64
    scored.close()


def test_another_model_of_a_call_keeps_device_and_scorer(folders):
    shared = SharedEngine(folders[0], dtype="float64", revision="x", scorer=folders[1])
    other = shared.named(str(folders[1]))
    assert other == SharedEngine(folders[1], dtype="float64", scorer=shared.scorer)
    assert shared.named(None) is shared.named(shared.name) is shared


def test_whoever_runs_a_model_shares_its_worker_and_its_forward_passes(engine, model, tokenizer):
    same, other = SharedEngine(model, tokenizer), SharedEngine(make_model(), tokenizer)
    batches, others = [], []
    for runs, seen in ((model, batches), (other.engine.backbone.model, others)):
        runs.register_forward_pre_hook(
            lambda _, __, kwargs, seen=seen: seen.append(len(kwargs["input_ids"])),
            with_kwargs=True,
        )
    streams = [shared.stream(request()) for shared in (SharedEngine(engine), same, other)]
    threads = [threading.Thread(target=list, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(batches) == {1, 2}
    assert set(others) == {1}


def test_two_models_never_wait_for_each_other(engine, model, tokenizer):
    inside, go_on = threading.Event(), threading.Event()

    def pause(*_):
        inside.set()
        go_on.wait(10)

    model.register_forward_pre_hook(pause)
    waiting = threading.Thread(target=lambda: list(SharedEngine(engine).stream(request())))
    waiting.start()
    assert inside.wait(10)
    other = FinchEngine(make_model(), tokenizer)
    assert text(SharedEngine(other).stream(request()))  # while the first one is at work
    assert waiting.is_alive()
    go_on.set()
    waiting.join(10)
    assert not waiting.is_alive()


def test_requests_of_one_call_are_answered_together_each_as_alone(engine, handle):
    documents = [(Document(text_of(150, seed=seed)),) for seed in range(11)]
    options = [
        {"documents": documents[n], "compression": {"target_size": 60}} if n % 3 else {}
        for n in range(11)
    ]
    requests = [
        request(
            messages=({"role": "user", "content": f"What is it, {n}?"},),
            sampling={"max_tokens": 6 + n, "temperature": 3.0, "seed": n},
            **options[n],
        )
        for n in range(11)
    ]
    alone = [handle.answer_all([one])[0] for one in requests]
    sizes = count_batches(engine)
    together = handle.answer_all(requests)
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert [answer.generation_tokens for answer in alone] == [6 + n for n in range(11)]
    assert max(sizes) == 8
    assert handle.answer_all([]) == []


def test_one_request_that_fails_ends_the_others_of_its_call(engine, handle):
    sizes = count_batches(engine)
    long = request(sampling={"max_tokens": 500})
    with pytest.raises(ConfigurationError, match="temperature"):
        handle.answer_all([long, request(sampling={"temperature": -1})])
    assert len(sizes) < 3
    assert handle.answer_all([request()])[0].text
