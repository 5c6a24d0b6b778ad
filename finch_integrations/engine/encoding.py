"""Selection → CompressedContext: feed the kept tokens as one text."""

import torch

from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import cache_bytes, cache_length
from finch_integrations.engine.context import CompressedContext
from finch_integrations.engine.encodings import Encodings
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.engine.prompt import Frame
from finch_integrations.engine.selection import Selection
from finch_integrations.types import CompressionStats


def encode_selection(
    backbone: Backbone,
    selection: Selection,
    frame: Frame,
    chunk_length: int,
    tracker: ProgressTracker,
    encodings: Encodings,
) -> CompressedContext:
    """Read prefix and kept tokens into a new cache; all layers hold the same tokens.

    Args:
        backbone: The model; its tokenizer made the selection's ids.
        selection: What to encode.
        frame: Made of `selection.prompt` with the model's tokenizer.
        chunk_length: Tokens to feed per step.
        tracker: Follows the encoding.
        encodings: Keeps the cache for the next time.
    """
    tracker.total = len(selection.token_ids)
    parts = (frame.prefix, selection.token_ids)
    cache = encodings.encode(backbone, parts, chunk_length, tracker.chunk_done)
    stats = selection.stats
    return CompressedContext(
        cache=cache,
        prompt=selection.prompt,
        kept=(torch.tensor(selection.positions)[None],) * backbone.spec.num_layers,
        document_shares=selection.document_shares,
        excerpts=() if selection.complete else selection.excerpts,
        stats=CompressionStats(
            document_tokens=stats.document_tokens,
            kept_tokens=stats.kept_tokens,
            limited_by=stats.limited_by,
            rated_tokens=stats.rated_tokens,
            read_tokens=stats.read_tokens,
            prefix_tokens=len(frame.prefix),
            suffix_tokens=len(frame.suffix),
            peak_kv_tokens=max(stats.peak_kv_tokens, cache_length(cache)),
            kv_bytes=cache_bytes(cache),
            seconds=stats.seconds + tracker.seconds,
        ),
        fingerprint=backbone.fingerprint,
    )
