"""Keeping every token: what happens when all documents fit the budget."""

import torch

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import Plan
from finch_integrations.engine.cache import cache_length
from finch_integrations.engine.methods.base import Compressed, OnChunk
from finch_integrations.engine.prompt import Prompt


def keep_everything(
    backbone: Backbone,
    prompt: Prompt,
    plan: Plan,
    config: CompressionConfig,
    on_chunk: OnChunk,
) -> Compressed:
    """Prefill the whole documents; the answer is the one of the plain prompt."""
    cache = backbone.encode(prompt.prefix, plan.chunk_length)
    total = len(prompt.documents)
    for start in range(0, total, plan.chunk_length):
        chunk = prompt.documents[start : start + plan.chunk_length]
        backbone.forward(chunk, cache)
        on_chunk(start + len(chunk), cache_length(cache))
    return Compressed(cache, (torch.arange(total)[None],) * backbone.spec.num_layers)
