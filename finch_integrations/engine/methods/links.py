"""What the best passage leads to, for questions that take two steps.

"In which city does the person live who was given the silver compass?" needs the passage that names
the person, and one about that person, which shares no word with the question. They share the name:
a rare word that the question does not say.

One passage is raised, and none that is half as good as the best has to give way: a question that
takes one step loses only what the least of its budget would have been spent on.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from finch_integrations.engine.methods.passages import WordMatcher

# A passage that is at least this share as far above the average as the best one stays before it.
_NEAR = 0.5


def raise_linked(
    scores: Tensor, matcher: WordMatcher, sentences: Sequence[frozenset[str]], question: str
) -> Tensor:
    """Raise the segment that the best one leads to.

    Args:
        scores: 0 is about the average, [segments].
        matcher: Knows the segments' words.
        sentences: What each segment says; one that says nothing else than the best is no link.
        question: Its own words do not link.

    Returns:
        Scores, [segments].
    """
    best = int(scores.argmax())
    new = torch.tensor([not said <= sentences[best] for said in sentences])
    links = matcher.links(best, question) * new
    return raise_to_half(scores, int(links.argmax())) if links.any() else scores


def raise_to_half(scores: Tensor, number: int) -> Tensor:
    """Put a segment right after all that are at least half as good as the best.

    Args:
        scores: [segments].
        number: Which segment; if it is one of these, it stays where it is.
    """
    top = float(scores.max())
    near = scores >= min(top, _NEAR * top)
    others = ~near
    others[number] = False
    if near[number] or not others.any():
        return scores
    raised = scores.clone()
    raised[number] = (scores[near].min() + scores[others].max()) / 2
    return raised
