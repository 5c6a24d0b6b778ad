"""What every compression method takes and returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import Plan
from finch_integrations.engine.cache import KVCache
from finch_integrations.engine.prompt import Prompt
from finch_integrations.engine.segments import Segment

# Called after every step with (document tokens read so far, the most tokens that the KV cache held
# during this step).
OnChunk = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """Tokens chosen passage by passage.

    Attributes:
        kept: Positions in the document tokens, in the order of their encoding, [K].
        segments: All segments of the documents, in order.
        scores: Higher is better, [number of segments].
    """

    kept: Tensor
    segments: Sequence[Segment]
    scores: Tensor


@dataclass(frozen=True, slots=True)
class Compressed:
    """A method's result.

    Attributes:
        cache: Prefix and kept document tokens at consecutive positions.
        kept: For every layer, the kept positions in the document tokens, in the cache's order,
            [S, K].
        choice: What was chosen, by methods that choose passages for all layers at once.
    """

    cache: KVCache
    kept: tuple[Tensor, ...]
    choice: Choice | None = None


class Method(Protocol):
    """Compress a prompt's documents to exactly `plan.target` tokens per layer."""

    def __call__(
        self,
        backbone: Backbone,
        prompt: Prompt,
        plan: Plan,
        config: CompressionConfig,
        on_chunk: OnChunk,
    ) -> Compressed:
        """Run the method; call `on_chunk` after every chunk."""
        ...
