"""Constraints on what a model may write next: compiled for its tokenizer by llguidance.

A matcher is state beside the sampler: it masks the logits, accepts the token that was taken, and
says when nothing more may follow.
"""

import json
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from finch_integrations.constraints import Constraint
from finch_integrations.engine.reasoning import Thoughts
from finch_integrations.engine.text_stream import TextStream
from finch_integrations.errors import (
    ConstraintError,
    MissingExtraError,
    UnsupportedModelError,
    install_command,
)
from finch_integrations.json_schema import parts_of
from finch_integrations.schema_narrowing import prepare

JSON_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_COMPILED = 32  # grammars kept for every tokenizer
_PARTS_TRIED = 200


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
        if self._matcher.is_error():
            raise ConstraintError(
                f"the {self._noun} is too complex to follow: {_first_line(self._matcher)}. "
                "Simplify it"
            )
        flags = torch.from_numpy(np.unpackbits(bits, bitorder="little")[:size]).bool()
        # Some models have logits for more tokens than there are.
        return torch.nn.functional.pad(flags, (0, size - len(flags)))

    def mask(self, logits: Tensor) -> Tensor:
        """Leave only the tokens that keep the text in the language."""
        allowed = self.allowed(logits.shape[-1])
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Go on after a token."""
        self._matcher.consume_token(token)

    def accept_text(self, ids: list[int]) -> bool:
        """Go on after a text's tokens, if it is in the language."""
        return bool(self._matcher.try_consume_tokens(ids) == len(ids))


class TriggeredMatcher:
    """Free text, until it contains a string that begins the grammar's part."""

    def __init__(
        self, compiler: "Compiler", constraint: Constraint, tokenizer: Any, thoughts: Thoughts
    ) -> None:
        self._compiler, self._constraint = compiler, constraint
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
            inner = self._compiler.compile(self._constraint)
            if inner.accept_text(self._compiler.tokenize(said[at:])):
                self._inner = inner


class ThinkingMatcher:
    """Thoughts, which are free, before the part that another matcher constrains."""

    def __init__(
        self, inner: GrammarMatcher, thoughts: Thoughts, tokenizer: Any, stop: set[int]
    ) -> None:
        self._inner = inner
        self._thoughts = thoughts
        self._stop = sorted(stop)
        self._begin = thoughts.begin_token(tokenizer)
        self._stream = TextStream(tokenizer, shown=(thoughts.end,))
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
                return
        if self._state == "answering":
            self._inner.accept(token)
            return
        self._text += self._stream.push(token)
        if self._thoughts.end in self._text:
            self._state = "answering"


class Compiler:
    """Compiles constraints for one tokenizer; keeps the newest grammars."""

    def __init__(self, tokenizer: Any, vocabulary: int, stop: set[int]) -> None:
        """Set up the tokenizer for llguidance, which takes about a second.

        Raises:
            MissingExtraError: llguidance is not installed.
            UnsupportedModelError: llguidance cannot use this tokenizer.
        """
        try:
            import llguidance
        except ImportError as error:
            raise MissingExtraError(
                "constraints on answers, tools and output schemas need llguidance. "
                f"Install it: {install_command('tools')}"
            ) from error
        self._library = llguidance
        backend = tokenizer.backend_tokenizer
        size = max(vocabulary, len(tokenizer))
        try:
            self._tokenizer = llguidance.LLTokenizer(
                backend.to_str(), n_vocab=size, eos_token=sorted(stop)
            )
        except (ValueError, TypeError) as error:
            raise UnsupportedModelError(
                f"answers cannot be constrained with this model's tokenizer: {error}"
            ) from error
        self._compiled: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._lock = threading.Lock()

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a text, special ones included where it spells them."""
        return list(self._tokenizer.tokenize_str(text, parse_special=True))

    def compile(self, constraint: Constraint) -> GrammarMatcher:
        """Compile a constraint, or copy it if that has been done.

        Raises:
            ConstraintError: It cannot be compiled; says which part.
        """
        key = (constraint.kind, constraint.text)
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._compile(constraint)
            self._compiled.move_to_end(key)
            while len(self._compiled) > _COMPILED:
                self._compiled.popitem(last=False)
            return GrammarMatcher(self._compiled[key].deep_copy(), constraint.noun)

    def _compile(self, constraint: Constraint) -> Any:
        if constraint.kind == "json_schema":
            return self._compile_schema(json.loads(constraint.text))
        grammars = self._library.LLMatcher
        if constraint.kind == "regex":
            matcher = self._matcher(grammars.grammar_from_regex(constraint.text))
        else:
            matcher = self._matcher(grammars.grammar_from_lark(constraint.text))
        if reason := _problem(matcher):
            raise ConstraintError(f"the {constraint.noun} cannot be compiled: {reason}")
        return matcher

    def _compile_schema(self, schema: Mapping[str, Any]) -> Any:
        matcher = self._try_schema(schema)
        reason = _problem(matcher)
        if not reason:
            return matcher
        pointer, reason = self._faulty_part(schema, reason)
        raise ConstraintError(
            f"the JSON schema cannot be compiled at {pointer}: {reason}. Change that part; "
            "what cannot be expressed may be checked after the answer"
        )

    def _try_schema(self, schema: Mapping[str, Any]) -> Any:
        try:
            grammar = self._library.LLMatcher.grammar_from_json_schema(
                json.dumps(prepare(schema)), overrides=JSON_OPTIONS
            )
        except (ValueError, RecursionError) as error:
            raise ConstraintError(f"the JSON schema cannot be read: {error}") from error
        return self._matcher(grammar)

    def _matcher(self, grammar: str) -> Any:
        return self._library.LLMatcher(self._tokenizer, grammar, log_level=0)

    def _faulty_part(self, schema: Mapping[str, Any], reason: str) -> tuple[str, str]:
        """Find the smallest part that fails by itself: its JSON pointer, and why."""
        root = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
        pointer, part, tried = "#", schema, 0
        descending = True
        while descending:
            descending = False
            for name, child in parts_of(part):
                tried += 1
                if tried > _PARTS_TRIED:
                    break
                found = self._why_not({**root, **child})
                if found:
                    pointer, part, reason = f"{pointer}/{name}", child, found
                    descending = True
                    break
        return pointer, reason

    def _why_not(self, schema: Mapping[str, Any]) -> str:
        try:
            return _problem(self._try_schema(schema))
        except ConstraintError as error:
            return str(error)


_compilers: "weakref.WeakKeyDictionary[Any, Compiler]" = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def make_matcher(
    constraint: Constraint, tokenizer: Any, vocabulary: int, stop: set[int], thoughts: Thoughts
) -> Matcher:
    """Compile a constraint for a model; its thoughts, if it has any, are free.

    Args:
        constraint: What the answer must look like.
        tokenizer: The model's; what is set up for it is kept as long as it lives.
        vocabulary: How many logits the model has.
        stop: Tokens that end an answer.
        thoughts: How the model thinks.

    Raises:
        ConstraintError: The constraint cannot be compiled; says which part.
        MissingExtraError: llguidance is not installed.
        UnsupportedModelError: llguidance cannot use the tokenizer.
    """
    with _guard:
        compiler = _compilers.get(tokenizer)
        if compiler is None:
            compiler = _compilers[tokenizer] = Compiler(tokenizer, vocabulary, stop)
    inner = compiler.compile(constraint)
    if constraint.trigger is not None:
        return TriggeredMatcher(compiler, constraint, tokenizer, thoughts)
    if thoughts.begin:
        return ThinkingMatcher(inner, thoughts, tokenizer, stop)
    return inner


def _problem(matcher: Any) -> str:
    """Why a matcher can write nothing; empty if it can."""
    if not matcher.is_error():
        matcher.compute_bitmask()
        if matcher.is_stopped() and not matcher.is_accepting():
            return "no finite text follows it; does a required part contain itself?"
        return ""
    return _first_line(matcher)


def _first_line(matcher: Any) -> str:
    lines = [line.strip() for line in str(matcher.get_error()).split("<state>")[0].splitlines()]
    return " ".join(line for line in lines if line and set(line) != {"^"})[:300]
