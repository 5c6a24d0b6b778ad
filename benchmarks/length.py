"""Time and peak memory against the documents' length, up to lengths that only a GPU can handle.

    python -m benchmarks.length --device cuda

The model has the shape of Llama 3.2 1B and random weights: neither time nor memory depends on the
values of the weights. Every length is measured after a shorter warm-up, methods in turn,
`--repeats` times. `full` is one prefill of everything in chunks, which is all that a model without
compression can do.
"""

import argparse
import json
import random
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from benchmarks.quality import RESULTS, machine_name
from finch_integrations import FinchEngine
from finch_integrations.engine import embedded
from finch_integrations.engine.loading import resolve_device

LENGTHS = (8, 16, 32, 64, 128)  # thousands of 1,024 tokens
TARGET, CHUNK = 2048, 1024
METHODS = ("full", "likelihood", "contrast", "finch")
QUESTION = "What is the door code of the chemical store?"


def make_engine(device: torch.device) -> FinchEngine:
    """Build the model on the device; bfloat16 on a GPU, float32 elsewhere."""
    tokenizer = AutoTokenizer.from_pretrained(embedded.MODEL.path(), local_files_only=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=131_072 + 8192,
        rope_theta=500_000.0,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return FinchEngine(model.eval(), tokenizer)


def make_text(engine: FinchEngine, tokens: int) -> str:
    """Sentences of common words, about this many tokens."""
    draw = random.Random(0)
    words = ("the", "door", "of", "a", "store", "room", "has", "one", "code", "and", "boat")
    count = tokens // 10
    sentences = [" ".join(draw.choices(words, k=12)).capitalize() + "." for _ in range(count)]
    tokenizer = engine.backbone.tokenizer
    ids = tokenizer(" ".join(sentences), add_special_tokens=False, verbose=False).input_ids
    assert len(ids) >= tokens
    return str(tokenizer.decode(ids[:tokens]))


def measure(engine: FinchEngine, method: str, text: str) -> dict[str, float]:
    """Compress once; seconds, and on a GPU the peak of bytes in addition to the model."""
    cuda = engine.backbone.device.type == "cuda"
    # A target with room for everything makes it one full prefill.
    options = (
        {"target_size": 10**6} if method == "full" else {"method": method, "target_size": TARGET}
    )
    before = 0
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    context = engine.compress([text], QUESTION, chunk_length=CHUNK, **options)
    if cuda:
        torch.cuda.synchronize()
    result = {"seconds": time.perf_counter() - started, "tokens": context.stats.document_tokens}
    if cuda:
        result["bytes"] = torch.cuda.max_memory_allocated() - before
    return result


def main() -> None:
    """Measure, print a table and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, help="in 1,024 tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "length.json")
    options = parser.parse_args()
    device = resolve_device(options.device)
    engine = make_engine(device)
    rows: list[dict[str, Any]] = []
    report = {
        "date": date.today().isoformat(),
        "model": "shape of Llama 3.2 1B, random weights, "
        + str(engine.backbone.model.dtype).removeprefix("torch."),
        "target_size": TARGET,
        "chunk_length": CHUNK,
        "repeats": options.repeats,
        "machine": machine_name(device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "rows": rows,
    }
    for length in options.lengths:
        text = make_text(engine, length * 1024)
        for method in METHODS:
            measure(engine, method, text[: len(text) // 4])
            runs = [measure(engine, method, text) for _ in range(options.repeats)]
            median = statistics.median(run["seconds"] for run in runs)
            rows.append({"length": length, "method": method, **runs[0], "seconds": median})
            gib = runs[0].get("bytes", 0) / 2**30
            print(f"{length:4}k {method:12} {median:8.2f} s {gib:8.2f} GiB", flush=True)
            # At once: the longest texts take long, and a run may be cut off.
            options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
