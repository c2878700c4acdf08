"""The models that are served: the checkpoints of a folder, one file, or the bundled model."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kanmodel.checkpoint import LoadedModel, load_checkpoint
from kanmodel.errors import CheckpointError, KanscopeError, UnknownNameError
from service.errors import NotReadyError

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed"]
BUNDLED = Path(__file__).parent / "bundled"
VERSION = "1"  # of every model, until models have versions
SUFFIX = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RETRY_AFTER = {"loading": "1", "failed": "60"}  # seconds


@dataclass(frozen=True)
class Served:
    """A model under its name, ready to answer.

    Attributes:
        name: its name in the paths of the API.
        model: the model.
    """

    name: str
    model: LoadedModel

    @property
    def checkpoint(self) -> str:
        """The identity of its file, as every answer states it."""
        return f"sha256:{self.model.sha256}"


@dataclass(frozen=True)
class Entry:
    """One file and what became of it.

    Attributes:
        name: the stem of the file.
        path: the file.
        state: loading, ready or failed.
        model: the model, once it is ready.
        reason: why it failed.
    """

    name: str
    path: Path
    state: State = "loading"
    model: LoadedModel | None = None
    reason: str | None = None


class Registry:
    """The files that are wanted, found at once and loaded by `load`.

    Args:
        path: a folder of checkpoints or one file; None, or an empty folder, for the bundled model.

    Raises:
        CheckpointError: there is nothing at `path`.
    """

    def __init__(self, path: Path | None) -> None:
        self._entries = {entry.name: entry for entry in map(_enter, _find_files(path))}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every wanted model, by name."""
        return tuple(self._entries.values())

    @property
    def ready(self) -> bool:
        """Whether loading is over and there is a model that answers."""
        states = {entry.state for entry in self.entries}
        return "loading" not in states and "ready" in states

    @property
    def served(self) -> tuple[Served, ...]:
        """The models that answer, by name."""
        return tuple(Served(entry.name, entry.model) for entry in self.entries if entry.model is not None)

    def load(self) -> None:
        """Loads one file after the other; one that cannot be loaded leaves the others to serve."""
        for entry in self.entries:
            if entry.state == "loading":
                self._entries[entry.name] = _load(entry)

    def get(self, name: str) -> Served:
        """A model that can answer.

        Raises:
            UnknownNameError: there is no model of that name; the message lists those there are.
            NotReadyError: it is loading, or it failed; the message says why.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownNameError(f"there is no model {name!r}; the models are {', '.join(self._entries) or 'none'}")
        if entry.model is None:
            reason = (
                f"model {name!r} is loading" if entry.state == "loading" else f"model {name!r} failed: {entry.reason}"
            )
            raise NotReadyError(reason, headers={"Retry-After": _RETRY_AFTER[entry.state]})
        return Served(name, entry.model)


def _find_files(path: Path | None) -> list[Path]:
    """The checkpoints at a path, by name."""
    if path is not None and not path.exists():
        raise CheckpointError(f"there is no file or folder {path}")
    if path is not None and not path.is_dir():
        return [path]
    folders = (path, BUNDLED) if path is not None else (BUNDLED,)
    found = (sorted(p for p in folder.glob(f"*{SUFFIX}") if not p.name.startswith(".")) for folder in folders)
    return next((files for files in found if files), [])


def _enter(path: Path) -> Entry:
    if _NAME.fullmatch(path.stem):
        return Entry(path.stem, path)
    reason = f"the name of a file must match {_NAME.pattern}, but is {path.stem!r}"
    return Entry(path.stem, path, state="failed", reason=reason)


def _load(entry: Entry) -> Entry:
    try:
        return replace(entry, state="ready", model=load_checkpoint(entry.path))
    except KanscopeError as error:
        reason = str(error)
    except Exception:  # whatever a file does to us, the others serve
        logger.exception("model %s cannot be loaded", entry.name)
        reason = f"{entry.path.name} cannot be loaded; the log says why"
    logger.warning("model %s failed: %s", entry.name, reason)
    return replace(entry, state="failed", reason=reason)
