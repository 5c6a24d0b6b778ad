"""What the figures of the method's paper show (arXiv 2408.00167), measured on the tasks here.

    python -m benchmarks.paper --data FOLDER
    python -m benchmarks.plots --out FOLDER

Quality and time against compression, retrieval at the same budgets, and the attention to the right
documents, layer by layer. Every measurement begins with an engine that has seen nothing, so that
its processor time (one thread) can be compared with that of a full prefill. What the question and
the chunk length do is measured by `benchmarks.quality` (`--methods ablations`). FOLDER is as there;
a run that was interrupted continues.
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
    BOUNDS,
    CHUNK,
    DTYPES,
    RESULTS,
    Bench,
    facts,
    read_lines,
)
from benchmarks.quality_results import write
from finch_integrations import FinchEngine
from finch_integrations.engine.cache import KVCache, cache_length, share_cache
from finch_integrations.engine.chunks import chunks_of
from finch_integrations.engine.prompt import QuestionWindow
from finch_integrations.retrieval.encoders import SentenceTransformerEncoder

TASKS = ("nq_multidoc", "multihop", "squad_long", "science_long", "needle")
BUDGETS = (2, 4, 8, 16, 32)
ATTENTION = "attention"
METHODS = ("none", "full", "default", "rag-hybrid-titled", "finch", ATTENTION)
RAW, PACKED = Path(".benchmarks") / "paper.jsonl", RESULTS / "paper.json"


class PaperBench(Bench):
    """One item, measured once."""

    def run(self, method: str, budget: int | None) -> dict[str, Any]:
        """Scores as of the base class, and the seconds of processor time that they took."""
        if method == ATTENTION:
            return self.gold_attention()
        started = time.process_time()
        scores = super().run(method, budget)
        return {**scores, "seconds": time.process_time() - started}

    def gold_attention(self) -> dict[str, list[float]]:
        """How much more attention a token of the right documents gets than the mean one, by layer.

        Documents are read in chunks after the prefix, as `contrast` does.

        Returns:
            Factors over all heads and all tokens of a question: `asked` of the item's one, `blind`
            of one without content.
        """
        backbone, frame = self.backbone, self.inputs.frame
        prefix = backbone.encode(frame.prefix, CHUNK)
        found: dict[str, list[Tensor]] = {"asked": [], "blind": []}
        for _, chunk in chunks_of(self.inputs.tokens.ids, CHUNK):
            cache = share_cache(prefix)
            backbone.forward(chunk, cache)
            columns = slice(cache_length(prefix), cache_length(cache))
            for name, window in (("asked", frame.window), ("blind", frame.null_window)):
                found[name].append(self._attention(window, share_cache(cache), columns))
        gold = self._gold()
        each = {name: torch.cat(parts, dim=1) for name, parts in found.items()}
        return {
            name: (of[:, gold].mean(dim=1) / of.mean(dim=1)).tolist() for name, of in each.items()
        }

    def _attention(self, window: QuestionWindow, cache: KVCache, columns: slice) -> Tensor:
        """Sum over the heads and the tokens of a question, [layers, columns]."""
        layers: dict[int, Tensor] = {}

        def record(layer: int, weights: Tensor) -> None:
            layers[layer] = weights[..., columns].sum(dim=(0, 1))

        self.backbone.forward(window.ids, cache, rows=window.length, record=record)
        return torch.stack([layers[layer] for layer in sorted(layers)])


def plan(items: Sequence[Item]) -> Iterator[tuple[Item, str, int | None]]:
    """Name every measurement."""
    for item in items:
        for method in METHODS:
            for budget in [None] if method in (*BOUNDS, ATTENTION) else BUDGETS:
                yield item, method, budget


def main() -> None:
    """Measure what is not measured yet, and pack it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--bucket", default="2k")
    parser.add_argument("--items", type=int, default=4, help="per task")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
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
                if method not in options.methods or (item.id, method, part) in done:
                    continue
                engine = FinchEngine(loaded.model, loaded.tokenizer)
                bench = PaperBench(engine, encoder, item, answer=False, feed=CHUNK, compare=False)
                budget = part and max(1, len(bench.inputs.tokens) // part)
                about = {"id": item.id, "task": item.task, "bucket": item.bucket, "budget": part}
                row = {**about, "method": method, **bench.run(method, budget), **known}
                out.write(json.dumps(row) + "\n")
                out.flush()
            print(f"{number + 1} of {options.items} items per task", flush=True)
    write(read_lines(options.raw), options.out)


if __name__ == "__main__":
    main()
