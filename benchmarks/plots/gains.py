"""What compression leaves of the documents' help: quality against budget, length and choices."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.plots.results import budgets_in, gains_of, methods_in, tasks_in
from benchmarks.plots.style import (
    BOUNDS,
    GREY,
    RC,
    TASKS,
    draw_interval,
    draw_legend,
    make_figure,
    name_rows,
    order,
    style,
)
from benchmarks.quality import ABLATIONS
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import Rows


@rc_context(RC)
def quality_figure(rows: Rows, bucket: str) -> Figure:
    """How likely the right answer is, against compression; a panel per task.

    Up is better: the gain is NLL without documents minus NLL of the method, in nats per token of
    the right answer. The right-hand axis gives it as a share of what all documents gain; it is
    left out where that is not clearly above zero. Bars are 95 % bootstrap intervals of the paired
    gains.
    """
    tasks, budgets = tasks_in(rows), budgets_in(rows)
    methods = [method for method in methods_in(rows) if method not in BOUNDS]
    parts = [(TASKS.get(task, task), [task]) for task in tasks]
    if len(tasks) > 1:
        parts.append(("all of them", tasks))
    columns = min(3 if len(parts) <= 6 else 4, max(1, len(parts)))
    lines = max(1, math.ceil(len(parts) / columns))
    figure = make_figure(3.3 * columns + 0.6, 2.9 * lines + 0.9)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(parts) :]:
        axes.set_axis_off()
    for axes, (title, of) in zip(panels.flat, parts, strict=False):
        _draw_gains(axes, rows, of, methods, budgets)
        axes.set_title(f"{title} {axes.get_title()}")
    for axes in panels[:, 0]:
        axes.set_ylabel("gain in nats per token")
    for column in panels.T:
        lowest = [axes for axes in column if axes.axison][-1:]
        for axes in lowest:
            axes.set_xlabel("document tokens per token kept")
    figure.suptitle(
        f"What is left to answer from: documents of {bucket} tokens",
        fontsize=11,
    )
    draw_legend(figure, panels.flat)
    return figure


def _draw_gains(
    axes: Axes, rows: Rows, tasks: Sequence[str], methods: Sequence[str], budgets: Sequence[int]
) -> None:
    gains = {m: [gains_of(rows, tasks, m, budget) for budget in budgets] for m in methods}
    _draw_methods(axes, gains, width=0.62)
    axes.set_xticks(range(len(budgets)), [f"{budget}×" for budget in budgets])
    axes.set_xlim(-0.6, max(1, len(budgets)) - 0.4)
    whole = gains_of(rows, tasks, "full", None)
    if whole.size:
        label, colour, _ = style("full")
        axes.axhline(whole.mean(), color=colour, linestyle="--", linewidth=1, label=label)
        axes.set_title(f"(n = {len(whole)})")
        if paired_interval(whole)[0] > 0:
            _share_axis(axes, float(whole.mean()))


def _draw_methods(axes: Axes, gains: Mapping[str, Sequence[np.ndarray]], width: float) -> None:
    """Draw the mean gain of every method at every place, next to one another, with intervals."""
    step = width / max(1, len(gains))
    for number, (method, by_place) in enumerate(gains.items()):
        label, colour, marker = style(method)
        offset = (number - (len(gains) - 1) / 2) * step
        points = [
            (place + offset, measured.mean(), *paired_interval(measured))
            for place, measured in enumerate(by_place)
            if measured.size
        ]
        if points:
            x, y, low, high = np.array(points).T
            axes.errorbar(
                x,
                y,
                yerr=[np.maximum(0, y - low), np.maximum(0, high - y)],
                label=label,
                color=colour,
                marker=marker,
                markersize=6,
                linestyle="--" if method in BOUNDS else "-",
                linewidth=0.8,
                elinewidth=1.2,
            )
    axes.axhline(0, color=GREY, linewidth=1)
    axes.grid(axis="x", visible=False)


def _share_axis(axes: Axes, whole: float) -> None:
    """Give gains as shares of the whole gain, on the right."""
    right = axes.secondary_yaxis(
        "right", functions=(lambda y: 100 * y / whole, lambda share: share * whole / 100)
    )
    right.yaxis.set_major_formatter(lambda share, _: f"{share:.0f} %")
    right.spines["right"].set_visible(False)
    right.tick_params(length=0, labelsize=8, labelcolor=GREY)
    right.set_ylabel("recovered", color=GREY, fontsize=8)


@rc_context(RC)
def length_figure(buckets: Mapping[str, Rows]) -> Figure:
    """The gain over no documents against the documents' length, a panel per budget.

    The mean over the tasks that were measured at every length, so that lines compare questions of
    the same kinds.
    """
    tasks = set.intersection(*(set(tasks_in(rows)) for rows in buckets.values())) if buckets else ()
    budgets = sorted({budget for rows in buckets.values() for budget in budgets_in(rows)})
    methods = order({m for rows in buckets.values() for m in methods_in(rows)} - {"none"})
    figure = make_figure(3.6 * max(1, len(budgets)) + 0.6, 3.8)
    panels = figure.subplots(1, max(1, len(budgets)), squeeze=False, sharey=True)
    for axes, budget in zip(panels.flat, budgets, strict=False):
        gains = {
            m: [gains_of(rows, sorted(tasks), m, budget) for rows in buckets.values()]
            for m in methods
        }
        _draw_methods(axes, gains, width=0.5)
        axes.set_title(f"{budget}× fewer tokens")
        axes.set_xticks(range(len(buckets)), list(buckets))
        axes.set_xlabel("document tokens")
    panels[0, 0].set_ylabel("gain in nats per token")
    draw_legend(figure, panels.flat)
    return figure


@rc_context(RC)
def ablation_figure(rows: Rows, bucket: str) -> Figure:
    """What a choice within a method does to the gain, over the tasks that have it; per budget.

    Conditioning on another question than the one asked, the chunk length of `finch`, and the
    length of the segments of `likelihood`.
    """
    tasks, budgets = tasks_in(rows), budgets_in(rows)
    measured = {method for _, method, _ in rows}
    # Each method as it is comes before what was varied in it.
    varied = list(
        dict.fromkeys(
            name
            for m in ABLATIONS
            if m in measured
            for name in (m.split(",")[0], m)
            if name in measured
        )
    )
    known = [m for m in varied if m in ABLATIONS]
    tasks = [t for t in tasks if any((t, m, b) in rows for m in known for b in budgets)]
    budgets = [b for b in budgets if any((t, m, b) in rows for t in tasks for m in known)]
    figure = make_figure(4.6 * max(1, len(budgets)) + 1.6, 0.34 * max(1, len(varied)) + 1.6)
    panels = figure.subplots(1, max(1, len(budgets)), squeeze=False, sharex=True)
    for axes, budget in zip(panels.flat, budgets, strict=False):
        shown: list[str] = []
        for method in varied:
            gains = gains_of(rows, tasks, method, budget)
            if gains.size:
                drawn_as = method.split(",")[0]
                draw_interval(
                    axes, len(shown), drawn_as, float(gains.mean()), *paired_interval(gains)
                )
                shown.append(f"{method} (n = {gains.size})")
        axes.axvline(0, color=GREY, linewidth=1)
        name_rows(axes, shown)
        axes.set_xlabel("gain in nats per token")
        axes.set_title(f"{budget}× fewer tokens")
    figure.suptitle(f"What was varied: documents of {bucket} tokens", fontsize=11)
    return figure
