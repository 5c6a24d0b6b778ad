"""Passages that say nothing new: the same text in several documents is worth its budget once.

Only a passage whose every sentence was read already counts as a copy. Passages that are merely
alike do not: "cost 5 dollars in 2023" and "cost 6 dollars in 2024" are two facts, and no measure of
likeness tells them from one.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from finch_integrations.sentences import split_sentences


def sentences_of(texts: Iterable[str]) -> list[frozenset[str]]:
    """The sentences of every segment's text; white space in them is one blank."""
    return [_sentences(text) for text in texts]


def demote_copies(scores: Tensor, sentences: Sequence[frozenset[str]]) -> Tensor:
    """Put segments that say nothing new after all others, in the order that they had.

    Args:
        scores: [segments]; of equal ones, the first counts as the better.
        sentences: What each segment says (`sentences_of`).

    Returns:
        Scores, [segments]: lower than before for those whose every sentence is in better ones.
    """
    said: set[str] = set()
    copies = torch.zeros(len(scores), dtype=torch.bool)
    for number in scores.sort(descending=True, stable=True).indices.tolist():
        copies[number] = sentences[number] <= said
        said |= sentences[number]
    if not copies.any():
        return scores
    drop = scores.max() - scores.min() + 1
    return torch.where(copies, scores - drop, scores)


# A selection needs them twice, and the next question about the same documents again.
@lru_cache(maxsize=4096)
def _sentences(text: str) -> frozenset[str]:
    return frozenset(found for part in split_sentences(text) if (found := " ".join(part.split())))
