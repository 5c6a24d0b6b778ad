"""What is kept about a folder of passages: its cap, and whether the disk is of any use."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from finch_integrations.engine.passage_files import MARKER, draft


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSpeed:
    """How fast entries are read.

    Attributes:
        bytes_per_second: From opening a file to checked tensors.
        cold: Whether the files were out of the page cache, so that the device was read.
    """

    bytes_per_second: float
    cold: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpeed:
    """How fast a model reads passages, and what it leaves of them.

    Attributes:
        tokens_per_second: How fast.
        bytes_per_token: Size of what is kept.
    """

    tokens_per_second: float
    bytes_per_token: int

    def __post_init__(self) -> None:
        if not (self.tokens_per_second >= 0 and self.bytes_per_token > 0):
            raise ValueError("a speed and a size are positive")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is known of a folder besides its entries.

    Attributes:
        max_bytes: The cap with which it was last opened; None: it never was.
        read_speed: None: it was not measured yet.
        models: How fast which model on which device read what is in there.
    """

    max_bytes: int | None = None
    read_speed: ReadSpeed | None = None
    models: Mapping[str, ModelSpeed] = field(default_factory=dict)


def keeping_pays(model: ModelSpeed, folder: ReadSpeed) -> bool:
    """Whether what a model read comes from a folder sooner than the model reads it again."""
    return folder.bytes_per_second >= model.tokens_per_second * model.bytes_per_token


def read_settings(path: Path) -> Settings:
    """Read a folder's settings; where they are missing or damaged, nothing is known."""
    try:
        content = json.loads((path / MARKER).read_text(encoding="utf-8"))
        speed = content["read_speed"]
        return Settings(
            max_bytes=int(content["max_bytes"]),
            read_speed=None
            if speed is None
            else ReadSpeed(
                bytes_per_second=float(speed["bytes_per_second"]), cold=bool(speed["cold"])
            ),
            models={
                str(name): ModelSpeed(
                    tokens_per_second=float(model["tokens_per_second"]),
                    bytes_per_token=int(model["bytes_per_token"]),
                )
                for name, model in content.get("models", {}).items()
            },
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return Settings()  # nothing in it that cannot be measured again


def write_settings(path: Path, settings: Settings) -> None:
    """Replace a folder's settings.

    Raises:
        OSError: They cannot be written.
    """
    content = json.dumps(asdict(settings), indent=2) + "\n"
    with draft(path, lambda file: _write_text(file, content)) as written:
        os.replace(written, path / MARKER)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
