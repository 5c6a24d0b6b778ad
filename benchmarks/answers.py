"""How right a generated answer is, as SQuAD's evaluation has it (Rajpurkar et al., 2016)."""

import re
import string
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence

from finch_integrations.pipeline.quotes import Quote, find_quotes
from finch_integrations.sentences import sentence_ends
from finch_integrations.types import Document

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


def score_citations(
    answer: str, documents: Sequence[Document], right: Sequence[str]
) -> dict[str, float]:
    """Of the passages that an answer quotes, which share holds a right answer.

    A quoted passage is all sentences that the quote touches.

    Args:
        answer: What the model wrote.
        documents: What it was given, whole.
        right: Acceptable answers, at least one.

    Returns:
        `cited`, 0 to 1; nothing if the answer quotes nothing.
    """
    quotes = find_quotes(answer, documents)
    if not quotes:
        return {}
    passages = [f" {normalize(_passage(documents[q.document].text, q))} " for q in quotes]
    wanted = [f" {normalize(one)} " for one in right]
    return {"cited": sum(any(w in p for w in wanted) for p in passages) / len(passages)}


def _passage(text: str, quote: Quote) -> str:
    ends = [0, *sentence_ends(text), len(text)]
    first = bisect_right(ends, quote.source_start) - 1
    return text[ends[first] : ends[bisect_left(ends, quote.source_end)]]


def normalize(text: str) -> str:
    """Lower case, without punctuation, articles and doubled spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(said: str, right: str) -> float:
    ours, theirs = Counter(said.split()), Counter(right.split())
    common = sum((ours & theirs).values())
    return 2 * common / (sum(ours.values()) + sum(theirs.values())) if common else 0.0
