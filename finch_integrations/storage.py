"""Where this package keeps files of its own."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path


def models_folder() -> Path:
    """Folder of converted models; `FINCH_CACHE` moves it."""
    root = os.environ.get("FINCH_CACHE")
    return (Path(root) if root else user_cache_path("finch-integrations")) / "models"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a draft; it takes the place of `path` when the block ends without an error."""
    # In the same folder, so that the rename is atomic.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        draft = Path(folder) / "draft"
        yield draft
        os.replace(draft, path)
