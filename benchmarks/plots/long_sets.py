"""Quality against the length of the documents, with a fixed budget."""

from collections.abc import Mapping

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.long_sets import BUDGET, METHODS, gains
from benchmarks.plots.style import GREY, RC, draw_series, make_figure, style
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import Rows


@rc_context(RC)
def long_sets_figure(by_length: Mapping[str, Rows]) -> Figure:
    """How much likelier the right answer is than with no documents, a line per method.

    Nats per token, with 95 % bootstrap intervals; at one length all methods have the same
    questions.
    """
    figure = make_figure(6.6, 3.9)
    axes = figure.subplots()
    places = {length: place for place, length in enumerate(by_length)}
    counts = []
    for number, method in enumerate(name for name in METHODS if name != "none"):
        measured = gains(by_length, method)
        if not measured:
            continue
        label, colour, marker = style(method)
        points = [
            (places[length], gain.mean(), *paired_interval(gain))
            for length, gain in measured.items()
        ]
        draw_series(axes, number, points, label=label, color=colour, marker=marker)
        counts += [len(gain) for gain in measured.values()]
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set_xticks(list(places.values()), [f"{length} tokens" for length in places])
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("gain in nats per token of the right answer")
    if counts:
        span = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{max(counts)}"
        axes.set_title(f"{BUDGET:,} tokens kept, {span} questions", fontsize=10)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure
