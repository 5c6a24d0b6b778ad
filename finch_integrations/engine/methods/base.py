"""What a compression method is: a way to score passages, or a way to evict single tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import KVCache
from finch_integrations.engine.document_tokens import DocumentTokens
from finch_integrations.engine.model_input import ModelInput
from finch_integrations.engine.passage_store import PassageStore
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.engine.prompt import Frame
from finch_integrations.engine.segments import Segment
from finch_integrations.engine.support import Capability

# Called after every step with (document tokens read so far, the most tokens that the KV cache held
# during this step).
OnChunk = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Documents on their way through the model that scores them.

    Attributes:
        backbone: The model.
        documents: What it reads, in its tokens.
        frames: What is around them, one for each question. They differ only in the question.
        prefix: The prefix's cache; not changed.
        chunk_length: Tokens of one text to read per step.
        batch_tokens: Tokens of separate passages to read per step.
        read_sizes: For each question, the document tokens to read at most.
        store: Keeps what the model computes when it reads passages; None: nowhere.
        tracker: Follows the reading.
    """

    backbone: Backbone
    documents: DocumentTokens
    frames: Sequence[Frame]
    prefix: KVCache
    chunk_length: int
    batch_tokens: int
    read_sizes: Sequence[int]
    store: PassageStore | None
    tracker: ProgressTracker


class SegmentScorer(Protocol):
    """Cut the documents into segments and say how much each matters to the questions."""

    def __call__(self, reading: Reading) -> tuple[list[Segment], Tensor]:
        """Rate the documents.

        Returns:
            The segments, and their scores, [questions, segments]; higher is better.
        """
        ...


@dataclass(frozen=True, slots=True)
class Evicted:
    """What a token method leaves.

    Attributes:
        cache: Prefix and kept document tokens at consecutive positions.
        kept: For every layer, the kept positions in the document tokens, in the cache's order,
            [S, K].
    """

    cache: KVCache
    kept: tuple[Tensor, ...]


class TokenEvictor(Protocol):
    """Read the documents into a cache and drop single tokens from it, layer by layer."""

    def __call__(
        self,
        backbone: Backbone,
        inputs: ModelInput,
        target: int,
        chunk_length: int,
        config: CompressionConfig,
        on_chunk: OnChunk,
    ) -> Evicted:
        """Keep exactly `target` document tokens per layer; call `on_chunk` after every chunk."""
        ...


@dataclass(frozen=True, slots=True)
class PassageMethod:
    """A method whose result is a selection of passages: text, for this model or any other.

    Attributes:
        score: Scores the passages.
        read_ahead: Reads into the store what `score` may need for any question; None: `score` uses
            no store.
        needs: What it needs from the model that scores.
    """

    score: SegmentScorer
    read_ahead: Callable[[Reading], None] | None = None
    needs: frozenset[Capability] = frozenset()


@dataclass(frozen=True, slots=True)
class TokenMethod:
    """A method whose result is a cache of single tokens, of use only to this model.

    Attributes:
        evict: Compresses.
        needs: What it needs from the model.
    """

    evict: TokenEvictor
    needs: frozenset[Capability] = frozenset()


Method = PassageMethod | TokenMethod
