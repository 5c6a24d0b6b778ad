"""What is lost when the model does not read everything: tables of `benchmarks.cascade`.

    python -m benchmarks.cascade_report

Every variant against reading everything, paired. A default is chosen on one half of the questions
and shown on the other half.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality import RESULTS
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import read_rows

PACKED = RESULTS / "cascade.json"
BASE = "everything"
# What a default may lose: nats per token, and the share of answers that are kept.
LOSS, KEPT = 0.02, 0.01

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loss:
    """What a variant loses against reading everything, over the same questions and budgets.

    Attributes:
        count: How many measurements.
        share: Of the document tokens that it reads, on average.
        nll: Negative log-likelihood above that of reading everything, mean.
        interval: Its 95 % interval.
        median: Of the same differences.
        kept: The share of the answers that are in the kept text.
        fewer: How much smaller that is than when everything is read.
    """

    count: int
    share: float
    nll: float
    interval: tuple[float, float]
    median: float
    kept: float
    fewer: float


def losses(rows: Sequence[Row]) -> dict[str, Loss]:
    """What every variant loses; rows of `benchmarks.cascade`."""
    by_method: dict[str, dict[tuple[str, int], Row]] = defaultdict(dict)
    for row in rows:
        by_method[row["method"]][row["id"], row["budget"]] = row
    base, found = by_method[BASE], {}
    for name, own in by_method.items():
        keys = sorted(set(own) & set(base))
        change = np.array([own[key]["nll"] - base[key]["nll"] for key in keys])
        kept, of = (float(np.mean([part[k]["survives"] for k in keys])) for part in (own, base))
        found[name] = Loss(
            count=len(keys),
            share=float(np.mean([own[key]["read"] for key in keys])),
            nll=float(change.mean()),
            interval=paired_interval(change),
            median=float(np.median(change)),
            kept=kept,
            fewer=of - kept,
        )
    return found


def half_of(row: Row) -> str:
    """`choice` or `test`: the half of the questions that a row belongs to, at every length."""
    question = row["id"].replace(f"-{row['bucket']}-", "-", 1)
    return ("choice", "test")[hashlib.sha256(question.encode()).digest()[0] % 2]


def halves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of both halves of the questions."""
    return {half: [row for row in rows if half_of(row) == half] for half in ("choice", "test")}


def cells(rows: Sequence[Row]) -> Iterator[tuple[str, int, list[Row]]]:
    """The rows of each length and budget, the shortest first."""
    lengths = sorted({row["bucket"] for row in rows}, key=lambda bucket: int(bucket[:-1]))
    for bucket in lengths:
        for budget in sorted({row["budget"] for row in rows}):
            some = [r for r in rows if (r["bucket"], r["budget"]) == (bucket, budget)]
            if some:
                yield bucket, budget, some


def table(found: Mapping[str, Loss]) -> str:
    """All variants in Markdown."""
    lines = [
        "| read | share | NLL above reading everything | median | answers kept | fewer |",
        "|---|---|---|---|---|---|",
    ]
    for name, loss in found.items():
        low, high = loss.interval
        lines.append(
            f"| {name} | {loss.share:.2f} | {loss.nll:+.3f} [{low:+.3f}, {high:+.3f}] "
            f"| {loss.median:+.3f} | {loss.kept:.1%} of {loss.count} | {loss.fewer:+.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print what one half would choose, and all tables."""
    rows = read_rows(PACKED)
    half = {name: losses(some) for name, some in halves(rows).items()}
    good = [
        name for name, loss in half["choice"].items() if loss.nll <= LOSS and loss.fewer <= KEPT
    ]
    good.sort(key=lambda name: half["choice"][name].share)
    print(
        f"On the half for choosing, at most {LOSS} nats and {KEPT:.0%} of the answers are lost by:"
    )
    print(", ".join(good), "\n")
    for name, found in half.items():
        print(f"\n## Half: {name}, all lengths and budgets\n\n{table(found)}")
    for bucket, budget, some in cells(rows):
        print(f"\n## {bucket}, 1/{budget} kept, both halves\n\n{table(losses(some))}")


if __name__ == "__main__":
    main()
