"""Compares what questions and passages mean, where words of passages are compared already."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from finch_integrations.engine.methods.passages import groups_of
from finch_integrations.engine.scoring import standardize
from finch_integrations.engine.segments import Segment
from finch_integrations.engine.vectors import Vectors


class MeaningMatcher:
    """Compares the vectors of questions with those of segments and of their neighbourhoods."""

    def __init__(self, vectors: Vectors, segments: Sequence[Segment], texts: Sequence[str]) -> None:
        """Encode the segments.

        Args:
            vectors: Encodes.
            segments: U of them.
            texts: Of each, with its document's heading.
        """
        self._vectors = vectors
        own = vectors.of_documents(texts)
        # A neighbourhood's vector is the mean of its segments': no text is encoded twice.
        self._directions = [
            normalize(torch.stack([own[first:end].mean(dim=0) for first, end in group]), dim=1)
            for group in groups_of(segments)
        ]

    def both(self, question: str) -> Tensor:
        """The sum of the standardised cosines of segment and neighbourhood, [U]."""
        asked = self._vectors.of_question(question)
        if len(asked) != self._directions[0].shape[1]:
            raise self._vectors.unlike(len(asked), self._directions[0].shape[1])
        asked = normalize(asked, dim=0)
        alone, around = (standardize(directions @ asked) for directions in self._directions)
        return alone + around
