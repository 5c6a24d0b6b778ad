"""What an answer must look like; plain data, checked when it is made."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from finch_integrations.documents import check_text
from finch_integrations.errors import ConstraintError
from finch_integrations.json_schema import check_finite

# A grammar of a megabyte takes half a minute to compile.
_MAX_LENGTH = 131_072


@dataclass(frozen=True, slots=True)
class Constraint:
    """A language that the answer must be in; make one with its class methods.

    The model can write nothing else: at every step only tokens that keep the answer in the language
    have a chance. An answer that reaches `max_tokens` first is cut and has the finish reason
    `length`.

    Attributes:
        kind: In which notation.
        text: The schema, expression or grammar.
        trigger: The answer is free until it contains this string, with which the language begins;
            it need not. None: the answer is in the language from its start.
        trigger_at_start: Whether the trigger counts only at the start of the answer.
    """

    kind: Literal["json_schema", "regex", "grammar"]
    text: str
    trigger: str | None = None
    trigger_at_start: bool = False

    def __post_init__(self) -> None:
        check_text(f"the {self.noun}", self.text)
        if len(self.text) > _MAX_LENGTH:
            raise ConstraintError(
                f"the {self.noun} has {len(self.text):,} characters; at most {_MAX_LENGTH:,} can "
                "be compiled. Leave out what the answer does not need"
            )

    @property
    def noun(self) -> str:
        """What messages call it."""
        return {"json_schema": "JSON schema", "regex": "regular expression"}.get(
            self.kind, "grammar"
        )

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str) -> Self:
        """JSON that is valid under a schema, written with a blank after `,` and `:`.

        Properties come in the order of the schema. Formats that have no known grammar are notes, as
        the standard says.

        Args:
            schema: The schema, or its JSON.

        Raises:
            ConstraintError: It is no JSON schema, or is too long.
        """
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except (ValueError, RecursionError) as error:
                raise ConstraintError(f"the JSON schema is no JSON: {error}") from error
        if not isinstance(schema, Mapping):
            raise ConstraintError(
                f"a JSON schema must be an object, got {type(schema).__name__}. "
                'For any JSON give {"type": "object"}'
            )
        check_finite(schema)
        try:
            text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConstraintError(f"the JSON schema cannot be written as JSON: {error}") from error
        return cls("json_schema", text)

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """Text that a regular expression matches as a whole (Rust's syntax, without look-around).

        Raises:
            ConstraintError: It is too long.
        """
        return cls("regex", pattern)

    @classmethod
    def choice(cls, options: Sequence[str]) -> Self:
        """One of several texts.

        Raises:
            ConstraintError: There is none, or one is empty.
        """
        if isinstance(options, str) or not options or not all(map(_is_text, options)):
            raise ConstraintError(f"give a list of texts to choose from, got {options!r:.200}")
        return cls("regex", "|".join(f"(?:{re.escape(option)})" for option in options))

    @classmethod
    def grammar(cls, lark: str) -> Self:
        """Text of a context-free grammar in Lark's notation as llguidance reads it.

        Raises:
            ConstraintError: It is too long.
        """
        return cls("grammar", lark)


def _is_text(option: object) -> bool:
    return isinstance(option, str) and bool(option)
