"""The sums of the quality tables, and the packed results that they are made from."""

import numpy as np
import pytest
import torch

from benchmarks import (
    answer_report,
    auto_size,
    cascade_report,
    hybrids,
    near_copies,
    quality_report,
    quality_results,
    two_steps,
)
from tests.benchmark_rows import row, write, write_measured


@pytest.fixture
def results(tmp_path):
    return write_measured(tmp_path)


@pytest.fixture
def rows(results):
    return quality_results.read(results, "4k", "embedded")


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


def test_written_answers_are_compared_item_by_item(tmp_path, monkeypatch, capsys):
    def answered(item, method, f1, **more):
        contains = float(f1 == 1)
        return row(item, method, 1.0, f1=f1, contains=contains, survives=True, **more)

    rows = [
        answered("a", "likelihood", 1.0, cited=1.0),
        answered("b", "likelihood", 0.5),
        row("c", "likelihood", 1.0, survives=True),  # its answer is too long to be compared
        answered("a", "rag-hybrid", 0.5, cited=0.5),
        answered("b", "rag-hybrid", 0.0, cited=0.0),
        answered("d", "likelihood", 0.0, task="needle"),
    ]
    packed = write(tmp_path, rows)
    argv = ["answer_report", "--results", str(packed), "--bucket", "4k", "--method", "likelihood"]
    monkeypatch.setattr("sys.argv", argv)
    answer_report.main()
    lines = capsys.readouterr().out.splitlines()
    hybrid = "rag-hybrid | 2 | 0.25 | 0% | 25% of 2 | 100% | -0.50 [-0.50, -0.50] | -0.50"
    assert any(line.startswith(f"| squad_long | {hybrid}") for line in lines)
    assert any(line.startswith(f"| all | {hybrid}") for line in lines)
    assert "| squad_long | likelihood | 2 | 0.75 | 50% | 100% of 1 | 100% |  |  |" in lines
    assert "| all | likelihood | 3 | 0.50 | 33% | 100% of 1 | 100% |  |  |" in lines
    monkeypatch.setattr("sys.argv", ["answer_report", "--results", str(packed)])
    with pytest.raises(SystemExit):
        answer_report.main()
    assert "no answers of 'embedded' at '2k'" in capsys.readouterr().err


def test_rivals_are_compared_with_the_default_on_the_items_that_both_have(tmp_path, monkeypatch):
    def measured(method, bucket, item, task, nll, survives):
        more = {"bucket": bucket, "task": task, "survives": survives}
        return row(f"{task}-{bucket}-{item}", method, nll, **more)

    rows = [
        measured("default", "2k", "a", "needle", 2.0, True),
        measured("default", "2k", "b", "squad_long", 3.0, False),
        measured("default", "4k", "a", "needle", 1.0, True),
        measured("none", "2k", "a", "needle", 9.0, False),
        measured("rag-hybrid", "2k", "a", "needle", 2.5, True),
        measured("rag-hybrid", "2k", "b", "squad_long", 2.5, True),
        measured("rag-hybrid", "2k", "c", "squad_long", 9.0, False),
        measured("rag-hybrid", "4k", "a", "needle", 2.5, False),
        measured("rag-128", "2k", "d", "needle", 1.0, True),
        measured("a method of the past", "2k", "a", "needle", 1.0, True),
    ]
    by_bucket = quality_results.read_buckets(write(tmp_path, rows))
    names = hybrids.rivals(by_bucket)
    assert names == ["rag-hybrid"]  # rag-128 was not measured at every length
    two, four = hybrids.by_length(by_bucket, names)
    assert two == ["2k, 1/8 (2)", "50%", "+0.00 [-0.50, +0.50], 100%"]
    assert four == ["4k, 1/8 (1)", "100%", "+1.50 [+1.50, +1.50], 0%"]
    needle, squad, everything = hybrids.by_task(by_bucket, names)
    assert needle == ["needle (1)", "+1.00 [+1.00, +1.00]"]
    assert squad == ["squad_long (1)", "-0.50 [-0.50, -0.50]"]
    assert everything == ["all (2)", "+0.50 [-0.50, +1.00]"]
    assert hybrids.rivals({}) == []


def test_results_are_not_emptied_by_a_wrong_path(tmp_path, monkeypatch):
    packed = write(tmp_path, [row("one", "default", 1.0, survives=True)])
    before = packed.read_text(encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["hybrids", str(tmp_path / "typo"), "--out", str(packed)])
    with pytest.raises(SystemExit, match="no results to pack: .* stays as it is"):
        hybrids.main()
    assert packed.read_text(encoding="utf-8") == before


def test_passages_are_alike_if_a_better_one_has_their_words_and_numbers():
    texts = ["The old boat left the pier at 5", "old boat left the pier at 5 today"]
    texts += ["The old boat left the pier at 6", "Rope."]
    scores = near_copies.demote_alike(torch.tensor([4.0, 3.0, 2.0, 1.0]), texts, 0.8)
    assert scores.argsort(descending=True).tolist() == [0, 2, 3, 1]
    strict = near_copies.demote_alike(torch.tensor([4.0, 3.0, 2.0, 1.0]), texts, 1.0)
    assert strict.argsort(descending=True).tolist() == [0, 1, 2, 3]


def test_a_document_that_comes_again_has_small_edits():
    text = "The boat and the rope, which also left. " * 9
    assert near_copies.edit(text, 1) == near_copies.edit(text, 1) != near_copies.edit(text, 2)
    assert len(near_copies.edit(text, 1).split()) > 0.6 * len(text.split())


def test_with_and_without_links_are_compared_on_the_same_items():
    def pair(item, nll, kept, task="needle:twohop"):
        return [
            row(item, method, value, task=task, survives=there)
            for method, value, there in zip(two_steps.COMPARED, nll, kept, strict=True)
        ]

    rows = [
        *pair("a", (3.0, 2.0), (False, True)),
        *pair("b", (1.0, 1.0), (True, True)),
        *pair("c", (1.0, 1.5), (True, False), "multihop"),
    ]
    needle, multihop = two_steps.compare(rows)
    assert needle == ["needle:twohop, 4k", "1 of 2", "2 of 2", "-0.50 [-1.00, +0.00]", "-0.50"]
    assert multihop[:4] == ["multihop, 4k", "1 of 1", "0 of 1", "+0.50 [+0.50, +0.50]"]


def test_what_the_scores_decide_is_compared_with_fixed_sizes():
    def sized(item, task, nll, kept):
        return [
            {
                **row(f"dev-{task}-{item}", size, value, task=task, survives=count > 100),
                "kept": count,
            }
            for size, value, count in zip(("auto", "512", "2048"), nll, kept, strict=True)
        ]

    rows = [
        *sized("a", "needle", (1.0, 1.5, 2.0), (300, 512, 2048)),
        *sized("b", "multihop", (2.0, 1.5, 2.5), (100, 512, 2000)),
    ]
    table = {(bucket, method): rest for bucket, method, *rest in auto_size.compare(rows)}
    assert list(table) == [(b, m) for b in ("4k (2)", "all (2)") for m in ("auto", "512", "2048")]
    assert table["4k (2)", "auto"] == ["200", "50%", "", "", ""]
    assert table["all (2)", "512"][:2] == ["512", "100%"]
    assert table["all (2)", "512"][2:] == ["+0.00 [-0.50, +0.50]", "+0.00", "-0.50 to +0.50"]
    assert table["all (2)", "2048"][2:] == ["+0.75 [+0.50, +1.00]", "+0.75", "+0.50 to +1.00"]


def test_without_the_bound_of_all_documents_nothing_is_recovered(tmp_path):
    rows = [row("a", "none", 3.0), row("a", "likelihood", 1.0)]
    read = quality_results.read(write(tmp_path, rows), "4k", "embedded")
    cell = quality_report.make_cell(read, "squad_long", "likelihood", 8)
    assert (cell.nll.tolist(), cell.full.size) == ([1.0], 0)


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


def test_what_reading_a_part_loses_is_paired_by_question_and_budget():
    measured = {"everything": {"one": 1.0, "two": 2.0}, "half": {"one": 1.5, "two": 2.1, "x": 9.0}}
    rows = [
        row(item, method, nll, survives=method == "everything" or item == "two", read=share)
        for (method, scores), share in zip(measured.items(), (1.0, 0.5), strict=True)
        for item, nll in scores.items()
    ]
    found = cascade_report.losses(rows)["half"]
    assert (found.count, found.share) == (2, 0.5), "what was not read whole is no pair"
    assert found.nll == pytest.approx(0.3)
    assert found.median == pytest.approx(0.3)
    assert found.interval[0] == pytest.approx(0.1)
    assert (found.kept, found.fewer) == (0.5, 0.5)


def test_a_question_is_in_the_same_half_at_every_length_and_no_row_is_lost():
    rows = [
        row(f"dev-squad-{bucket}-{number}", "everything", 1.0, bucket=bucket, budget=budget)
        for bucket in ("16k", "2k")
        for number in range(20)
        for budget in (32, 8)
    ]
    halves = cascade_report.halves(rows)
    assert sum(map(len, halves.values())) == len(rows)
    questions = [{row["id"].split("-")[-1] for row in half} for half in halves.values()]
    assert all(questions)
    assert not questions[0] & questions[1]
    names = [(bucket, budget, len(some)) for bucket, budget, some in cascade_report.cells(rows)]
    assert names == [("2k", 8, 20), ("2k", 32, 20), ("16k", 8, 20), ("16k", 32, 20)]
