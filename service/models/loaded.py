"""The models in memory: within a budget of bytes, the least recently used are dropped and loaded again when needed."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import numpy as np

from kanmodel.data import Array
from kanmodel.model import Model
from service.models.repository import FIRST_VERSION, CheckpointFile

OVERHEAD = 1 << 20  # bytes of a model besides its file: its ONNX Runtime session and its modules
PREPARED = 3  # how often the bytes of its file are held: as they are, and in original units in float64


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

    @cached_property
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


@dataclass(eq=False)
class Source:
    """A checkpoint file, with its model while that is in memory.

    Attributes:
        file: the file.
        checkpoint: its hash; None until it is read.
        served: the model; None while it is not in memory. Only `Loaded` sets it.
        is_last: whether the file is no longer there, so that the model cannot be loaded again.
        reading: held by the thread that reads the file (single flight).
    """

    file: CheckpointFile
    checkpoint: str | None = None
    served: Served | None = None
    is_last: bool = False
    reading: Lock = field(default_factory=Lock)

    @property
    def n_bytes(self) -> int:
        """Estimated memory of the model."""
        return OVERHEAD + PREPARED * (self.file.signature[1] if self.file.signature else 0)


class Loaded:
    """The models in memory. Threads may share it.

    Args:
        budget: bytes, by estimate, beyond which the least recently used model that no request uses is dropped. A single
            model may be larger.

    Attributes:
        n_bytes: estimated memory of the models.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self.n_bytes = 0
        self._sources: OrderedDict[Source, None] = OrderedDict()  # the least recently used first
        self._lock = Lock()

    def get(self, source: Source) -> Served | None:
        """The model of a file, marked as most recently used; None if it is not in memory."""
        with self._lock:
            if source.served is not None:
                self._sources.move_to_end(source)
            return source.served

    def has_room(self, source: Source) -> bool:
        """Whether a model fits into memory without dropping another."""
        return not self._sources or self.n_bytes + source.n_bytes <= self._budget

    def put(self, source: Source, served: Served) -> None:
        """Holds a model, and drops others beyond the budget."""
        with self._lock:
            source.served, source.checkpoint = served, served.checkpoint
            self._sources[source] = None
            self.n_bytes += source.n_bytes
        self.trim()

    def trim(self) -> None:
        """Drops models beyond the budget, which those in use may have exceeded. The latest stays."""
        with self._lock:
            for oldest in [*self._sources][:-1]:
                if self.n_bytes <= self._budget:
                    return
                if not oldest.is_last and _release(oldest):
                    self._forget(oldest)

    def drop(self, source: Source) -> None:
        """Drops a model that is no longer served; requests that use it finish."""
        with self._lock:
            if source in self._sources:
                source.served = None
                self._forget(source)

    def keep(self, source: Source) -> bool:
        """Never drops a model whose file is gone; returns whether it is in memory."""
        with self._lock:
            source.is_last = source.served is not None
            return source.is_last

    def _forget(self, source: Source) -> None:
        del self._sources[source]
        self.n_bytes -= source.n_bytes


def _release(source: Source) -> bool:
    """Releases a model, and returns whether its memory is free; if a request still refers to it, it is held again."""
    served = source.served
    assert served is not None
    name, version, title, model = served.name, served.version, served.model.name, weakref.ref(served.model.loaded)
    del served
    source.served = None
    loaded = model()
    if loaded is not None:
        source.served = Served(name, Model(loaded, title), version)
    return loaded is None
