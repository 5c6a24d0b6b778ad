"""A chat that outgrows the window: its oldest turns are left out, and that is said."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence

from finch_integrations.pipeline.misses import Shapes
from finch_integrations.types import Message

logger = logging.getLogger(__name__)

TRIMMED = Shapes()


def trim_history(
    messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]
) -> tuple[Message, ...]:
    """Leave out as few of the oldest turns as it takes until a chat fits.

    The system text, and the last user turn and what follows it, always stay; if they do not fit,
    nothing is left out. What stays begins with a user turn.

    Args:
        messages: The chat.
        fits: Whether a chat fits; if one does, so does every end of it.
    """
    whole = tuple(messages)
    if fits(whole):
        return whole
    first = 1 if whole and whole[0]["role"] == "system" else 0
    cuts = [n for n in range(first + 1, len(whole)) if whole[n]["role"] == "user"]
    number = bisect_left(cuts, True, key=lambda cut: fits((*whole[:first], *whole[cut:])))
    if number == len(cuts):
        return whole
    report_trimmed(whole, cuts[number] - first)
    return (*whole[:first], *whole[cuts[number] :])


def report_trimmed(messages: Sequence[Message], trimmed: int) -> None:
    """Say that messages were left out, once for chats that begin alike."""
    if TRIMMED.is_new([messages[0]["content"]]):
        logger.warning(
            "The %d oldest messages of a chat were left out, because it outgrew the model's "
            "window. Give the chat engine a memory with a smaller token_limit, or one that "
            "summarises",
            trimmed,
        )
