"""The default against hybrid retrieval in all its forms, at every length and budget.

    python -m benchmarks.quality --data FOLDER --buckets 4k --methods METHODS
    python -m benchmarks.hybrids .benchmarks/quality.jsonl --out hybrids.json

METHODS are `default` and its rivals (`rag-…`, `first`). The second command packs what was measured
into results, and shows how far each rival is from the default.
`hybrids.json` is of questions that nothing was chosen on; `searched.json` is of questions over the
documents that a search finds for them (`benchmarks.searched_sets`).
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality import CACHED, DEFAULT, METHODS, RESULTS, read_lines
from benchmarks.quality_report import differences, measured, paired_interval, pool
from benchmarks.quality_results import Rows, read_buckets, write

PACKED, SEARCHED = RESULTS / "hybrids.json", RESULTS / "searched.json"


def rivals(by_bucket: Mapping[str, Rows]) -> list[str]:
    """The methods that keep text and were measured wherever the default was."""
    places: dict[str, set[tuple[str, str, int]]] = defaultdict(set)
    for bucket, rows in by_bucket.items():
        for task, method, budget in rows:
            if budget:
                places[method].add((bucket, task, budget))
    own = places[DEFAULT]
    return [m for m in METHODS if m not in (DEFAULT, *CACHED) and own and own <= places[m]]


def by_length(by_bucket: Mapping[str, Rows], names: Sequence[str]) -> Iterator[list[str]]:
    """Per length and budget: how many answers the default keeps, and how far its rivals are.

    Yields:
        "4k, 1/8 (questions)", the share of answers that the default keeps, and per rival its NLL
        minus the default's, paired, with the 95 % interval, and the share that it keeps of the same
        questions.
    """
    for bucket, rows in by_bucket.items():
        tasks = sorted({task for task, method, _ in rows if method == DEFAULT})
        for budget in sorted({b for _, method, b in rows if method == DEFAULT and b}):
            own = _of(rows, tasks, DEFAULT, budget)
            cells = [f"{bucket}, 1/{budget} ({len(own)})", _share(own)]
            for name in names:
                change = np.concatenate(
                    [differences(rows, task, name, DEFAULT, budget) for task in tasks]
                )
                if not change.size:
                    cells.append("")
                    continue
                low, high = paired_interval(change)
                kept = _share({i: k for i, k in _of(rows, tasks, name, budget).items() if i in own})
                cells.append(f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}], {kept}")
            yield cells


def by_task(by_bucket: Mapping[str, Rows], names: Sequence[str]) -> Iterator[list[str]]:
    """Per task, and for all: how far the default's rivals are over all lengths and budgets.

    Yields:
        "task (questions)", and per rival the mean of the paired differences with its 95 % interval.
    """
    tasks = sorted({task for rows in by_bucket.values() for task, _, _ in rows})
    for part in (*([task] for task in tasks), []):
        found = [pool(by_bucket, name, DEFAULT, part) for name in names]
        questions = max((one.questions for one in found if one), default=0)
        yield [
            f"{part[0] if part else 'all'} ({questions})",
            *(f"{one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" if one else "" for one in found),
        ]


def _of(rows: Rows, tasks: Sequence[str], method: str, budget: int) -> dict[str, bool]:
    """Whether each item's answer is kept."""
    return {
        item: row["survives"]
        for task in tasks
        for item, row in measured(rows, task, method, budget).items()
    }


def _share(kept: Mapping[str, bool]) -> str:
    return f"{np.mean(list(kept.values())):.0%}"


def main() -> None:
    """Pack results and show them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("raw", type=Path, nargs="*", help="none: show what is packed")
    parser.add_argument("--out", type=Path, default=PACKED)
    options = parser.parse_args()
    if options.raw:
        write((row for path in options.raw for row in read_lines(path)), options.out)
    by_bucket = read_buckets(options.out)
    names = rivals(by_bucket)
    for cells in (["", "default", *names], *by_length(by_bucket, names)):
        print(" | ".join(cells))
    for cells in by_task(by_bucket, names):
        print(" | ".join(cells))


if __name__ == "__main__":
    main()
