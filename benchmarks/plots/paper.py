"""The figures of the method's paper (arXiv 2408.00167), on the tasks here."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper import ATTENTION, BUDGETS
from benchmarks.plots.style import GREY, RC, TASKS, draw_legend, make_figure, style
from benchmarks.quality import CHUNK_LENGTHS
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import Row, Rows

PART = 8
_RETRIEVAL = "rag-hybrid"
_METHODS = ("default", "rag-hybrid-titled", "finch")
# Chosen under the question, and under another one; at 2k tokens a chunk is about 512 long in both.
_QUESTIONS = {
    "finch": ("finch, chunk 512", "finch, blind"),
    "likelihood": ("likelihood", "likelihood, blind"),
}
# (method, budget) -> item id -> row.
Measured = Mapping[tuple[str, int | None], Mapping[str, Row]]


@rc_context(RC)
def paper_figure(rows: Sequence[Row], buckets: Mapping[str, Rows]) -> Figure:
    """Six panels: compression, time, retrieval, the question, the chunk length, attention.

    Gains are in nats per token of the right answer over no documents; every bar is a 95 % bootstrap
    interval of the mean over questions.

    Args:
        rows: The results of `benchmarks.paper`, of one length.
        buckets: Those of `benchmarks.quality`, by length: of the same one for the question and the
            chunk length, of the next longer one for retrieval.
    """
    length = rows[0]["bucket"] if rows else ""
    measured = _by_method(rows)
    lengths = [name for name in buckets if name != length]
    longer = lengths[0] if lengths else length
    varied, rivals = (
        _by_method([row for of in buckets.get(name, {}).values() for row in of.values()])
        for name in (length, longer)
    )
    figure = make_figure(11, 6.8)
    panels = figure.subplots(2, 3)
    draw: list[tuple[str, Callable[[Axes, Measured], int], Measured]] = [
        ("quality against compression", partial(_against_budgets, value=_gain), measured),
        ("time against compression", partial(_against_budgets, value=_time), measured),
        (f"against retrieval, {longer}, {PART}×", _against_retrieval, rivals),
        (f"the question while compressing, {PART}×", _questions, varied),
        (f"chunk length of finch, {PART}×", _chunks, varied),
        ("attention to the right documents", _attention, measured),
    ]
    for axes, (title, one, of) in zip(panels.flat, draw, strict=True):
        axes.set_title(f"{title} (n = {one(axes, of)})")
    if rows:
        figure.suptitle(
            f"SmolLM2-135M-Instruct, documents of {length} tokens where no other length is given, "
            "95 % intervals",
            fontsize=11,
        )
        draw_legend(figure, panels.flat[:2])
    return figure


def _by_method(rows: Sequence[Row]) -> Measured:
    measured: dict[tuple[str, int | None], dict[str, Row]] = {}
    for row in rows:
        measured.setdefault((row["method"], row["budget"]), {})[row["id"]] = row
    return measured


def _values(
    measured: Measured, method: str, budget: int | None, value: Callable[[Measured, Row], float]
) -> dict[str, float]:
    """A number per item that has what it is compared with."""
    rows = measured.get((method, budget), {})
    known = (
        set(rows) & set(measured.get(("none", None), {})) & set(measured.get(("full", None), {}))
    )
    return {item: value(measured, rows[item]) for item in sorted(known)}


def _gain(measured: Measured, row: Row) -> float:
    return float(measured["none", None][row["id"]]["nll"] - row["nll"])


def _time(measured: Measured, row: Row) -> float:
    return float(row["seconds"] / measured["full", None][row["id"]]["seconds"])


def _against_budgets(
    axes: Axes, measured: Measured, value: Callable[[Measured, Row], float]
) -> int:
    count = 0
    for number, method in enumerate(_METHODS):
        points = [
            (place + (number - 1) * 0.1, np.array(list(found.values())))
            for place, budget in enumerate(BUDGETS)
            if (found := _values(measured, method, budget, value))
        ]
        label, colour, marker = style(method)
        _error_bars(axes, points, label=label, color=colour, marker=marker)
        count = max([count, *(len(values) for _, values in points)])
    whole = list(_values(measured, "full", None, value).values())
    if whole:
        label, colour, _ = style("full")
        axes.axhline(float(np.mean(whole)), color=colour, linestyle="--", linewidth=1, label=label)
    axes.set_xticks(range(len(BUDGETS)), [f"{budget}×" for budget in BUDGETS])
    if value is _gain:
        axes.set_ylabel("gain in nats per token")
        axes.axhline(0, color=GREY, linewidth=1)
    else:
        axes.set_ylabel("processor time / full prefill")
        axes.set_ylim(bottom=0)
    axes.set_xlabel("document tokens per token kept")
    return count


def _against_retrieval(axes: Axes, measured: Measured) -> int:
    rag = measured.get((_RETRIEVAL, PART), {})
    tasks = [task for task in TASKS if any(row["task"] == task for row in rag.values())]
    count = 0
    for number, method in enumerate(("likelihood", "finch")):
        own = measured.get((method, PART), {})
        points = []
        for place, part in enumerate([*([task] for task in tasks), tasks]):
            shared = sorted(i for i, row in rag.items() if row["task"] in part and i in own)
            paired = np.array([rag[i]["nll"] - own[i]["nll"] for i in shared])
            if paired.size:
                points.append((place + (number - 0.5) * 0.2, paired))
                count = max(count, len(paired))
        label, colour, marker = style(method)
        _error_bars(axes, points, label=label, color=colour, marker=marker, linestyle="none")
    axes.axhline(0, color=GREY, linewidth=1)
    names = [TASKS[task] for task in tasks] + ["all"] * bool(tasks)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right", fontsize=8)
    axes.set_ylabel("NLL of BM25 + embeddings minus own")
    return count


def _questions(axes: Axes, measured: Measured) -> int:
    count, names = 0, list[str]()
    for method, variants in _QUESTIONS.items():
        found = [_values(measured, variant, PART, _gain) for variant in variants]
        shared = sorted(set.intersection(*map(set, found)))
        if shared:
            _, colour, marker = style(method)
            points = [
                (float(place), np.array([of[item] for item in shared]))
                for place, of in enumerate(found, start=len(names))
            ]
            _error_bars(axes, points, color=colour, marker=marker, linestyle="none")
        count = max(count, len(shared))
        names += [f"{method},\n{asked}" for asked in ("its question", "another one")]
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel("gain in nats per token")
    return count


def _chunks(axes: Axes, measured: Measured) -> int:
    points = [
        (float(place), np.array(list(found.values())))
        for place, length in enumerate(CHUNK_LENGTHS)
        if (found := _values(measured, f"finch, chunk {length}", PART, _gain))
    ]
    _, colour, marker = style("finch")
    _error_bars(axes, points, color=colour, marker=marker)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set_xticks(range(len(CHUNK_LENGTHS)), [f"{length:,}" for length in CHUNK_LENGTHS])
    axes.set_xlabel("tokens")
    axes.set_ylabel("gain in nats per token")
    return max((len(values) for _, values in points), default=0)


def _attention(axes: Axes, measured: Measured) -> int:
    rows = list(measured.get((ATTENTION, None), {}).values())
    for name, label, colour in (
        ("asked", "its question", style("finch")[1]),
        ("blind", "one without content", GREY),
    ):
        if rows:
            by_layer = np.array([row[name] for row in rows]).T
            bounds = np.array([paired_interval(layer) for layer in by_layer]).T
            layers = np.arange(1, len(by_layer) + 1)
            axes.plot(layers, by_layer.mean(axis=1), color=colour, label=label)
            axes.fill_between(layers, *bounds, color=colour, alpha=0.2, linewidth=0)
    if rows:
        axes.legend(fontsize=8)
    axes.axhline(1, color=GREY, linewidth=1)
    axes.set_xlabel("layer")
    axes.set_ylabel("attention per token / average")
    return len(rows)


def _error_bars(axes: Axes, points: Sequence[tuple[float, np.ndarray]], **how: Any) -> None:
    """Draw means with their intervals."""
    if points:
        drawn = [(place, values.mean(), *paired_interval(values)) for place, values in points]
        x, y, low, high = np.array(drawn).T
        axes.errorbar(x, y, yerr=[y - low, high - y], elinewidth=1.2, markersize=5, **how)
    axes.grid(axis="x", visible=False)
