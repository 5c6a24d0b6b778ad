"""The opposite of a JSON schema, as far as a grammar can express it.

What is returned may be stricter than the opposite, and never laxer: data that is valid under it is
invalid under the schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from finch_integrations.json_schema import resolve

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
# What counts the parts of data: the least and the most.
_LEAST = {"minLength": "maxLength", "minItems": "maxItems", "minProperties": "maxProperties"}
_MOST = {most: least for least, most in _LEAST.items()}
_TYPE_OF_COUNT = {"Length": "string", "Items": "array", "Properties": "object"}
_BOUNDS = {
    "minimum": "exclusiveMaximum",
    "exclusiveMinimum": "maximum",
    "maximum": "exclusiveMinimum",
    "exclusiveMaximum": "minimum",
}


def negate(schema: Any, root: Mapping[str, Any], refs: frozenset[str] = frozenset()) -> Any:
    """Make a schema of what is not valid under another; False: nothing of it can be expressed.

    Args:
        schema: The other one.
        root: What its references are in.
        refs: References that are being followed.
    """
    if not isinstance(schema, Mapping):
        return schema is False
    options: list[Any] = []
    for key, value in schema.items():
        options += [o for o in _failures(key, value, schema, root, refs) if o is not False]
    if True in options:
        return True
    return any_of(options)


def any_of(options: Sequence[Any]) -> Any:
    """A schema that at least one of others must allow."""
    if not options:
        return False
    return options[0] if len(options) == 1 else {"anyOf": list(options)}


def all_of(parts: Sequence[Any]) -> Any:
    """A schema of what several others allow."""
    if False in parts:
        return False
    parts = [part for part in parts if part is not True and part != {}]
    if not parts:
        return True
    return parts[0] if len(parts) == 1 else {"allOf": parts}


def are_disjoint(schemas: Sequence[Any], root: Mapping[str, Any]) -> bool:
    """Whether it is certain that nothing is valid under two of the schemas."""
    return all(
        _differ(_followed(a, root), _followed(b, root), root) for a, b in combinations(schemas, 2)
    )


def type_of(value: Any) -> str:
    """The type of a piece of data; whole numbers are integers, however they are written."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "integer" if value == int(value) else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def values_of(schema: Any, root: Mapping[str, Any]) -> list[Any] | None:
    """All data that a schema may allow, if it says so."""
    schema = _followed(schema, root)
    if not isinstance(schema, Mapping):
        return [] if schema is False else None
    if "const" in schema:
        return [schema["const"]]
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    if schema.get("type") == "boolean":
        return [False, True]
    return [None] if schema.get("type") == "null" else None


def same(first: Any, second: Any) -> bool:
    """Whether two pieces of data are equal as JSON: 1 is 1.0 and is not true."""
    if type_of(first) != type_of(second):
        return False
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    return bool(first == second)


def _failures(
    key: str, value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], refs: frozenset[str]
) -> Iterator[Any]:
    """What is invalid because of one keyword."""
    if key == "type":
        yield _of_other_types([value] if isinstance(value, str) else list(value))
    elif key in ("const", "enum"):
        yield from _other_values([value] if key == "const" else value)
    elif key in _BOUNDS:
        yield {"type": "number", _BOUNDS[key]: value}
    elif key in _LEAST and value > 0:
        yield {"type": _TYPE_OF_COUNT[key[3:]], _LEAST[key]: int(value) - 1}
    elif key in _MOST:
        yield {"type": _TYPE_OF_COUNT[key[3:]], _MOST[key]: int(value) + 1}
    elif key == "required":
        for name in value:
            yield {"type": "object", "properties": {name: False}}
    elif key == "properties":
        for name, part in value.items():
            if (wrong := negate(part, root, refs)) is not False:
                yield {"type": "object", "properties": {name: wrong}, "required": [name]}
    elif key == "items" and "prefixItems" not in schema:
        if (wrong := negate(value, root, refs)) is not False:
            yield {"type": "array", "prefixItems": [wrong], "minItems": 1}
    elif key == "$ref" and isinstance(value, str) and value not in refs:
        yield negate(resolve(value, root), root, refs | {value})
    elif key == "not":
        yield value
    elif key == "allOf":
        yield from (negate(part, root, refs) for part in value)
    elif key == "anyOf":
        yield all_of([negate(part, root, refs) for part in value])


def _of_other_types(types: Sequence[str]) -> Any:
    others = set(TYPES) - set(types)
    if "number" in types:
        others.discard("integer")
    elif "integer" in types:
        others.discard("number")  # whole numbers are written as such, too
    return {"type": sorted(others)} if others else False


def _other_values(values: Sequence[Any]) -> Iterator[Any]:
    types = {type_of(value) for value in values}
    yield _of_other_types([*types, "number"] if types & {"integer", "number"} else list(types))
    if "boolean" in types:
        yield from ({"const": value} for value in (False, True) if value not in values)
    numbers = [v for v in values if type_of(v) in ("integer", "number")]
    if numbers:
        yield {"type": "number", "exclusiveMaximum": min(numbers)}
        yield {"type": "number", "exclusiveMinimum": max(numbers)}
    if "string" in types:
        texts = [value for value in values if isinstance(value, str)]
        yield {"type": "string", "pattern": f"^{_other_texts(texts)}$"}


def _other_texts(texts: Sequence[str]) -> str:
    """A regular expression of every text but these."""
    following: dict[str, list[str]] = {}
    for text in texts:
        if text:
            following.setdefault(text[0], []).append(text[1:])
    options = [] if "" in texts else [""]
    options += [f"{_character(c)}{_other_texts(rest)}" for c, rest in following.items()]
    others = "".join(map(_character, following))
    options.append(rf"[^{others}][\s\S]*" if others else r"[\s\S]+")
    return f"(?:{'|'.join(options)})"


def _character(character: str) -> str:
    return f"\\{character}" if character in r"\^$.|?*+()[]{}-/" else character


def _followed(schema: Any, root: Mapping[str, Any]) -> Any:
    """A schema, or what it refers to."""
    for _ in range(32):
        if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
            return schema
        target = resolve(schema["$ref"], root)
        if target is None:
            return schema
        schema = target
    return schema


def _differ(first: Any, second: Any, root: Mapping[str, Any]) -> bool:
    if first is False or second is False:
        return True
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return False
    values = values_of(first, root), values_of(second, root)
    if values[0] is not None and values[1] is not None:
        return not any(same(a, b) for a in values[0] for b in values[1])
    if not _types(first, root) & _types(second, root):
        return True
    if _types(first, root) | _types(second, root) != {"object"}:
        return False
    # The property that tells them apart.
    shared = set(first.get("required", ())) & set(second.get("required", ()))
    parts = first.get("properties", {}), second.get("properties", {})
    return any(
        are_disjoint([parts[0].get(name, True), parts[1].get(name, True)], root) for name in shared
    )


def _types(schema: Mapping[str, Any], root: Mapping[str, Any]) -> set[str]:
    """The types that a schema may allow; whole numbers are numbers."""
    types = schema.get("type", list(TYPES))
    found = {types} if isinstance(types, str) else set(types)
    if (values := values_of(schema, root)) is not None:
        found &= {type_of(value) for value in values} | {"number"} if values else set()
    return {"number" if name == "integer" else name for name in found}
