"""Where the question looks, layer by layer: the numbers behind a heat map."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from finch_integrations.config import with_overrides
from finch_integrations.documents import prepare_documents
from finch_integrations.engine.budget import scoring_chunk_length
from finch_integrations.engine.cache import cache_length, share_cache
from finch_integrations.engine.engine import FinchEngine
from finch_integrations.engine.prompt import build_prompt
from finch_integrations.types import Document


def question_attention(
    engine: FinchEngine,
    documents: Iterable[Document | str | Mapping[str, Any]],
    query: str,
    **overrides: Any,
) -> Tensor:
    """Say how much attention the question pays to every document token, in every layer.

    Documents are read as by the method `contrast`: chunk by chunk, each behind the prefix and
    without the other chunks, so attention is shared out anew in every chunk. With the query "N/A"
    it is the attention that every question pays, out of habit.

    Args:
        engine: Its model reads.
        documents: As for `FinchEngine.compress`.
        query: The question.
        overrides: Fields of `CompressionConfig` to change for this call; only `chunk_length`
            matters here.

    Returns:
        The mean over the heads and the question's tokens, float32, [layers, document tokens].
        `CompressedContext.documents` says how many of these tokens each document has, in order.

    Raises:
        InvalidInputError: Documents or question are unusable.
        ConfigurationError: An option is unknown or wrong.
        ContextTooLongError: The question leaves the model's window no room for a chunk.
    """
    backbone, config = engine.backbone, with_overrides(engine.compression, overrides)
    prompt = build_prompt(backbone.tokenizer, prepare_documents(documents), query)
    chunk_length = scoring_chunk_length(prompt, backbone.spec, config)
    prefix, guide = backbone.encode(prompt.prefix, chunk_length), prompt.guide
    first, total = cache_length(prefix), len(prompt.documents)
    attention = torch.zeros(backbone.spec.num_layers, total)
    for start in range(0, total, chunk_length):
        chunk = prompt.documents[start : start + chunk_length]
        end = start + len(chunk)

        def record(layer: int, weights: Tensor, start: int = start, end: int = end) -> None:
            columns = slice(first, first + end - start)
            attention[layer, start:end] = weights[..., columns].mean(dim=(0, 1)).cpu()

        ids = (*chunk, *guide.ids)
        backbone.forward(ids, share_cache(prefix), rows=guide.rows, record=record)
    return attention
