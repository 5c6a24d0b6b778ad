"""How well, how fast and in how much memory documents are found."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.plots.style import BLUE, GREY, RC, TASKS, draw_legend, make_figure

# What a search compares: label, colour and marker.
_SEARCHERS = {
    "bm25": ("words (BM25)", "#009E73", "^"),
    "dense": ("meaning (dense)", "#E69F00", "s"),
    "hybrid": ("both, fused by scores", BLUE, "o"),
    "hybrid, rrf": ("both, fused by ranks", "#56B4E9", "D"),
}


@rc_context(RC)
def retrieval_figure(result: Mapping[str, Any]) -> Figure:
    """How often the right document is among the first k found, by what is compared."""
    sets: Mapping[str, Mapping[str, Mapping[str, float]]] = result.get("results", {})
    figure = make_figure(3 * max(1, len(sets)) + 0.8, 3.4)
    panels = figure.subplots(1, max(1, len(sets)), squeeze=False, sharey=True)
    for axes, (name, searchers) in zip(panels.flat, sets.items(), strict=False):
        cuts = sorted({int(k.split("@")[1]) for scores in searchers.values() for k in scores})
        for searcher, scores in searchers.items():
            label, colour, marker = _SEARCHERS.get(searcher, (searcher, GREY, "P"))
            points = [
                (place, 100 * scores[f"recall@{cut}"])
                for place, cut in enumerate(cuts)
                if f"recall@{cut}" in scores
            ]
            axes.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker)
        count = result.get("questions", {}).get(name)
        axes.set_title(TASKS.get(name, name) + (f" (n = {count})" if count else ""))
        axes.set_xticks(range(len(cuts)), [str(cut) for cut in cuts])
        axes.set_xlabel("documents found")
        axes.grid(axis="x", visible=False)
    panels[0, 0].set_ylabel("recall of the right documents, %")
    draw_legend(figure, panels.flat)
    return figure


@rc_context(RC)
def scale_figure(result: Mapping[str, Any]) -> Figure:
    """Latency and memory of the search over a large collection."""
    figure = make_figure(8.4, 2.3)
    times, sizes = figure.subplots(1, 2)
    seconds = {name: result.get(f"{name}_query_seconds") for name in _SEARCHERS}
    _draw_amounts(
        times,
        [(_SEARCHERS[name][0].split(",")[0], 1000 * s) for name, s in seconds.items() if s],
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
        axes.barh(place, amount, color=BLUE, height=0.55)
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
