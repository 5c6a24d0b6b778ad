"""Figures from the saved results; every one copes with results that are not there yet.

    python -m benchmarks.plots --out FOLDER

Writes SVG and PNG files. Needs matplotlib (the extra `notebooks`).
"""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.long_sets import PACKED as LONG_SETS
from benchmarks.paper import PACKED as PAPER
from benchmarks.plots.cost import prefill_figure, price_figure, time_figure
from benchmarks.plots.gains import ablation_figure, length_figure, quality_figure
from benchmarks.plots.long_sets import long_sets_figure
from benchmarks.plots.paper import paper_figure
from benchmarks.plots.results import load_json
from benchmarks.plots.rivals import rag_figure
from benchmarks.plots.search import retrieval_figure, scale_figure
from benchmarks.quality import ABLATIONS, RESULTS
from benchmarks.quality_results import PACKED, read_buckets, read_rows

__all__ = [
    "ablation_figure",
    "figures",
    "length_figure",
    "load_json",
    "long_sets_figure",
    "paper_figure",
    "prefill_figure",
    "price_figure",
    "quality_figure",
    "rag_figure",
    "retrieval_figure",
    "scale_figure",
    "time_figure",
]


def figures(folder: Path = RESULTS) -> Iterator[tuple[str, Figure]]:
    """Draw everything that was measured, with a name for each."""
    buckets = read_buckets(folder / PACKED.name)
    for bucket, rows in buckets.items():
        yield f"quality-{bucket}", quality_figure(rows, bucket)
        yield f"rag-{bucket}", rag_figure(rows, bucket)
        if any(method in ABLATIONS for _, method, _ in rows):
            yield f"ablation-{bucket}", ablation_figure(rows, bucket)
    if len(buckets) > 1:
        yield "quality-length", length_figure(buckets)
    if by_length := read_buckets(folder / LONG_SETS.name):
        yield "long-sets", long_sets_figure(by_length)
    if of_paper := read_rows(folder / PAPER.name):
        yield "paper", paper_figure(of_paper, buckets)
    for name, draw in (
        ("prefill", prefill_figure),
        ("price", price_figure),
        ("length", time_figure),
        ("retrieval", retrieval_figure),
        ("scale", scale_figure),
    ):
        if result := load_json(name, folder):
            yield name, draw(result)
