"""Whether passages that are merely alike should count as copies, as those that say the same do.

    python -m benchmarks.near_copies --data FOLDER
    python -m benchmarks.near_copies --pack

Every document comes twice, the second time with small edits (articles and fillers left out, "and"
written in another way), so that hardly a sentence is the same. `exact` is the engine's rule: a
passage is a copy if better ones have its every sentence. With `0.8` it is also one if 0.8 of its
different words are in one better passage and no number is in it that is not there, too. Copies are
taken last. `single` are the same documents once, with the same number of tokens kept. FOLDER is as
for `benchmarks.quality`; a run that was interrupted continues where it stopped.
"""

import argparse
import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cascade import TASKS
from benchmarks.items import Item, load_items
from benchmarks.quality import CHUNK, RESULTS, Bench, facts, read_lines
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import read_rows, write
from finch_integrations import FinchEngine
from finch_integrations.engine.methods.passages import choose, positions_of, texts_of
from finch_integrations.words import words

# Twice the documents are 2k tokens then.
BUCKET, PART = "1k", 8
SHARES = (0.9, 0.8, 0.7)
RAW, PACKED = Path(".benchmarks") / "near_copies.jsonl", RESULTS / "near_copies.json"
_LEFT_OUT = re.compile(r"\b(?:the|an?|also|very|however|that|which|only|just)\b ", re.I)


def edit(text: str, seed: int) -> str:
    """Leave out some articles and fillers, and write "and" in another way."""
    draw = random.Random(seed)
    text = _LEFT_OUT.sub(lambda found: "" if draw.random() < 0.4 else found[0], text)
    return re.sub(r"\band\b", lambda _: draw.choice(["and", "as well as"]), text)


def doubled(item: Item) -> Item:
    """The item with an edited copy of every document after all originals."""
    copies = [
        replace(document, id=f"{document.id}-again", text=edit(document.text, seed))
        for seed, document in enumerate(item.documents)
    ]
    return replace(item, documents=(*item.documents, *copies))


def demote_alike(scores: Tensor, texts: Sequence[str], share: float) -> Tensor:
    """Put segments after all others whose words are nearly all in a better one."""
    bags = [frozenset(words(text)) for text in texts]
    numbers = [frozenset(word for word in bag if any(map(str.isdigit, word))) for bag in bags]
    better: list[int] = []
    alike = torch.zeros(len(scores), dtype=torch.bool)
    for number in scores.sort(descending=True, stable=True).indices.tolist():
        alike[number] = any(
            len(bags[number] & bags[other]) >= share * len(bags[number])
            and numbers[number] <= numbers[other]
            for other in better
        )
        better.append(number)
    return torch.where(alike, scores - (scores.max() - scores.min() + 1), scores)


def measure(options: argparse.Namespace) -> None:
    """Append what is not measured yet."""
    dtype = getattr(torch, options.dtype)
    engine = FinchEngine.from_pretrained("embedded", device="cpu", dtype=dtype)
    known = {**facts("embedded", engine.backbone.device), "dtype": options.dtype}
    done = {row["id"] for row in read_lines(options.raw)}
    options.raw.parent.mkdir(parents=True, exist_ok=True)
    with options.raw.open("a", encoding="utf-8") as out:
        for number in range(options.items):
            for task in TASKS:
                item = load_items(options.data, task, BUCKET)[number]
                if item.id in done:
                    continue
                rows = [{**row, **known} for row in _rows_of(engine, item)]
                # An item is written whole, so that an interrupted one is measured again.
                out.write("".join(json.dumps(row) + "\n" for row in rows))
                out.flush()
                print(item.id, flush=True)


def _rows_of(engine: FinchEngine, item: Item) -> list[dict[str, Any]]:
    about = {"id": item.id, "task": item.task, "bucket": BUCKET, "budget": PART}
    twice = Bench(engine, None, doubled(item), answer=False, feed=CHUNK, compare=False)
    budget = max(1, len(twice.inputs.tokens) // PART)
    segments, scores = twice._rank("likelihood")
    texts = texts_of(twice.inputs.tokens, segments)
    ranked = {"exact": scores} | {str(s): demote_alike(scores, texts, s) for s in SHARES}
    rows, known = [], {}
    for method, final in ranked.items():
        kept = positions_of(choose(segments, final, budget))
        if kept not in known:
            known[kept] = twice.score_kept(kept)
        rows.append({**about, "method": method, **known[kept]})
    once = Bench(engine, None, item, answer=False, feed=CHUNK, compare=False)
    kept = once._kept("likelihood", min(budget, len(once.inputs.tokens)))
    return [*rows, {**about, "method": "single", **once.score_kept(kept)}]


def compare(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Every rule against `exact`: answers that are kept, and how the NLL changes."""
    by = {name: {r["id"]: r for r in rows if r["method"] == name} for name in _methods(rows)}
    table = []
    for name, found in by.items():
        change = np.array([found[i]["nll"] - by["exact"][i]["nll"] for i in found])
        low, high = paired_interval(change)
        kept = sum(row["survives"] for row in found.values())
        own = name == "exact"
        table.append(
            [
                name,
                f"{kept} of {len(found)}",
                "" if own else f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
                "" if own else f"{np.median(change):+.2f}",
            ]
        )
    return table


def _methods(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def main() -> None:
    """Measure, or pack what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--items", type=int, default=10, help="per task")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--raw", type=Path, default=RAW)
    parser.add_argument("--pack", action="store_true", help=f"write the raw lines to {PACKED.name}")
    options = parser.parse_args()
    if options.data:
        measure(options)
    if options.pack:
        write(read_lines(options.raw), PACKED)
        for cells in compare(read_rows(PACKED)):
            print(" | ".join(cells))


if __name__ == "__main__":
    main()
