"""Tables from the packed results of `benchmarks.quality`.

python -m benchmarks.quality_report [--bucket 2k]

recovered = (NLL_none - NLL_method) / (NLL_none - NLL_full), of the means over the items
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import ABLATIONS, METHODS
from benchmarks.quality_results import PACKED, Rows, read


@dataclass(frozen=True, slots=True)
class Cell:
    """What a method did on one task, at one budget.

    Attributes:
        ids: The items that were measured with this method and with both bounds.
        nll: Per item.
        none: The same with no document.
        full: The same with all documents; empty where they do not fit the model's window.
        survives: Per item, whether an answer is still in the kept text; empty where unknown.
    """

    ids: Sequence[str]
    nll: np.ndarray
    none: np.ndarray
    full: np.ndarray
    survives: np.ndarray

    @property
    def recovered(self) -> float:
        """Of the means: an item whose bounds are close would dominate a mean of shares."""
        return float((self.none.mean() - self.nll.mean()) / (self.none.mean() - self.full.mean()))


def measured(rows: Rows, task: str, method: str, budget: int | None) -> dict[str, dict[str, Any]]:
    """A method's scores by item id; the bounds are the same at every budget."""
    return rows.get((task, method, budget)) or rows.get((task, method, None), {})


def make_cell(rows: Rows, task: str, method: str, budget: int | None) -> Cell | None:
    """Compare a method with its bounds on the items that all have; None if there are none."""
    none, full = (rows.get((task, bound, None), {}) for bound in ("none", "full"))
    own = measured(rows, task, method, budget)
    ids = sorted(set(own) & set(none) & set(full or none))
    if not ids:
        return None
    nll, low = (np.array([part[i]["nll"] for i in ids]) for part in (own, none))
    high = np.array([full[i]["nll"] for i in ids if full])
    known = all("survives" in own[i] for i in ids)
    survives = np.array([own[i]["survives"] for i in ids if known], dtype=float)
    return Cell(ids, nll, low, high, survives)


def differences(rows: Rows, task: str, method: str, than: str, budget: int | None) -> np.ndarray:
    """NLL of a method minus that of another one, item by item, on the items that both have."""
    own, other = (measured(rows, task, name, budget) for name in (method, than))
    return np.array([own[i]["nll"] - other[i]["nll"] for i in sorted(set(own) & set(other))])


def paired_interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences."""
    draws = np.random.default_rng(seed).choice(differences, (10_000, len(differences)))
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def tables(rows: Rows, bucket: str, method: str = "likelihood") -> str:
    """A table per budget, and how far every other method is from `method`, in Markdown."""
    tasks = sorted({task for task, _, _ in rows})
    lines = []
    for budget in sorted({budget for _, _, budget in rows if budget}):
        lines += [
            f"\n## {bucket}, budget 1/{budget}: NLL (recovered) [answer survives]\n",
            "| method | " + " | ".join(tasks) + " | mean recovered | items |",
            "|---" * (len(tasks) + 3) + "|",
        ]
        for name in (*METHODS, *ABLATIONS):
            cells, recovered, count = [], [], 0
            for task in tasks:
                part = make_cell(rows, task, name, budget)
                if part is None:
                    cells.append("")
                    continue
                count += len(part.ids)
                cell = f"{part.nll.mean():.2f}"
                if part.full.size:
                    recovered.append(part.recovered)
                    cell += f" ({part.recovered:.0%})"
                if part.survives.size:
                    cell += f" [{part.survives.mean():.0%}]"
                cells.append(cell)
            if count:
                mean = f"{np.mean(recovered):.0%}" if recovered else ""
                lines.append(f"| {name} | " + " | ".join(cells) + f" | {mean} | {count} |")
        lines.append(f"\nNLL of other methods minus {method}'s, paired, 95 % interval:\n")
        for name in (*METHODS, *ABLATIONS):
            paired = np.concatenate(
                [differences(rows, task, name, method, budget) for task in tasks]
            )
            if paired.size and name != method:
                low, high = paired_interval(paired)
                lines.append(
                    f"- {name}: {paired.mean():+.2f} [{low:+.2f}, {high:+.2f}] "
                    f"over {len(paired)} items"
                )
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Pooled:
    """How far one method is from another one over all lengths and budgets.

    Attributes:
        mean: Of the paired differences of NLL.
        low: Where its 95 % interval begins.
        high: Where it ends. A question comes at several lengths and budgets, so questions are
            resampled.
        questions: How many.
        measurements: How many.
    """

    mean: float
    low: float
    high: float
    questions: int
    measurements: int


def pool(
    by_bucket: Mapping[str, Rows], method: str, than: str, tasks: Sequence[str] = ()
) -> Pooled | None:
    """Compare a method with another one over all lengths and budgets, of `tasks` or of all.

    Returns:
        None if no item was measured with both.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for bucket, rows in by_bucket.items():
        for task, budget in sorted({(t, b) for t, m, b in rows if m == than}):
            if tasks and task not in tasks:
                continue
            own, other = measured(rows, task, method, budget), rows[task, than, budget]
            for item in set(own) & set(other):
                question = item.replace(f"-{bucket}-", "-", 1)
                found[question].append(own[item]["nll"] - other[item]["nll"])
    if not found:
        return None
    sums, counts = (
        np.array([f(found[question]) for question in sorted(found)]) for f in (sum, len)
    )
    drawn = np.random.default_rng(0).integers(0, len(sums), (10_000, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    mean = sums.sum() / counts.sum()
    return Pooled(float(mean), float(low), float(high), len(sums), int(counts.sum()))


def pooled(by_bucket: Mapping[str, Rows], method: str = "likelihood") -> str:
    """How far others are from `method` over all lengths and budgets, in Markdown."""
    lines = []
    for name in (name for name in METHODS if name != method):
        if (found := pool(by_bucket, name, method)) is not None:
            lines.append(
                f"- {name}: {found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}] "
                f"over {found.questions} questions, {found.measurements} measurements"
            )
    return "\n".join(lines)


def main() -> None:
    """Print tables."""
    print_tables(__doc__ or "", "results", tables)


def print_tables(
    about: str,
    what: str,
    make: Callable[[Rows, str, str], str],
    *,
    path: Path = PACKED,
    method: str = "likelihood",
) -> None:
    """Run the command line of a report.

    Args:
        about: What `--help` says.
        what: What the results may lack.
        make: Makes the tables of rows, a bucket and a method; empty: there are none.
        path: The results, unless others are named.
        method: What all others are compared with, unless another is named.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=path)
    parser.add_argument("--bucket", default="2k")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--method", default=method, help="compared with all others")
    options = parser.parse_args()
    rows = read(options.results, options.bucket, options.model)
    found = make(rows, options.bucket, options.method) if rows else ""
    if not found:
        parser.error(f"{options.results} has no {what} of {options.model!r} at {options.bucket!r}")
    print(found)


if __name__ == "__main__":
    main()
