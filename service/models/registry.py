"""The model registry: all versions of all models with their states, and how they are loaded, replaced and unloaded."""

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
from kanmodel.errors import CheckpointError, KanscopeError, NonFiniteError, quote
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
    """A loaded model with its name and version. A request keeps the one that it started with.

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
        """The hash of its file, as stated in every answer."""
        return str(self.model.checkpoint)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return tuple(self.model.config.outputs)

    @cached_property
    def usual_values(self) -> tuple[Array, Array]:
        """Lower and upper bounds of values that are inside the training ranges and finite for the network.

        Each is (lookback, n_features), because numpy compares long rows faster than short ones.
        """
        limit, shape = self.model.scaling.feature_limit, self.model.config.window_shape
        low, high = self.model.feature_range
        low, high = np.maximum(low, -limit), np.minimum(high, limit)
        return np.broadcast_to(low, shape).copy(), np.broadcast_to(high, shape).copy()


@dataclass(frozen=True)
class Entry:
    """One version of a model, and the state of its file.

    Attributes:
        file: the file, as of the last read.
        state: loading, ready, failed, or unloaded on request.
        served: the model, while it is ready.
        reason: why the file cannot be loaded; the model that was ready before is then still served.
        may_pass: whether the failure may be temporary, such as a disk error, so that loading is retried.
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
        """The state, as the predicate of a sentence."""
        return f"failed: {self.reason}" if self.state == "failed" else f"is {self.state}"


class Registry:
    """The models of a folder: `load` loads them, `poll` applies changes of their files.

    Readers need no lock: the index is an immutable mapping that is replaced as a whole. `load`, `poll` and
    `load_model` return the models that have become the default version of their name.

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
        self._unloaded: frozenset[str] = frozenset()  # names that are not loaded again by a scan
        self._writing = Lock()

    def index(self) -> Mapping[str, tuple[Entry, ...]]:
        """All versions of all models by name, highest version first."""
        return self._models

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries of the index."""
        return tuple(entry for entries in self._models.values() for entry in entries)

    @property
    def ready(self) -> bool:
        """Whether loading has finished and at least one model is ready."""
        states = {entry.state for entry in self.entries}
        return "loading" not in states and "ready" in states

    @property
    def served(self) -> tuple[Served, ...]:
        """The default version of each model that is ready, in the order of their names."""
        defaults = map(choose_default, self._models.values())
        return tuple(entry.served for entry in defaults if entry.served is not None)

    def get(self, name: str, version: str | None = None) -> Served:
        """Returns a model that is ready.

        Args:
            name: its name.
            version: its version; None for the highest that is ready.

        Raises:
            UnknownModelError: there is no model of that name; the message lists those that exist.
            UnknownVersionError: it has no such version; likewise.
            NotReadyError: it is loading, unloaded, or failed; the message states the reason.
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
        """Loads the files in turn; one that fails does not affect the others."""
        with self._writing:
            return self._follow([entry.file for entry in self.entries if entry.state == "loading"])

    def poll(self) -> tuple[Served, ...]:
        """Scans the folder and applies each change that two scans in a row have seen.

        So a file is not read while it is being written, and a deleted version is served until the version that
        replaces it is ready. Files that could not be read because of a system error are retried.

        Raises:
            CheckpointError: there is nothing at the path; nothing changes.
        """
        with self._writing:
            before, self._listing = self._listing, self._list()
            known = {entry.file for entry in self.entries}
            done = {entry.file for entry in self.entries if not entry.may_pass}
            changed = [f for key, f in self._listing.items() if f == before.get(key) and f not in done]
            gone = {file.key for file in known} - self._listing.keys() - before.keys()
            return self._follow(changed, gone)

    def load_model(self, name: str) -> tuple[Served, ...]:
        """Loads the versions of a model that are not served as they are on disk: at once, and failed ones again.

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
        """Unloads all versions of a model until `load_model` loads it again.

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
        """Ends a running scan after the file that it is reading."""
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
        """Reads a file into an entry; if it cannot be loaded, the previous model of this version is still served."""
        if file.name in self._unloaded:
            return Entry(file, "unloaded")
        try:
            served = Served(file.name, _load(file), file.version)
        except KanscopeError as error:
            reason, may_pass = str(error), isinstance(error.__cause__, OSError)
        except Exception:  # no file may keep the others from being served
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
    """The version of a model that answers if a request names none: the highest that is ready."""
    return next((entry for entry in entries if entry.served is not None), entries[0])


def _choose_version(entries: Sequence[Entry], version: str) -> Entry:
    by_version = {entry.version: entry for entry in entries}
    if version not in by_version:
        name, versions = entries[0].name, ", ".join(by_version)
        raise UnknownVersionError(f"model {name!r} has no version {quote(version)}; the versions are {versions}")
    return by_version[version]


def _group(entries: Iterable[Entry]) -> Mapping[str, tuple[Entry, ...]]:
    ordered = sorted(entries, key=lambda entry: entry.file.order)
    return {name: tuple(versions) for name, versions in groupby(ordered, key=lambda entry: entry.name)}


def _load(file: CheckpointFile) -> Model:
    """Loads a file, and warms the model up with a forecast and an explanation of one of its reference windows.

    Raises:
        CheckpointError: the file is refused, is not a checkpoint, changed while it was read, or its answers are
            not finite.
    """
    if file.refusal is not None:
        raise CheckpointError(file.refusal)
    model = load(file.path)
    if sign_file(file.path) != file.signature:
        raise CheckpointError(f"{file.path.name} changed while it was read")
    model = model.accelerate()
    window = model.reference.windows[:1]
    try:
        model.predict(window)
        model.explain(window)
    except NonFiniteError as error:
        raise CheckpointError(f"{file.path.name} has no answer for its own reference window: {error}") from error
    return model


def _unknown_model(name: str, names: Iterable[str]) -> UnknownModelError:
    return UnknownModelError(f"there is no model {quote(name)}; the models are {', '.join(names) or 'none'}")
