"""Admission control (backpressure): how many requests and bytes each class of work may hold in a process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from service.http.errors import OverloadedError, unusable
from service.work.jobs import Kind

EXPLAINING_SHARE = 0.5  # of the bytes, the most that explanations may hold, so that forecasts always have the rest


@dataclass(frozen=True)
class Bounds:
    """Limits on pending work per process.

    Attributes:
        forecasts: requests that wait for a forecast, `max_queue`.
        explanations: other requests that wait or are computed, `max_explanations`.
        n_bytes: memory of all requests together, `max_work_bytes`.
    """

    forecasts: int
    explanations: int
    n_bytes: int


class Budget:
    """Usage of the limits. Each class has its own places, so that no class can starve another.

    Args:
        bounds: the limits.

    Attributes:
        taken: places in use, by class.
        held: bytes in use, by class.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._places: Mapping[Kind, tuple[int, str]] = {
            "forecast": (bounds.forecasts, "max_queue"),
            "explanation": (bounds.explanations, "max_explanations"),
        }
        self._n_bytes: Mapping[Kind, int] = {
            "forecast": bounds.n_bytes,
            "explanation": int(bounds.n_bytes * EXPLAINING_SHARE),
        }
        self._all_bytes = bounds.n_bytes
        self.taken: dict[Kind, int] = {"forecast": 0, "explanation": 0, "background": 0}
        self.held: dict[Kind, int] = {"forecast": 0, "explanation": 0, "background": 0}

    def take(self, kind: Kind, n_bytes: int = 0) -> None:
        """Takes a place and bytes, to be returned by `give_back`. Background work is never refused.

        Raises:
            DataError: the bytes exceed the limit of the class even without other requests.
            OverloadedError: no place, or not enough bytes, are free at the moment.
        """
        if kind in self._places and self.taken[kind] >= self._places[kind][0]:
            places, setting = self._places[kind]
            what = "requests" if kind == "forecast" else "explanations"
            raise OverloadedError(f"{places} {what} are waiting already ({setting}); retry later")
        self.hold(kind, n_bytes)
        self.taken[kind] += 1

    def give_back(self, kind: Kind, n_bytes: int = 0) -> None:
        """Returns a place and its bytes."""
        self.taken[kind] -= 1
        self.held[kind] -= n_bytes

    def hold(self, kind: Kind, n_bytes: int) -> None:
        """Takes bytes without a place, to be returned by `release`.

        Raises:
            DataError: they exceed the limit of the class even without other requests.
            OverloadedError: not enough bytes are free at the moment.
        """
        limit = self._n_bytes.get(kind)
        if n_bytes and limit is not None:
            if n_bytes > limit:
                asked, most = _megabytes(n_bytes), _megabytes(limit)
                message = f"would take {asked} MB of memory, of at most {most} MB (max_work_bytes)"
                raise unusable("request", message, "limit_exceeded")
            if self.held[kind] + n_bytes > limit or sum(self.held.values()) + n_bytes > self._all_bytes:
                held = _megabytes(sum(self.held.values()))
                raise OverloadedError(f"requests hold {held} MB already (max_work_bytes); retry later")
        self.held[kind] += n_bytes

    def release(self, kind: Kind, n_bytes: int) -> None:
        """Returns bytes taken by `hold`."""
        self.held[kind] -= n_bytes

    @contextmanager
    def place(self, kind: Kind, n_bytes: int = 0) -> Iterator[None]:
        """A place and bytes for the duration of the context; see `take`."""
        self.take(kind, n_bytes)
        try:
            yield
        finally:
            self.give_back(kind, n_bytes)


class Held:
    """A context for the bytes of one request that grows, such as its body; they are released at its end.

    Args:
        budget: the budget that is charged.
        kind: class of the request.
    """

    def __init__(self, budget: Budget, kind: Kind) -> None:
        self._budget, self._kind = budget, kind
        self._n_bytes = 0

    def grow(self, n_bytes: int) -> None:
        """Charges more bytes; see `Budget.hold`."""
        self._budget.hold(self._kind, n_bytes)
        self._n_bytes += n_bytes

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.release(self._kind, self._n_bytes)
        self._n_bytes = 0


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f}" if n_bytes < 1e7 else f"{n_bytes / 1e6:.0f}"
