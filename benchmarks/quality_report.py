"""Tables from the results of `benchmarks.quality`.

python -m benchmarks.quality_report [--bucket 2k]

recovered = (NLL_none - NLL_method) / (NLL_none - NLL_full), of the means over the items
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import METHODS, RESULTS

Rows = dict[tuple[str, str, int | None], dict[str, dict[str, Any]]]


def read(path: Path, bucket: str, model: str) -> Rows:
    """Group results: (task, method, budget) -> item id -> scores."""
    rows: Rows = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["bucket"] == bucket and row["model"] == model:
            rows[row["task"], row["method"], row["budget"]][row["id"]] = row
    return rows


def paired_interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences."""
    draws = np.random.default_rng(seed).choice(differences, (10_000, len(differences)))
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS / "quality.jsonl")
    parser.add_argument("--bucket", default="2k")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--method", default="contrast", help="compared with all others")
    options = parser.parse_args()
    rows = read(options.results, options.bucket, options.model)
    tasks = sorted({task for task, _, _ in rows})
    budgets = sorted({budget for _, _, budget in rows if budget})

    for budget in budgets:
        print(f"\n## {options.bucket}, budget 1/{budget}: NLL (recovered) [answer survives]\n")
        print("| method | " + " | ".join(tasks) + " | mean recovered |")
        print("|---" * (len(tasks) + 2) + "|")
        for method in METHODS:
            cells, recovered = [], []
            for task in tasks:
                bounds = [rows.get((task, bound, None), {}) for bound in ("none", "full")]
                own = rows.get((task, method, budget)) or rows.get((task, method, None), {})
                ids = sorted(set(own) & set(bounds[0]) & set(bounds[1]))
                if not ids:
                    cells.append("")
                    continue
                none, full, nll = (
                    np.mean([part[i]["nll"] for i in ids]) for part in (*bounds, own)
                )
                recovered.append((none - nll) / (none - full))
                cell = f"{nll:.2f} ({recovered[-1]:.0%})"
                if "survives" in own[ids[0]]:
                    cell += f" [{np.mean([own[i]['survives'] for i in ids]):.0%}]"
                cells.append(cell)
            if recovered:
                print(f"| {method} | " + " | ".join(cells) + f" | {np.mean(recovered):.0%} |")
        print(f"\nNLL of other methods minus {options.method}'s, paired, 95 % interval:\n")
        for method in METHODS:
            differences = [
                other[i]["nll"] - own[i]["nll"]
                for task in tasks
                for own in [rows.get((task, options.method, budget), {})]
                for other in [
                    rows.get((task, method, budget)) or rows.get((task, method, None), {})
                ]
                # In a fixed order, or the intervals would differ from run to run.
                for i in sorted(set(own) & set(other))
            ]
            if differences and method != options.method:
                low, high = paired_interval(np.array(differences))
                mean, count = np.mean(differences), len(differences)
                print(f"- {method}: {mean:+.2f} [{low:+.2f}, {high:+.2f}] over {count} items")


if __name__ == "__main__":
    main()
