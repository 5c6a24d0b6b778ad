"""JSON schemas as plain data: their parts, and whether anything finite follows them."""

from collections.abc import Iterator, Mapping
from typing import Any

from finch_integrations.errors import ConstraintError

# Where a schema has other schemas.
MAPS = ("properties", "patternProperties", "$defs", "definitions")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = ("items", "additionalProperties", "additionalItems", "not")
# What says nothing about which data are valid.
_NOTE_NAMES = """
    $anchor $comment $defs $id $schema $vocabulary contentEncoding contentMediaType contentSchema
    default definitions deprecated description examples format id readOnly title writeOnly
"""
NOTES = frozenset(_NOTE_NAMES.split())


def check_finite(schema: Mapping[str, Any]) -> None:
    """Check that something finite can follow a schema.

    Raises:
        ConstraintError: A part that must be there contains itself, or parts are nested too deeply.
    """
    try:
        endless = _endless(schema, "#", schema, frozenset(), set())
    except RecursionError:
        raise ConstraintError(
            "the JSON schema is nested too deeply to be read. Name its parts in $defs"
        ) from None
    if endless:
        raise ConstraintError(
            f"the JSON schema cannot be followed at {endless}: a part that must be there contains "
            "itself without end. Make it optional, or give an alternative (anyOf) that ends"
        )


def parts_of(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The schemas that are directly in a schema, with their places."""
    for key in MAPS:
        inside = schema.get(key)
        if isinstance(inside, Mapping):
            for name, part in inside.items():
                if isinstance(part, Mapping):
                    yield f"{key}/{name}", part
    for key in LISTS:
        inside = schema.get(key)
        if isinstance(inside, list):
            for number, part in enumerate(inside):
                if isinstance(part, Mapping):
                    yield f"{key}/{number}", part
    for key in SINGLE:
        if isinstance(part := schema.get(key), Mapping):
            yield key, part


def _endless(
    schema: Any, pointer: str, root: Mapping[str, Any], open_refs: frozenset[str], finite: set[str]
) -> str:
    """The place of a part that never ends and must be there; empty if there is none."""
    if not isinstance(schema, Mapping) or "const" in schema or "enum" in schema:
        return ""
    parts: list[tuple[str, Any]] = []
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref not in finite:
        if ref in open_refs:
            return pointer
        target = resolve(ref, root)
        if found := _endless(target, pointer, root, open_refs | {ref}, finite):
            return found
        finite.add(ref)
    if schema.get("type") == "object" and isinstance(schema.get("properties"), Mapping):
        required = schema.get("required")
        names = required if isinstance(required, list) else []
        parts += [
            (f"properties/{name}", schema["properties"][name])
            for name in names
            if isinstance(name, str) and name in schema["properties"]
        ]
    least = schema.get("minItems", 0)
    if schema.get("type") == "array" and isinstance(least, int) and least > 0:
        parts.append(("items", schema.get("items")))
    if isinstance(schema.get("allOf"), list):
        parts += [(f"allOf/{number}", part) for number, part in enumerate(schema["allOf"])]
    for name, part in parts:
        if found := _endless(part, f"{pointer}/{name}", root, open_refs | {pointer}, finite):
            return found
    for key in ("anyOf", "oneOf"):
        choices = schema.get(key)
        if isinstance(choices, list) and choices:
            ends = [
                _endless(part, f"{pointer}/{key}/{number}", root, open_refs | {pointer}, finite)
                for number, part in enumerate(choices)
            ]
            if all(ends):
                return ends[0]
    return ""


def resolve(ref: str, root: Mapping[str, Any]) -> Any:
    """The part of a schema that a local reference names; None if there is none."""
    part: Any = root
    if not ref.startswith("#"):
        return None
    for name in ref[1:].strip("/").split("/"):
        if name:
            name = name.replace("~1", "/").replace("~0", "~")
            part = part.get(name) if isinstance(part, Mapping) else None
    return part
