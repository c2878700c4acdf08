"""The model repository: a folder of checkpoints as models and versions; unsafe files are refused.

``name.safetensors`` is version 1, ``name/version.safetensors`` any one. Names in requests never become paths.
"""

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
_NAME, _VERSION = re.compile(r"[A-Za-z0-9._-]{1,64}"), re.compile(r"[1-9][0-9]*")

Key = tuple[str, str]  # name and version


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint file at the time of a scan; equal instances mean that it has not been written to in between."""

    name: str
    version: str
    path: Path
    signature: tuple[int, ...]  # inode, size and times of the last changes; empty if there is no file
    refusal: str | None = None  # why it must not be opened; None if it may

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

    Hidden files and folders are skipped. CheckpointError if there is nothing at `path`.
    """
    path = path or BUNDLED
    if not path.exists():
        raise CheckpointError(f"there is no file or folder {path}")
    listing: dict[Key, CheckpointFile] = {}
    for name, version, found in _find_files(path) if path.is_dir() else [(path.stem, FIRST_VERSION, path)]:
        refusal = _refuse(name, version, found, path)
        file = CheckpointFile(_printable(name), _printable(version), found, sign_file(found), refusal)
        if file.key in listing:
            both = " and ".join(_printable(str(one.path.relative_to(path))) for one in (listing[file.key], file))
            file = replace(file, refusal=f"{both} are both version {version} of the model")
        listing[file.key] = file
    return {file.key: file for file in sorted(listing.values(), key=lambda file: file.order)}


def sign_file(path: Path) -> tuple[int, ...]:
    """The signature of a file; see `CheckpointFile`."""
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return ()


def _find_files(folder: Path, model: str | None = None) -> Iterator[tuple[str, str, Path]]:
    """Yields name, version and path of each file that is not hidden, unchecked; `model` names a folder of versions."""
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if path.suffix == SUFFIX:
            yield (path.stem, FIRST_VERSION, path) if model is None else (model, path.stem, path)
        elif model is None and os.path.isdir(path):
            with suppress(PermissionError, FileNotFoundError):  # such as lost+found, or deleted a moment ago
                yield from _find_files(path, path.name)


def _refuse(name: str, version: str, path: Path, root: Path) -> str | None:
    """Why a file must not be opened: an invalid name, a link out of the folder, a pipe. None if it may."""
    if not _NAME.fullmatch(name):
        return f"the name of a model must match {_NAME.pattern}, but is {name!r}"
    if not _VERSION.fullmatch(version):
        return f"a version must be a whole number from 1 without leading zeros, but is {version!r}"
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return f"{path.name} is a link that leaves the folder"
    return f"{path.name} is not a regular file" if os.path.exists(path) and not os.path.isfile(path) else None


def _printable(name: str) -> str:
    """The name with bytes that are not UTF-8, and control characters, escaped: for answers and the log."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]
