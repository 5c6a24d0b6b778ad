"""Where this package keeps files of its own."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def models_folder() -> Path:
    """Folder of converted models; `FINCH_CACHE` moves it."""
    return _cache_folder() / "models"


def passages_folder() -> Path:
    """Folder of what models computed from passages; `FINCH_CACHE` moves it."""
    return _cache_folder() / "passages"


def _cache_folder() -> Path:
    root = os.environ.get("FINCH_CACHE")
    return Path(root) if root else user_cache_path("finch-integrations")
