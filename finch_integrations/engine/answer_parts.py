"""An answer as a model writes it, piece by piece, split into thoughts, text and tool calls."""

import json
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from finch_integrations.engine.reasoning import Thoughts
from finch_integrations.engine.tool_format import ANY_ID, ToolFormat
from finch_integrations.types import InvalidToolCall, ToolCall

_NAME = r"(?P<name>[\w.:-]{1,128})"


@dataclass(frozen=True, slots=True)
class Parts:
    """What is new and certain in an answer.

    Attributes:
        text: What is said.
        reasoning: What is thought.
        calls: Complete calls.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


class AnswerReader:
    """Splits one answer; a call is passed on when it is complete, so that no half of one is made.

    Args:
        thoughts: How the model marks its thoughts.
        form: How it writes calls; None: it has no tools.
        names: The tools' names.

    Attributes:
        invalid: After `finish`: what began as a call and is none.
    """

    def __init__(
        self, thoughts: Thoughts, form: ToolFormat | None = None, names: Collection[str] = ()
    ) -> None:
        self._thoughts = thoughts
        self._form = form
        self._names = names
        self._written = ""  # all of it
        self._thought = 0  # characters of the thoughts that were passed on
        self._read = 0  # characters of what was said that were passed on
        self._calling = False
        self._called = False
        self.invalid: tuple[InvalidToolCall, ...] = ()

    def push(self, text: str) -> Parts:
        """Add what is new."""
        if not text:
            return Parts()
        self._written += text
        return self._advance(final=False)

    def finish(self) -> Parts:
        """Say what was held back; what is left of a call becomes invalid."""
        parts = self._advance(final=True)
        if not self._calling:
            return parts
        rest = self._thoughts.split(self._written)[1][self._read :]
        name = re.match(_lenient(self._require_form().begin) + _NAME, rest)
        self.invalid = (
            InvalidToolCall(
                name=name["name"] if name else "",
                text=rest,
                error="the call is incomplete or cannot be read",
            ),
        )
        return parts

    def _advance(self, *, final: bool) -> Parts:
        thought, said = self._thoughts.split(self._written, final=final)
        reasoning = self._new_thoughts(thought, closed=bool(said) or final)
        if self._thought and not self._read:
            skipped = len(said) - len(said.lstrip())
            if skipped == len(said) and not final:
                return Parts(reasoning=reasoning)
            self._read = skipped
        texts: list[str] = []
        calls: list[ToolCall] = []
        while True:
            rest = said[self._read :]
            if self._calling:
                found = self._read_calls(rest, final=final)
                if found is None:
                    break
                made, length = found
                calls += made
                self._read += length
                self._calling, self._called = False, True
                continue
            length, calling = self._free_length(rest, final=final)
            text = rest[:length]
            if self._called:  # blanks around calls are not said
                text = text.lstrip() if text.strip() or calling else ""
                if not text and not calling:
                    break
            texts.append(text)
            self._read += length
            self._calling = calling
            if not calling:
                break
        return Parts("".join(texts), reasoning, tuple(calls))

    def _new_thoughts(self, thought: str, *, closed: bool) -> str:
        if not closed:
            # The end mark may have begun.
            end = self._thoughts.end
            held = max((n for n in range(1, len(end)) if thought.endswith(end[:n])), default=0)
            thought = thought[: len(thought) - held]
            thought = thought.rstrip()
        else:
            thought = thought.rstrip()
        new = thought[self._thought :]
        if not self._thought:
            new = new.lstrip()
        self._thought = max(self._thought, len(thought)) if new else self._thought
        return new

    def _free_length(self, rest: str, *, final: bool) -> tuple[int, bool]:
        """How much of the rest is text for certain, and whether a call follows it."""
        if self._form is None:
            return len(rest), False
        marker = self._form.marker
        if self._form.only_at_start:
            blank = len(rest) - len(rest.lstrip())
            if self._read > blank and not self._called:
                return len(rest), False
            if rest[blank:].startswith(marker):
                return blank, True
            unsure = not final and marker.startswith(rest[blank:])
            return (0 if unsure else len(rest)), False
        at = rest.find(marker)
        if at >= 0:
            return at, True
        held = 0
        if not final:
            held = max((n for n in range(1, len(marker)) if rest.endswith(marker[:n])), default=0)
        return len(rest) - held, False

    def _read_calls(self, rest: str, *, final: bool) -> tuple[list[ToolCall], int] | None:
        """Read the calls at the start of a text, and how long they are; None: not yet.

        What cannot become a call stays for `finish`.
        """
        form = self._require_form()
        head = _lenient(form.begin) + _NAME + _lenient(form.between)
        calls: list[ToolCall] = []
        position = 0
        while True:
            opening = re.compile(head).match(rest, position)
            if opening is None or opening["name"] not in self._names:
                return None
            try:
                arguments, position = json.JSONDecoder().raw_decode(rest, opening.end())
            except ValueError:
                return None
            if not isinstance(arguments, dict):
                return None
            calls.append(_make_call(opening["name"], arguments))
            ending = re.compile(_lenient(form.end)).match(rest, position)
            if ending is not None:
                return calls, ending.end()
            if final and not rest[position:].strip():
                return calls, len(rest)
            if form.join is None:
                return None
            head = _lenient(form.join) + _NAME + _lenient(form.between)

    def _require_form(self) -> ToolFormat:
        assert self._form is not None, "calls begin only where there is a form"
        return self._form


def _make_call(name: str, arguments: dict[str, Any]) -> ToolCall:
    # Nine letters and digits, which all templates accept.
    return ToolCall(id=uuid.uuid4().hex[:9], name=name, arguments=arguments)


def _lenient(text: str) -> str:
    """A pattern for a text of a call's format, with any white space where it has some."""
    parts = re.split(rf"(\s+|{ANY_ID})", text)
    special = {ANY_ID: "[a-zA-Z0-9]{9}"}
    return "".join(special.get(p, r"\s*" if p.isspace() else re.escape(p)) for p in parts)
