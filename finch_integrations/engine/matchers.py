"""Matchers: what a model may write next, as state beside the sampler.

A matcher masks the logits, accepts the token that was taken, and says when nothing more may follow.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from finch_integrations.constraints import Constraint
from finch_integrations.engine.reasoning import Thoughts
from finch_integrations.engine.text_stream import TextStream
from finch_integrations.errors import ConstraintError


class Matcher(Protocol):
    """What the model may write next."""

    @property
    def done(self) -> bool:
        """Whether the answer is complete: nothing may follow."""
        ...

    def mask(self, logits: Tensor) -> Tensor:
        """Set the logits of tokens that must not come next to -inf, [vocabulary]."""
        ...

    def accept(self, token: int) -> None:
        """Go on after a token."""
        ...


class GrammarMatcher:
    """A grammar from the answer's first token on."""

    def __init__(self, matcher: Any, noun: str) -> None:
        self._matcher = matcher
        self._noun = noun

    @property
    def done(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self, size: int) -> Tensor:
        """Which of the first `size` tokens may come next, bool, [size].

        Raises:
            ConstraintError: The grammar became too complex for the text so far.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        flags = torch.from_numpy(np.unpackbits(bits, bitorder="little")[:size]).bool()
        # Some models have logits for more tokens than there are.
        return torch.nn.functional.pad(flags, (0, size - len(flags)))

    def mask(self, logits: Tensor) -> Tensor:
        """Leave only the tokens that keep the text in the language."""
        allowed = self.allowed(logits.shape[-1])
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Go on after a token.

        Raises:
            ConstraintError: The grammar became too complex for the text so far.
        """
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        # A matcher that gave up would look as if the answer were complete.
        if self._matcher.is_error():
            raise ConstraintError(
                f"the {self._noun} is too complex to follow: {first_line(self._matcher)}. "
                "Simplify it"
            )

    def accept_text(self, ids: list[int]) -> bool:
        """Go on after a text's tokens, if it is in the language."""
        return bool(self._matcher.try_consume_tokens(ids) == len(ids))


class TriggeredMatcher:
    """Free text, until it contains a string that begins the grammar's part."""

    def __init__(
        self,
        constraint: Constraint,
        begin: Callable[[str], GrammarMatcher | None],
        tokenizer: Any,
        thoughts: Thoughts,
    ) -> None:
        """Watch for a constraint's trigger.

        Args:
            constraint: Has a trigger.
            begin: Returns a matcher of its grammar after a text, if the text can begin it.
            tokenizer: Of the model.
            thoughts: How it thinks; the trigger does not count there.
        """
        self._constraint, self._begin = constraint, begin
        assert constraint.trigger, "it is what this matcher looks for"
        self._trigger = constraint.trigger
        self._stream = TextStream(tokenizer, shown=(self._trigger,))
        self._thoughts = thoughts
        self._text = ""
        self._inner: GrammarMatcher | None = None

    @property
    def done(self) -> bool:
        """Whether the grammar's part is complete."""
        return self._inner is not None and self._inner.done

    def mask(self, logits: Tensor) -> Tensor:
        """Change nothing in free text."""
        return logits if self._inner is None else self._inner.mask(logits)

    def accept(self, token: int) -> None:
        """Go on after a token; begin the grammar's part if the text now contains the trigger."""
        if self._inner is not None:
            self._inner.accept(token)
            return
        self._text += self._stream.push(token)
        said = self._thoughts.split(self._text, final=False)[1]
        if self._constraint.trigger_at_start:
            said = said.lstrip()
            at = 0 if said.startswith(self._trigger) else -1
        else:
            at = said.find(self._trigger)
        if at >= 0:
            self._inner = self._begin(said[at:])


class ThinkingMatcher:
    """Thoughts, which are free, before the part that another matcher constrains."""

    def __init__(
        self, inner: GrammarMatcher, thoughts: Thoughts, tokenizer: Any, stop: set[int]
    ) -> None:
        self._inner = inner
        self._thoughts = thoughts
        self._stop = sorted(stop)
        self._begin = thoughts.begin_token(tokenizer)
        self._stream = TextStream(tokenizer, shown=thoughts.marks)
        self._text = ""
        self._state = "thinking" if thoughts.opened else "start"

    @property
    def done(self) -> bool:
        """Whether the constrained part is complete."""
        return self._state == "answering" and self._inner.done

    def mask(self, logits: Tensor) -> Tensor:
        """Allow everything but an end while thinking."""
        if self._state == "thinking":
            masked = logits.clone()
            masked[self._stop] = float("-inf")
            return masked
        masked = self._inner.mask(logits)
        if self._state == "start" and self._begin is not None:
            masked[self._begin] = logits[self._begin]
        return masked

    def accept(self, token: int) -> None:
        """Go on after a token."""
        if self._state == "start":
            self._state = "thinking" if token == self._begin else "answering"
            if self._state == "thinking":
                self._text = self._thoughts.begin
                return
        if self._state == "answering":
            self._inner.accept(token)
            return
        self._text += self._stream.push(token)
        if self._thoughts.end in self._text:
            self._state = "answering"


def first_line(matcher: Any) -> str:
    """What is wrong with one of llguidance's matchers."""
    lines = [line.strip() for line in str(matcher.get_error()).split("<state>")[0].splitlines()]
    return " ".join(line for line in lines if line and set(line) != {"^"})[:300]
