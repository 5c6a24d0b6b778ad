"""The engine on a GPU does what it does on the CPU. Needs one; elsewhere these are skipped."""

import pytest
import torch

from finch_integrations import FinchEngine
from finch_integrations.engine.batching import tokens_at_once
from finch_integrations.types import Document
from tests.tiny import FULL_ATTENTION, SLIDING, make_model, make_tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

DOCUMENTS = [
    Document(text=f"Room {n} is {colour}. " * 9, title=f"Floor {n}")
    for n, colour in enumerate(["red", "green", "blue", "grey", "white", "black"])
]
QUESTION = "Which colour is room 3?"
CASES = [
    *((name, method) for name in FULL_ATTENTION for method in ("likelihood", "contrast", "finch")),
    *((name, "likelihood") for name in SLIDING),
]


def engine_on(device, architecture, **kwargs):
    return FinchEngine(make_model(architecture, **kwargs).to(device), make_tokenizer())


def compress(engine, method, **options):
    return engine.compress(
        DOCUMENTS, QUESTION, method=method, target_size=200, chunk_length=128, **options
    )


@pytest.mark.parametrize(("architecture", "method"), CASES)
def test_the_same_tokens_are_kept_and_the_same_text_is_written(architecture, method):
    contexts, answers = [], []
    for device in ("cpu", "cuda"):
        engine = engine_on(device, architecture)
        context = compress(engine, method)
        contexts.append(context)
        pieces = engine.stream(context, max_tokens=8)
        answers.append([token for piece in pieces for token in piece.tokens])
    cpu, cuda = contexts
    for ours, theirs in zip(cpu.kept, cuda.kept, strict=True):
        torch.testing.assert_close(ours, theirs.cpu())
    for ours, theirs in zip(cpu.cache.layers, cuda.cache.layers, strict=True):
        assert theirs.keys.device.type == "cuda"
        torch.testing.assert_close(ours.keys, theirs.keys.cpu(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.values, theirs.values.cpu(), rtol=1e-3, atol=1e-4)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["likelihood", "contrast", "finch"])
def test_half_precision_gives_finite_states(method, dtype):
    context = compress(engine_on("cuda", "llama", dtype=dtype), method)
    for layer in context.cache.layers:
        assert layer.keys.dtype == dtype
        assert layer.keys.isfinite().all()
        assert layer.values.isfinite().all()


def test_a_saved_context_goes_from_one_device_to_the_other(tmp_path):
    cpu, cuda = engine_on("cpu", "llama"), engine_on("cuda", "llama")
    for source, target in ((cuda, cpu), (cpu, cuda)):
        context = compress(source, "finch")
        path = tmp_path / f"{target.backbone.device.type}.finch"
        context.save(path)
        loaded = target.load_context(path)
        assert loaded.cache.layers[0].keys.device.type == target.backbone.device.type
        written = [
            [token for piece in engine.stream(it, max_tokens=8) for token in piece.tokens]
            for engine, it in ((source, context), (target, loaded))
        ]
        assert written[0] == written[1]


def test_memory_stays_bounded_while_documents_grow():
    engine = engine_on("cuda", "llama")
    peaks = []
    for copies in (8, 32):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        engine.compress(
            DOCUMENTS * copies, QUESTION, method="finch", target_size=200, chunk_length=128
        )
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("architecture", ["llama", "granite", *SLIDING])
def test_every_batch_size_gives_the_same_scores(architecture):
    engine = engine_on("cuda", architecture)
    free = torch.cuda.mem_get_info()[0]
    assert (
        128
        <= tokens_at_once(engine.backbone, 128)
        < free // engine.backbone.spec.kv_bytes_per_token
    )
    found = [
        engine.select(DOCUMENTS, QUESTION, target_size=200, batch_tokens=tokens)
        for tokens in (None, 1, 300)
    ]
    scores = [torch.tensor([excerpt.score for excerpt in one.excerpts]) for one in found]
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0], atol=1e-5, rtol=1e-5)
    assert len({one.positions for one in found}) == 1


def test_the_speed_of_copying_is_measured():
    assert 1e8 < engine_on("cuda", "llama").backbone.copy_speed < 1e12
