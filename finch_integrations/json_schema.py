"""JSON schemas as plain data: their parts, and what is changed before they are compiled."""

from collections.abc import Iterator, Mapping
from typing import Any

from finch_integrations.errors import ConstraintError

# Where a schema has other schemas.
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "additionalItems", "not")
# Those that llguidance has grammars of.
FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"}
)
# Where a schema has data, which is not changed.
_DATA = ("const", "enum", "default", "examples")
_OPENING = (
    "additionalProperties",
    "patternProperties",
    "unevaluatedProperties",
    "propertyNames",
    "anyOf",
    "oneOf",
    "$ref",
)


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


def prepare(schema: Mapping[str, Any]) -> Any:
    """Change a schema so that a grammar can be made of it and ends; data in it stays.

    Formats without a grammar are left out: they are notes, as the standard says. Objects have only
    the properties that the schema names, where it does not say: what is valid then is valid under
    the schema, too. Parts of an `allOf` add to one another, so schemas that have one stay open.
    """
    known = _without_unknown_formats(schema)
    return known if _has_all_of(known) else _close(known)


def _without_unknown_formats(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_unknown_formats(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: value if key in _DATA else _without_unknown_formats(value)
        for key, value in schema.items()
        if not (key == "format" and isinstance(value, str) and value not in FORMATS)
    }


def parts_of(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The schemas that are directly in a schema, with their places."""
    for key in _MAPS:
        inside = schema.get(key)
        if isinstance(inside, Mapping):
            for name, part in inside.items():
                if isinstance(part, Mapping):
                    yield f"{key}/{name}", part
    for key in _LISTS:
        inside = schema.get(key)
        if isinstance(inside, list):
            for number, part in enumerate(inside):
                if isinstance(part, Mapping):
                    yield f"{key}/{number}", part
    for key in _SINGLE:
        if isinstance(part := schema.get(key), Mapping):
            yield key, part


def _has_all_of(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(map(_has_all_of, schema))
    if not isinstance(schema, dict):
        return False
    return "allOf" in schema or any(
        _has_all_of(value) for key, value in schema.items() if key not in _DATA
    )


def _close(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            closed[key] = {name: _close(part) for name, part in value.items()}
        elif key in _LISTS or key in _SINGLE:
            closed[key] = _close(value)
        else:
            closed[key] = value
    properties = schema.get("properties")
    if isinstance(properties, dict) and properties and not any(key in schema for key in _OPENING):
        required = schema.get("required", [])
        least = schema.get("minProperties", 0)
        named = isinstance(required, list) and set(map(str, required)) <= properties.keys()
        if named and isinstance(least, int) and least <= len(properties):
            closed["additionalProperties"] = False
    return closed


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
        target = _resolve(ref, root)
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


def _resolve(ref: str, root: Mapping[str, Any]) -> Any:
    """The part of a schema that a local reference names; None if there is none."""
    part: Any = root
    if not ref.startswith("#"):
        return None
    for name in ref[1:].strip("/").split("/"):
        if name:
            name = name.replace("~1", "/").replace("~0", "~")
            part = part.get(name) if isinstance(part, Mapping) else None
    return part
