"""Figures from the saved results; every one copes with results that are not there yet.

    python -m benchmarks.plots --out FOLDER

Writes SVG and PNG files. Needs matplotlib (the extra `notebooks`).
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.quality import ABLATIONS, RESULTS
from benchmarks.quality_report import differences, make_cell, paired_interval
from benchmarks.quality_results import PACKED, Rows, read_all

BOUNDS = ("none", "full", "gold")
OWN = "likelihood"

# Colours that stay apart for colour-blind readers (Okabe and Ito); shapes tell them apart, too.
_BLACK, _GREY = "#222222", "#8a8a8a"
_STYLES = {
    "likelihood": ("likelihood (default)", "#0072B2", "o"),
    "contrast": ("contrast", "#882255", "P"),
    "rag-hybrid": ("BM25 + embeddings", "#332288", "h"),
    "finch": ("finch (the paper's)", "#D55E00", "s"),
    "snapkv": ("SnapKV's, one pass", "#E69F00", "D"),
    "perplexity": ("LongLLMLingua's", "#999933", ">"),
    "rag-sentence": ("BM25, 32–96 tokens", "#009E73", "^"),
    "rag-128": ("BM25, 96–160 tokens", "#56B4E9", "v"),
    "rag-passage": ("BM25, 160–320 tokens", "#CC79A7", "<"),
    "truncate": ("start and end", _GREY, "X"),
    "full": ("all documents", _BLACK, "|"),
    "gold": ("only the right documents", _BLACK, "*"),
    "none": ("no documents", _GREY, "|"),
}
# For methods that have no style of their own yet.
_OTHERS = (("#44AA99", "p"), ("#661100", "d"))
_TASKS = {
    "squad_long": "one article",
    "nq_multidoc": "many passages",
    "science_long": "one paper",
    "multihop": "two documents each",
    "needle": "facts in books",
    "kv_lookup": "key-value lists",
    "squad": "one article each",
    "nq": "Natural Questions",
}
_PREFILL = " / full prefill"
_REFERENCES = ("all documents", "full prefill")
_LEGS = {
    "bm25": ("words (BM25)", "#009E73", "^"),
    "dense": ("meaning (dense)", "#E69F00", "s"),
    "hybrid": ("both, fused by scores", "#0072B2", "o"),
    "hybrid, rrf": ("both, fused by ranks", "#56B4E9", "D"),
}
_RC = {
    "axes.edgecolor": _GREY,
    "axes.facecolor": "white",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.facecolor": "white",
    "font.size": 9,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "savefig.facecolor": "white",
    # The same results give the same file.
    "svg.hashsalt": "finch",
}


def load_quality(path: Path = PACKED, model: str = "embedded") -> dict[str, Rows]:
    """Read the results of `benchmarks.quality`, by bucket, the shortest documents first."""
    return {bucket: rows for (name, bucket), rows in read_all(path).items() if name == model}


def load_json(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Read one of the other results; empty if it was not measured."""
    path = folder / f"{name}.json"
    result: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return result


@rc_context(_RC)
def quality_figure(rows: Rows, bucket: str) -> Figure:
    """How likely the right answer is, against compression; a panel per task.

    Up is better: the gain is NLL without documents minus NLL of the method, in nats per token of
    the right answer. The right-hand axis gives it as a share of what all documents gain; it is
    left out where that is not clearly above zero. Bars are 95 % bootstrap intervals of the paired
    gains.
    """
    tasks, budgets = _tasks(rows), _budgets(rows)
    methods = [method for method in _methods(rows) if method not in BOUNDS]
    parts = [(_TASKS.get(task, task), [task]) for task in tasks]
    if len(tasks) > 1:
        parts.append(("all of them", tasks))
    columns = min(3 if len(parts) <= 6 else 4, max(1, len(parts)))
    lines = max(1, math.ceil(len(parts) / columns))
    figure = _figure(3.3 * columns + 0.6, 2.9 * lines + 0.9)
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
    _legend(figure, panels.flat)
    return figure


def _draw_gains(
    axes: Axes, rows: Rows, tasks: Sequence[str], methods: Sequence[str], budgets: Sequence[int]
) -> None:
    width = 0.62 / max(1, len(methods))
    for number, method in enumerate(methods):
        label, colour, marker = style(method)
        points = []
        for place, budget in enumerate(budgets):
            gains = gains_of(rows, tasks, method, budget)
            if gains.size:
                x = place + (number - (len(methods) - 1) / 2) * width
                points.append((x, gains.mean(), *paired_interval(gains)))
        if points:
            _draw_points(axes, points, label=label, color=colour, marker=marker)
    axes.axhline(0, color=_GREY, linewidth=1)
    axes.set_xticks(range(len(budgets)), [f"{budget}×" for budget in budgets])
    axes.set_xlim(-0.6, max(1, len(budgets)) - 0.4)
    axes.grid(axis="x", visible=False)
    whole = gains_of(rows, tasks, "full", None)
    if whole.size:
        label, colour, _ = style("full")
        axes.axhline(whole.mean(), color=colour, linestyle="--", linewidth=1, label=label)
        axes.set_title(f"(n = {len(whole)})")
        if paired_interval(whole)[0] > 0:
            _share_axis(axes, float(whole.mean()))


def gains_of(rows: Rows, tasks: Sequence[str], method: str, budget: int | None) -> np.ndarray:
    """NLL without documents minus NLL of a method, item by item, over some tasks.

    Empty where the method was not measured on all of them: beside others it would mislead.
    """
    cells = [make_cell(rows, task, method, budget) for task in tasks]
    if not all(cells):
        return np.empty(0)
    return np.concatenate([np.empty(0), *(cell.none - cell.nll for cell in cells if cell)])


def _share_axis(axes: Axes, whole: float) -> None:
    """Give gains as shares of the whole gain, on the right."""
    right = axes.secondary_yaxis(
        "right", functions=(lambda y: 100 * y / whole, lambda share: share * whole / 100)
    )
    right.yaxis.set_major_formatter(lambda share, _: f"{share:.0f} %")
    right.spines["right"].set_visible(False)
    right.tick_params(length=0, labelsize=8, labelcolor=_GREY)
    right.set_ylabel("recovered", color=_GREY, fontsize=8)


def _draw_points(axes: Axes, points: Sequence[Sequence[float]], **style: Any) -> None:
    """Draw (x, y, low, high) as a thin line with interval bars."""
    x, y, low, high = np.array(points).T
    axes.errorbar(
        x,
        y,
        yerr=[np.maximum(0, y - low), np.maximum(0, high - y)],
        linewidth=0.8,
        elinewidth=1.2,
        markersize=6,
        **style,
    )


@rc_context(_RC)
def length_figure(buckets: Mapping[str, Rows]) -> Figure:
    """The gain over no documents against the documents' length, a panel per budget.

    The mean over the tasks that were measured at every length, so that lines compare the same
    questions' kinds.
    """
    tasks = set.intersection(*(set(_tasks(rows)) for rows in buckets.values())) if buckets else ()
    budgets = sorted({budget for rows in buckets.values() for budget in _budgets(rows)})
    methods = _order({m for rows in buckets.values() for m in _methods(rows)} - {"none"})
    figure = _figure(3.6 * max(1, len(budgets)) + 0.6, 3.8)
    panels = figure.subplots(1, max(1, len(budgets)), squeeze=False, sharey=True)
    width = 0.5 / max(1, len(methods))
    for axes, budget in zip(panels.flat, budgets, strict=False):
        for number, method in enumerate(methods):
            label, colour, marker = style(method)
            points = []
            for place, rows in enumerate(buckets.values()):
                gains = gains_of(rows, sorted(tasks), method, budget)
                if gains.size:
                    x = place + (number - (len(methods) - 1) / 2) * width
                    points.append((x, gains.mean(), *paired_interval(gains)))
            if points:
                dashes = "--" if method in BOUNDS else "-"
                _draw_points(
                    axes, points, label=label, color=colour, marker=marker, linestyle=dashes
                )
        axes.axhline(0, color=_GREY, linewidth=1)
        axes.set_title(f"{budget}× fewer tokens")
        axes.set_xticks(range(len(buckets)), list(buckets))
        axes.set_xlabel("document tokens")
        axes.grid(axis="x", visible=False)
    panels[0, 0].set_ylabel("gain in nats per token")
    _legend(figure, panels.flat)
    return figure


@rc_context(_RC)
def rag_figure(rows: Rows, bucket: str) -> Figure:
    """The default method against the others on the same questions; a line of panels per budget.

    Left: NLL of the other minus NLL of the default, over all tasks, paired, with 95 % bootstrap
    intervals: right of zero the default is better. Right: how often the text of a right answer is
    still in the kept text, with 95 % Wilson intervals; methods that keep no text are left out.
    """
    budgets, tasks = _budgets(rows), _tasks(rows)
    methods = [method for method in _methods(rows) if method != "none"]
    rivals = [method for method in methods if method != OWN]
    lines = max(1, len(budgets))
    figure = _figure(9, (0.3 * len(methods) + 0.9) * lines + 0.6)
    panels = figure.subplots(lines, 2, squeeze=False)
    for (left, right), budget in zip(panels, budgets, strict=False):
        shown, count = [], 0
        for method in rivals:
            by_task = [differences(rows, task, method, OWN, budget) for task in tasks]
            paired = np.concatenate(by_task)
            if all(part.size for part in by_task):
                _draw_bar(left, len(shown), method, paired.mean(), *paired_interval(paired))
                shown.append(method)
                count = max(count, len(paired))
        left.axvline(0, color=style(OWN)[1], linewidth=1.5)
        _name_rows(left, shown)
        left.set_title(f"{budget}× fewer tokens (n = {count})")

        shown = []
        for method in [OWN, *rivals]:
            cells = [make_cell(rows, task, method, budget) for task in tasks]
            alive = [cell.survives for cell in cells if cell and cell.survives.size]
            if alive and method != "full":  # there it is known beforehand
                share = np.concatenate(alive)
                low, high = wilson_interval(int(share.sum()), len(share))
                bar = (100 * float(share.mean()), 100 * low, 100 * high)
                _draw_bar(right, len(shown), method, *bar)
                shown.append(method)
        _name_rows(right, shown)
        right.set_xlim(0, 102)
        right.set_title("answer still in the kept text")
    panels[-1, 0].set_xlabel(
        f"NLL minus that of {OWN}, nats per token\n← other is better · {OWN} is better →"
    )
    panels[-1, 1].set_xlabel("% of the questions")
    figure.suptitle(f"Finch against retrieval: documents of {bucket} tokens", fontsize=11)
    return figure


def _draw_bar(
    axes: Axes, place: float, method: str, middle: float, low: float, high: float
) -> None:
    _, colour, marker = style(method)
    axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
    axes.plot([middle], [place], color=colour, marker="o" if marker == "|" else marker)


def _name_rows(axes: Axes, methods: Sequence[str]) -> None:
    axes.set_yticks(range(len(methods)), [style(method)[0] for method in methods])
    axes.set_ylim(max(1, len(methods)) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


@rc_context(_RC)
def ablation_figure(rows: Rows, bucket: str) -> Figure:
    """What a choice within a method does to the gain, over the tasks that have it; per budget.

    Conditioning on another question than the one asked, the chunk length of `finch`, and the
    length of the segments of `likelihood`.
    """
    tasks, budgets = _tasks(rows), _budgets(rows)
    varied = [m for m in ABLATIONS if any(method == m for _, method, _ in rows)]
    tasks = [t for t in tasks if any((t, m, b) in rows for m in varied for b in budgets)]
    budgets = [b for b in budgets if any((t, m, b) in rows for t in tasks for m in varied)]
    figure = _figure(4.6 * max(1, len(budgets)) + 1.6, 0.34 * max(1, len(varied)) + 1.6)
    panels = figure.subplots(1, max(1, len(budgets)), squeeze=False, sharex=True)
    for axes, budget in zip(panels.flat, budgets, strict=False):
        shown = []
        for method in varied:
            gains = gains_of(rows, tasks, method, budget)
            if gains.size:
                _, colour, marker = style(method.split(",")[0])
                low, high = paired_interval(gains)
                axes.plot([low, high], [len(shown)] * 2, color=colour, linewidth=1.6)
                axes.plot([gains.mean()], [len(shown)], color=colour, marker=marker)
                shown.append(f"{method} (n = {gains.size})")
        axes.axvline(0, color=_GREY, linewidth=1)
        axes.set_yticks(range(len(shown)), shown)
        axes.set_ylim(max(1, len(shown)) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("gain in nats per token")
        axes.set_title(f"{budget}× fewer tokens")
    figure.suptitle(f"What was varied: documents of {bucket} tokens", fontsize=11)
    return figure


@rc_context(_RC)
def time_figure(result: Mapping[str, Any]) -> Figure:
    """Time and peak memory against the length of the documents (`benchmarks.length`)."""
    measured: list[Mapping[str, Any]] = result.get("rows", [])
    figure = _figure(9, 3.4)
    panels = figure.subplots(1, 2)
    for axes, name, unit, of in zip(
        panels, ("seconds", "bytes"), ("seconds", "GiB beside the model"), (1, 2**30), strict=True
    ):
        for method in _order({row["method"] for row in measured}):
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
    _legend(figure, panels)
    return figure


@rc_context(_RC)
def prefill_figure(result: Mapping[str, Any]) -> Figure:
    """Time and memory of a compression as shares of one full prefill of the same text."""
    ratios: Mapping[str, Sequence[float]] = result.get("ratios", {})
    names = [name.removesuffix(_PREFILL).split(": ") for name in ratios if name.endswith(_PREFILL)]
    rows = list(dict.fromkeys(what for what, _ in names))
    methods = _order({method for _, method in names})
    figure = _figure(7.6, 0.75 * max(1, len(rows)) + 1.5)
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
    axes.axvline(1, color=_BLACK, linestyle="--", linewidth=1, label="full prefill")
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
    _legend(figure, [axes])
    return figure


@rc_context(_RC)
def retrieval_figure(result: Mapping[str, Any]) -> Figure:
    """How often the right document is among the first k found, by what is compared."""
    sets: Mapping[str, Mapping[str, Mapping[str, float]]] = result.get("results", {})
    figure = _figure(3 * max(1, len(sets)) + 0.8, 3.4)
    panels = figure.subplots(1, max(1, len(sets)), squeeze=False, sharey=True)
    for axes, (name, legs) in zip(panels.flat, sets.items(), strict=False):
        cuts = sorted({int(k.split("@")[1]) for scores in legs.values() for k in scores})
        for leg, scores in legs.items():
            label, colour, marker = _LEGS.get(leg, (leg, _GREY, "P"))
            points = [
                (place, 100 * scores[f"recall@{cut}"])
                for place, cut in enumerate(cuts)
                if f"recall@{cut}" in scores
            ]
            axes.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker)
        count = result.get("questions", {}).get(name)
        axes.set_title(_TASKS.get(name, name) + (f" (n = {count})" if count else ""))
        axes.set_xticks(range(len(cuts)), [str(cut) for cut in cuts])
        axes.set_xlabel("documents found")
        axes.grid(axis="x", visible=False)
    panels[0, 0].set_ylabel("recall of the right documents, %")
    _legend(figure, panels.flat)
    return figure


@rc_context(_RC)
def scale_figure(result: Mapping[str, Any]) -> Figure:
    """Latency and memory of the search over a large collection."""
    figure = _figure(8.4, 2.3)
    times, sizes = figure.subplots(1, 2)
    legs = [leg for leg in _LEGS if f"{leg}_query_seconds" in result]
    _draw_amounts(
        times,
        [(_LEGS[leg][0].split(",")[0], 1000 * result[f"{leg}_query_seconds"]) for leg in legs],
        "milliseconds",
    )
    times.set_title("one query, warm")
    memory = {
        "index_bytes": "index on disk",
        "search_peak_bytes": "searching process, peak",
        "build_peak_bytes": "building process, peak",
    }
    known = [(label, result[key] / 2**20) for key, label in memory.items() if key in result]
    _draw_amounts(sizes, known, "MiB")
    sizes.set_title("size")
    if result:
        figure.suptitle(f"{result['chunks']:,} chunks, vectors of 384 numbers", fontsize=11)
    return figure


def _draw_amounts(axes: Axes, amounts: Sequence[tuple[str, float]], unit: str) -> None:
    """Draw bars from zero, each with its number."""
    for place, (_, amount) in enumerate(amounts):
        axes.barh(place, amount, color="#0072B2", height=0.55)
        axes.annotate(
            f"{amount:.0f}",
            (amount, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(amounts)), [label for label, _ in amounts])
    axes.set_ylim(max(1, len(amounts)) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(unit)


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """95 % interval of a share; unlike a bootstrap not empty where all or none hit."""
    z = 1.96
    share, square = hits / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    reach = z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def style(method: str) -> tuple[str, str, str]:
    """Label, colour and marker of a method, also of one that is new."""
    if method in _STYLES:
        return _STYLES[method]
    # By name: a new method looks the same in every figure.
    return method, *_OTHERS[sum(method.encode()) % len(_OTHERS)]


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _legend(figure: Figure, panels: Sequence[Axes] | Iterator[Axes]) -> None:
    """One legend for all panels, each entry once, below."""
    entries: dict[str, Any] = {}
    for axes in panels:
        entries |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    # Reference lines behind the methods, whatever matplotlib's order.
    entries = dict(sorted(entries.items(), key=lambda entry: entry[0] in _REFERENCES))
    if entries:
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=min(4, len(entries))
        )


def _tasks(rows: Rows) -> list[str]:
    found = {task for task, _, _ in rows}
    return [t for t in _TASKS if t in found] + sorted(found - set(_TASKS))


def _budgets(rows: Rows) -> list[int]:
    return sorted({budget for _, _, budget in rows if budget})


def _methods(rows: Rows) -> list[str]:
    return _order({method for _, method, _ in rows} - set(ABLATIONS))


def _order(methods: set[str]) -> list[str]:
    """The default first, then the paper's, retrieval, new ones, and the bounds last."""
    known = [m for m in _STYLES if m in methods and m not in BOUNDS]
    return [*known, *sorted(methods - set(_STYLES)), *(m for m in BOUNDS if m in methods)]


def figures(folder: Path = RESULTS) -> Iterator[tuple[str, Figure]]:
    """Draw everything that was measured, with a name for each."""
    buckets = load_quality(folder / PACKED.name)
    for bucket, rows in buckets.items():
        yield f"quality-{bucket}", quality_figure(rows, bucket)
        yield f"rag-{bucket}", rag_figure(rows, bucket)
        if any(method in ABLATIONS for _, method, _ in rows):
            yield f"ablation-{bucket}", ablation_figure(rows, bucket)
    if len(buckets) > 1:
        yield "quality-length", length_figure(buckets)
    for name, draw in (
        ("prefill", prefill_figure),
        ("length", time_figure),
        ("retrieval", retrieval_figure),
        ("scale", scale_figure),
    ):
        if result := load_json(name, folder):
            yield name, draw(result)


def main() -> None:
    """Write all figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with rc_context(_RC):
        for name, figure in figures(options.results):
            # Without the date the same results give the same file.
            figure.savefig(options.out / f"{name}.svg", metadata={"Date": None})
            figure.savefig(options.out / f"{name}.png", dpi=150)
            print(options.out / name)


if __name__ == "__main__":
    main()
