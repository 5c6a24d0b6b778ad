"""How right the written answers are: per task, and paired with those of one method.

python -m benchmarks.answer_report [--bucket 2k]
"""

from collections.abc import Iterable, Sequence

import numpy as np

from benchmarks.quality import ABLATIONS, DEFAULT, METHODS, RESULTS
from benchmarks.quality_report import measured, paired_interval, print_tables
from benchmarks.quality_results import Row, Rows

PACKED = RESULTS / "answers.json"
_HEAD = (
    *("task", "method", "items", "F1", "answer in text", "right citations", "answer in context"),
    *("F1, difference", "answer in text, difference"),
)


def answer_tables(rows: Rows, bucket: str, method: str = DEFAULT) -> str:
    """A table per budget in Markdown; empty where no answers were written.

    Args:
        rows: Of one model and length.
        bucket: The length, for the title.
        method: Others are compared with it on the items that both have; in brackets is the 95 %
            interval of the paired difference.
    """
    tasks = sorted({task for task, _, _ in rows})
    lines: list[str] = []
    for budget in sorted({budget for _, _, budget in rows if budget}):
        found = [
            _row(rows, part, name, method, budget)
            for part in (*([task] for task in tasks), tasks)
            for name in (*METHODS, *ABLATIONS)
            if _written(rows, part, name, budget)
        ]
        if found:
            lines += [
                f"\n## {bucket}, budget 1/{budget}: written answers\n",
                f"| {' | '.join(_HEAD)} |",
                "|---" * len(_HEAD) + "|",
                *(f"| {' | '.join(cells)} |" for cells in found),
            ]
    return "\n".join(lines)


def _row(rows: Rows, tasks: Sequence[str], name: str, than: str, budget: int) -> list[str]:
    own, other = (_written(rows, tasks, one, budget) for one in (name, than))
    changes = [
        _difference([own[i][score] - other[i][score] for i in own if i in other])
        for score in ("f1", "contains")
    ]
    return [
        tasks[0] if len(tasks) == 1 else "all",
        name,
        str(len(own)),
        _mean(own.values(), "f1", "{:.2f}"),
        _mean(own.values(), "contains"),
        _mean(own.values(), "cited") + f" of {sum('cited' in row for row in own.values())}",
        _mean(own.values(), "survives"),
        *(changes if name != than else ("", "")),
    ]


def _written(rows: Rows, tasks: Sequence[str], name: str, budget: int) -> dict[str, Row]:
    """A method's items of some tasks whose answers were written."""
    return {
        item: row
        for task in tasks
        for item, row in measured(rows, task, name, budget).items()
        if "f1" in row
    }


def _mean(rows: Iterable[Row], score: str, how: str = "{:.0%}") -> str:
    known = [row[score] for row in rows if score in row]
    return how.format(np.mean(known)) if known else "-"


def _difference(changes: Sequence[float]) -> str:
    if not changes:
        return ""
    low, high = paired_interval(np.array(changes))
    return f"{np.mean(changes):+.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    """Print tables."""
    print_tables(__doc__ or "", "answers", answer_tables, path=PACKED, method=DEFAULT)


if __name__ == "__main__":
    main()
