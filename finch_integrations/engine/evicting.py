"""documents + question → CompressedContext, for the methods that evict single tokens.

Every layer keeps different tokens, in a cache that only this model can use: there is no selection
that could be shown as text or encoded elsewhere.
"""

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import evicting_length
from finch_integrations.engine.cache import cache_bytes, cache_length
from finch_integrations.engine.context import CompressedContext
from finch_integrations.engine.document_shares import count_shares
from finch_integrations.engine.methods import TokenMethod
from finch_integrations.engine.model_input import ModelInput
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.types import CompressionStats


def evict_tokens(
    backbone: Backbone,
    inputs: ModelInput,
    target: int,
    method: TokenMethod,
    config: CompressionConfig,
    tracker: ProgressTracker,
) -> CompressedContext:
    """Compress the documents to exactly `target` tokens in every layer, fewer than all."""
    tracker.total = len(inputs.tokens)
    length = evicting_length(config, backbone.spec, inputs.frame, target)
    evicted = method.evict(backbone, inputs, target, length, config, tracker.chunk_done)
    return CompressedContext(
        cache=evicted.cache,
        prompt=inputs.prompt,
        kept=evicted.kept,
        document_shares=count_shares(inputs.documents, inputs.tokens.spans, evicted.kept),
        excerpts=(),
        stats=CompressionStats(
            document_tokens=len(inputs.tokens),
            kept_tokens=target,
            limited_by="budget",
            rated_tokens=len(inputs.tokens),
            read_tokens=len(inputs.tokens),
            prefix_tokens=len(inputs.frame.prefix),
            suffix_tokens=len(inputs.frame.suffix),
            peak_kv_tokens=max(tracker.peak, cache_length(evicted.cache)),
            kv_bytes=cache_bytes(evicted.cache),
            seconds=tracker.seconds,
        ),
        fingerprint=backbone.fingerprint,
    )
