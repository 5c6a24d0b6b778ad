"""The default method against all the others, retrieval above all, on the same questions."""

import math

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.plots.results import budgets_in, methods_in, tasks_in
from benchmarks.plots.style import RC, draw_interval, make_figure, name_rows, style
from benchmarks.quality_report import differences, make_cell, paired_interval
from benchmarks.quality_results import Rows

OWN = "likelihood"


@rc_context(RC)
def rag_figure(rows: Rows, bucket: str) -> Figure:
    """The default method against the others on the same questions; a line of panels per budget.

    Left: NLL of the other minus NLL of the default, over all tasks, paired, with 95 % bootstrap
    intervals: right of zero the default is better. Right: how often the text of a right answer is
    still in the kept text, with 95 % Wilson intervals; methods that keep no text are left out.
    """
    budgets, tasks = budgets_in(rows), tasks_in(rows)
    methods = [method for method in methods_in(rows) if method != "none"]
    rivals = [method for method in methods if method != OWN]
    lines = max(1, len(budgets))
    figure = make_figure(9, (0.3 * len(methods) + 0.9) * lines + 0.6)
    panels = figure.subplots(lines, 2, squeeze=False)
    for (left, right), budget in zip(panels, budgets, strict=False):
        shown: list[str] = []
        count = 0
        for method in rivals:
            by_task = [differences(rows, task, method, OWN, budget) for task in tasks]
            paired = np.concatenate(by_task)
            if all(part.size for part in by_task):
                draw_interval(left, len(shown), method, paired.mean(), *paired_interval(paired))
                shown.append(method)
                count = max(count, len(paired))
        left.axvline(0, color=style(OWN)[1], linewidth=1.5)
        name_rows(left, [style(method)[0] for method in shown])
        left.set_title(f"{budget}× fewer tokens (n = {count})")

        shown = []
        for method in [OWN, *rivals]:
            cells = [make_cell(rows, task, method, budget) for task in tasks]
            alive = [cell.survives for cell in cells if cell and cell.survives.size]
            if alive and method != "full":  # of which everything is kept
                share = np.concatenate(alive)
                low, high = wilson_interval(int(share.sum()), len(share))
                bar = (100 * float(share.mean()), 100 * low, 100 * high)
                draw_interval(right, len(shown), method, *bar)
                shown.append(method)
        name_rows(right, [style(method)[0] for method in shown])
        right.set_xlim(0, 102)
        right.set_title("answer still in the kept text")
    panels[-1, 0].set_xlabel(
        f"NLL minus that of {OWN}, nats per token\n← other is better · {OWN} is better →"
    )
    panels[-1, 1].set_xlabel("% of the questions")
    figure.suptitle(f"Finch against retrieval: documents of {bucket} tokens", fontsize=11)
    return figure


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """95 % interval of a share; unlike a bootstrap not empty where all or none hit."""
    z = 1.96
    share, square = hits / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    reach = z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return max(0.0, middle - reach), min(1.0, middle + reach)
