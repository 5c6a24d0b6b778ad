"""documents + questions → Selections: rate the passages, take the best that fit the budget."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.batching import tokens_at_once
from finch_integrations.engine.budget import (
    Budget,
    check_answer_fits,
    make_budget,
    reading_length,
    tokens_to_read,
)
from finch_integrations.engine.document_shares import count_shares
from finch_integrations.engine.document_tokens import tokenize_documents
from finch_integrations.engine.excerpts import find_excerpts
from finch_integrations.engine.methods import PassageMethod, Reading
from finch_integrations.engine.methods.copies import demote_copies, sentences_of
from finch_integrations.engine.methods.passages import choose, positions_of, texts_of
from finch_integrations.engine.methods.sizing import choose_size
from finch_integrations.engine.model_input import ModelInput
from finch_integrations.engine.passage_store import PassageStore
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.engine.prompt import build_frame, rating_prompt
from finch_integrations.engine.segments import Segment, translate_segments
from finch_integrations.engine.selection import Selection
from finch_integrations.errors import FinchError
from finch_integrations.types import LimitedBy, SelectionStats


@dataclass(frozen=True, slots=True)
class Reader:
    """A model that reads documents to choose of them.

    Attributes:
        backbone: The model.
        store: Where what it read is kept.
    """

    backbone: Backbone
    store: PassageStore


def select_passages(
    backbone: Backbone,
    inputs: Sequence[ModelInput],
    budgets: Sequence[Budget],
    method: PassageMethod,
    config: CompressionConfig,
    tracker: ProgressTracker,
    reader: Reader,
) -> list[Selection]:
    """Choose document tokens for each question, as many as its budget says.

    Args:
        backbone: The model whose tokens are chosen.
        inputs: Documents and question in its tokens; the documents are the same for every question.
        budgets: Tokens to keep for each question.
        method: Scores the passages.
        config: Says how much is read at once.
        tracker: Follows the reading, in the tokens of the model that reads.
        reader: The same model, or another one that reads in its place; the caches of another one
            do not count.

    Raises:
        ContextTooLongError: The reading model's window has no room for a chunk.
    """
    reading = _begin(backbone, inputs, budgets, config, tracker, reader)
    tracker.total = len(reading.documents)  # a method that reads fewer says so
    segments, scores = method.score(reading)
    if reader.backbone is not backbone:
        segments = translate_segments(segments, reading.documents, inputs[0].tokens)
    sentences = sentences_of(texts_of(inputs[0].tokens, segments))
    peak = tracker.peak if reader.backbone is backbone else 0
    selections = []
    for one, rated, budget in zip(inputs, scores, budgets, strict=True):
        final = demote_copies(rated, sentences)
        size, limited_by = choose_size(segments, final, budget)
        selections.append(
            _make(
                backbone,
                one,
                choose(segments, final, size),
                limited_by=limited_by,
                rated_tokens=tracker.seen,
                read_tokens=tracker.seen - tracker.reused,
                peak=peak,
                seconds=tracker.seconds / len(inputs),
            )
        )
    return selections


def select_everything(backbone: Backbone, inputs: ModelInput, seconds: float) -> Selection:
    """Keep all documents whole."""
    spans = enumerate(inputs.tokens.spans)
    whole = [Segment(span.start, span.end, number) for number, span in spans]
    return _make(
        backbone,
        inputs,
        whole,
        limited_by="documents",
        rated_tokens=0,
        read_tokens=0,
        peak=0,
        seconds=seconds,
    )


def read_ahead(
    backbone: Backbone,
    inputs: ModelInput,
    budget: Budget,
    method: PassageMethod,
    config: CompressionConfig,
    tracker: ProgressTracker,
    reader: Reader,
) -> None:
    """Read into the store what is not there yet; arguments and errors as for `select_passages`."""
    if method.read_ahead is not None:
        method.read_ahead(_begin(backbone, [inputs], [budget], config, tracker, reader))


def further_inputs(
    backbone: Backbone,
    reader: Reader,
    inputs: ModelInput,
    questions: Sequence[str],
    config: CompressionConfig,
) -> list[tuple[ModelInput, Budget]]:
    """The same documents under other questions, with their budgets; without unusable ones."""
    found = []
    for question in questions:
        with suppress(FinchError):
            prompt = replace(inputs.prompt, question=question)
            other = replace(inputs, prompt=prompt, frame=build_frame(backbone.tokenizer, prompt))
            total = len(inputs.tokens)
            budget = make_budget(config, backbone.spec, other.frame, total)
            check_answer_fits(backbone.spec, other.frame, total, budget.most)
            rating = build_frame(reader.backbone.tokenizer, rating_prompt(prompt))
            reading_length(config, reader.backbone.spec, rating)
            found.append((other, budget))
    return found


def _begin(
    backbone: Backbone,
    inputs: Sequence[ModelInput],
    budgets: Sequence[Budget],
    config: CompressionConfig,
    tracker: ProgressTracker,
    reader: Reader,
) -> Reading:
    """Put documents and questions into the tokens of the model that reads."""
    documents = inputs[0].tokens
    if reader.backbone is not backbone:
        documents = tokenize_documents(reader.backbone.tokenizer, inputs[0].documents)
    frames = [build_frame(reader.backbone.tokenizer, rating_prompt(one.prompt)) for one in inputs]
    length = min(reading_length(config, reader.backbone.spec, frame) for frame in frames)
    return Reading(
        backbone=reader.backbone,
        documents=documents,
        frames=frames,
        prefix=reader.store.encodings.encode(reader.backbone, [frames[0].prefix], length),
        chunk_length=length,
        batch_tokens=config.batch_tokens or tokens_at_once(reader.backbone, length),
        read_sizes=[tokens_to_read(config, budget, len(documents)) for budget in budgets],
        store=reader.store,
        tracker=tracker,
    )


def _make(
    backbone: Backbone,
    inputs: ModelInput,
    kept: Sequence[Segment],
    *,
    limited_by: LimitedBy,
    rated_tokens: int,
    read_tokens: int,
    peak: int,
    seconds: float,
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
            limited_by=limited_by,
            rated_tokens=rated_tokens,
            read_tokens=read_tokens,
            peak_kv_tokens=peak,
            seconds=seconds,
        ),
        vocabulary=backbone.vocabulary,
    )
