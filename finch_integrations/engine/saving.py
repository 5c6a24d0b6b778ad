"""Writing what the engine made to a file: completely or not at all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
