"""JSON schemas for which there is a grammar, made of those for which there is none.

Keywords without a grammar (conditions, negations, counts of some kind of items, …) are written
with others. Where that cannot be done exactly, the new schema is narrower: all that is valid under
it is valid under the one that was given. A keyword that cannot even be narrowed stays, and the
compiler names it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from finch_integrations.json_schema import LISTS, MAPS, NOTES, SINGLE, resolve
from finch_integrations.schema_rules import RULES, joined

# Those that llguidance has grammars of.
FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"}
)
_IN_PLACE = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf")
_OPENING = (
    "additionalProperties",
    "patternProperties",
    "unevaluatedProperties",
    "propertyNames",
    "$dynamicRef",
)


def prepare(schema: Mapping[str, Any]) -> Any:
    """Change a schema so that a grammar can be made of it and ends; data in it stays.

    Formats without a grammar are left out: they are notes, as the standard says. Objects have only
    the properties that the schema names, where it does not say. What is no schema stays as it is.
    """
    narrowing = _Narrowing(schema, close_named=True)
    try:
        prepared = narrowing.narrow(schema, alone=True)
        if narrowing.joined:
            # What a reference names is only a part of what is to be valid somewhere.
            prepared = _Narrowing(schema, close_named=False).narrow(schema, alone=True)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return schema  # the compiler names what is wrong with it
    return prepared


class _Narrowing:
    """Narrows the parts of one schema.

    Attributes:
        joined: Whether a reference was met beside other keywords about the same data.
    """

    def __init__(self, root: Mapping[str, Any], *, close_named: bool) -> None:
        self._root = root
        self._close_named = close_named
        self.joined = False

    def narrow(self, schema: Any, *, alone: bool) -> Any:
        """Narrow a part.

        Args:
            schema: The part.
            alone: Whether no other part is about the same data.
        """
        if not isinstance(schema, Mapping):
            return schema
        changed = {key: value for key, value in schema.items() if not _is_note(key, value)}
        for rule in RULES:
            changed = rule(changed, self._root)
        says = changed.keys() - NOTES
        applied = says.intersection(_IN_PLACE)
        self.joined |= "$ref" in says and not (alone and says == {"$ref"})
        for key, value in changed.items():
            if key in ("$defs", "definitions"):
                inside = self._close_named
            elif key in _IN_PLACE:
                inside = alone and says == {key} and (key != "allOf" or len(value) == 1)
            else:
                inside = alone and not applied
            if key in MAPS and isinstance(value, Mapping):
                changed[key] = {n: self.narrow(part, alone=inside) for n, part in value.items()}
            elif key in LISTS and key != "oneOf" and isinstance(value, list):
                changed[key] = [self.narrow(part, alone=inside) for part in value]
            elif key in SINGLE and key != "not":  # what is narrower there is laxer here
                changed[key] = self.narrow(value, alone=inside)
        return self._close(changed) if alone else changed

    def _close(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Allow only the properties that the schema names, if it does not say."""
        parts = list(self._parts_in_place(schema, frozenset()))
        names = {name for part in parts for name in part.get("properties", ())}
        required = {name for part in parts for name in part.get("required", ())}
        least = max(part.get("minProperties", 0) for part in parts)
        says = any(key in part for part in parts for key in _OPENING)
        own = schema.keys() & {"properties", "allOf"}
        if says or not own or not names or not required <= names or least > len(names):
            return schema
        if not schema.keys() & set(_IN_PLACE):
            return {**schema, "additionalProperties": False}
        return joined(
            schema,
            {"properties": dict.fromkeys(sorted(names), True), "additionalProperties": False},
        )

    def _parts_in_place(self, schema: Any, refs: frozenset[str]) -> Iterator[Mapping[str, Any]]:
        """A schema and those in it that are about the same data."""
        if not isinstance(schema, Mapping):
            return
        yield schema
        for key in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(key, ()):
                yield from self._parts_in_place(part, refs)
        ref = schema.get("$ref")
        if isinstance(ref, str) and ref not in refs:
            yield from self._parts_in_place(resolve(ref, self._root), refs | {ref})


def _is_note(key: str, value: Any) -> bool:
    return key == "format" and isinstance(value, str) and value not in FORMATS
