"""The figure that README and documentation begin with: quality against what is kept."""

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.plots.style import BLACK, GREY, RC, make_figure, style
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import Rows
from benchmarks.shared_items import read_shared

# What the language model reads of the documents with each of them.
_LABELS = {
    "likelihood": "finch-integrations (reads all, once)",
    "rag-hybrid": "hybrid retrieval (reads what is kept)",
    "best-bm25": "BM25, its best segmentation (reads what is kept)",
    "finch": "the paper's method (reads all, once)",
}


@rc_context(RC)
def front_figure(rows: Rows, bucket: str) -> Figure:
    """How likely the right answer is, against the kept share of the documents.

    Gains over no documents in nats per token of the right answer, over all tasks, with 95 %
    bootstrap intervals; at one budget all methods have the same questions. Methods that were not
    measured on enough of them are left out there.
    """
    budgets = sorted({budget for _, _, budget in rows if budget})
    figure = make_figure(6.6, 3.9)
    axes = figure.subplots()
    counts, whole = [], []
    points: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in _LABELS}
    for place, budget in enumerate(budgets):
        shared = read_shared(rows, ["likelihood", "rag-hybrid", "finch", "none", "full"], budget)
        if shared is None:
            continue
        none = shared.all("none")
        counts.append(len(none))
        if "full" in shared.nll:
            whole.append((none - shared.all("full")).mean())
        for number, (method, found) in enumerate(points.items()):
            if method in shared.nll:
                gain = none - shared.all(method)
                offset = (number - 1.5) * 0.06
                found.append((place + offset, gain.mean(), *paired_interval(gain)))
    for method, found in points.items():
        if not found:
            continue
        _, colour, marker = style("rag-sentence" if method == "best-bm25" else method)
        x, y, low, high = np.array(found).T
        axes.errorbar(
            x,
            y,
            yerr=[y - low, high - y],
            label=_LABELS[method],
            color=colour,
            marker=marker,
            markersize=7 if method == "likelihood" else 5,
            linewidth=2 if method == "likelihood" else 1,
            elinewidth=1.2,
        )
    if whole:
        axes.axhline(
            np.mean(whole),
            color=BLACK,
            linestyle="--",
            linewidth=1,
            label="all documents, nothing removed",
        )
    axes.axhline(0, color=GREY, linewidth=1)
    axes.annotate(
        "no documents",
        (-0.35, 0),
        xytext=(0, 3),
        textcoords="offset points",
        color=GREY,
        fontsize=8,
    )
    axes.set_xticks(range(len(budgets)), [f"{100 / budget:.3g} % kept" for budget in budgets])
    axes.set_xlim(-0.4, max(1, len(budgets)) - 0.6)
    axes.set_ylim(bottom=-0.12)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("gain in nats per token of the right answer")
    if counts:
        number = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
        axes.set_title(f"Documents of {bucket} tokens, {number} questions", fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure
