"""What the best passage leads to, for questions that take two steps.

"In which city does the person live who was given the silver compass?" needs the passage that names
the person, and one about that person, which shares no word with the question. They share the name:
a rare word that the question does not say.

Few passages are raised, and none that is half as good as the best has to give way: a question that
takes one step loses only what the least of its budget would have been spent on.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from finch_integrations.engine.methods.passages import WordMatcher

# A passage that is at least this share as far above the average as the best one stays before it.
_NEAR = 0.5
# Of passages that share equally rare words with the best one, this many are raised.
_MOST = 2


def raise_linked(
    scores: Tensor, matcher: WordMatcher, sentences: Sequence[frozenset[str]], question: str
) -> Tensor:
    """Put what the best segment leads to right after all that are at least half as good as it.

    Args:
        scores: 0 is about the average, [segments].
        matcher: Knows the segments' words.
        sentences: What each segment says; one that says nothing else than the best is no link.
        question: Its own words do not link.

    Returns:
        Scores, [segments].
    """
    best, top = int(scores.argmax()), float(scores.max())
    near = scores >= min(top, _NEAR * top)
    new = torch.tensor([not said <= sentences[best] for said in sentences])
    links = matcher.links(best, question) * (new & ~near)
    if not links.any():
        return scores
    strongest = (links == links.max()).nonzero().flatten().tolist()
    linked = sorted(strongest, key=lambda number: -float(scores[number]))[:_MOST]
    others = ~near
    others[linked] = False
    if not others.any():
        return scores
    least, most = scores[near].min(), scores[others].max()
    raised = scores.clone()
    # As many steps between the two, the better one first.
    raised[linked] = torch.linspace(float(least), float(most), len(linked) + 2)[1:-1]
    return raised
