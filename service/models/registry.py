"""The model registry: all versions of all models with their states, and how they are loaded, replaced and unloaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from threading import Event, Lock
from typing import Literal, TypeVar

from kanmodel import load
from kanmodel.errors import CheckpointError, KanscopeError, NonFiniteError, quote
from kanmodel.model import Model
from service.http.errors import ErrorCode, NotReadyError, UnknownModelError, UnknownVersionError
from service.models.loaded import Loaded, Served, Source
from service.models.repository import BUNDLED, CheckpointFile, Key, list_checkpoints, sign_file

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
State = Literal["loading", "ready", "failed", "unloaded"]
_RETRY_AFTER = {"loading": "1", "failed": "60", "unloaded": "60"}  # seconds
_PREFERENCE = {"ready": 0, "loading": 1, "failed": 2, "unloaded": 2}
_CODES: dict[State, ErrorCode] = {"failed": "model_failed", "unloaded": "model_unloaded"}


@dataclass(frozen=True)
class Entry:
    """One version of a model, and the state of its file.

    Attributes:
        file: the file, as of the last read.
        source: what the model is loaded from: the file, or, if that cannot be loaded, what was served before it.
        state: loading, ready, failed, or unloaded on request. A model that is ready need not be in memory.
        reason: why the file cannot be loaded; the model that was ready before is then still served.
        may_pass: whether the failure may be temporary, such as a disk error, so that loading is retried.
    """

    file: CheckpointFile
    source: Source
    state: State = "loading"
    reason: str | None = None
    may_pass: bool = False

    @classmethod
    def of(cls, file: CheckpointFile, state: State = "loading") -> Entry:
        """The entry of a file that has not been read."""
        return cls(file, Source(file), state)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.file.name

    @property
    def version(self) -> str:
        """Its version."""
        return self.file.version

    @property
    def is_ready(self) -> bool:
        """Whether it answers requests."""
        return self.state == "ready"

    @property
    def checkpoint(self) -> str | None:
        """The hash of the file that answers requests, if it does."""
        return self.source.checkpoint if self.is_ready else None

    @property
    def served(self) -> Served | None:
        """The model, while it is in memory."""
        return self.source.served

    @property
    def condition(self) -> str:
        """The state, as the predicate of a sentence."""
        return f"failed: {self.reason}" if self.state == "failed" else f"is {self.state}"


class Registry:
    """The models of a folder: `load` reads them, `poll` applies changes of their files.

    All files are read and checked, and models are loaded as far as the budget goes. The others are loaded by the first
    request that needs them, and the least recently used make room for them.

    Readers need no lock: the index is an immutable mapping that is replaced as a whole. `load`, `poll` and
    `load_model` return the hashes of the models in memory that have become the default version of their name.

    Args:
        path: a folder of checkpoints or one file; None for the bundled model. If the folder is empty at the start, the
            bundled model is served until a model of the folder is ready.
        budget: bytes of the models in memory, see `Loaded`.

    Raises:
        CheckpointError: there is nothing at `path`.
    """

    def __init__(self, path: Path | None, budget: int = 1 << 30) -> None:
        self._path = path
        self._stands_in = not list_checkpoints(path, stand_in=False)  # the bundled model, until one of them is ready
        self._stopping = Event()
        self._listing = self._list()  # of the last scan
        self._models = _group(map(Entry.of, self._listing.values()))
        self._unloaded: frozenset[str] = frozenset()  # names that are not loaded again by a scan
        self._loaded = Loaded(budget)
        self._scanning = Lock()
        self._replacing = Lock()  # of the index

    def index(self) -> Mapping[str, tuple[Entry, ...]]:
        """All versions of all models by name, highest version first."""
        return self._models

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries of the index."""
        return tuple(entry for entries in self._models.values() for entry in entries)

    @property
    def ready(self) -> bool:
        """Whether at least one model is ready."""
        return any(entry.is_ready for entry in self.entries)

    @property
    def n_bytes(self) -> int:
        """Estimated memory of the models."""
        return self._loaded.n_bytes

    def defaults(self) -> dict[str, Served | None]:
        """The default version of each model that is ready, by its hash; None if it is not in memory."""
        defaults = map(choose_default, self._models.values())
        return {entry.checkpoint: entry.served for entry in defaults if entry.checkpoint is not None}

    def choose(self, name: str, version: str | None = None) -> Entry:
        """Returns a version that is ready.

        Args:
            name: the name of the model.
            version: the version; None for the highest that is ready.

        Raises:
            UnknownModelError: there is no model of that name; the message lists those that exist.
            UnknownVersionError: it has no such version; likewise.
            NotReadyError: it is loading, unloaded, or failed; the message states the reason.
        """
        entry = self._choose(name, version)
        if not entry.is_ready:
            raise _not_ready(entry, entry.condition, version is not None)
        return entry

    def _choose(self, name: str, version: str | None) -> Entry:
        """As `choose`, but also a version that is still loading."""
        models = self._models
        if name not in models:
            raise _unknown_model(name, models)
        entry = choose_default(models[name]) if version is None else _choose_version(models[name], version)
        if entry.state in _CODES:
            raise _not_ready(entry, entry.condition, version is not None)
        return entry

    def find(self, name: str, version: str | None = None) -> Served | None:
        """As `get`, but None if the model is not in memory."""
        return self._loaded.get(self._choose(name, version).source)

    def get(self, name: str, version: str | None = None) -> Served:
        """Returns a model; if it is not in memory, it is loaded on this thread, once for all threads.

        Args:
            name: its name.
            version: its version; None for the highest that is ready.

        Raises:
            UnknownModelError: as `choose`, and so are the others.
            NotReadyError: also if its file was replaced or deleted since the last scan.
        """
        while True:
            entry = self._choose(name, version)
            served = self._loaded.get(entry.source) or self._load(entry)
            if served is not None:
                return served

    def load(self, until_ready: bool = False) -> tuple[str, ...]:
        """Reads the files in turn, perhaps until one is ready; one that fails does not affect the others."""
        with self._scanning:
            before = set(self.defaults())
            for entry in self.entries:
                if self._stopping.is_set() or (until_ready and self.ready):
                    break
                with entry.source.reading:
                    if entry.state == "loading" and self._is_current(entry):  # not read for a request meanwhile
                        self._change(entry.file.key, self._read(entry.source, entry, is_needed=False))
            return self._find_new(before)

    def poll(self) -> tuple[str, ...]:
        """Scans the folder and applies each change that two scans in a row have seen.

        So a file is not read while it is being written, and a deleted version is served until the version that
        replaces it is ready. Files that could not be read because of a system error are retried.

        Raises:
            CheckpointError: there is nothing at the path; nothing changes.
        """
        with self._scanning:
            self._loaded.trim()
            before, self._listing = self._listing, self._list()
            known = {entry.file for entry in self.entries}
            done = {entry.file for entry in self.entries if not entry.may_pass}
            changed = [f for key, f in self._listing.items() if f == before.get(key) and f not in done]
            gone = {file.key for file in known} - self._listing.keys() - before.keys()
            return self._follow(changed, gone)

    def load_model(self, name: str) -> tuple[str, ...]:
        """Loads the versions of a model that are not served as they are on disk: at once, and failed ones again.

        Raises:
            UnknownModelError: there are no files of that name.
            CheckpointError: there is nothing at the path.
        """
        with self._scanning:
            listing = self._list().values()
            files = [file for file in listing if file.name == name]
            if not files:
                raise _unknown_model(name, dict.fromkeys(file.name for file in listing))
            self._unloaded -= {name}
            current = {entry.file for entry in self.entries if entry.is_ready and entry.reason is None}
            return self._follow([file for file in files if file not in current], are_needed=True)

    def unload_model(self, name: str) -> None:
        """Unloads all versions of a model until `load_model` loads it again.

        Raises:
            UnknownModelError: there is no model of that name.
        """
        with self._scanning:
            if name not in self._models:
                raise _unknown_model(name, self._models)
            self._unloaded |= {name}
            for entry in self._models[name]:
                self._change(entry.file.key, Entry.of(entry.file, "unloaded"))
            logger.info("model %s is unloaded", name)

    def stop(self) -> None:
        """Ends a running scan after the file that it is reading."""
        self._stopping.set()

    def _list(self) -> dict[Key, CheckpointFile]:
        """The checkpoint files, with the bundled one while it stands in."""
        listing = list_checkpoints(self._path, stand_in=False)
        return {**list_checkpoints(None), **listing} if self._stands_in else listing

    def _follow(
        self, changed: Iterable[CheckpointFile], gone: Collection[Key] = (), are_needed: bool = False
    ) -> tuple[str, ...]:
        """Adds each changed file as soon as it is read, then drops the files that are gone."""
        before = set(self.defaults())
        for file in changed:
            if self._stopping.is_set():
                break
            old = next((entry for entry in self._models.get(file.name, ()) if entry.version == file.version), None)
            is_needed = are_needed or (old is not None and old.served is not None)
            self._change(file.key, self._read(Source(file), old, is_needed))
        if self._stands_in and any(map(_is_own, self.entries)):
            self._stands_in = False
            gone = {*gone, *(entry.file.key for entry in self.entries if entry.file.path.parent == BUNDLED)}
        for key in gone:
            self._change(key, None)
        if gone:
            logger.info("gone: %s", ", ".join(f"model {name}, version {version}" for name, version in sorted(gone)))
        return self._find_new(before)

    def _find_new(self, before: Collection[str]) -> tuple[str, ...]:
        return tuple(one for one, served in self.defaults().items() if served is not None and one not in before)

    def _is_current(self, entry: Entry) -> bool:
        return entry in self._models.get(entry.name, ())

    def _change(self, key: Key, new: Entry | None, only: Entry | None = None) -> bool:
        """Replaces, adds or removes the entry of a version in the index.

        Args:
            key: name and version.
            new: the new entry; None for none.
            only: the entry that it replaces; nothing changes if another thread has replaced that one.

        Returns:
            Whether the index has changed.
        """
        name, version = key
        with self._replacing:
            old = next((entry for entry in self._models.get(name, ()) if entry.version == version), None)
            if only not in (None, old):
                return False
            entries = [entry for entry in self._models.get(name, ()) if entry is not old]
            models = {**self._models, **_group(entries if new is None else [*entries, new])}
            if new is None and not entries:
                del models[name]
            self._models = models if name in self._models else dict(sorted(models.items()))
            if old is not None and (new is None or new.source is not old.source):
                self._loaded.drop(old.source)
            return True

    def _load(self, entry: Entry) -> Served | None:
        """Loads a model for a request; None if that fails, or if the entry was replaced meanwhile.

        Raises:
            NotReadyError: its file was replaced or deleted since the last scan, or cannot be read for now.
        """
        source, file = entry.source, entry.source.file
        with source.reading:
            served = self._loaded.get(source)
            if served is not None or not self._is_current(entry):
                return served
            read = self._read(source, entry, is_needed=True)
            served = read.served
            if entry.is_ready and not read.is_ready and (read.may_pass or sign_file(file.path) != file.signature):
                raise _not_ready(entry, f"cannot be loaded: {read.reason}")
            if not (self._is_current(entry) if read == entry else self._change(file.key, read, only=entry)):
                self._loaded.drop(source)
            return served

    def _read(self, source: Source, before: Entry | None, is_needed: bool) -> Entry:
        """Reads a file into an entry; if it cannot be loaded, the previous model of this version is still served.

        Args:
            source: the file.
            before: the entry of this version.
            is_needed: whether to load the model even if others must be dropped for it; otherwise, if there is no room,
                the file is only checked.
        """
        file, is_new = source.file, source.checkpoint is None
        if file.name in self._unloaded:
            return Entry.of(file, "unloaded")
        try:
            if is_needed or self._loaded.has_room(source):
                self._loaded.put(source, Served(file.name, _load(file), file.version))
            else:
                source.checkpoint = _open(file, Model.identify)
        except KanscopeError as error:
            reason, may_pass = str(error), isinstance(error.__cause__, OSError)
        except Exception:  # no file may keep the others from being served
            logger.exception("model %s, version %s cannot be loaded", file.name, file.version)
            reason, may_pass = f"{file.path.name} cannot be loaded; the log says why", False
        else:
            if is_new:
                logger.info("model %s, version %s serves %s", file.name, file.version, source.checkpoint)
            return Entry(file, source, "ready")
        if before is None or reason != before.reason:
            logger.warning("model %s, version %s failed: %s", file.name, file.version, reason)
        if before is not None and before.source is not source and self._loaded.keep(before.source):
            return replace(before, file=file, reason=reason, may_pass=may_pass)
        return Entry(file, source, "failed", reason, may_pass)


def _is_own(entry: Entry) -> bool:
    """Whether it serves a file of the folder, rather than the bundled model or what was served before."""
    return entry.is_ready and entry.reason is None and entry.file.path.parent != BUNDLED


def choose_default(entries: Sequence[Entry]) -> Entry:
    """The version of a model that answers if a request names none: the highest that is ready, or still to be read."""
    return min(entries, key=lambda entry: _PREFERENCE[entry.state])


def _choose_version(entries: Sequence[Entry], version: str) -> Entry:
    by_version = {entry.version: entry for entry in entries}
    if version not in by_version:
        name, versions = entries[0].name, ", ".join(by_version)
        raise UnknownVersionError(f"model {name!r} has no version {quote(version)}; the versions are {versions}")
    return by_version[version]


def _group(entries: Iterable[Entry]) -> dict[str, tuple[Entry, ...]]:
    ordered = sorted(entries, key=lambda entry: entry.file.order)
    return {name: tuple(versions) for name, versions in groupby(ordered, key=lambda entry: entry.name)}


def _open(file: CheckpointFile, read: Callable[[Path], Result]) -> Result:
    """Reads a file.

    Raises:
        CheckpointError: the file is refused, is not a checkpoint, or has changed since it was listed.
    """
    if file.refusal is not None:
        raise CheckpointError(file.refusal)
    result = read(file.path)
    if sign_file(file.path) != file.signature:
        raise CheckpointError(f"{file.path.name} changed while it was read")
    return result


def _load(file: CheckpointFile) -> Model:
    """Loads a file, and warms the model up with a forecast and an explanation of one of its reference windows.

    Raises:
        CheckpointError: as `_open`, or its answers are not finite.
    """
    model = _open(file, load).accelerate()
    window = model.scaling.features_to_original(model.loaded.reference.windows[:1])  # `reference` would convert all
    try:
        model.predict(window)
        model.explain(window)
    except NonFiniteError as error:
        raise CheckpointError(f"{file.path.name} has no answer for its own reference window: {error}") from error
    return model


def _not_ready(entry: Entry, condition: str, of_version: bool = True) -> NotReadyError:
    what = f"version {entry.version} of model {entry.name!r}" if of_version else f"model {entry.name!r}"
    headers = {"Retry-After": _RETRY_AFTER.get(entry.state, "1")}
    return NotReadyError(f"{what} {condition}", headers=headers, code=_CODES.get(entry.state))


def _unknown_model(name: str, names: Iterable[str]) -> UnknownModelError:
    return UnknownModelError(f"there is no model {quote(name)}; the models are {', '.join(names) or 'none'}")
