"""Writing what the engine made to a file, completely or not at all, and taking it back.

Files may be damaged or forged: every value is checked against the type hints of what is read.
"""

import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from finch_integrations.errors import InvalidInputError
from finch_integrations.storage import replaced


@contextmanager
def saving(path: Path, name: str) -> Iterator[Path]:
    """Yield a file to write to; it replaces `path` when the block ends without an error.

    Args:
        path: The file to save to.
        name: What is saved, in errors.

    Raises:
        InvalidInputError: The folder does not exist, or `path` is a folder.
    """
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"there is no folder {path.parent} to save {name} in. Make it first"
        )
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder. Give a file to save {name} to")
    with replaced(path) as draft:
        yield draft


def to_json(facts: dict[str, Any], name: str) -> str:
    """Write plain data as JSON.

    Raises:
        InvalidInputError: It contains something else, such as an object among the variables of the
            chat template.
    """
    try:
        return json.dumps(facts, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{name} cannot be saved ({error}). Its chat_template_kwargs must be plain data"
        ) from error


def from_plain(kind: Any, value: Any, name: str = "it") -> Any:
    """Make an object of plain data, as `dataclasses.asdict` and JSON left it.

    Args:
        kind: A data class, or another type hint of a field of one.
        value: The data.
        name: What to call it in errors.

    Raises:
        ValueError: It is not of this kind.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _from_mapping(kind, value, name)
    if origin is tuple and isinstance(value, list):
        return tuple([from_plain(args[0], item, f"{name}[…]") for item in value])
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in args:
            return None
        (kind,) = (one for one in args if one is not types.NoneType)
        return from_plain(kind, value, name)
    if (origin is Mapping or typing.is_typeddict(kind)) and isinstance(value, dict):
        return value
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return value
    if origin is Literal and value in args:
        return value
    if kind in (int, str, bool) and type(value) is kind and not (kind is int and value < 0):
        return value
    raise ValueError(f"{name} is {value!r:.60}")


def _from_mapping(kind: Any, value: Any, name: str) -> Any:
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    known = {f.name for f in fields(kind)}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r:.60}")
    if wrong := (needed - value.keys()) | (value.keys() - known):
        raise ValueError(f"{name} lacks or should not have {', '.join(sorted(wrong))}")
    hints = typing.get_type_hints(kind)
    return kind(**{key: from_plain(hints[key], value[key], key) for key in value})
