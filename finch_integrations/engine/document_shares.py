"""How much of each document was kept."""

from collections.abc import Sequence

import torch
from torch import Tensor

from finch_integrations.engine.document_tokens import DocumentSpan
from finch_integrations.types import Document, DocumentShare


def count_shares(
    documents: Sequence[Document], spans: Sequence[DocumentSpan], kept: Sequence[Tensor]
) -> tuple[DocumentShare, ...]:
    """Count each document's kept tokens, averaged over layers and selections.

    Args:
        documents: With their ids.
        spans: Each document's place among the document tokens.
        kept: Kept positions in the document tokens; one tensor [S, K] for every layer that chooses
            separately.
    """
    positions = torch.cat([layer.flatten() for layer in kept])
    selections = sum(layer.shape[0] for layer in kept)
    ends = torch.tensor([span.end for span in spans])
    owner = torch.bucketize(positions, ends, right=True)
    counts = torch.bincount(owner, minlength=len(documents)).double() / selections
    return tuple(
        DocumentShare(
            id=str(document.id),
            title=document.title,
            tokens=span.end - span.start,
            kept_tokens=float(count),
        )
        for document, span, count in zip(documents, spans, counts.tolist(), strict=True)
    )
