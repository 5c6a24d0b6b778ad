"""Time and peak memory against the documents' length, up to lengths that only a GPU can handle.

    python -m benchmarks.length --shape 1b
    python -m benchmarks.length --shape 8b --out benchmarks/results/length-8b.json

The rival is what a user without this package would run: one prefill of everything in one pass, by
transformers with PyTorch's fused attention. Both start from text. The models have the shapes of
Llama 3.2 1B and Llama 3.1 8B and random weights: neither time nor memory depends on the values of
the weights, and how much is read does not, either. Every length is measured after a shorter
warm-up, the kinds of work in turn, `--repeats` times; the median is reported.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from benchmarks.quality import RESULTS, machine_name
from finch_integrations import FinchEngine, PassageStore
from finch_integrations.engine import embedded
from finch_integrations.engine.loading import resolve_device

LENGTHS = (8, 16, 32, 64, 128)  # thousands of 1,024 tokens
TARGET, DOCUMENT = 2048, 1024
# Hidden size, intermediate size, layers, heads, KV heads.
SHAPES = {
    "0.1b": ("SmolLM2 135M", (576, 1536, 30, 9, 3)),
    "1b": ("Llama 3.2 1B", (2048, 8192, 16, 32, 8)),
    "8b": ("Llama 3.1 8B", (4096, 14336, 32, 32, 8)),
}
SCORER = "0.1b"


def make_engine(shape: str, device: torch.device) -> FinchEngine:
    """Build the model on the device; bfloat16 on a GPU, float32 elsewhere."""
    tokenizer = AutoTokenizer.from_pretrained(embedded.MODEL.path(), local_files_only=True)
    hidden, intermediate, layers, heads, kv_heads = SHAPES[shape][1]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        max_position_embeddings=131_072 + 8192,
        rope_theta=500_000.0,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return FinchEngine(model.eval(), tokenizer)


def make_documents(tokenizer: Any, tokens: int) -> list[str]:
    """Documents of sentences of common words, about so many tokens together."""
    draw = random.Random(0)
    words = ("the", "door", "of", "a", "store", "room", "has", "one", "code", "and", "boat")
    sentences = [
        " ".join(draw.choices(words, k=12)).capitalize() + "." for _ in range(tokens // 10)
    ]
    ids = tokenizer(" ".join(sentences), add_special_tokens=False, verbose=False).input_ids
    assert len(ids) >= tokens
    return [tokenizer.decode(ids[at : at + DOCUMENT]) for at in range(0, tokens, DOCUMENT)]


def kinds_of(
    engine: FinchEngine, scorer: FinchEngine | None, documents: list[str]
) -> dict[str, Callable[[str], object]]:
    """What is measured, by name: functions of a question that no run has asked before."""

    def prefill(question: str) -> object:
        ids = engine.backbone.tokenizer("\n\n".join([*documents, question]), verbose=False)
        batch = torch.tensor([ids.input_ids], device=engine.backbone.device)
        with torch.inference_mode():
            return engine.backbone.model(batch, use_cache=True, logits_to_keep=1)

    def ask(question: str, **options: Any) -> object:
        return engine.compress(documents, question, target_size=TARGET, **options)

    def first(question: str, **options: Any) -> object:
        for reader in (engine, scorer):
            if reader is not None:
                reader.store = PassageStore()
        return ask(question, **options)

    if scorer is not None:
        engine.scorer = scorer
        return {"full": prefill, "likelihood": first, "second question": ask}
    return {
        "full": prefill,
        "likelihood": first,
        "second question": ask,
        "likelihood, everything read": lambda question: first(question, read_size="all"),
        "finch": lambda question: first(question, method="finch"),
    }


def measure(work: Callable[[str], object], question: str, device: torch.device) -> dict[str, float]:
    """Do it once; seconds, and on a GPU the peak of bytes in addition to the models."""
    cuda = device.type == "cuda"
    before = 0
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    made = work(question)
    if cuda:
        torch.cuda.synchronize()
    result = {"seconds": time.perf_counter() - started}
    if cuda:
        result["bytes"] = torch.cuda.max_memory_allocated() - before
    if (stats := getattr(made, "stats", None)) is not None:
        result |= {"tokens": stats.document_tokens, "read_tokens": stats.read_tokens}
    return result


def main() -> None:
    """Measure, print a table and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", choices=("1b", "8b"), default="1b")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, help="in 1,024 tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "length.json")
    options = parser.parse_args()
    device = resolve_device(options.device)
    engine = make_engine(options.shape, device)
    scorer = make_engine(SCORER, device) if options.shape == "8b" else None
    shapes = [f"shape of {SHAPES[options.shape][0]}"]
    if scorer is not None:
        shapes.append(f"a scorer in the shape of {SHAPES[SCORER][0]}")
    dtype = str(engine.backbone.model.dtype).removeprefix("torch.")
    rows: list[dict[str, Any]] = []
    report = {
        "date": date.today().isoformat(),
        "model": " and ".join(shapes) + f", random weights, {dtype}",
        "target_size": TARGET,
        "repeats": options.repeats,
        "machine": machine_name(device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "rows": rows,
    }
    asked = 0
    for length in options.lengths:
        documents = make_documents(engine.backbone.tokenizer, length * 1024)
        for work in kinds_of(engine, scorer, documents[: len(documents) // 2]).values():
            asked += 1
            measure(work, f"What is the warm code of store {asked}?", device)
        runs: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.repeats):
            # "second question" comes after "likelihood", whose store it finds.
            for name, work in kinds_of(engine, scorer, documents).items():
                asked += 1
                question = f"What is the door code of store number {asked}?"
                runs.setdefault(name, []).append(measure(work, question, device))
        for name, measured in runs.items():
            median = statistics.median(run["seconds"] for run in measured)
            rows.append({"length": length, "method": name, **measured[0], "seconds": median})
            gib = measured[0].get("bytes", 0) / 2**30
            print(f"{length:4}k {name:28} {median:8.3f} s {gib:8.2f} GiB", flush=True)
            # At once: the longest texts take long, and a run may be cut off.
            options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
