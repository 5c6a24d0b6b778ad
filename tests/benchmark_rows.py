"""Results of a benchmark as small as can be, for the tests of tables and figures."""

from benchmarks import quality_results
from benchmarks.plots.style import BOUNDS

# Item -> NLL with no document, with all, and of two methods at a budget of 1/8.
NLL = {
    "one": {"none": 4.0, "full": 2.0, "likelihood": 1.0, "finch": 3.0},
    "two": {"none": 6.0, "full": 3.0, "likelihood": 4.0, "finch": 6.0},
    "three": {"none": 5.0, "full": 2.5, "likelihood": 2.5},
}


def row(item, method, nll, *, task="squad_long", bucket="4k", budget=8, **more):
    budget = None if method in BOUNDS else budget
    facts = {"id": item, "task": task, "bucket": bucket, "model": "embedded", "dtype": "x", **more}
    return {**facts, "method": method, "budget": budget, "nll": nll}


def write(folder, rows):
    quality_results.write(rows, folder / "quality.json")
    return folder / "quality.json"


def write_measured(folder):
    """The results of NLL; the answer is still in what `likelihood` kept of two items of three."""
    return write(
        folder,
        [
            row(item, method, nll, survives=item != "two")
            if method == "likelihood"
            else row(item, method, nll)
            for item, scores in NLL.items()
            for method, nll in scores.items()
        ],
    )
