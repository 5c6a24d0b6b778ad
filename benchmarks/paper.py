"""What the figures of the method's paper show (arXiv 2408.00167), measured on the tasks here.

    python -m benchmarks.paper --data FOLDER
    python -m benchmarks.plots --out FOLDER

Quality and time against compression, the effect of the question that is asked while compressing and
of the chunk length, retrieval at the same budgets, and the attention to the right documents, layer
by layer. Every measurement begins with an engine that has seen nothing, so that its processor time
(one thread) can be compared with that of a full prefill. FOLDER is as for `benchmarks.quality`; a
run that was interrupted continues.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.items import Item, load_items
from benchmarks.quality import (
    BLIND,
    BOUNDS,
    CACHED_ABLATIONS,
    CHUNK,
    DTYPES,
    RESULTS,
    Bench,
    facts,
    read_lines,
)
from benchmarks.quality_results import write
from finch_integrations import FinchEngine
from finch_integrations.engine.cache import cache_length
from finch_integrations.retrieval.encoders import SentenceTransformerEncoder

TASKS = ("nq_multidoc", "multihop", "squad_long", "science_long", "needle")
BUDGETS = (2, 4, 8, 16, 32)
METHODS = ("none", "full", "default", "rag-hybrid-titled", "finch")
# What is varied, and at which budget.
VARIED = (*CACHED_ABLATIONS, "likelihood", "likelihood, blind")
PART = 8
ATTENTION = "attention"
RAW, PACKED = Path(".benchmarks") / "paper.jsonl", RESULTS / "paper.json"


class PaperBench(Bench):
    """One item, measured once."""

    def run(self, method: str, budget: int | None) -> dict[str, Any]:
        """Scores as of the base class, and the seconds of processor time that they took."""
        if method == ATTENTION:
            return {
                "asked": self._gold_attention(self.item.question),
                "blind": self._gold_attention(BLIND),
            }
        started = time.process_time()
        scores = super().run(method, budget)
        return {**scores, "seconds": time.process_time() - started}

    def _gold_attention(self, question: str) -> list[float]:
        """How much more attention a token of the right documents gets than any document token.

        Args:
            question: Whose tokens attend, after all documents.

        Returns:
            Per layer: a factor, over all heads and all tokens of the question; 1: as much.
        """
        inputs = self._read_as(question)
        cache = self._encode(inputs.tokens.ids)
        gold, total = self._gold(), len(inputs.tokens)
        first = cache_length(cache) - total
        factors: dict[int, float] = {}

        def record(layer: int, weights: Tensor) -> None:
            each = weights[..., first : first + total].sum(dim=(0, 1))
            factors[layer] = float(each[gold].mean() / each.mean())

        window = inputs.frame.window
        self.backbone.forward(window.ids, cache, rows=window.length, record=record)
        return [round(factors[layer], 4) for layer in sorted(factors)]


def plan(items: Sequence[Item]) -> Iterator[tuple[Item, str, int | None]]:
    """Name every measurement."""
    for item in items:
        for method in METHODS:
            for budget in [None] if method in BOUNDS else BUDGETS:
                yield item, method, budget
        for method in VARIED:
            yield item, method, PART
        yield item, ATTENTION, None


def main() -> None:
    """Measure what is not measured yet, and pack it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--bucket", default="2k")
    parser.add_argument("--items", type=int, default=4, help="per task")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--raw", type=Path, default=RAW)
    parser.add_argument("--out", type=Path, default=PACKED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = FinchEngine.from_pretrained("embedded", device="cpu", dtype=options.dtype).backbone
    encoder = SentenceTransformerEncoder(device="cpu")
    encoder.encode_query("Loads the model, so that no measurement has to.")
    known = facts("embedded", loaded.device, options.dtype)
    done = {(row["id"], row["method"], row["budget"]) for row in read_lines(options.raw)}
    found = [load_items(options.data, task, options.bucket) for task in options.tasks]
    options.raw.parent.mkdir(parents=True, exist_ok=True)
    with options.raw.open("a", encoding="utf-8") as out:
        for number in range(options.items):
            round_of = [items[number] for items in found if number < len(items)]
            for item, method, part in plan(round_of):
                if (item.id, method, part) in done:
                    continue
                engine = FinchEngine(loaded.model, loaded.tokenizer)
                bench = PaperBench(engine, encoder, item, answer=False, feed=CHUNK, compare=False)
                budget = part and max(1, len(bench.inputs.tokens) // part)
                row = {"id": item.id, "task": item.task, "bucket": item.bucket, "method": method}
                row |= {"budget": part, **bench.run(method, budget), **known}
                out.write(json.dumps(row) + "\n")
                out.flush()
            print(f"{number + 1} of {options.items} items per task", flush=True)
    write(read_lines(options.raw), options.out)


if __name__ == "__main__":
    main()
