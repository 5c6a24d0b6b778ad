"""The sums behind the quality tables, and the figures from saved results."""

import numpy as np
import pytest

from benchmarks import plots, quality_report, quality_results
from benchmarks.quality import RESULTS

# Item -> NLL with no document, with all, and of two methods at a budget of 1/8.
NLL = {
    "one": {"none": 4.0, "full": 2.0, "likelihood": 1.0, "finch": 3.0},
    "two": {"none": 6.0, "full": 3.0, "likelihood": 4.0, "finch": 6.0},
    "three": {"none": 5.0, "full": 2.5, "likelihood": 2.5},
}


def row(item, method, nll, *, task="squad_long", bucket="4k", budget=8, **more):
    budget = None if method in plots.BOUNDS else budget
    facts = {"id": item, "task": task, "bucket": bucket, "model": "embedded", "dtype": "x", **more}
    return {**facts, "method": method, "budget": budget, "nll": nll}


def write(folder, rows):
    quality_results.write(rows, folder / "quality.json")
    return folder / "quality.json"


@pytest.fixture
def results(tmp_path):
    return write(
        tmp_path,
        [
            row(item, method, nll, survives=item != "two")
            if method == "likelihood"
            else row(item, method, nll)
            for item, scores in NLL.items()
            for method, nll in scores.items()
        ],
    )


@pytest.fixture
def rows(results):
    return quality_results.read(results, "4k", "embedded")


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_recovered_is_taken_of_the_means(rows):
    cell = quality_report.make_cell(rows, "squad_long", "likelihood", 8)
    assert cell.ids == ["one", "three", "two"]
    # Means 5, 2.5 and 2.5: everything is recovered; the mean of the items' shares would be 1.056.
    assert cell.recovered == pytest.approx(1.0)
    assert cell.survives.tolist() == [1, 1, 0]


def test_a_method_is_compared_with_the_bounds_of_its_own_items(rows):
    cell = quality_report.make_cell(rows, "squad_long", "finch", 8)
    assert cell.ids == ["one", "two"]
    assert cell.recovered == pytest.approx((5 - 4.5) / (5 - 2.5))
    assert cell.survives.size == 0
    assert quality_report.make_cell(rows, "squad_long", "finch", 4) is None
    assert quality_report.make_cell(rows, "needle", "finch", 8) is None


def test_the_bounds_are_their_own_zero_and_one(rows):
    recovered = [
        quality_report.make_cell(rows, "squad_long", bound, 8).recovered
        for bound in ("none", "full")
    ]
    assert recovered == [0, 1]


def test_differences_pair_items(rows):
    paired = quality_report.differences(rows, "squad_long", "finch", "likelihood", 8)
    assert paired.tolist() == [2, 2]
    paired = quality_report.differences(rows, "squad_long", "full", "likelihood", 8)
    assert paired.tolist() == [1, 0, -1]
    assert quality_report.differences(rows, "squad_long", "finch", "likelihood", 4).size == 0


def test_the_interval_holds_the_mean_and_is_the_same_every_time():
    values = np.array([0.1, 0.5, 0.4, 0.2, 0.3])
    low, high = quality_report.paired_interval(values)
    assert 0.1 <= low < 0.3 < high <= 0.5
    assert (low, high) == quality_report.paired_interval(values)
    assert quality_report.paired_interval(np.full(4, 0.25)) == (0.25, 0.25)


def test_lengths_and_budgets_are_pooled_by_question():
    def of(bucket, budget, differences):
        rows = {}
        for method, sign in (("likelihood", 0), ("finch", 1)):
            rows["needle", method, budget] = {
                f"x-{bucket}-{question}": {"nll": 2 + sign * difference}
                for question, difference in differences.items()
            }
        return rows

    by_bucket = {"2k": of("2k", 8, {"a": 1, "b": 3}), "4k": of("4k", 4, {"a": 2, "c": 0})}
    # Three questions, four measurements; no draw has a mean outside of theirs.
    (line,) = quality_report.pooled(by_bucket).splitlines()
    assert line == "- finch: +1.50 [+0.00, +3.00] over 3 questions, 4 measurements"
    by_bucket = {"2k": of("2k", 8, {"a": 1}), "4k": of("4k", 4, {"a": 2})}
    (line,) = quality_report.pooled(by_bucket).splitlines()
    assert line == "- finch: +1.50 [+1.50, +1.50] over 1 questions, 2 measurements"


def test_the_tables_say_what_was_recovered(results, monkeypatch, capsys):
    argv = ["quality_report", "--results", str(results), "--bucket", "4k"]
    monkeypatch.setattr("sys.argv", argv)
    quality_report.main()
    output = capsys.readouterr().out
    assert "| likelihood | 2.50 (100%) [67%] | 100% | 3 |" in output
    assert "| finch | 4.50 (20%) | 20% | 2 |" in output
    assert "- finch: +2.00 [+2.00, +2.00] over 2 items" in output


def test_a_share_whose_hits_are_all_or_none_has_an_interval():
    low, high = plots.wilson_interval(5, 5)
    assert (low, high) == (pytest.approx(0.5655, abs=1e-3), 1)
    assert plots.wilson_interval(0, 5) == (0, pytest.approx(1 - low))
    low, high = plots.wilson_interval(5, 10)
    assert (low + high) / 2 == pytest.approx(0.5)


def test_the_quality_figure_draws_gains_in_a_panel_per_task(rows):
    figure = plots.quality_figure(rows, "4k")
    (axes,) = [axes for axes in figure.axes if axes.axison]
    assert axes.get_title() == "one article (n = 3)"
    drawn = {container.get_label(): container[0] for container in axes.containers}
    assert drawn["likelihood (default)"].get_ydata() == pytest.approx([5 - 2.5])
    assert drawn["finch (the paper's)"].get_ydata() == pytest.approx([5 - 4.5])
    assert legend(figure) == ["likelihood (default)", "finch (the paper's)", "all documents"]
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
    (read,) = plots.load_quality(write(tmp_path, rows)).values()
    assert plots.gains_of(read, ["squad_long"], "finch", 8).tolist() == [1, 0]
    assert plots.gains_of(read, ["needle", "squad_long"], "finch", 8).size == 0
    assert plots.gains_of(read, ["needle", "squad_long"], "likelihood", 8).size == 6
    labels = [tick.get_text() for tick in plots.rag_figure(read, "4k").axes[0].get_yticklabels()]
    assert labels == ["all documents"]


def test_no_shares_are_given_where_documents_hardly_help(tmp_path):
    rows = [row(str(n), "none", 3.0) for n in range(4)]
    rows += [row(str(n), "full", 3.0 + (-1) ** n) for n in range(4)]
    rows += [row(str(n), "likelihood", 2.0) for n in range(4)]
    (read,) = plots.load_quality(write(tmp_path, rows)).values()
    assert not plots.quality_figure(read, "4k").axes[0].child_axes


def test_the_comparison_with_retrieval_is_paired(rows):
    left, right = plots.rag_figure(rows, "4k").axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "finch (the paper's)",
        "all documents",
    ]
    middles = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 1]
    assert middles == [[2], [0]]
    assert [label.get_text() for label in right.get_yticklabels()] == ["likelihood (default)"]
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
    assert list(plots.load_quality(tmp_path / "quality.json")) == ["2k", "16k"]
    drawn = dict(plots.figures(tmp_path))
    assert list(drawn) == ["quality-2k", "rag-2k", "quality-16k", "rag-16k", "quality-length"]
    assert legend(drawn["quality-2k"]) == ["likelihood (default)", "new", "all documents"]
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


def test_the_command_writes_the_saved_results_as_svg_and_png(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        monkeypatch.setattr("sys.argv", ["plots", "--out", str(tmp_path / folder)])
        plots.main()
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"prefill.svg", "prefill.png", "retrieval.svg", "scale.png"} <= names
    assert any(name.startswith("quality-") for name in names)
    assert (RESULTS / "quality.json").exists()
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_packed_results_are_the_results(tmp_path):
    rows = [
        row("a", "likelihood", 1.23456, survives=True, coverage=0.5),
        row("b", "likelihood", 2.0),
        row("a", "none", 3.0, model="other"),
        row("a", "likelihood", 9.0, f1=0.25),  # measured again: only what is new is taken
    ]
    read = quality_results.read_rows(write(tmp_path, rows))
    assert read == [
        {**rows[0], "nll": 1.2346, "survives": 1, "f1": 0.25},
        rows[1],
        rows[2],
    ]
    assert quality_results.read_rows(tmp_path / "missing.json") == []


def test_without_the_bound_of_all_documents_nothing_is_recovered(tmp_path):
    rows = [row("a", "none", 3.0), row("a", "likelihood", 1.0)]
    read = quality_results.read(write(tmp_path, rows), "4k", "embedded")
    cell = quality_report.make_cell(read, "squad_long", "likelihood", 8)
    assert (cell.nll.tolist(), cell.full.size) == ([1.0], 0)


def test_what_was_varied_has_a_figure_of_its_own(tmp_path):
    rows = [row(i, m, 3.0 if m == "none" else 1.0) for i in "abc" for m in ("none", "finch, blind")]
    (read,) = plots.load_quality(write(tmp_path, rows)).values()
    (axes,) = plots.ablation_figure(read, "4k").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["finch, blind (n = 3)"]
    assert [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 1] == [[2.0]]
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
        "likelihood (default)": [8, 16],
        "all documents": [16, 32],
    }
    assert list(memory.lines[0].get_ydata()) == [1, 1]


def test_without_results_nothing_is_written_or_said(tmp_path, monkeypatch, capsys):
    packed = write(tmp_path, [row("a", "none", 3.0)])
    before = packed.read_text()
    argv = ["quality_results", str(tmp_path / "missing.jsonl"), "--out", str(packed)]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit):
        quality_results.main()
    assert "no results in" in capsys.readouterr().err
    assert packed.read_text() == before
    monkeypatch.setattr("sys.argv", ["quality_report", "--results", str(packed), "--bucket", "3k"])
    with pytest.raises(SystemExit):
        quality_report.main()
    assert "no results of 'embedded' at '3k'" in capsys.readouterr().err
