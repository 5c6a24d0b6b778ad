"""Prompts in which no documents were found: it is said, once for every kind of prompt."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from finch_integrations.config import DEFAULT_TARGET_SIZE

logger = logging.getLogger(__name__)

_MAX_SHAPES = 256
# By so many characters at its beginning a prompt is known again.
_BEGINNING = 40


class Shapes:
    """Remembers the shapes of prompts, the most recent ones; safe under threads."""

    def __init__(self, max_shapes: int = _MAX_SHAPES) -> None:
        self._max_shapes = max_shapes
        self._lock = threading.Lock()
        self._seen: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def is_new(self, texts: Sequence[str]) -> bool:
        """Whether the shape of a prompt is not remembered; from now on it is.

        A template's prompts mostly begin with the same words, so the beginning of the longest text
        is the shape.
        """
        shape = hash(max(texts, key=len, default="").lstrip()[:_BEGINNING])
        with self._lock:
            new = shape not in self._seen
            self._seen[shape] = None
            self._seen.move_to_end(shape)
            while len(self._seen) > self._max_shapes:
                self._seen.popitem(last=False)
        return new

    def forget(self) -> None:
        """Forget all shapes."""
        with self._lock:
            self._seen.clear()


MISSED = Shapes()


def report_miss(
    texts: Sequence[str], count: Callable[[], int], target_size: int | None, advice: str
) -> None:
    """Warn of a prompt that goes to the model uncompressed, if it is longer than the budget.

    Args:
        texts: Of all its messages.
        count: Measures it, in tokens.
        target_size: The budget; None: the default.
        advice: How its documents can be found.
    """
    target_size = target_size or DEFAULT_TARGET_SIZE
    # A token has at least one byte: most prompts need not be counted.
    if sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) <= target_size:
        return
    if (tokens := count()) > target_size and MISSED.is_new(texts):
        logger.warning(
            "No documents were found in a prompt of about %d tokens, so all of it goes to the "
            "model uncompressed (target_size is %d). %s",
            tokens,
            target_size,
            advice,
        )
