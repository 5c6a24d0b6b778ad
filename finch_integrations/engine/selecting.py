"""documents + question → Selection: rate the passages, take the best that fit the budget."""

from collections.abc import Sequence

import torch
from torch import Tensor

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import reading_length
from finch_integrations.engine.document_shares import count_shares
from finch_integrations.engine.excerpts import find_excerpts
from finch_integrations.engine.methods import PassageMethod, Reading
from finch_integrations.engine.methods.passages import choose, positions_of
from finch_integrations.engine.model_input import ModelInput, make_input
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.engine.segments import Segment, translate_segments
from finch_integrations.engine.selection import Selection
from finch_integrations.types import SelectionStats


def select_passages(
    backbone: Backbone,
    inputs: ModelInput,
    target: int,
    method: PassageMethod,
    config: CompressionConfig,
    tracker: ProgressTracker,
    *,
    scorer: Backbone | None = None,
) -> Selection:
    """Choose exactly `target` document tokens, fewer than all.

    Args:
        backbone: The model whose tokens are chosen.
        inputs: Documents and question in its tokens.
        target: Tokens to keep.
        method: Rates the passages.
        config: Says how much is read at once.
        tracker: Follows the reading, in the tokens of the model that reads.
        scorer: Another model that reads in this one's place; its caches are not tracked.

    Raises:
        ContextTooLongError: The reading model's window has no room for a chunk.
    """
    rated = _rate(backbone, inputs, method, config, tracker, scorer)
    peak = 0 if scorer else tracker.peak
    return _make(backbone, inputs, choose(*rated, target), tracker, read=tracker.total, peak=peak)


def select_everything(
    backbone: Backbone, inputs: ModelInput, tracker: ProgressTracker
) -> Selection:
    """Keep all documents whole."""
    spans = enumerate(inputs.tokens.spans)
    whole = [Segment(span.start, span.end, number) for number, span in spans]
    return _make(backbone, inputs, whole, tracker, read=0, peak=0)


def _make(
    backbone: Backbone,
    inputs: ModelInput,
    kept: Sequence[Segment],
    tracker: ProgressTracker,
    *,
    read: int,
    peak: int,
) -> Selection:
    documents, tokens = inputs.documents, inputs.tokens
    positions = positions_of(kept)
    return Selection(
        prompt=inputs.prompt,
        token_ids=tuple(tokens.ids[position] for position in positions),
        positions=positions,
        excerpts=find_excerpts(documents, tokens, kept),
        document_shares=count_shares(documents, tokens.spans, [torch.tensor(positions)[None]]),
        stats=SelectionStats(
            document_tokens=len(tokens),
            kept_tokens=len(positions),
            read_tokens=read,
            peak_kv_tokens=peak,
            seconds=tracker.seconds,
        ),
        vocabulary=backbone.vocabulary,
    )


def _rate(
    backbone: Backbone,
    inputs: ModelInput,
    method: PassageMethod,
    config: CompressionConfig,
    tracker: ProgressTracker,
    scorer: Backbone | None,
) -> tuple[Sequence[Segment], Tensor]:
    """Return segments in the tokens of `inputs`, and their scores, [number of segments]."""
    reader, read = backbone, inputs
    if scorer is not None:
        reader, read = scorer, make_input(scorer.tokenizer, inputs.documents, inputs.prompt)
    length = reading_length(config, reader.spec, read.frame)
    tracker.total = len(read.tokens)
    prefix = reader.encode(read.frame.prefix, length)
    segments, scores = method.score(
        Reading(reader, read.tokens, read.frame, prefix, length, tracker.chunk_done)
    )
    if scorer is not None:
        segments = translate_segments(segments, read.tokens, inputs.tokens)
    return segments, scores
