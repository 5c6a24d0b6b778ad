"""Following a compression: how far it is, and the longest cache it needed."""

import time
from collections.abc import Callable

from finch_integrations.types import CompressionProgress


class ProgressTracker:
    """Reports progress after every step.

    Attributes:
        total: Document tokens to score.
        seen: Those that have been scored.
        reused: Those that had already been read, for another question.
        peak: The most tokens that were in the KV cache.
    """

    def __init__(self, report: Callable[[CompressionProgress], None] | None) -> None:
        """Start the clock.

        Args:
            report: Called after every step; None: no reports.
        """
        self.total = 0
        self.seen = 0
        self.reused = 0
        self.peak = 0
        self._report = report
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall-clock time since the start."""
        return time.perf_counter() - self._started

    def chunk_done(self, seen: int, kv_tokens: int) -> None:
        """Count a chunk.

        Args:
            seen: Document tokens read so far.
            kv_tokens: The most tokens that were in the KV cache during this step.
        """
        self.seen = seen
        self.peak = max(self.peak, kv_tokens)
        if self._report is not None:
            self._report(
                CompressionProgress(tokens=seen, total_tokens=self.total, seconds=self.seconds)
            )
