"""How well texts match a question word by word (BM25)."""

import re
from collections.abc import Sequence

import bm25s
import torch
from torch import Tensor

_WORD = re.compile(r"\w+")


def bm25_scores(texts: Sequence[str], query: str) -> Tensor:
    """Score every text by BM25 (Lucene's variant, k1 = 1.5, b = 0.75), [number of texts].

    Words are runs of letters and digits, in lower case. All scores are 0 where the query or the
    texts have none.
    """
    words = [_WORD.findall(text.lower()) for text in texts]
    wanted = sorted(set(_WORD.findall(query.lower())))
    if not wanted or not any(words):
        return torch.zeros(len(texts))
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index(words, show_progress=False)
    return torch.from_numpy(index.get_scores(wanted)).float()
