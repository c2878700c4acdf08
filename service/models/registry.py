"""The registry: every loaded version of every model, and the loading, replacing and unloading of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from threading import Event, Lock
from typing import Literal

import numpy as np

from kanmodel import load
from kanmodel.errors import CheckpointError, KanscopeError, NonFiniteError
from kanmodel.model import Model
from kanmodel.scaling import Array
from service.http.errors import ErrorCode, NotReadyError, UnknownModelError, UnknownVersionError
from service.models.repository import BUNDLED, FIRST_VERSION, CheckpointFile, Key, list_checkpoints, sign_file

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed", "unloaded"]
_RETRY_AFTER = {"loading": "1", "failed": "60", "unloaded": "60"}  # seconds
_CODES: dict[State, ErrorCode] = {"failed": "model_failed", "unloaded": "model_unloaded"}


@dataclass(frozen=True, eq=False)
class Served:
    """A model under its name and version, ready to answer. A request that holds one keeps it to its end.

    Attributes:
        name: its name in the paths of the API.
        model: the model.
        version: its version.
    """

    name: str
    model: Model
    version: str = FIRST_VERSION

    @property
    def checkpoint(self) -> str:
        """The identity of its file, as every answer states it."""
        return str(self.model.checkpoint)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return tuple(self.model.config.outputs)

    @cached_property
    def usual_values(self) -> tuple[Array, Array]:
        """The lowest and the highest values that are in the training ranges and finite for the network.

        Each is (lookback, n_features), since numpy compares long rows faster than short ones.
        """
        limit, shape = self.model.scaling.feature_limit, self.model.config.window_shape
        low, high = self.model.feature_range
        low, high = np.maximum(low, -limit), np.minimum(high, limit)
        return np.broadcast_to(low, shape).copy(), np.broadcast_to(high, shape).copy()


@dataclass(frozen=True)
class Entry:
    """One version of a model and what became of its file.

    Attributes:
        file: the file, as it was when it was last read.
        state: loading, ready, failed, or unloaded by command.
        served: the model, while it is ready.
        reason: why the file cannot be loaded; a version that was ready before stays so, as it was.
        may_pass: whether it may be loaded later although it has not changed, as after an error of the disk.
    """

    file: CheckpointFile
    state: State = "loading"
    served: Served | None = None
    reason: str | None = None
    may_pass: bool = False

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.file.name

    @property
    def version(self) -> str:
        """Its version."""
        return self.file.version

    @property
    def condition(self) -> str:
        """What became of its file, as the end of a sentence."""
        return f"failed: {self.reason}" if self.state == "failed" else f"is {self.state}"


class Registry:
    """The models of a folder: `load` reads them, `poll` follows the changes of their files.

    Readers need no lock: what is served is one immutable mapping, replaced as a whole. `load`, `poll` and
    `load_model` return the models that answer for their name now and did not before.

    Args:
        path: a folder of checkpoints or one file; None for the bundled model. If the folder is empty at the start, the
            bundled model is served until a model of the folder is ready.

    Raises:
        CheckpointError: there is nothing at `path`.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stands_in = not list_checkpoints(path, stand_in=False)  # the bundled model, until one of them is ready
        self._stopping = Event()
        self._listing = self._list()  # of the last scan
        self._models = _group(map(Entry, self._listing.values()))
        self._unloaded: frozenset[str] = frozenset()  # names that stay so until they are loaded again
        self._writing = Lock()

    def index(self) -> Mapping[str, tuple[Entry, ...]]:
        """Every version of every model that is wanted, by name, the highest version first."""
        return self._models

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The index in a row."""
        return tuple(entry for entries in self._models.values() for entry in entries)

    @property
    def ready(self) -> bool:
        """Whether loading is over and there is a model that answers."""
        states = {entry.state for entry in self.entries}
        return "loading" not in states and "ready" in states

    @property
    def served(self) -> tuple[Served, ...]:
        """The models that answer, by name; of each the version that answers where none is named."""
        defaults = map(choose_default, self._models.values())
        return tuple(entry.served for entry in defaults if entry.served is not None)

    def get(self, name: str, version: str | None = None) -> Served:
        """A model that can answer.

        Args:
            name: its name.
            version: its version; None for the highest that answers.

        Raises:
            UnknownModelError: there is none of that name.
            UnknownVersionError: it has no such version. Either message lists those there are.
            NotReadyError: it is loading, unloaded, or failed; the message says why.
        """
        models = self._models
        if name not in models:
            raise _unknown_model(name, models)
        entry = choose_default(models[name]) if version is None else _choose_version(models[name], version)
        if entry.served is None:
            what = f"model {name!r}" if version is None else f"version {version} of model {name!r}"
            retry = {"Retry-After": _RETRY_AFTER[entry.state]}
            raise NotReadyError(f"{what} {entry.condition}", headers=retry, code=_CODES.get(entry.state))
        return entry.served

    def load(self) -> tuple[Served, ...]:
        """Loads one file after the other; one that cannot be loaded leaves the others to serve."""
        with self._writing:
            return self._follow([entry.file for entry in self.entries if entry.state == "loading"])

    def poll(self) -> tuple[Served, ...]:
        """Looks at the files, and follows each change that two looks in a row have seen.

        So a file that is still being written waits, and a version that makes way for a higher one stays until that
        answers. What the system failed to read is tried again.

        Raises:
            CheckpointError: there is nothing at the path; everything stays as it is.
        """
        with self._writing:
            before, self._listing = self._listing, self._list()
            known = {entry.file for entry in self.entries}
            done = {entry.file for entry in self.entries if not entry.may_pass}
            changed = [f for key, f in self._listing.items() if f == before.get(key) and f not in done]
            gone = {file.key for file in known} - self._listing.keys() - before.keys()
            return self._follow(changed, gone)

    def load_model(self, name: str) -> tuple[Served, ...]:
        """Loads the versions of a model that do not serve as they lie there: at once, and again where they failed.

        Raises:
            UnknownModelError: there are no files of that name.
            CheckpointError: there is nothing at the path.
        """
        with self._writing:
            listing = self._list().values()
            files = [file for file in listing if file.name == name]
            if not files:
                raise _unknown_model(name, dict.fromkeys(file.name for file in listing))
            self._unloaded -= {name}
            current = {entry.file for entry in self.entries if entry.served and entry.reason is None}
            return self._follow([file for file in files if file not in current])

    def unload_model(self, name: str) -> None:
        """Lets go of every version of a model, until it is loaded by its name.

        Raises:
            UnknownModelError: there is no model of that name.
        """
        with self._writing:
            if name not in self._models:
                raise _unknown_model(name, self._models)
            self._unloaded |= {name}
            unloaded = tuple(Entry(entry.file, "unloaded") for entry in self._models[name])
            self._models = {**self._models, name: unloaded}
            logger.info("model %s is unloaded", name)

    def stop(self) -> None:
        """Has a look that is under way end after the file that it reads."""
        self._stopping.set()

    def _list(self) -> dict[Key, CheckpointFile]:
        """The checkpoint files, with the bundled one while it stands in."""
        listing = list_checkpoints(self._path, stand_in=False)
        return {**list_checkpoints(None), **listing} if self._stands_in else listing

    def _follow(self, changed: Iterable[CheckpointFile], gone: Collection[Key] = ()) -> tuple[Served, ...]:
        """Adds each changed file as soon as it is read, then drops the files that are gone."""
        before = self.served
        for file in changed:
            if self._stopping.is_set():
                break
            entries = {entry.file.key: entry for entry in self.entries}
            entries[file.key] = self._read(file, entries.get(file.key))
            self._models = _group(entries.values())
        if self._stands_in and any(map(_is_own, self.entries)):
            self._stands_in = False
            gone = {*gone, *(entry.file.key for entry in self.entries if entry.file.path.parent == BUNDLED)}
        if gone:
            self._models = _group(entry for entry in self.entries if entry.file.key not in gone)
            logger.info("gone: %s", ", ".join(f"model {name}, version {version}" for name, version in sorted(gone)))
        return tuple(served for served in self.served if served not in before)

    def _read(self, file: CheckpointFile, before: Entry | None) -> Entry:
        """The entry of a file; if the file cannot be loaded, the version before it is still served."""
        if file.name in self._unloaded:
            return Entry(file, "unloaded")
        try:
            served = Served(file.name, _load(file), file.version)
        except KanscopeError as error:
            reason, may_pass = str(error), isinstance(error.__cause__, OSError)
        except Exception:  # whatever a file does to us, the others serve
            logger.exception("model %s, version %s cannot be loaded", file.name, file.version)
            reason, may_pass = f"{file.path.name} cannot be loaded; the log says why", False
        else:
            logger.info("model %s, version %s serves %s", file.name, file.version, served.checkpoint)
            return Entry(file, "ready", served)
        if before is None or reason != before.reason:
            logger.warning("model %s, version %s failed: %s", file.name, file.version, reason)
        if before is not None and before.served is not None:
            return replace(before, file=file, reason=reason, may_pass=may_pass)
        return Entry(file, "failed", reason=reason, may_pass=may_pass)


def _is_own(entry: Entry) -> bool:
    """Whether it serves a file of the folder, rather than the bundled model or what was served before."""
    return entry.served is not None and entry.reason is None and entry.file.path.parent != BUNDLED


def choose_default(entries: Sequence[Entry]) -> Entry:
    """Of the versions of a model the one that answers where none is named: the highest that can."""
    return next((entry for entry in entries if entry.served is not None), entries[0])


def _choose_version(entries: Sequence[Entry], version: str) -> Entry:
    by_version = {entry.version: entry for entry in entries}
    if version not in by_version:
        name, versions = entries[0].name, ", ".join(by_version)
        raise UnknownVersionError(f"model {name!r} has no version {version!r}; the versions are {versions}")
    return by_version[version]


def _group(entries: Iterable[Entry]) -> Mapping[str, tuple[Entry, ...]]:
    ordered = sorted(entries, key=lambda entry: entry.file.order)
    return {name: tuple(versions) for name, versions in groupby(ordered, key=lambda entry: entry.name)}


def _load(file: CheckpointFile) -> Model:
    """The model of a file, warm: it has predicted and explained one of its reference windows.

    Raises:
        CheckpointError: the file must not be opened, is no checkpoint, was written to meanwhile, or its answers are
            not finite.
    """
    if file.refusal is not None:
        raise CheckpointError(file.refusal)
    model = load(file.path)
    if sign_file(file.path) != file.signature:
        raise CheckpointError(f"{file.path.name} changed while it was read")
    model.accelerate()
    window = model.reference.windows[:1]
    try:
        model.predict(window)
        model.explain(window)
    except NonFiniteError as error:
        raise CheckpointError(f"{file.path.name} has no answer for its own reference window: {error}") from error
    return model


def _unknown_model(name: str, names: Iterable[str]) -> UnknownModelError:
    return UnknownModelError(f"there is no model {name!r}; the models are {', '.join(names) or 'none'}")
