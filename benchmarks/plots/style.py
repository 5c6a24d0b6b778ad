"""How every figure looks: colours, the methods' names and markers, the legend."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BOUNDS = ("none", "full", "gold")

BLACK, GREY, BLUE = "#222222", "#8a8a8a", "#0072B2"
RC = {
    "axes.edgecolor": GREY,
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
# Okabe and Ito's colours, which colour-blind readers can tell apart; the shapes differ, too.
_METHODS = {
    "likelihood": ("likelihood, everything read", BLUE, "o"),
    "default": ("finch-integrations", BLUE, "o"),
    "contrast": ("contrast", "#882255", "P"),
    "rag-hybrid": ("BM25 + embeddings", "#332288", "h"),
    "rag-hybrid-titled": ("BM25 + embeddings, titled", "#009E73", "^"),
    "rag-hybrid-around": ("BM25 + embeddings, around", "#56B4E9", "v"),
    "rag-hybrid-both": ("BM25 + embeddings, both", "#CC79A7", "<"),
    "finch": ("finch (the paper's)", "#D55E00", "s"),
    "snapkv": ("SnapKV's, one pass", "#E69F00", "D"),
    "perplexity": ("LongLLMLingua's", "#999933", ">"),
    "rag-sentence": ("BM25, 32–96 tokens", "#009E73", "^"),
    "rag-128": ("BM25, 96–160 tokens", "#56B4E9", "v"),
    "rag-passage": ("BM25, 160–320 tokens", "#CC79A7", "<"),
    "truncate": ("start and end", GREY, "X"),
    "full": ("all documents", BLACK, "|"),
    "gold": ("only the right documents", BLACK, "*"),
    "none": ("no documents", GREY, "|"),
}
# For methods that have no entry above yet.
_OTHERS = (("#44AA99", "p"), ("#661100", "d"))
TASKS = {
    "squad_long": "one article",
    "nq_multidoc": "many passages",
    "science_long": "one paper",
    "multihop": "two documents each",
    "needle": "facts in books",
    "kv_lookup": "key-value lists",
    "squad": "one article each",
    "nq": "Natural Questions",
}
_REFERENCES = ("all documents", "full prefill")


def style(method: str) -> tuple[str, str, str]:
    """Label, colour and marker of a method, also of one that is new."""
    if method in _METHODS:
        return _METHODS[method]
    # By name: a new method looks the same in every figure.
    return method, *_OTHERS[sum(method.encode()) % len(_OTHERS)]


def order(methods: set[str]) -> list[str]:
    """The default first, then the paper's, retrieval, new ones, and the bounds last."""
    known = [m for m in _METHODS if m in methods and m not in BOUNDS]
    return [*known, *sorted(methods - set(_METHODS)), *(m for m in BOUNDS if m in methods)]


def draw_series(
    axes: Axes, number: int, points: Sequence[tuple[float, float, float, float]], **line: Any
) -> None:
    """Draw points (x, mean, ends of its interval); series are set apart by their number."""
    x, y, low, high = np.array(points).T
    place = x + (number - 1.5) * 0.06
    axes.errorbar(place, y, yerr=[y - low, high - y], elinewidth=1.2, **line)


def make_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches."""
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def draw_interval(
    axes: Axes, place: float, method: str, middle: float, low: float, high: float
) -> None:
    """Draw a method's value and its interval as one row of a chart."""
    _, colour, marker = style(method)
    axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
    axes.plot([middle], [place], color=colour, marker="o" if marker == "|" else marker)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows of a chart, the first one at the top."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(max(1, len(names)) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def draw_legend(figure: Figure, panels: Sequence[Axes] | Iterator[Axes]) -> None:
    """One legend for all panels, each entry once, below them."""
    entries: dict[str, Any] = {}
    for axes in panels:
        entries |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    # Reference lines after the methods, whatever matplotlib's order.
    entries = dict(sorted(entries.items(), key=lambda entry: entry[0] in _REFERENCES))
    if entries:
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=min(4, len(entries))
        )
