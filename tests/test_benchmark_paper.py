"""The measurements and the figure of what the method's paper shows."""

import pytest
import torch

from benchmarks import paper, plots
from benchmarks.items import Item
from benchmarks.paper import ATTENTION, PaperBench, plan
from benchmarks.quality_results import read_buckets, read_rows, write
from finch_integrations import Document
from tests.benchmark_rows import row


@pytest.fixture
def bench(engine):
    documents = tuple(
        Document(f"Room {n} is {colour}. " * 3, id=f"d{n}", title=f"Room {n}")
        for n, colour in enumerate(("red", "green", "blue"))
    )
    item = Item("i", "rooms", "2k", "Which colour is room 1?", documents, ("green",), {"d1"})
    return PaperBench(engine, None, item, answer=False, feed=64, compare=False)


def test_attention_to_the_right_document_is_that_of_the_eager_model(bench, model, monkeypatch):
    monkeypatch.setattr(paper, "CHUNK", 50)  # the right document is in two chunks
    measured = bench.run(ATTENTION, None)
    model.set_attn_implementation("eager")
    frame, documents = bench.inputs.frame, bench.inputs.tokens
    for name, window in (("asked", frame.window), ("blind", frame.null_window)):
        each = torch.zeros(2, len(documents))
        for start in range(0, len(documents), 50):
            chunk = documents.ids[start : start + 50]
            with torch.inference_mode():
                ids = torch.tensor([[*frame.prefix, *chunk, *window.ids]])
                layers = model(ids, output_attentions=True).attentions
            for layer, weights in enumerate(layers):
                asked = weights[0, :, -window.length :, len(frame.prefix) :][..., : len(chunk)]
                each[layer, start : start + len(chunk)] = asked.sum(dim=(0, 1))
        span = documents.spans[1]
        expected = each[:, span.start : span.end].mean(dim=1) / each.mean(dim=1)
        assert measured[name] == pytest.approx(expected.tolist(), abs=1e-3)
    assert measured["asked"] != measured["blind"]


def test_processor_time_comes_with_the_scores(bench):
    scores = bench.run("default", 60)
    assert scores["seconds"] > 0
    assert scores["nll"] == bench.run("default", 60)["nll"]


def test_bounds_and_attention_are_measured_once(bench):
    todo = [(method, budget) for _, method, budget in plan([bench.item])]
    assert len(todo) == len(set(todo))
    assert {("none", None), ("full", None), (ATTENTION, None)} <= set(todo)
    assert [budget for method, budget in todo if method == "finch"] == list(paper.BUDGETS)


def measured_rows():
    made = []
    for item, low in (("a", 4.0), ("b", 6.0)):
        made.append(row(item, "none", low, seconds=1.0))
        made.append(row(item, "full", low - 1, seconds=8.0))
        for budget in (2, 8):
            made.append(row(item, "default", low - 3, budget=budget, seconds=2.0))
            made.append(row(item, "rag-hybrid-titled", low - 2, budget=budget, seconds=1.0))
        if item == "a":
            made.append(row(item, "finch, blind", low - 0.5))
        made.append(row(item, "finch, chunk 512", low - 0.25))
        layers = {"method": ATTENTION, "budget": None, "asked": [1.0, low], "blind": [0.5, 1.0]}
        made.append({"id": item, "task": "squad_long", "bucket": "4k", "model": "m", **layers})
    return made


def drawn(axes):
    return {part.get_label(): part[0].get_ydata().tolist() for part in axes.containers}


def test_the_figure_has_a_panel_for_everything_that_the_paper_shows(tmp_path):
    write(measured_rows(), tmp_path / "paper.json")
    rivals = [
        row(f"{task} {n}", method, nll, task=task, bucket="8k")
        for task in ("squad_long", "needle")
        for n in (1, 2)
        for method, nll in (("rag-hybrid", 4.0), ("likelihood", 4.0 - n))
    ]
    write(rivals, tmp_path / "quality.json")
    buckets = read_buckets(tmp_path / "paper.json") | read_buckets(tmp_path / "quality.json")
    figure = plots.paper_figure(read_rows(tmp_path / "paper.json"), buckets)
    quality, cost, rag, questions, chunks, attention = figure.axes
    assert quality.get_title() == "quality against compression (n = 2)"
    assert drawn(quality)["finch-integrations"] == [3, 3]
    assert quality.lines[-2].get_label() == "all documents"
    assert drawn(cost)["finch-integrations"] == [0.25, 0.25]
    assert rag.get_title() == "against retrieval, 8k, 8× (n = 4)"
    assert drawn(rag)["likelihood, everything read"] == [1.5, 1.5, 1.5]
    assert [tick.get_text() for tick in rag.get_xticklabels()][-1] == "all"
    (asked,) = questions.containers
    assert asked[0].get_xdata().tolist() == [0, 1]
    assert asked[0].get_ydata().tolist() == [0.25, 0.5]
    assert questions.get_title() == "the question while compressing, 8× (n = 1)"
    (chunk,) = chunks.containers
    assert chunk[0].get_ydata().tolist() == [0.25]
    assert [line.get_ydata().tolist() for line in attention.lines[:2]] == [[1, 5], [0.5, 1]]
    assert "documents of 4k tokens" in figure.get_suptitle()
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "all documents"
    figure.draw_without_rendering()


def test_without_results_the_figure_is_empty():
    plots.paper_figure([], {}).draw_without_rendering()
