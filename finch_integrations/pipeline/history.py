"""A chat that outgrows the window: its oldest turns are left out, and that is said."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence

from finch_integrations.pipeline.misses import Shapes

logger = logging.getLogger(__name__)

TRIMMED = Shapes()


def trim_history(
    roles: Sequence[str], fits: Callable[[Sequence[int]], bool], *, at_most: int | None = None
) -> list[int]:
    """Leave out as few of the oldest turns as it takes until a chat fits.

    System texts, and the last user turn and what follows it, always stay; if they do not fit,
    nothing is left out. What stays begins with a user turn.

    Args:
        roles: Of the chat's messages.
        fits: Whether messages with these numbers fit; if some do, so do the last ones of them.
        at_most: Number of the message from which on all stay, too.

    Returns:
        Numbers of the messages that stay.
    """
    whole = [*range(len(roles))]
    if fits(whole):
        return whole
    last = max((n for n in whole if roles[n] == "user"), default=0)
    if at_most is not None:
        last = min(last, at_most)
    # Those without a turn before them leave nothing out.
    cuts = [n for n in range(1, last + 1) if roles[n] == "user" and {*roles[:n]} != {"system"}]

    def after(cut: int) -> list[int]:
        return [n for n in whole if n >= cut or roles[n] == "system"]

    number = bisect_left(cuts, True, key=lambda cut: fits(after(cut)))
    return whole if number == len(cuts) else after(cuts[number])


def report_trimmed(texts: Sequence[str], trimmed: int) -> None:
    """Say that messages were left out, once for chats whose texts begin alike."""
    if trimmed and TRIMMED.is_new(texts[:1]):
        logger.warning(
            "The %d oldest messages of a chat were left out, because it outgrew the model's "
            "window. To decide yourself, keep a shorter history (LangChain: trim_messages, "
            "LlamaIndex: a memory with a smaller token_limit), or summarise it",
            trimmed,
        )
