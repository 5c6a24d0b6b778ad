"""The default against hybrid retrieval in all its forms, on items that nothing was chosen on.

    python -m benchmarks.quality --data FOLDER --skip 40 --items 20 --budgets 8 --methods METHODS
    python -m benchmarks.hybrids .benchmarks/quality.jsonl

METHODS are `default` and its rivals (`rag-…`). The second command packs what was measured into
results, and shows how far each rival is from the default.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import DEFAULT, RESULTS, read_lines
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import read_rows, write

PACKED = RESULTS / "hybrids.json"


def compare(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Per length and rival: its NLL minus the default's, paired: mean, median, every task."""
    by: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by[row["bucket"], row["method"]][row["id"]] = row
    table = []
    for (bucket, method), found in by.items():
        own = by[bucket, DEFAULT]
        ids = sorted(set(found) & set(own))
        if method in (DEFAULT, "none") or not ids:
            continue
        changes: dict[str, list[float]] = defaultdict(list)
        for item in ids:
            changes[own[item]["task"]].append(found[item]["nll"] - own[item]["nll"])
        change = np.concatenate([changes[task] for task in sorted(changes)])
        low, high = paired_interval(change)
        kept = [f"{np.mean([of[item]['survives'] for item in ids]):.0%}" for of in (found, own)]
        table.append(
            [
                f"{bucket} ({len(ids)})",
                method,
                f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
                f"{np.median(change):+.2f}",
                *(f"{np.mean(changes[task]):+.2f}" for task in sorted(changes)),
                " against ".join(kept),
            ]
        )
    return table


def main() -> None:
    """Pack results and show them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("raw", type=Path, nargs="+")
    options = parser.parse_args()
    write((row for path in options.raw for row in read_lines(path)), PACKED)
    for cells in compare(read_rows(PACKED)):
        print(" | ".join(cells))


if __name__ == "__main__":
    main()
