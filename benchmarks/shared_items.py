"""Methods compared on the very same items, with medians, and with every task left out once.

BM25 is there with the best of its three segmentations, and hybrid retrieval with the best of its
forms, chosen at each budget on these items: that favours them, as no user knows it in advance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.quality_report import measured, paired_interval
from benchmarks.quality_results import Rows

BM25 = ("rag-sentence", "rag-128", "rag-passage")
HYBRID = (
    *("rag-hybrid", "rag-hybrid-128", "rag-hybrid-passage"),
    *("rag-hybrid-titled", "rag-hybrid-around", "rag-hybrid-both"),
)
OWN = "likelihood"
# Fewer items of a task than this say nothing about a method.
FEWEST = 20


@dataclass(frozen=True, slots=True)
class Shared:
    """What was measured of the same items.

    Attributes:
        nll: Per method, per task, a number per item; lower is better.
        survives: The same of whether an answer is in the kept text, where that is known.
        own: The method that the others are compared with.
        best: What `best-bm25` and `best-hybrid` are.
    """

    nll: Mapping[str, Mapping[str, np.ndarray]]
    survives: Mapping[str, Mapping[str, np.ndarray]]
    own: str
    best: Mapping[str, str]

    def all(self, method: str, without: str = "") -> np.ndarray:
        """NLL of all items, but of one task."""
        return np.concatenate([v for task, v in self.nll[method].items() if task != without])


def read_shared(
    rows: Rows, methods: Sequence[str], budget: int, *, own: str = OWN, fewest: int = FEWEST
) -> Shared | None:
    """Take the items that all the methods have, and BM25's segmentations with them.

    Args:
        rows: Of one model and length.
        methods: To compare; those with fewer than `fewest` items in a task are left out. With
            `best-hybrid`, all forms of it.
        budget: Document tokens per token kept.
        own: What they are compared with.
        fewest: See `methods`.

    Returns:
        None if `own` or BM25 was not measured on enough items.
    """
    tasks = sorted({task for task, method, found in rows if (method, found) == (own, budget)})
    groups = {"best-bm25": BM25} | ({"best-hybrid": HYBRID} if "best-hybrid" in methods else {})
    enough = [
        method
        for method in dict.fromkeys(
            (own, *methods, *(m for group in groups.values() for m in group))
        )
        if all(len(measured(rows, task, method, budget)) >= fewest for task in tasks)
    ]
    if not tasks or not {own, *BM25} <= set(enough):
        return None
    ids = {
        task: sorted(set.intersection(*(set(measured(rows, task, m, budget)) for m in enough)))
        for task in tasks
    }
    nll, survives = (
        {
            method: {
                task: np.array([measured(rows, task, method, budget)[i][score] for i in ids[task]])
                for task in tasks
            }
            for method in enough
            if all(
                score in measured(rows, task, method, budget)[i]
                for task in tasks
                for i in ids[task]
            )
        }
        for score in ("nll", "survives")
    )
    best = {}
    for group, forms in groups.items():
        if known := [form for form in forms if form in nll]:
            best[group] = min(known, key=lambda m: np.concatenate(list(nll[m].values())).mean())
            for scores in (nll, survives):
                if best[group] in scores:
                    scores[group] = scores[best[group]]
    return Shared(nll, survives, own, best)


def difference(
    shared: Shared, method: str, without: str = ""
) -> tuple[float, tuple[float, float], float]:
    """NLL of a method minus that of `shared.own`: mean, 95 % interval, median."""
    paired = shared.all(method, without) - shared.all(shared.own, without)
    return float(paired.mean()), paired_interval(paired), float(np.median(paired))
