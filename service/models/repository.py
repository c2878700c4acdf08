"""The model repository: a folder of checkpoints as models and versions; unsafe files are refused.

``name.safetensors`` is version 1 of a model, ``name/version.safetensors`` any version of it. Names in requests are
looked up in this listing, and never become paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kanmodel.errors import CheckpointError

BUNDLED = Path(__file__).parents[1] / "bundled"
SUFFIX = ".safetensors"
FIRST_VERSION = "1"  # of a file that is not in a folder of versions
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VERSION = re.compile(r"[1-9][0-9]*")

Key = tuple[str, str]  # name and version


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint file at the time of a scan; equal instances mean that it has not been written to in between.

    Attributes:
        name: name of the model.
        version: its version.
        path: the file.
        signature: inode, size and times of the last changes; empty if there is no file, as for a broken link.
        refusal: why it must not be opened; None if it may.
    """

    name: str
    version: str
    path: Path
    signature: tuple[int, ...]
    refusal: str | None = None

    @property
    def key(self) -> Key:
        """Name and version."""
        return self.name, self.version

    @property
    def order(self) -> tuple[str, int]:
        """Sort key: by name, highest version first."""
        return self.name, -int(self.version) if _VERSION.fullmatch(self.version) else 0


def list_checkpoints(path: Path | None) -> dict[Key, CheckpointFile]:
    """Lists the checkpoints of a folder, by name and highest version first, or one file; None for the bundled model.

    Hidden files and folders are skipped.

    Raises:
        CheckpointError: there is nothing at `path`.
    """
    path = path or BUNDLED
    if not path.exists():
        raise CheckpointError(f"there is no file or folder {path}")
    if path.is_dir():
        return _list_folder(path)
    file = _describe(path.stem, FIRST_VERSION, path)
    return {file.key: file}


def sign_file(path: Path) -> tuple[int, ...]:
    """The signature of a file; see `CheckpointFile`."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _list_folder(folder: Path) -> dict[Key, CheckpointFile]:
    listing: dict[Key, CheckpointFile] = {}
    for name, version, path in _find_files(folder):
        file = _describe(name, version, path, folder)
        if file.key in listing:
            both = " and ".join(_printable(str(one.path.relative_to(folder))) for one in (listing[file.key], file))
            file = replace(file, refusal=f"{both} are both version {version} of the model")
        listing[file.key] = file
    return {file.key: file for file in sorted(listing.values(), key=lambda file: file.order)}


def _find_files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yields name, version and path of each file, unchecked."""
    for path in _list_visible(folder):
        if path.suffix == SUFFIX:
            yield path.stem, FIRST_VERSION, path
        elif os.path.isdir(path):
            with suppress(PermissionError, FileNotFoundError):  # such as lost+found, or deleted a moment ago
                yield from ((path.name, file.stem, file) for file in _list_visible(path) if file.suffix == SUFFIX)


def _list_visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _describe(name: str, version: str, path: Path, folder: Path | None = None) -> CheckpointFile:
    """Describes a file; it must not be opened with an invalid name, as a link out of the folder, or as a pipe."""
    refusal = None
    if not _NAME.fullmatch(name):
        refusal = f"the name of a model must match {_NAME.pattern}, but is {name!r}"
    elif not _VERSION.fullmatch(version):
        refusal = f"a version must be a whole number from 1 without leading zeros, but is {version!r}"
    elif folder is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        refusal = f"{path.name} is a link that leaves the folder"
    elif os.path.exists(path) and not os.path.isfile(path):
        refusal = f"{path.name} is not a regular file"
    return CheckpointFile(_printable(name), _printable(version), path, sign_file(path), refusal)


def _printable(name: str) -> str:
    """The name with bytes that are not UTF-8, and control characters, escaped: for answers and the log."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]
