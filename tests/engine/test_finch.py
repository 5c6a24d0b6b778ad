"""The Finch method against the slow reference, for every option and architecture."""

import pytest
import torch

from finch_integrations import FinchEngine
from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.document_tokens import DocumentSpan, DocumentTokens
from finch_integrations.engine.methods.finch import evict_by_attention
from finch_integrations.engine.model_input import ModelInput
from finch_integrations.engine.prompt import Frame, Prompt, QuestionWindow
from tests.reference import reference_finch
from tests.tiny import FULL_ATTENTION, ROPE, make_model, make_tokenizer, text_of

PREFIX, WINDOW, QUESTION, CLOSING = 5, 6, 4, 3  # the question is the window's end


def random_input(documents=60, seed=1):
    generator = torch.Generator().manual_seed(seed)
    size = PREFIX + documents + WINDOW + CLOSING
    ids = torch.randint(0, 256, (size,), generator=generator).tolist()
    rest = tuple(ids[PREFIX + documents :])
    span = DocumentSpan(0, documents, text_start=0)
    tokens = tuple(ids[PREFIX : PREFIX + documents])
    frame = Frame(
        prefix=tuple(ids[:PREFIX]),
        suffix=rest,
        window=QuestionWindow(rest[:WINDOW], length=QUESTION),
        null_window=QuestionWindow((), length=0),
        question="",
    )
    prompt = Prompt(question="")
    return ModelInput([], prompt, DocumentTokens(tokens, (span,), "", (0,) * documents), frame)


def run(model, inputs, *, target, chunk_length, **options):
    backbone = Backbone(model, None, "tiny")
    config = CompressionConfig(
        method="finch", target_size=target, chunk_length=chunk_length, **options
    )
    peaks = []
    compressed = evict_by_attention(
        backbone, inputs, target, chunk_length, config, lambda seen, kv: peaks.append(kv)
    )
    return compressed, peaks


def assert_same(compressed, reference, *, atol=1e-4):
    kept, keys, values = reference
    for layer, states in enumerate(compressed.cache.layers):
        chosen = compressed.kept[layer].tolist()
        assert chosen == (kept[layer] if len(chosen) > 1 else kept[layer][:1])
        torch.testing.assert_close(states.keys[0], keys[layer], atol=atol, rtol=1e-4)
        torch.testing.assert_close(states.values[0], values[layer], atol=atol, rtol=1e-4)


def assert_equals_reference(model, inputs, **options):
    compressed, _ = run(model, inputs, **options)
    frame = inputs.frame
    reference = reference_finch(
        model, frame.prefix, inputs.tokens.ids, frame.window.ids, rows=QUESTION, **options
    )
    assert_same(compressed, reference)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"selection": "kv_head"},
        {"budget_schedule": "fill"},
        {"selection": "kv_head", "budget_schedule": "fill"},
        {"normalize_scores": True},
        {"pooling": "max"},
        {"pooling": "mean", "pooling_kernel": 3},
        {"pooling": "max", "selection": "kv_head", "pooling_kernel": 7},
    ],
    ids=lambda options: ",".join(f"{k}={v}" for k, v in options.items()) or "paper",
)
@pytest.mark.parametrize(("target", "chunk_length"), [(20, 16), (7, 60), (31, 5)])
def test_every_option_equals_the_reference(options, target, chunk_length):
    model, inputs = make_model(), random_input()
    assert_equals_reference(model, inputs, target=target, chunk_length=chunk_length, **options)


@pytest.mark.parametrize("kv_heads_of", [(4, 4), (6, 2), (8, 1)], ids=["gqa1", "gqa3", "gqa8"])
@pytest.mark.parametrize("architecture", FULL_ATTENTION)
def test_every_architecture_equals_the_reference(architecture, kv_heads_of):
    heads, kv_heads = kv_heads_of
    model = make_model(architecture, heads=heads, kv_heads=kv_heads)
    inputs = random_input(50)
    for selection in ("layer", "kv_head"):
        assert_equals_reference(model, inputs, target=17, chunk_length=20, selection=selection)


@pytest.mark.parametrize("rope", ROPE)
def test_every_rope_type_equals_the_reference(rope):
    model, inputs = make_model(rope=ROPE[rope]), random_input()
    assert_equals_reference(model, inputs, target=20, chunk_length=16)


def test_partial_rotary_equals_the_reference():
    model = make_model("phi3", rope=ROPE["default"] | {"partial_rotary_factor": 0.5})
    assert Backbone(model, None, "tiny").spec.inv_freq.numel() == 4  # half of 16 dims, in pairs
    inputs = random_input()
    assert_equals_reference(model, inputs, target=20, chunk_length=16)


@pytest.mark.parametrize("architecture", FULL_ATTENTION)
def test_bfloat16_follows_float32(architecture):
    """With the same weights; rounding may swap close calls, so most choices must agree."""
    inputs = random_input(100)
    model = make_model(architecture, dtype=torch.bfloat16)
    run16, _ = run(model, inputs, target=40, chunk_length=25)
    run32, _ = run(model.float(), inputs, target=40, chunk_length=25)
    for layer, states in enumerate(run16.cache.layers):
        assert states.keys.dtype == torch.bfloat16
        assert states.keys.shape[-2] == states.values.shape[-2] == PREFIX + 40
        assert torch.isfinite(states.keys).all()
        same = set(run32.kept[layer][0].tolist()) & set(run16.kept[layer][0].tolist())
        assert len(same) >= 28  # chance would give 16


def test_the_cache_never_exceeds_its_bound_over_200_chunks():
    model = make_model(max_position_embeddings=256)
    inputs = random_input(200 * 16)
    target, chunk_length = 64, 16
    for schedule in ("linear", "fill"):
        compressed, peaks = run(
            model, inputs, target=target, chunk_length=chunk_length, budget_schedule=schedule
        )
        assert len(peaks) == 200
        assert max(peaks) <= PREFIX + target + chunk_length + WINDOW
        for layer, states in enumerate(compressed.cache.layers):
            assert states.keys.shape[-2] == PREFIX + target
            kept = compressed.kept[layer]
            assert kept.shape == (1, target)
            assert (kept.diff() > 0).all()
            assert kept.max() < 3200


def test_the_chunk_is_made_shorter_where_the_window_has_no_room_for_it():
    engine = FinchEngine(make_model(max_position_embeddings=256), make_tokenizer())
    stats = engine.compress([text_of(500)], "What?", method="finch", target_size=80).stats
    assert engine.compression.chunk_length > 256
    assert stats.prefix_tokens + 80 < stats.peak_kv_tokens <= 256
