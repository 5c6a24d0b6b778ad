"""What is found by following what the best passage leads to, and what that costs elsewhere.

    python -m benchmarks.two_steps --data FOLDER --tasks needle:twohop multihop
    python -m benchmarks.two_steps --pack

A task may be limited to a `subtask` of its lines. Per item, the choice of 1/8 of the tokens with
and without links is scored as by `benchmarks.quality`; everything is read for both. FOLDER is as
there; a run that was interrupted continues where it stopped, and tasks grow together.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.items import Item, load_items
from benchmarks.quality import CHUNK, NO_LINKS, RESULTS, Bench, facts, read_lines
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import read_rows
from benchmarks.resumable import append_lines, make_parser, run
from finch_integrations import FinchEngine

PART = 8
COMPARED = (NO_LINKS, "likelihood")
RAW, PACKED = Path(".benchmarks") / "two_steps.jsonl", RESULTS / "two_steps.json"


def plan(data: Path, tasks: Sequence[str], bucket: str, count: int) -> Iterator[tuple[str, Item]]:
    """Items of all tasks in turn, so that an early end leaves balanced data."""
    found = {task: _items_of(data, *task.partition(":")[::2], bucket)[:count] for task in tasks}
    for number in range(count):
        for task, items in found.items():
            if number < len(items):
                yield task, items[number]


def _items_of(data: Path, task: str, subtask: str, bucket: str) -> list[Item]:
    items = load_items(data, task, bucket)
    if not subtask:
        return items
    rows = map(json.loads, (data / f"{task}.jsonl").read_text(encoding="utf-8").splitlines())
    wanted = {row["id"] for row in rows if row.get("subtask") == subtask}
    return [item for item in items if item.id in wanted]


def measure(options: argparse.Namespace) -> None:
    """Append what is not measured yet."""
    engine = FinchEngine.from_pretrained("embedded", device="cpu", dtype=options.dtype)
    known = facts("embedded", engine.backbone.device, options.dtype)
    done = {row["id"] for row in read_lines(options.raw)}
    for task, item in plan(options.data, options.tasks, options.bucket, options.items):
        if item.id in done:
            continue
        bench = Bench(engine, None, item, answer=False, feed=CHUNK, compare=False)
        budget = max(1, len(bench.inputs.tokens) // PART)
        about = {"id": item.id, "task": task, "bucket": item.bucket, "budget": PART, **known}
        lines = [{**about, "method": name, **bench.run(name, budget)} for name in COMPARED]
        append_lines(options.raw, lines)
        print(task, item.id, flush=True)


def compare(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Per task and length: how often the answer is kept, and how the NLL changes."""
    without, linked = (
        {row["id"]: row for row in rows if row["method"] == method} for method in COMPARED
    )
    table = []
    for bucket, task in dict.fromkeys((row["bucket"], row["task"]) for row in rows):
        ids = [i for i, row in without.items() if (row["bucket"], row["task"]) == (bucket, task)]
        change = np.array([linked[i]["nll"] - without[i]["nll"] for i in ids])
        low, high = paired_interval(change)
        kept = [f"{sum(of[i]['survives'] for i in ids)} of {len(ids)}" for of in (without, linked)]
        nll = f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
        table.append([f"{task}, {bucket}", *kept, nll, f"{np.median(change):+.2f}"])
    return table


def main() -> None:
    """Measure, or pack what was measured."""
    parser = make_parser(__doc__, RAW, PACKED)
    parser.add_argument("--tasks", nargs="+", default=["needle:twohop", "multihop"])
    parser.add_argument("--bucket", default="2k")
    parser.add_argument("--items", type=int, default=20, help="per task")
    options = parser.parse_args()
    run(options, measure, PACKED)
    if options.pack:
        for cells in compare(read_rows(PACKED)):
            print(" | ".join(cells))


if __name__ == "__main__":
    main()
