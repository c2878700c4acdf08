"""The model repository: a folder of checkpoints as models and versions; unsafe files are refused.

``name.safetensors`` is version 1, ``name/version.safetensors`` any one, and ``.results`` beside it has its prepared
results. Names in requests never become paths.
``name/versions.json`` chooses among the versions of a model.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kanmodel.errors import CheckpointError
from kanmodel.prepared import SUFFIX as RESULTS
from kanmodel.prepared import results_path

BUNDLED = Path(__file__).parents[1] / "bundled"
SUFFIX = ".safetensors"
SIGNATURE = ".sig"  # after the name of a file
FIRST_VERSION = "1"  # of a file that is not in a folder of versions
CHOICE = "versions.json"
_MAX_CHOICE = 1 << 16  # bytes of that file
_NAME, _VERSION = re.compile(r"[A-Za-z0-9._-]{1,64}"), re.compile(r"[1-9][0-9]*")

Key = tuple[str, str]  # name and version


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint file at the time of a scan; equal instances mean that it has not been written to in between."""

    name: str
    version: str
    path: Path
    signature: tuple[int, ...]  # inode, size and times of the last changes; empty if there is no file
    results: tuple[int, ...] = ()  # the same of the results beside it
    signed: tuple[int, ...] = ()  # the same of the signatures of both
    refusal: str | None = None  # why it must not be opened; None if it may

    @property
    def key(self) -> Key:
        """Name and version."""
        return self.name, self.version

    @property
    def order(self) -> tuple[str, int]:
        """Sort key: by name, highest version first."""
        return self.name, -int(self.version) if _VERSION.fullmatch(self.version) else 0


@dataclass(frozen=True)
class Stored:
    """A file of a store. As long as it is equal, so is the content."""

    name: str  # of the store's own
    mark: str  # such as a hash or a version
    size: int | None = None  # bytes, if they are known before the download


Version = Annotated[str, Field(pattern=f"^{_VERSION.pattern}$", max_length=64)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]


class Choice(BaseModel):
    """What ``versions.json`` says about requests that name no version."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    default: Version | None = None  # the version that answers; None: the highest that is neither of the following
    canary: dict[Version, Share] = Field(default_factory=dict)  # share of the requests that it answers instead
    shadow: dict[Version, Share] = Field(default_factory=dict)  # share that it forecasts too, to be counted only

    @model_validator(mode="after")
    def _check(self) -> "Choice":
        if sum(self.canary.values()) > 1 + 1e-9:
            raise ValueError("the shares of canary are above 1 together")
        named = self.named
        if twice := sorted(version for version in named if named.count(version) > 1):
            raise ValueError(f"version {twice[0]} is named twice among default, canary and shadow")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """The versions that it names, the default first."""
        return (*([] if self.default is None else [self.default]), *self.canary, *self.shadow)


class NoFolderError(CheckpointError):
    """The folder of a model is not there: the model was deleted, or its disk is gone for the moment."""


def read_choice(root: Path | None, name: str) -> Choice | None:
    """Reads the choice among the versions of a model of a folder; None if there is no such file.

    CheckpointError if it cannot be read or is not valid, `NoFolderError` if the folder of the model is not there.
    """
    folder = (root or BUNDLED) / name
    path = folder / CHOICE
    try:
        if not os.path.lexists(path):
            if os.path.lexists(folder) or os.path.lexists(f"{folder}{SUFFIX}") or (root or BUNDLED).is_file():
                return None
            raise NoFolderError(f"there is no folder {folder.name}")
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root or BUNDLED)):
            raise CheckpointError(f"{CHOICE} is a link that leaves the folder")
        if not os.path.isfile(path):
            raise CheckpointError(f"{CHOICE} is not a regular file")
        with path.open("rb") as file:
            content = file.read(_MAX_CHOICE + 1)
    except OSError as error:
        raise CheckpointError(f"{CHOICE} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_CHOICE:
        raise CheckpointError(f"{CHOICE} has more than {_MAX_CHOICE} bytes")
    try:
        return Choice.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = printable(".".join(map(str, first["loc"])))[:100]
        raise CheckpointError(f"{CHOICE} is not valid: {place and place + ': '}{printable(first['msg'])}") from error


def list_checkpoints(path: Path | None) -> dict[Key, CheckpointFile]:
    """Lists the checkpoints of a folder, by name and highest version first, or one file; None for the bundled model.

    Hidden files and folders are skipped. CheckpointError if there is nothing at `path`, or it cannot be read.
    """
    path = path or BUNDLED
    try:
        if not path.exists():
            raise CheckpointError(f"there is no file or folder {path}")
        files = [*_find_files(path)] if path.is_dir() else [(path.stem, FIRST_VERSION, path)]
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    listing: dict[Key, CheckpointFile] = {}
    for name, version, found in files:
        refusal = _refuse(name, version, found, path)
        results = results_path(found)
        signed = sign_file(signature_path(found)) + sign_file(signature_path(results))
        signatures = sign_file(found), sign_file(results), signed
        file = CheckpointFile(printable(name), printable(version), found, *signatures, refusal)
        if file.key in listing:
            both = " and ".join(printable(str(one.path.relative_to(path))) for one in (listing[file.key], file))
            file = replace(file, refusal=f"{both} are both version {version} of the model")
        listing[file.key] = file
    return {file.key: file for file in sorted(listing.values(), key=lambda file: file.order)}


def signature_path(path: Path) -> Path:
    """Where the signature of a file is, ``name.safetensors.sig`` beside it."""
    return path.with_name(f"{path.name}{SIGNATURE}")


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


def is_followed(path: str) -> bool:
    """Whether a file of a store is one that a folder of models may hold: never a hidden one, nor one elsewhere."""
    parts = path.split("/")
    is_read = path.endswith((SUFFIX, RESULTS, SIGNATURE)) or (len(parts) == 2 and parts[1] == CHOICE)
    return is_read and len(parts) <= 2 and all(part and not part.startswith(".") for part in parts)


def printable(name: str) -> str:
    """The name with bytes that are not UTF-8, and control characters, escaped: for answers and the log."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]
