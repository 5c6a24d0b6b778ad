"""The saved results that figures are drawn from, and what was measured in them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plots.style import TASKS, order
from benchmarks.quality import ABLATIONS, RESULTS
from benchmarks.quality_report import make_cell
from benchmarks.quality_results import Rows


def load_json(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Read one of the other results; empty if it was not measured."""
    path = folder / f"{name}.json"
    result: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return result


def tasks_in(rows: Rows) -> list[str]:
    """The tasks that were measured, those that have a name in the figures first."""
    found = {task for task, _, _ in rows}
    return [t for t in TASKS if t in found] + sorted(found - set(TASKS))


def budgets_in(rows: Rows) -> list[int]:
    """The budgets that were measured, as document tokens per token kept."""
    return sorted({budget for _, _, budget in rows if budget})


def methods_in(rows: Rows) -> list[str]:
    """The methods that were measured, in the order they are drawn in; no ablations."""
    return order({method for _, method, _ in rows} - set(ABLATIONS))


def gains_of(rows: Rows, tasks: Sequence[str], method: str, budget: int | None) -> np.ndarray:
    """NLL without documents minus NLL of a method, item by item, over some tasks.

    Empty if the method was not measured on all of them: next to others it would mislead.
    """
    cells = [make_cell(rows, task, method, budget) for task in tasks]
    if not all(cells):
        return np.empty(0)
    return np.concatenate([np.empty(0), *(cell.none - cell.nll for cell in cells if cell)])
