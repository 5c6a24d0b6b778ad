"""The README's parts that are made from results and code."""

import numpy as np

from page_parts.caches import BOUND, MODELS
from page_parts.markdown import format_bytes, make_table

_BUCKET, _BUDGET = "2k", 8
_ROWS = {
    "none": "no documents",
    "full": "all of them",
    "finch": "the paper's method",
    "best-bm25": "BM25, the best of three segmentations",
    "best-hybrid": "BM25 + embeddings, the best of its forms",
    "default": "**finch-integrations**",
}


def quality() -> str:
    """One table: the same questions with every method, with medians and the answers kept."""
    from benchmarks.hybrids import PACKED
    from benchmarks.quality import DEFAULT
    from benchmarks.quality_results import read_all
    from benchmarks.shared_items import difference, read_shared

    rows = read_all(PACKED)["embedded", _BUCKET]
    shared = read_shared(rows, list(_ROWS), _BUDGET, own=DEFAULT, fewest=10)
    assert shared is not None, "the results have this length and budget"
    table = []
    for method, label in _ROWS.items():
        if method not in shared.nll:
            continue
        nll = shared.all(method)
        kept = shared.survives.get(method) if method not in ("none", "full") else None
        alive = f"{np.concatenate(list(kept.values())).mean():.0%}" if kept else ""
        behind = ""
        if method != DEFAULT:
            mean, (low, high), middle = difference(shared, method)
            behind = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}], median {middle:+.2f}"
        table.append([label, f"{nll.mean():.2f}", f"{np.median(nll):.2f}", alive, behind])
    count = len(shared.all(DEFAULT))
    return (
        f"{count} questions over {_BUCKET} tokens with 1/{_BUDGET} kept, that nothing was chosen "
        "on, answered by the embedded model: negative log-likelihood per token of the right "
        "answer, lower is better.\n\n"
        + make_table(
            ["", "mean", "median", "answer in the kept text", "more than finch-integrations"], table
        )
    )


def models() -> str:
    """Sizes of a full cache of 32k tokens and of a compressed one."""
    return make_table(
        ["", "window", "cache of 32k tokens", "compressed to 2,048"],
        [
            [
                model.name,
                f"{model.window:,}",
                format_bytes(model.cache_bytes(32 * 1024)),
                f"**{format_bytes(model.cache_bytes(BOUND))}**",
            ]
            for model in MODELS
        ],
    )


README_PARTS = {"quality": quality, "models": models}
