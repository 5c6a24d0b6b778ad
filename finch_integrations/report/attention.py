"""Where the question looks, layer by layer: the numbers of a heat map."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from finch_integrations.config import with_overrides
from finch_integrations.documents import prepare_documents
from finch_integrations.engine.budget import reading_length
from finch_integrations.engine.cache import cache_length, share_cache
from finch_integrations.engine.chunks import chunks_of
from finch_integrations.engine.engine import FinchEngine
from finch_integrations.engine.model_input import make_input
from finch_integrations.engine.prompt import Prompt
from finch_integrations.types import Document


def question_attention(
    engine: FinchEngine,
    documents: Iterable[Document | str | Mapping[str, Any]],
    question: str,
    **overrides: Any,
) -> Tensor:
    """Say how much attention the question pays to every document token, in every layer.

    Documents are read as by the method `contrast`: chunk by chunk, each after the prefix and
    without the other chunks, so the attention of every chunk adds up to the same. With the
    question "N/A" it is the attention that every question pays, out of habit.

    Args:
        engine: Its model reads.
        documents: As for `FinchEngine.compress`.
        question: The question.
        overrides: Fields of `CompressionConfig` to change for this call; only `chunk_length`
            matters here.

    Returns:
        The mean over the heads and the question's tokens, float32, [layers, document tokens].
        `CompressedContext.document_shares` says how many of them each document has, in order.

    Raises:
        InvalidInputError: Documents or question are unusable.
        ConfigurationError: An option is unknown or wrong.
        ContextTooLongError: The question leaves the model's window no room for a chunk.
    """
    backbone, config = engine.backbone, with_overrides(engine.compression, overrides)
    prompt = Prompt(question=question)
    inputs = make_input(backbone.tokenizer, prepare_documents(documents), prompt)
    chunk_length = reading_length(config, backbone.spec, inputs.frame)
    prefix, window = backbone.encode(inputs.frame.prefix, chunk_length), inputs.frame.window
    first = cache_length(prefix)
    attention = torch.zeros(backbone.spec.num_layers, len(inputs.tokens))
    for start, chunk in chunks_of(inputs.tokens.ids, chunk_length):
        end = start + len(chunk)

        def record(layer: int, weights: Tensor, start: int = start, end: int = end) -> None:
            columns = slice(first, first + end - start)
            attention[layer, start:end] = weights[..., columns].mean(dim=(0, 1)).cpu()

        ids = (*chunk, *window.ids)
        backbone.forward(ids, share_cache(prefix), rows=window.length, record=record)
    return attention
