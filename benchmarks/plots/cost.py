"""Time and memory of a compression against one full prefill of the same text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.plots.style import BLACK, BOUNDS, RC, draw_legend, make_figure, order, style

_PREFILL = " / full prefill"


@rc_context(RC)
def time_figure(result: Mapping[str, Any]) -> Figure:
    """Time and peak memory against the length of the documents (`benchmarks.length`)."""
    measured: list[Mapping[str, Any]] = result.get("rows", [])
    figure = make_figure(9, 3.4)
    panels = figure.subplots(1, 2)
    for axes, name, unit, of in zip(
        panels,
        ("seconds", "bytes"),
        ("seconds", "GiB over the model"),
        (1, 2**30),
        strict=True,
    ):
        for method in order({row["method"] for row in measured}):
            label, colour, marker = style(method)
            points = [
                (row["length"], row[name] / of)
                for row in measured
                if row["method"] == method and name in row
            ]
            dashes = "--" if method in BOUNDS else "-"
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    label=label,
                    color=colour,
                    marker=marker,
                    linestyle=dashes,
                )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("thousands of document tokens")
        axes.set_ylabel(unit)
    if result:
        figure.suptitle(
            f"{result['model']}; target {result['target_size']:,}; {result['machine']}", fontsize=9
        )
    draw_legend(figure, panels)
    return figure


@rc_context(RC)
def prefill_figure(result: Mapping[str, Any]) -> Figure:
    """Time and memory of a compression as shares of one full prefill of the same text."""
    ratios: Mapping[str, Sequence[float]] = result.get("ratios", {})
    names = [name.removesuffix(_PREFILL).split(": ") for name in ratios if name.endswith(_PREFILL)]
    rows = list(dict.fromkeys(what for what, _ in names))
    methods = order({method for _, method in names})
    figure = make_figure(7.6, 0.75 * max(1, len(rows)) + 1.5)
    axes = figure.subplots()
    for number, method in enumerate(methods):
        offset = 0.64 * ((number + 0.5) / len(methods) - 0.5)
        label, colour, marker = style(method)
        for place, what in enumerate(rows):
            runs = ratios.get(f"{what}: {method}{_PREFILL}", [])
            if not runs:
                continue
            y, middle = place + offset, float(np.median(runs))
            axes.plot([min(runs), max(runs)], [y, y], color=colour, linewidth=1.6)
            axes.plot([middle], [y], color=colour, marker=marker, label=label if not place else "")
            axes.annotate(
                f"{middle:.2f}",
                (max(runs), y),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=8,
            )
    axes.axvline(1, color=BLACK, linestyle="--", linewidth=1, label="full prefill")
    axes.set_xlim(0, 1.1)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of the full prefill's; median and range of the runs, lower is better")
    if result:
        axes.set_title(
            f"{result['tokens']:,} document tokens, {result['target_size']:,} kept\n"
            f"{result['model']}; {result['machine']}",
            fontsize=9,
        )
    draw_legend(figure, [axes])
    return figure


@rc_context(RC)
def price_figure(sections: Sequence[Mapping[str, Any]]) -> Figure:
    """The time of a first and of later questions as shares of one full prefill."""
    measured = [s for s in sections if any("prefill" in run for run in s["runs"])]
    names = list(
        dict.fromkeys(
            name
            for section in measured
            for run in section["runs"]
            for name in run
            if name != "prefill"
        )
    )
    figure = make_figure(7.6, 0.3 * max(1, len(names)) + 1.6)
    axes = figure.subplots()
    for section, marker in zip(measured, "os^D", strict=False):
        label = f"{section['tokens']:,} tokens, {section['dtype']}"
        for place, name in enumerate(names):
            shares = [
                run[name]["seconds"] / run["prefill"]["seconds"]
                for run in section["runs"]
                if name in run and "prefill" in run
            ]
            if shares:
                axes.plot(
                    [float(np.median(shares))],
                    [place],
                    color=BLACK,
                    marker=marker,
                    linestyle="none",
                    label=label,
                )
                label = ""
    axes.axvline(1, color=BLACK, linestyle="--", linewidth=1, label="full prefill")
    axes.set_xlim(0, 1.1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.set_xlabel("share of the full prefill's time; median of the runs, lower is better")
    draw_legend(figure, [axes])
    return figure
