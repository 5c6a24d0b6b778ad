"""How well one model chooses passages for another to answer from.

    python -m benchmarks.elsewhere --data FOLDER --models embedded gemma-3-270m.gguf

Each model answers from what it chose itself, from what the other chose, and from what hybrid
retrieval ranked first, at the same number of its own tokens. Per item and cell one line goes to
`--raw`, with the numbers of `benchmarks.quality`; a run that was interrupted continues. Tasks grow
together. `--out` gets the summary: differences are paired, over the same items.
"""

import argparse
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines import rank_by_retrieval
from benchmarks.items import Item, load_items, tasks_of
from benchmarks.quality import CHUNK, RESULTS, Bench, facts, read_lines
from finch_integrations import FinchEngine
from finch_integrations.engine.methods.passages import choose, positions_of
from finch_integrations.retrieval.encoders import SentenceTransformerEncoder

RETRIEVAL = "rag-hybrid"
_RESAMPLES = 2000
_GROUP = ("bucket", "model", "chooser", "part")

Row = dict[str, Any]


def measure(
    engines: Mapping[str, FinchEngine],
    encoder: SentenceTransformerEncoder,
    item: Item,
    model: str,
    chooser: str,
    part: int,
) -> Row:
    """Answer an item from 1/part of its tokens.

    Args:
        engines: The models by name.
        encoder: For the retrieval.
        item: The question.
        model: Who answers.
        chooser: Who chooses: a model's name, or the retrieval.
        part: The kept share is 1/part.
    """
    engine = engines[model]
    bench = Bench(engine, encoder, item, answer=False, feed=CHUNK, compare=False)
    tokens = bench.inputs.tokens
    budget = max(1, len(tokens) // part)
    if chooser == RETRIEVAL:
        kept = choose(*rank_by_retrieval(RETRIEVAL, bench.inputs, encoder), budget)
        positions = positions_of(kept)
    else:
        backbone = engine.backbone
        scorer = None if chooser == model else engines[chooser]
        pair = FinchEngine(backbone.model, backbone.tokenizer, scorer=scorer)
        selection = pair.select(item.documents, item.question, target_size=budget)
        positions = selection.positions
    return bench.score_kept(positions)


def cells(names: Sequence[str]) -> list[tuple[str, str]]:
    """Who answers from whose choice."""
    return [(model, chooser) for model in names for chooser in (*names, RETRIEVAL)]


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Median and mean per cell, and the paired difference to choosing for oneself."""
    found: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        found[tuple(row[name] for name in _GROUP)][row["id"]] = row
    summary = []
    for (bucket, model, chooser, part), by_item in sorted(found.items()):
        own = found[(bucket, model, model, part)]
        nll = [row["nll"] for row in by_item.values()]
        changes = [row["nll"] - own[id]["nll"] for id, row in by_item.items() if id in own]
        low, high = interval(changes)
        summary.append(
            {
                **dict(zip(_GROUP, (bucket, model, chooser, part), strict=True)),
                "items": len(by_item),
                "tasks": len({row["task"] for row in by_item.values()}),
                "nll_mean": statistics.fmean(nll),
                "nll_median": statistics.median(nll),
                "survives": statistics.fmean(row["survives"] for row in by_item.values()),
                "coverage": statistics.fmean(row["coverage"] for row in by_item.values()),
                "nll_over_own_choice": statistics.fmean(changes),
                "interval_95": [low, high],
            }
        )
    return summary


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean's 95 % interval, by resampling."""
    chance = random.Random(0)
    means = sorted(
        statistics.fmean(chance.choices(values, k=len(values))) for _ in range(_RESAMPLES)
    )
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)]


def main() -> None:
    """Measure what is not measured yet, and summarize."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs=2, required=True)
    parser.add_argument("--bucket", default="2k")
    parser.add_argument("--items", type=int, default=10, help="per task")
    parser.add_argument("--part", type=int, default=8, help="1/N of the tokens is kept")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--raw", type=Path, default=Path(".benchmarks") / "elsewhere.jsonl")
    parser.add_argument("--out", type=Path, default=RESULTS / "elsewhere.json")
    options = parser.parse_args()
    engines = {
        Path(name).stem: FinchEngine.from_pretrained(
            name, device=options.device, dtype=torch.float32
        )
        for name in options.models
    }
    encoder = SentenceTransformerEncoder(device=options.device)
    known = facts(" + ".join(engines), next(iter(engines.values())).backbone.device)
    done = {tuple(row[name] for name in ("id", *_GROUP)) for row in read_lines(options.raw)}
    options.raw.parent.mkdir(parents=True, exist_ok=True)
    found = [
        load_items(options.data, task, options.bucket)[: options.items]
        for task in tasks_of(options.data)
    ]
    with options.raw.open("a", encoding="utf-8") as out:
        for number in range(max(map(len, found))):
            for item in (items[number] for items in found if number < len(items)):
                for model, chooser in cells(list(engines)):
                    cell = (options.bucket, model, chooser, options.part)
                    if (item.id, *cell) in done:
                        continue
                    row = measure(engines, encoder, item, model, chooser, options.part)
                    row |= dict(zip(_GROUP, cell, strict=True))
                    row |= {"id": item.id, "task": item.task}
                    out.write(json.dumps(row) + "\n")
                    out.flush()
            print(f"{options.bucket}: {number + 1} of {options.items} items per task", flush=True)
    content = {"facts": known, "cells": summarize(list(read_lines(options.raw)))}
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
