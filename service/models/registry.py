"""The model registry: all versions of all models with their states, and how they are loaded, replaced and dropped."""

import logging
import random
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from threading import Event, Lock, RLock
from typing import Literal

import numpy as np

from kanmodel import Model, load
from kanmodel.arrays import Array
from kanmodel.computing import unpaused
from kanmodel.errors import CheckpointError, KanscopeError, NonFiniteError, quote
from service.models.repository import (
    FIRST_VERSION,
    CheckpointFile,
    Choice,
    Key,
    NoFolderError,
    list_checkpoints,
    read_choice,
    sign_file,
)
from service.models.stores import Mirror
from service.models.trust import TrustedKeys
from service.wire.errors import ErrorCode, NotFoundError, NotReadyError

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed", "unloaded"]
ROUNDING = 1e-6  # in standard deviations of a feature: that of a value that was a float32
_CODES: dict[State, ErrorCode] = {"failed": "model_failed", "unloaded": "model_unloaded"}


@dataclass(frozen=True, eq=False)
class Served:
    """A loaded model with its name in the paths of the API and its version; a request keeps the one it started with."""

    name: str
    model: Model
    version: str = FIRST_VERSION

    @cached_property
    def checkpoint(self) -> str:
        """The hash of its file, as stated in every answer."""
        return str(self.model.checkpoint)

    @cached_property
    def usual_values(self) -> tuple[Array, Array]:
        """Bounds of values in training ranges and finite for the network, (lookback, n_features): compares fast."""
        limit, shape = self.model.scaling.feature_limit, self.model.config.window_shape
        (low, high), rounding = self.model.feature_range, ROUNDING * self.model.scaling.feature_scale
        return np.full(shape, np.maximum(low - rounding, -limit)), np.full(shape, np.minimum(high + rounding, limit))


@dataclass(eq=False)
class Entry:
    """One version of a model, with its model while that is in memory. Only `Registry` changes it."""

    file: CheckpointFile  # as of the last read
    state: State = "loading"  # unloaded: on request; a model that is ready need not be in memory
    reason: str | None = None  # why the file cannot be loaded; if it is ready, the model loaded before is still served
    may_pass: bool = False  # whether the failure may be temporary, such as a disk error, so that loading is retried
    checkpoint: str | None = None  # the hash of what answers requests; None unless it is ready
    prepared: bool = False  # whether its global results were read beside the checkpoint when it was last loaded
    unprepared: str | None = None  # why they were not
    served: Served | None = None  # None while it is not in memory
    reading: Lock = field(default_factory=Lock)  # held by the thread that reads the file (single flight)

    def __post_init__(self) -> None:
        self.name, self.version = self.file.name, self.file.version

    @property
    def n_bytes(self) -> int:
        """Estimated memory: the file as it is, and in original units in float64; an ONNX Runtime session and modules.

        As much again for each network of bounds of its forecasts; and the results that were read beside the file.
        """
        n_bounded = n_results = 0
        if (served := self.served) is not None:
            n_bounded, prepared = served.model.bounded_models.count, served.model.prepared
            n_results = 0 if prepared is None else prepared.n_bytes
        return (3 * sum(self.file.signature[1:2]) + (1 << 20)) * (1 + n_bounded) + n_results

    @property
    def condition(self) -> str:
        """The state, as the predicate of a sentence."""
        return f"failed: {self.reason}" if self.state == "failed" else f"is {self.state}"


class ModelVersions(tuple[Entry, ...]):
    """All versions of a model, highest first, with the choice among them. It is never changed, only replaced."""

    choice: Choice | None  # the last valid one; None if there never was one, or its file was removed
    problem: str | None  # why the file is not what is followed

    @classmethod
    def of(cls, entries: Iterable[Entry], choice: Choice | None = None, problem: str | None = None) -> "ModelVersions":
        """Versions in any order."""
        made = cls(sorted(entries, key=lambda entry: entry.file.order))
        made.choice, made.problem = choice, problem
        return made

    @property
    def default(self) -> Entry:
        """The version that answers if a request names none: the one chosen, if it is ready or still to be read.

        Otherwise the highest that is ready, or still to be read; canaries and shadows only if there is no other.
        """
        choice = self.choice
        if choice is None:
            return min(self, key=lambda entry: (entry.state != "ready", entry.state != "loading"))

        def rank(entry: Entry) -> tuple[bool, ...]:
            is_tried = entry.version in choice.canary or entry.version in choice.shadow
            answers = entry.state in ("ready", "loading")
            return not answers, entry.version != choice.default, is_tried, entry.state != "ready"

        return min(self, key=rank)

    def draw(self) -> str | None:
        """The canary that answers a request that names no version, by chance; None for the default."""
        if self.choice is None or not self.choice.canary:
            return None
        drawn = random.random()  # nosec B311
        for version, share in self.choice.canary.items():
            drawn -= share
            if drawn < 0:
                return version if any(one.version == version and one.state == "ready" for one in self) else None
        return None


class Registry:
    """The models of a folder: `load` reads them, `poll` applies changes of their files. Threads may share it.

    All files are read and checked, and models are loaded as far as the budget goes; the first request that needs
    another one loads it, in place of the least recently used that no request uses. Readers need no lock: the index is
    an immutable mapping that is replaced as a whole. `load`, `poll` and `load_model` return the hashes of the models in
    memory that have become the default version of their name.

    Args:
        source: a folder of checkpoints, which may be empty, or one file; CheckpointError if it does not exist. Or a
            folder that follows a store, or None for the bundled model.
        budget: bytes of the models in memory, by estimate. Those in use may be more, and so may a single one.
        keys: those by which models must be signed; None if they need not be. The bundled model is trusted.
    """

    def __init__(self, source: Path | Mirror | None, budget: int = 1 << 30, keys: TrustedKeys | None = None) -> None:
        self._keys = None if source is None else keys
        self._mirror = source if isinstance(source, Mirror) else None
        self._path = source.folder if isinstance(source, Mirror) else source
        self._budget, self._stopping = budget, Event()
        self._missing: str | None = None  # what the last scan said of the folder
        self._listing: dict[Key, CheckpointFile] = {}  # of the last scan
        self._models: Mapping[str, ModelVersions] = {}
        if self._mirror is None:
            self._list_first()
        self._settled: dict[str, object] = {}  # by name: the choice and the entries that were last looked at
        self._loaded: OrderedDict[Entry, None] = OrderedDict()  # the least recently used first
        self._unloaded: frozenset[str] = frozenset()  # names that are not loaded again by a scan
        self._scanning, self._changing = Lock(), RLock()  # the folder; the index and what is in memory

    def index(self) -> Mapping[str, ModelVersions]:
        """All versions of all models by name, highest version first."""
        return self._models

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries of the index."""
        return tuple(entry for entries in self._models.values() for entry in entries)

    def count(self, state: State) -> int:
        """How many entries are in a state."""
        return sum(entry.state == state for entry in self.entries)

    @property
    def ready(self) -> bool:
        """Whether at least one model is ready."""
        return any(entry.state == "ready" for entry in self.entries)

    @property
    def is_listed(self) -> bool:
        """Whether it is known which models there are: of a store, once it was downloaded or was at an earlier time."""
        return self._mirror is None or bool(self._listing)

    @property
    def is_downloading(self) -> bool:
        """Whether nothing of a store is on this machine yet."""
        return self._mirror is not None and not list_checkpoints(self._mirror.folder)

    @property
    def problem(self) -> str | None:
        """Why the models may not be those of the folder or the store; None if they are."""
        if self._missing or self._mirror is None:
            return self._missing
        return self._mirror.problem or (None if self.is_listed else f"downloading the models of {self._mirror.name}")

    @property
    def is_missing(self) -> bool:
        """Whether there was no such file or folder at the last scan."""
        return self._missing is not None

    @property
    def n_bytes(self) -> int:
        """Estimated memory of the models."""
        with self._changing:
            return sum(entry.n_bytes for entry in self._loaded)

    def defaults(self) -> dict[str, Served | None]:
        """The default version of each model that is ready, by its hash; None if it is not in memory."""
        defaults = [versions.default for versions in self._models.values()]
        return {entry.checkpoint: entry.served for entry in defaults if entry.checkpoint is not None}

    def choose(self, name: str, version: str | None = None, or_loading: bool = False) -> Entry:
        """Returns a version of a model, by default `ModelVersions.default`, that is ready, or may also be loading.

        NotFoundError lists the models or versions that exist; NotReadyError says why it is not ready, or which are
        there is not known yet.
        """
        models = self._models
        if name not in models:
            raise self._refuse_unknown(name)
        versions = {entry.version: entry for entry in models[name]}
        if version is not None and version not in versions:
            message = f"model {name!r} has no version {quote(version)}; the versions are {', '.join(versions)}"
            raise NotFoundError(message, "version_not_found")
        entry = models[name].default if version is None else versions[version]
        if not (entry.state == "ready" or (or_loading and entry.state == "loading")):
            raise _not_ready(entry, entry.condition, version is not None)
        return entry

    def find(self, name: str, version: str | None = None) -> Served | None:
        """As `get`, but None if the model is not in memory."""
        return self._use(self.choose(name, version, or_loading=True))

    def get(self, name: str, version: str | None = None) -> Served:
        """Returns a model; if it is not in memory, it is loaded on this thread, once for all threads.

        Raises as `choose`, and NotReadyError if its file was replaced or deleted since the last scan.
        """
        while True:
            entry = self.choose(name, version, or_loading=True)
            with entry.reading:
                served, state = self._use(entry), entry.state
                if served is None and self._find(entry.file.key) is entry:  # not replaced meanwhile
                    self._read(entry, is_needed=True)
                    served = entry.served
                    with self._changing:
                        if self._find(entry.file.key) is not entry:
                            self._drop(entry)
                        elif entry.state != state:
                            self._models = dict(self._models)  # another index, because something in it has changed
            if served is not None:
                return served

    def load(self, until_ready: bool = False) -> tuple[str, ...]:
        """Reads the files in turn, perhaps until one is ready; one that fails does not affect the others."""
        with self._scanning:
            if not self.is_listed:
                with suppress(CheckpointError):  # the mirror has logged it
                    self._list_first()
            defaults = [versions.default for versions in self._models.values()]
            entries = sorted(self.entries, key=lambda entry: entry not in defaults)  # before what is only tried
            return self._follow((entry for entry in entries if entry.state == "loading"), until_ready=until_ready)

    def poll(self) -> tuple[str, ...]:
        """Scans the folder and applies each change that two scans in a row have seen; CheckpointError if it is missing.

        So a file is not read while it is being written, and a deleted version is served until the version that
        replaces it is ready. Files that could not be read because of a system error are retried. As `load` until a
        store has been listed.
        """
        if not self.is_listed:
            return self.load()
        with self._scanning:
            self._trim()
            before, self._listing = self._listing, self._list()
            done = {entry.file for entry in self.entries if not entry.may_pass}
            changed = [f for key, f in self._listing.items() if f == before.get(key) and f not in done]
            gone = {entry.file.key for entry in self.entries} - self._listing.keys() - before.keys()
            changed.sort(key=self._comes_later)
            new = [Entry(file, "unloaded" if file.name in self._unloaded else "loading") for file in changed]
            return self._follow(new, gone)

    def load_model(self, name: str) -> tuple[str, ...]:
        """Loads the versions of a model that are not served as they are on disk: at once, and failed ones again.

        Raises as `poll`; NotFoundError if there are no files of that name, NotReadyError until a store has been listed.
        """
        with self._scanning:
            if not self.is_listed:
                raise self._refuse_unknown(name)
            listing = self._list().values()
            files = sorted((file for file in listing if file.name == name), key=self._comes_later)
            if not files:
                raise _unknown_model(name, dict.fromkeys(file.name for file in listing))
            self._unloaded -= {name}
            current = {entry.file for entry in self.entries if entry.state == "ready" and entry.reason is None}
            return self._follow((Entry(file) for file in files if file not in current), are_needed=True)

    def unload_model(self, name: str) -> None:
        """Unloads all versions of a model until `load_model` loads it again; NotFoundError if there are none."""
        with self._scanning:
            if name not in self._models:
                raise self._refuse_unknown(name)
            self._unloaded |= {name}
            for entry in self._models[name]:
                self._replace(entry.file.key, Entry(entry.file, "unloaded"))
            logger.info("model %s is unloaded", name)

    def stop(self) -> None:
        """Ends a running scan after the file that it is reading."""
        self._stopping.set()
        if self._mirror is not None:
            self._mirror.stop()

    def _list_first(self) -> None:
        self._listing = self._list()
        names = groupby(self._listing.values(), key=lambda file: file.name)
        self._models = {name: self._choose_first(ModelVersions.of(map(Entry, files))) for name, files in names}

    def _list(self) -> dict[Key, CheckpointFile]:
        """The checkpoint files."""
        if self._mirror is not None:
            self._mirror.sync()
        try:
            listing = list_checkpoints(self._path)
        except CheckpointError as error:
            self._missing = str(error)
            raise
        self._missing = None
        return listing

    def _refuse_unknown(self, name: str) -> NotFoundError | NotReadyError:
        if not self.is_listed:
            return NotReadyError(f"there is no model yet: {self.problem}")
        return _unknown_model(name, self._models)

    def _find(self, key: Key) -> Entry | None:
        return next((entry for entry in self._models.get(key[0], ()) if entry.version == key[1]), None)

    def _follow(
        self, entries: Iterable[Entry], gone: Collection[Key] = (), until_ready: bool = False, are_needed: bool = False
    ) -> tuple[str, ...]:
        """Adds each entry as soon as its file is read, then drops the versions that are gone; returns new defaults."""
        before = set(self.defaults())
        for entry in entries:
            if self._stopping.is_set() or (until_ready and self.ready):
                break
            with entry.reading:
                if entry.state == "loading":  # not read for a request meanwhile
                    old = self._find(entry.file.key)
                    self._read(entry, are_needed or (old is not None and old.served is not None))
                self._replace(entry.file.key, entry)
        for key in gone:
            self._replace(key, None)
        if gone:
            logger.info("gone: %s", ", ".join(f"model {name}, version {version}" for name, version in sorted(gone)))
        self._settled = {name: seen for name, seen in self._settled.items() if name in self._models}
        for name in self._models:
            if not (until_ready or self._stopping.is_set()):
                self._settle(name)
        return tuple(one for one, served in self.defaults().items() if served is not None and one not in before)

    def _choose_first(self, versions: ModelVersions) -> ModelVersions:
        """What answers before the models are loaded: the default that is chosen, without canaries and shadows."""
        with suppress(CheckpointError):  # said once the files are read
            choice = read_choice(self._path, versions[0].name)
            if choice is not None and choice.default in {entry.version for entry in versions}:
                return ModelVersions.of(versions, Choice(default=choice.default))
        return versions

    def _comes_later(self, file: CheckpointFile) -> bool:
        """Whether a file is read after that of the default which is chosen, so that it does not answer before it."""
        choice = self._models.get(file.name, NO_VERSIONS).choice
        if choice is None:
            with suppress(CheckpointError):
                choice = read_choice(self._path, file.name)
        return choice is None or file.version != choice.default

    def _settle(self, name: str) -> None:
        """Follows the choice among the versions of a model, if it is valid and each version that it names is ready.

        Otherwise the last one that was stays, and the reason is logged once.
        """
        versions, choice, problem = self._models[name], None, None
        if name in self._unloaded:
            return
        try:
            choice = read_choice(self._path, name)
        except CheckpointError as error:
            if isinstance(error, NoFolderError) and versions.choice is None:
                return  # there is none that could stay
            problem = str(error)
        seen = choice, problem, [(entry.version, entry.state, entry.checkpoint) for entry in versions]
        if seen == self._settled.get(name) or (choice is not None and self._is_early(name, choice)):
            return
        self._settled[name] = seen
        if choice is not None:
            problem = self._refuse(name, choice)
        with self._changing:
            versions = self._models[name]
            followed = versions.choice if problem is not None else choice
            if (followed, problem) == (versions.choice, versions.problem):
                return
            self._models = {**self._models, name: ModelVersions.of(versions, followed, problem)}
        if problem is not None:
            text = "the choice among the versions of model %s stays as it was: %s; mend its versions.json"
            logger.warning(text, name, problem)
        else:
            said = "nothing" if choice is None else choice.model_dump_json(exclude_defaults=True)
            logger.info("model %s: version %s answers; chosen is %s", name, self._models[name].default.version, said)

    def _is_early(self, name: str, choice: Choice) -> bool:
        """Whether a choice names a version whose file is there, and is read by the next scans."""
        missing = {(name, version) for version in choice.named} - {entry.file.key for entry in self._models[name]}
        with suppress(CheckpointError):
            return bool(missing) and not missing.isdisjoint(list_checkpoints(self._path))
        return False

    def _refuse(self, name: str, choice: Choice) -> str | None:
        """Why a choice cannot be followed; None if it can. Loads the versions that it names."""
        known = [entry.version for entry in self._models[name]]
        if missing := [version for version in choice.named if version not in known]:
            return f"there is no version {missing[0]}; the versions are {', '.join(known)}"
        default = ModelVersions.of(self._models[name], choice).default.version
        try:
            configs = {version: self.get(name, version).model.config for version in (default, *choice.named)}
        except (KanscopeError, NotReadyError) as error:
            return str(error)
        taken = {
            version: (config.feature_names, config.lookback, config.series and config.series.name)
            for version, config in configs.items()
        }
        for version, windows in taken.items():
            if windows != taken[default]:
                return f"version {version} takes other windows than version {default}"
        return None

    def _replace(self, key: Key, new: Entry | None) -> None:
        """Replaces, adds or removes an entry of the index."""
        with self._changing:
            old, name = self._find(key), key[0]
            if new and old and new.state == "failed" and old is not new and old.served is not None:
                old.file, old.reason, old.may_pass = new.file, new.reason, new.may_pass  # what was loaded still serves
                new = old
            before = self._models.get(name, NO_VERSIONS)
            entries = [entry for entry in before if entry is not old] + ([new] if new else [])
            after = ModelVersions.of(entries, before.choice, before.problem)
            models = {**self._models, name: after if before or not entries else self._choose_first(after)}
            if not entries:
                del models[name]
            self._models = models if name in self._models else dict(sorted(models.items()))
            if old is not None and old is not new:
                self._drop(old)

    def _read(self, entry: Entry, is_needed: bool) -> None:
        """Reads the file of an entry, which is then ready or failed; without `is_needed` not a model that lacks room.

        NotReadyError, and nothing changes, if it was ready and its file was replaced or deleted, or fails for now.
        """
        file, before = entry.file, self._find(entry.file.key)
        try:
            if file.refusal is not None:
                raise CheckpointError(file.refusal)
            trusted = None if self._keys is None else self._keys.verify(file.path)
            has_room = not self._loaded or self.n_bytes + entry.n_bytes <= self._budget
            model = _load(file.path) if is_needed or has_room else None
            checkpoint = Model.identify(file.path) if model is None else model.checkpoint
            if sign_file(file.path) != file.signature or trusted not in (None, checkpoint):
                raise CheckpointError(f"{file.path.name} changed while it was read")
        except KanscopeError as error:
            reason, may_pass = str(error), isinstance(error.__cause__, OSError)
        except Exception:  # no file may keep the others from being served
            logger.exception("model %s, version %s cannot be loaded; please report this", file.name, file.version)
            reason, may_pass = f"{file.path.name} cannot be loaded; the log says why", False
        else:
            if entry.state != "ready":
                logger.info("model %s, version %s serves %s", file.name, file.version, checkpoint)
            entry.checkpoint = checkpoint
            if model is not None:
                with self._changing:
                    self._note_results(entry, model)
                    entry.served = Served(file.name, model, file.version)
                    self._loaded[entry] = None
                    self._trim()
            entry.state = "ready"  # last, as readiness is asked by other threads
            return
        if before is None or reason != before.reason:
            text = "model %s, version %s failed: %s; replace the file, and the next scan loads it"
            logger.warning(text, file.name, file.version, reason)
        if entry.state == "ready" and (may_pass or sign_file(file.path) != file.signature):
            raise _not_ready(entry, f"cannot be loaded: {reason}")
        entry.checkpoint, entry.reason, entry.may_pass, entry.state = None, reason, may_pass, "failed"

    def _note_results(self, entry: Entry, model: Model) -> None:
        """Notes where the global results of a model come from, and logs that once."""
        before = entry.prepared, entry.unprepared
        entry.prepared, entry.unprepared = model.prepared is not None, model.unprepared
        if (entry.prepared, entry.unprepared) == before:
            return
        of = f"the global results of model {entry.name}, version {entry.version}"
        if entry.prepared:
            logger.info("%s are read beside the checkpoint", of)
        elif entry.file.results:
            logger.warning("%s are computed: %s; `kanscope prepare` writes the file anew", of, entry.unprepared)
        else:
            logger.info("%s are computed: %s", of, entry.unprepared)

    def _use(self, entry: Entry) -> Served | None:
        """The model of an entry, marked as most recently used; None if it is not in memory."""
        with self._changing:
            if entry.served is not None:
                self._loaded.move_to_end(entry)
            return entry.served

    def _trim(self) -> None:
        """Drops models beyond the budget, except the latest, those in use, and those whose file is gone."""
        with self._changing:
            excess = self.n_bytes - self._budget
            for oldest in [*self._loaded][:-1]:
                n_bytes = oldest.n_bytes
                if excess > 0 and oldest.reason is None and _release(oldest):
                    del self._loaded[oldest]
                    excess -= n_bytes

    def _drop(self, entry: Entry) -> None:
        """Drops a model that is no longer served; requests that use it finish."""
        with self._changing:
            entry.served = None
            self._loaded.pop(entry, None)


def _release(entry: Entry) -> bool:
    """Releases a model, and returns whether its memory is free; if a request still refers to it, it is held again."""
    served, entry.served = entry.served, None
    assert served is not None
    of = weakref.ref(served.model)
    del served
    if (model := of()) is not None:
        entry.served = Served(entry.name, model, entry.version)
    return model is None


NO_VERSIONS = ModelVersions.of(())


def _load(path: Path) -> Model:
    """Loads a file, and warms the model up on a reference window; CheckpointError if its answers are not finite."""
    model = load(path).accelerate()
    window = model.scaling.features_to_original(model.reference.scaled[:1])
    try:
        model.predict(window)
        with unpaused():  # a request that gives up must not end what others wait for
            model.explain(window)  # with its skill
    except NonFiniteError as error:
        raise CheckpointError(f"{path.name} has no answer for its own reference window: {error}") from error
    return model


def _not_ready(entry: Entry, condition: str, of_version: bool = True) -> NotReadyError:
    what = f"version {entry.version} of model {entry.name!r}" if of_version else f"model {entry.name!r}"
    headers = {"Retry-After": "60"} if entry.state in _CODES else None
    return NotReadyError(f"{what} {condition}", headers=headers, code=_CODES.get(entry.state))


def _unknown_model(name: str, names: Iterable[str]) -> NotFoundError:
    message = f"there is no model {quote(name)}; the models are {', '.join(names) or 'none'}"
    return NotFoundError(message, "model_not_found")
