"""The paper's method: read chunk by chunk, let the question choose, keep what it attends to.

Finch (Corallo & Papotti, arXiv 2408.00167, §4). Each step feeds a chunk and the question after
the cache, scores cached and new tokens by the attention of the question's rows, keeps the best,
closes the gaps between their keys and drops the keys and values of the question. Of the instruction
and question that are fed, only the question's rows are scored, as in the authors' code.
"""

import torch
from torch import Tensor

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import PrunableCache, cache_length
from finch_integrations.engine.chunks import chunks_of
from finch_integrations.engine.methods.base import Evicted, OnChunk
from finch_integrations.engine.model_input import ModelInput
from finch_integrations.engine.scoring import (
    budget_after,
    pool_scores,
    score_tokens,
    select_tokens,
)


def evict_by_attention(
    backbone: Backbone,
    inputs: ModelInput,
    target: int,
    chunk_length: int,
    config: CompressionConfig,
    on_chunk: OnChunk,
) -> Evicted:
    """Compress iteratively; the cache never exceeds prefix + target + chunk + question."""
    spec = backbone.spec
    prefix, window = len(inputs.frame.prefix), inputs.frame.window
    total = len(inputs.tokens)
    selections = spec.num_kv_heads if config.selection == "kv_head" else 1

    prunable = PrunableCache(prefix, spec.inv_freq, spec.rope_layers)
    cache = prunable.cache
    if inputs.frame.prefix:
        backbone.prefill(inputs.frame.prefix, cache, chunk_length)
    kept = [torch.empty(selections, 0, dtype=torch.long)] * spec.num_layers  # [S, K]
    scores: dict[int, Tensor] = {}

    def record(layer: int, weights: Tensor) -> None:
        scores[layer] = score_tokens(
            weights,
            columns=slice(prefix, weights.shape[-1] - len(window.ids)),
            num_kv_heads=spec.num_kv_heads,
            selection=config.selection,
            normalize=config.normalize_scores,
        ).cpu()  # [S, cached + chunk]

    for start, chunk in chunks_of(inputs.tokens.ids, chunk_length):
        seen = start + len(chunk)
        backbone.forward((*chunk, *window.ids), cache, rows=window.length, record=record)
        peak = cache_length(cache)
        budget = budget_after(seen, total=total, target=target, schedule=config.budget_schedule)
        new = torch.arange(start, seen).expand(selections, -1)
        for layer in range(spec.num_layers):
            positions = torch.cat((kept[layer], new), dim=-1)  # [S, cached + chunk]
            smooth = pool_scores(
                scores[layer], positions, pooling=config.pooling, kernel=config.pooling_kernel
            )
            keep = select_tokens(smooth, budget)  # [S, K]
            prunable.prune(layer, keep)
            kept[layer] = positions.gather(-1, keep)
        on_chunk(seen, peak)
    return Evicted(cache, tuple(kept))
