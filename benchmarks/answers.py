"""How right a generated answer is, as SQuAD's evaluation has it (Rajpurkar et al., 2016)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score_answer(answer: str, right: Sequence[str]) -> dict[str, float]:
    """Token F1, exact match, and whether a right answer is contained: the best over all right ones.

    Args:
        answer: What the model wrote.
        right: Acceptable answers, at least one.
    """
    said = normalize(answer)
    return {
        "f1": max(_f1(said, normalize(one)) for one in right),
        "exact": float(any(said == normalize(one) for one in right)),
        "contains": float(any(f" {normalize(one)} " in f" {said} " for one in right)),
    }


def normalize(text: str) -> str:
    """Lower case, without punctuation, articles and doubled spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(said: str, right: str) -> float:
    ours, theirs = Counter(said.split()), Counter(right.split())
    common = sum((ours & theirs).values())
    return 2 * common / (sum(ours.values()) + sum(theirs.values())) if common else 0.0
