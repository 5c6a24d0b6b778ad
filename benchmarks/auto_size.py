"""What is lost and saved when the scores decide how much is kept (`target_size="auto"`).

    python -m benchmarks.auto_size --data FOLDER
    python -m benchmarks.auto_size --pack

Per item, what the engine chooses with `auto` and with fixed numbers of tokens is scored as by
`benchmarks.quality`; 2,048 is the default. The rule's two numbers were chosen on every second item
of 2k tokens; their questions are left out at every length. FOLDER is as there; a run that was
interrupted continues where it stopped, and tasks and lengths grow together.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cascade import TASKS
from benchmarks.items import Item, load_items
from benchmarks.quality import CHUNK, RESULTS, Bench, facts, read_lines
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import read_rows
from benchmarks.resumable import append_lines, make_parser, run
from finch_integrations import FinchEngine

BUCKETS = ("2k", "4k")
SIZES = (512, 2048)
RAW, PACKED = Path(".benchmarks") / "auto_size.jsonl", RESULTS / "auto_size.json"


def plan(data: Path, count: int) -> Iterator[Item]:
    """Items of all lengths and tasks in turn, so that an early end leaves balanced data."""
    seen = {item.question for task in TASKS for item in load_items(data, task, "2k")[::2]}
    items = [
        [item for item in load_items(data, task, bucket) if item.question not in seen]
        for bucket in BUCKETS
        for task in TASKS
    ]
    for number in range(count):
        yield from (some[number] for some in items if number < len(some))


def measure(options: argparse.Namespace) -> None:
    """Append what is not measured yet."""
    engine = FinchEngine.from_pretrained("embedded", device="cpu", dtype=options.dtype)
    known = facts("embedded", engine.backbone.device, options.dtype)
    done = {row["id"] for row in read_lines(options.raw)}
    for item in plan(options.data, options.items):
        if item.id in done:
            continue
        bench = Bench(engine, None, item, answer=False, feed=CHUNK, compare=False)
        about = {"id": item.id, "task": item.task, "bucket": item.bucket, "budget": None}
        lines = []
        for size in ("auto", *SIZES):
            chosen = engine.select(item.documents, item.question, target_size=size)
            scores = {**bench.score_kept(chosen.positions), "kept": len(chosen.positions)}
            lines.append({**about, "method": str(size), **scores, **known})
        append_lines(options.raw, lines)
        print(item.id, flush=True)


def compare(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Per length, fixed numbers of tokens against `auto`: tokens, answers, and paired NLL."""
    by: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by[row["bucket"], row["method"]][row["id"]] = row
    for (_, method), found in tuple(by.items()):
        by["all", method] |= found
    table = []
    for (bucket, method), found in sorted(by.items(), key=lambda pair: pair[0][0]):
        auto = by[bucket, "auto"]
        by_task: dict[str, list[float]] = defaultdict(list)
        for item, row in found.items():
            by_task[row["task"]].append(row["nll"] - auto[item]["nll"])
        change = np.concatenate(list(by_task.values()))
        low, high = paired_interval(change)
        means = [float(np.mean(changes)) for changes in by_task.values()]
        own = method == "auto"
        table.append(
            [
                f"{bucket} ({len(found)})",
                method,
                f"{np.mean([row['kept'] for row in found.values()]):,.0f}",
                f"{np.mean([row['survives'] for row in found.values()]):.0%}",
                "" if own else f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
                "" if own else f"{np.median(change):+.2f}",
                "" if own else f"{min(means):+.2f} to {max(means):+.2f}",
            ]
        )
    return table


def main() -> None:
    """Measure, or pack what was measured."""
    parser = make_parser(__doc__, RAW, PACKED)
    parser.add_argument("--items", type=int, default=10, help="per task and length")
    options = parser.parse_args()
    run(options, measure, PACKED)
    if options.pack:
        for cells in compare(read_rows(PACKED)):
            print(" | ".join(cells))


if __name__ == "__main__":
    main()
