"""Encoded prompts that are kept: to the bit what would be made, within the cap, and forgotten."""

import pytest
import torch

from finch_integrations import Document, FinchEngine, PassageStore
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import cache_length
from finch_integrations.engine.encodings import Encodings
from tests.tiny import CONFIGS, make_model, make_tokenizer, text_of

PARTS = (tuple(range(40, 57)), tuple(range(60, 90)))
LONG = [Document(text_of(400, seed=1), id="a"), Document(text_of(200, seed=2), id="b")]


def backbone_of(model):
    return Backbone(model, make_tokenizer(), "tiny")


def fed_tokens(model):
    """A list that grows by how many tokens the model is fed, call by call."""
    fed = []
    model.register_forward_hook(
        lambda _module, _args, options, _output: fed.append(options["input_ids"].numel()),
        with_kwargs=True,
    )
    return fed


def states_of(cache):
    return [states for layer in cache.layers for states in (layer.keys, layer.values)]


def assert_same(cache, other):
    for mine, its in zip(states_of(cache), states_of(other), strict=True):
        assert torch.equal(mine, its)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_what_is_found_again_is_to_the_bit_what_would_be_made(architecture):
    backbone = backbone_of(make_model(architecture))
    kept, fresh = Encodings(1 << 20), Encodings(0)
    for parts in (PARTS, PARTS[:1], PARTS, [*PARTS, (5, 6)]):
        assert_same(kept.encode(backbone, parts, 8), fresh.encode(backbone, parts, 8))


def test_the_tokens_are_those_that_the_model_would_be_fed_in_one_go():
    backbone = backbone_of(make_model())
    whole = backbone.encode([*PARTS[0], *PARTS[1]], 8)
    for mine, its in zip(
        states_of(Encodings(0).encode(backbone, PARTS, 8)), states_of(whole), strict=True
    ):
        torch.testing.assert_close(mine, its)


def test_growing_what_was_returned_leaves_what_is_kept_as_it_is():
    backbone = backbone_of(make_model())
    encodings = Encodings(1 << 20)
    for _ in range(3):
        cache = encodings.encode(backbone, PARTS, 8)
        assert cache_length(cache) == len(PARTS[0]) + len(PARTS[1])
        for token in (7, 8):
            backbone.forward([token], cache)
        backbone.forward([7, 8, 9], cache)


def test_only_what_is_new_is_fed_and_every_step_of_the_last_part_is_told():
    model = make_model()
    backbone, encodings, steps = backbone_of(model), Encodings(1 << 20), []
    fed = fed_tokens(model)
    encodings.encode(backbone, PARTS[:1], 8)
    assert fed == [8, 8, 1]
    fed.clear()
    encodings.encode(backbone, PARTS, 16, lambda *step: steps.append(step))
    assert fed == [16, 1, 16, 14], "in other steps the last bits differ: nothing is taken"
    assert steps == [(16, 33), (30, 47)]
    fed.clear(), steps.clear()
    encodings.encode(backbone, (*PARTS[:1], (5, 6)), 8)
    assert fed == [2]
    encodings.encode(backbone, PARTS, 16, lambda *step: steps.append(step))
    assert fed == [2]
    assert steps == [(30, 47)]


def test_parts_that_are_divided_elsewhere_are_not_mixed_up():
    model = make_model()
    backbone, encodings = backbone_of(model), Encodings(1 << 20)
    encodings.encode(backbone, [(1, 2), (3,)], 8)
    fed = fed_tokens(model)
    encodings.encode(backbone, [(1,), (2, 3)], 8)
    assert fed == [1, 2]


def test_another_model_does_not_get_it():
    encodings = Encodings(1 << 20)
    encodings.encode(backbone_of(make_model()), PARTS, 8)
    other = make_model("qwen2")
    fed = fed_tokens(other)
    cache = encodings.encode(backbone_of(other), PARTS, 8)
    assert sum(fed) == len(PARTS[0]) + len(PARTS[1])
    assert_same(cache, Encodings(0).encode(backbone_of(other), PARTS, 8))


def test_the_least_recently_used_go_and_what_is_larger_than_the_cap_is_not_kept():
    model = make_model()
    backbone = backbone_of(model)
    size = 10 * backbone.spec.kv_bytes_per_token
    encodings = Encodings(2 * size)
    first, second, third = ([range(n, n + 10)] for n in (40, 60, 80))
    for parts in (first, second, first, third):
        encodings.encode(backbone, parts, 8)
        assert encodings.nbytes <= 2 * size
    fed = fed_tokens(model)
    encodings.encode(backbone, first, 8)
    encodings.encode(backbone, third, 8)
    assert fed == []
    encodings.encode(backbone, [range(40, 61)], 8)
    assert encodings.nbytes == 2 * size, "nothing had to go for what does not fit anyway"
    fed.clear()
    encodings.encode(backbone, second, 8)
    assert fed == [8, 2]
    assert encodings.nbytes == 2 * size


def test_a_question_that_was_asked_before_runs_the_model_only_for_its_answer():
    model = make_model()
    engine = FinchEngine(model, make_tokenizer())
    context = engine.compress(LONG, "What?", target_size=90)
    fed, reports = fed_tokens(model), []
    again = engine.compress(LONG, "What?", target_size=90, progress=reports.append)
    assert fed == []
    assert_same(again.cache, context.cache)
    assert reports[-1].tokens == reports[-1].total_tokens
    assert again.stats.peak_kv_tokens == cache_length(again.cache)
    answers = [engine.generate(one, max_tokens=5).text for one in (context, again, again)]
    assert answers == [answers[0]] * 3


@pytest.mark.parametrize(("memory_bytes", "times"), [(1 << 20, 0), (0, 2)])
def test_the_prompt_before_the_documents_is_read_once_for_all_questions(memory_bytes, times):
    model = make_model()
    store = PassageStore(memory_bytes=memory_bytes)
    engine = FinchEngine(model, make_tokenizer(), store=store)
    options = {"target_size": 90, "system": "Answer briefly, and only from the documents. " * 4}
    prefix = engine.compress(LONG, "What?", **options).stats.prefix_tokens
    fed = fed_tokens(model)
    engine.compress(LONG, "And why?", **options)
    assert fed.count(prefix) == times, "without memory: to choose, and to answer"


@pytest.mark.parametrize("forget", ["clear", "close", "memory_bytes=0"])
def test_what_is_cleared_or_not_allowed_is_not_kept(forget):
    model = make_model()
    store = PassageStore(memory_bytes=0) if forget == "memory_bytes=0" else PassageStore()
    engine = FinchEngine(model, make_tokenizer(), store=store)
    engine.compress(LONG, "What?", target_size=90)
    if forget == "clear":
        store.clear()
    elif forget == "close":
        engine.close()
    assert store.encodings.nbytes == 0
    fed = fed_tokens(model)
    again = FinchEngine(model, make_tokenizer(), store=store)
    context = again.compress(LONG, "What?", target_size=90)
    assert sum(fed) >= cache_length(context.cache)
