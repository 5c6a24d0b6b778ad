"""The figures from saved results."""

import numpy as np
import pytest

from benchmarks import plots, quality_results
from benchmarks.plots import __main__ as command
from benchmarks.plots.results import gains_of
from benchmarks.plots.rivals import wilson_interval
from benchmarks.quality import RESULTS
from benchmarks.shared_items import difference, read_shared
from tests.benchmark_rows import NLL, row, write, write_measured


@pytest.fixture
def rows(tmp_path):
    return quality_results.read(write_measured(tmp_path), "4k", "embedded")


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_share_whose_hits_are_all_or_none_has_an_interval():
    low, high = wilson_interval(5, 5)
    assert (low, high) == (pytest.approx(0.5655, abs=1e-3), 1)
    assert wilson_interval(0, 5) == (0, pytest.approx(1 - low))
    low, high = wilson_interval(5, 10)
    assert (low + high) / 2 == pytest.approx(0.5)


def test_the_quality_figure_draws_gains_in_a_panel_per_task(rows):
    figure = plots.quality_figure(rows, "4k")
    (axes,) = [axes for axes in figure.axes if axes.axison]
    assert axes.get_title() == "one article (n = 3)"
    drawn = {container.get_label(): container[0] for container in axes.containers}
    assert drawn["likelihood, everything read"].get_ydata() == pytest.approx([5 - 2.5])
    assert drawn["finch (the paper's)"].get_ydata() == pytest.approx([5 - 4.5])
    assert legend(figure) == ["likelihood, everything read", "finch (the paper's)", "all documents"]
    (share,) = axes.child_axes
    figure.draw_without_rendering()
    # All documents gain 2.5 nats: that is 100 %.
    assert np.divide(share.get_ylim(), axes.get_ylim()) == pytest.approx([40, 40])


def test_a_method_that_was_not_measured_on_all_tasks_is_not_drawn_over_all(tmp_path):
    rows = [
        row(f"{task} {item}", method, nll, task=task)
        for task in ("squad_long", "needle")
        for item, scores in NLL.items()
        for method, nll in scores.items()
        if (task, method) != ("needle", "finch")
    ]
    (read,) = quality_results.read_buckets(write(tmp_path, rows)).values()
    assert gains_of(read, ["squad_long"], "finch", 8).tolist() == [1, 0]
    assert gains_of(read, ["needle", "squad_long"], "finch", 8).size == 0
    assert gains_of(read, ["needle", "squad_long"], "likelihood", 8).size == 6
    labels = [tick.get_text() for tick in plots.rag_figure(read, "4k").axes[0].get_yticklabels()]
    assert labels == ["all documents"]


def test_no_shares_are_given_where_documents_hardly_help(tmp_path):
    rows = [row(str(n), "none", 3.0) for n in range(4)]
    rows += [row(str(n), "full", 3.0 + (-1) ** n) for n in range(4)]
    rows += [row(str(n), "likelihood", 2.0) for n in range(4)]
    (read,) = quality_results.read_buckets(write(tmp_path, rows)).values()
    assert not plots.quality_figure(read, "4k").axes[0].child_axes


def test_the_comparison_with_retrieval_is_paired(rows):
    left, right = plots.rag_figure(rows, "4k").axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "finch (the paper's)",
        "all documents",
    ]
    middles = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 1]
    assert middles == [[2], [0]]
    assert [label.get_text() for label in right.get_yticklabels()] == [
        "likelihood, everything read"
    ]
    assert [line.get_xdata() for line in right.lines][1] == pytest.approx([200 / 3])


def test_missing_cells_new_methods_tasks_and_buckets_are_drawn(tmp_path):
    rows = []
    for bucket in ("16k", "2k"):
        for item in ("a", "b", "c"):
            bounds = ("none", "full", "gold")
            rows += [row(f"{bucket}{item}", m, 3.0, bucket=bucket) for m in bounds]
            rows += [
                row(f"{bucket}{item}", method, 2.0, bucket=bucket, budget=budget)
                for method, budget in (("likelihood", 4), ("likelihood", 16), ("new", 4))
            ]
    rows.append(row("only", "rag-128", 2.0, bucket="2k", task="poems", survives=True))
    rows.append(row("other", "rag-128", 2.0, bucket="2k", model="large", task="songs"))
    write(tmp_path, rows)
    assert list(quality_results.read_buckets(tmp_path / "quality.json")) == ["2k", "16k"]
    drawn = dict(plots.figures(tmp_path))
    by_bucket = [f"{kind}-{b}" for b in ("2k", "16k") for kind in ("quality", "rag")]
    assert list(drawn) == [*by_bucket, "quality-length"]
    assert legend(drawn["quality-2k"]) == ["likelihood, everything read", "new", "all documents"]
    titles = [axes.get_title() for axes in drawn["quality-2k"].axes if axes.axison]
    assert titles == ["one article (n = 3)", "poems ", "all of them "]
    ticks = [label.get_text() for label in drawn["quality-length"].axes[0].get_xticklabels()]
    assert ticks == ["2k", "16k"]
    for figure in drawn.values():
        figure.draw_without_rendering()


def test_empty_results_give_empty_figures(tmp_path):
    assert dict(plots.figures(tmp_path)) == {}
    draw = (plots.prefill_figure, plots.retrieval_figure, plots.scale_figure, plots.length_figure)
    for figure in (*(one({}) for one in draw), plots.quality_figure({}, "2k")):
        figure.draw_without_rendering()
    plots.rag_figure({}, "2k").draw_without_rendering()


def test_the_prefill_figure_shows_medians():
    ratios = {
        "time: likelihood / full prefill": [0.5, 0.9, 0.7],
        "time: scoring / likelihood": [0.01, 0.01, 0.01],
        "time: finch / full prefill": [0.8, 0.8, 0.8],
    }
    facts = {"tokens": 7900, "target_size": 1024, "model": "M", "machine": "x"}
    axes = plots.prefill_figure({"ratios": ratios, **facts}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.70", "0.80"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["time"]


def test_the_price_figure_shows_each_share_of_the_prefill_of_its_own_run():
    runs = [
        {"prefill": {"seconds": 10}, "first, cascade": {"seconds": 3}},
        {"prefill": {"seconds": 20}, "first, cascade": {"seconds": 10}},
        {"first, cascade": {"seconds": 1}},
    ]
    sections = [
        {"tokens": 7900, "dtype": "auto", "runs": runs},
        {"tokens": 80_000, "dtype": "auto", "runs": runs[2:]},
    ]
    axes = plots.price_figure(sections).axes[0]
    shares = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "None"]
    assert shares == [0.4]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first, cascade"]


def test_the_command_writes_the_saved_results_as_svg_and_png(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        monkeypatch.setattr("sys.argv", ["plots", "--out", str(tmp_path / folder)])
        command.main()
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"prefill.svg", "prefill.png", "retrieval.svg", "scale.png"} <= names
    assert any(name.startswith("quality-") for name in names)
    assert (RESULTS / "quality.json").exists()
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_was_varied_has_a_figure_of_its_own(tmp_path):
    rows = [row(i, m, 3.0 if m == "none" else 1.0) for i in "abc" for m in ("none", "finch, blind")]
    (read,) = quality_results.read_buckets(write(tmp_path, rows)).values()
    (axes,) = plots.ablation_figure(read, "4k").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["finch, blind (n = 3)"]
    assert [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 1] == [[2.0]]
    as_it_is = [row(i, "finch", 0.5) for i in "abc"]
    (both,) = quality_results.read_buckets(write(tmp_path, [*rows, *as_it_is])).values()
    (axes,) = plots.ablation_figure(both, "4k").axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["finch (n = 3)", "finch, blind (n = 3)"]
    assert legend(plots.quality_figure(read, "4k")) == []


def test_time_and_memory_are_drawn_against_length():
    rows = [
        {"length": size, "method": method, "seconds": size / part, "bytes": 2**30}
        for size in (16, 32)
        for method, part in (("full", 1), ("likelihood", 2))
    ]
    facts = {"model": "M", "target_size": 2048, "machine": "G"}
    seconds, memory = plots.time_figure({"rows": rows, **facts}).axes
    drawn = {line.get_label(): line.get_ydata() for line in seconds.lines}
    assert {name: list(values) for name, values in drawn.items()} == {
        "likelihood, everything read": [8, 16],
        "all documents": [16, 32],
    }
    assert list(memory.lines[0].get_ydata()) == [1, 1]


def test_methods_are_compared_on_the_same_questions(tmp_path):
    levels = {"none": 5.0, "full": 4.0, "likelihood": 2.0, "rag-hybrid": 2.5}
    levels |= {"rag-sentence": 3.5, "rag-128": 3.0, "rag-passage": 4.0, "finch": 4.5}
    rows = [
        row(f"{task} {item}", method, nll + item / 100, task=task)
        for task in ("squad_long", "needle")
        for item in range(20)
        for method, nll in levels.items()
        # One item that BM25 lacks counts for no method; of finch there are too few.
        if not (method == "rag-128" and item == 0 and task == "needle")
        if not (method == "finch" and item > 3)
    ]
    (read,) = quality_results.read_buckets(write(tmp_path, rows)).values()
    assert read_shared(read, ["likelihood"], 8) is None
    rows.append(row("needle 0", "rag-128", 9.0, task="needle"))
    (read,) = quality_results.read_buckets(write(tmp_path, rows)).values()
    shared = read_shared(read, ["likelihood", "rag-hybrid", "finch", "none", "full"], 8)
    assert shared.best == {"best-bm25": "rag-128"}
    assert "finch" not in shared.nll
    assert len(shared.all("none")) == len(shared.all("best-bm25")) == 40
    assert len(shared.all("none", without="needle")) == 20
    mean, (low, high), middle = difference(shared, "rag-hybrid")
    assert (mean, low, high, middle) == pytest.approx((0.5, 0.5, 0.5, 0.5))
    mean, (low, high), middle = difference(shared, "best-bm25")
    assert middle == pytest.approx(1)
    assert low < mean < high


def test_the_figures_in_the_documentation_are_current():
    """If not: python -m benchmarks.plots --docs."""
    for name in command.SHOWN:
        assert f"made from {command.digest()}" in (command.DOCS / f"{name}.svg").read_text("utf-8")
