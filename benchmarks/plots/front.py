"""The figure that README and documentation begin with: quality against what is kept."""

from collections.abc import Mapping

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.plots.style import BLACK, GREY, RC, draw_series, make_figure, style
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import Rows
from benchmarks.shared_items import Shared, read_shared

# What the language model reads of the documents with each of them.
_LABELS = {
    "likelihood": "finch-integrations, reading all of it",
    "rag-hybrid": "hybrid retrieval, plain (reads what is kept)",
    "best-bm25": "BM25, its best segmentation (reads what is kept)",
    "finch": "the paper's method (reads all, once)",
}


_METHODS = ("likelihood", "rag-hybrid", "finch", "none", "full")


@rc_context(RC)
def front_figure(rows: Rows, bucket: str) -> Figure:
    """How likely the right answer is, against the kept share of the documents.

    Gains over no documents in nats per token of the right answer, over all tasks, with 95 %
    bootstrap intervals; at one budget all methods have the same questions. Methods that were not
    measured on enough of them are left out there.
    """
    budgets = sorted({budget for _, _, budget in rows if budget})
    cells = {f"{100 / b:.3g} % kept": read_shared(rows, _METHODS, b) for b in budgets}
    return _draw(cells, f"Documents of {bucket} tokens")


@rc_context(RC)
def front_length_figure(buckets: Mapping[str, Rows], budget: int = 8) -> Figure:
    """The same against the documents' length, with one budget."""
    # Of the longest documents fewer questions were measured.
    cells = {
        f"{name} tokens": read_shared(rows, _METHODS, budget, fewest=15)
        for name, rows in buckets.items()
    }
    known = {name: cell for name, cell in cells.items() if cell is not None}
    return _draw(known, f"{100 / budget:.3g} % kept")


def _draw(cells: Mapping[str, Shared | None], title: str) -> Figure:
    figure = make_figure(6.6, 3.9)
    axes = figure.subplots()
    known = [(place, cell) for place, cell in enumerate(cells.values()) if cell is not None]
    for number, (method, label) in enumerate(_LABELS.items()):
        gains = [
            (place, cell.all("none") - cell.all(method))
            for place, cell in known
            if method in cell.nll
        ]
        if not gains:
            continue
        _, colour, marker = style("rag-sentence" if method == "best-bm25" else method)
        points = [(place, gain.mean(), *paired_interval(gain)) for place, gain in gains]
        draw_series(
            axes,
            number,
            points,
            label=label,
            color=colour,
            marker=marker,
            markersize=7 if method == "likelihood" else 5,
            linewidth=2 if method == "likelihood" else 1,
        )
    whole = [
        (place, (cell.all("none") - cell.all("full")).mean())
        for place, cell in known
        if "full" in cell.nll
    ]
    if whole:
        axes.plot(
            *zip(*whole, strict=True),
            color=BLACK,
            linestyle="--",
            linewidth=1,
            marker="_",
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
    axes.set_xticks(range(len(cells)), list(cells))
    axes.set_xlim(-0.4, max(1, len(cells)) - 0.6)
    axes.set_ylim(bottom=-0.12)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("gain in nats per token of the right answer")
    counts = sorted({len(cell.all("none")) for _, cell in known})
    if counts:
        number_of = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        axes.set_title(f"{title}, {number_of} questions", fontsize=10)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure
