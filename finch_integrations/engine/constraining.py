"""Constraints on what a model may write next, compiled for its tokenizer by llguidance."""

import json
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

from finch_integrations.constraints import Constraint
from finch_integrations.engine.matchers import (
    GrammarMatcher,
    Matcher,
    ThinkingMatcher,
    TriggeredMatcher,
    first_line,
)
from finch_integrations.engine.reasoning import Thoughts
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

    def begin(self, constraint: Constraint, text: str) -> GrammarMatcher | None:
        """A matcher for what follows a text; None: the text does not begin the language.

        Special tokens count where the text spells them.

        Raises:
            ConstraintError: As `compile` raises it.
        """
        matcher = self.compile(constraint)
        ids = list(self._tokenizer.tokenize_str(text, parse_special=True))
        return matcher if matcher.accept_text(ids) else None

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
        begin = partial(compiler.begin, constraint)
        return TriggeredMatcher(constraint, begin, tokenizer, thoughts)
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
    return first_line(matcher)
