"""Admission control (backpressure): how many requests and bytes a process takes on, by class of work and by owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.wire.errors import ErrorCode, OverloadedError, invalid_value
from service.wire.security import OWNER, Owner

Kind = Literal["forecast", "explanation", "background"]  # class of work
Place = Kind | Literal["request", "probe"]
RESERVED_PLACES = 3  # eighths of a limit of places that are reserved for small holders
RESERVED_BYTES = 2  # of a limit of bytes: one request may need more of them
EXPLAINING_SHARE = 0.5  # of the bytes, the most that explanations may hold, so that forecasts always have the rest
UNLIMITED = 1 << 62  # places or bytes of background work, which is never refused
N_PROBES = 32  # requests for health and metrics
_TAKEN = {
    "request": "requests are being answered already (max_concurrent)",
    "probe": f"requests for health and metrics are being answered already (of at most {N_PROBES})",
    "forecast": "requests are waiting already (max_queue)",
    "explanation": "explanations are waiting already (max_explanations)",
}


class Share:
    """A limit of places or bytes that owners share, so that none of them can use all of it.

    Some eighths are reserved for small holders: owners that hold at most an eighth with what they take. The others are
    open to everyone. So while at most as many other owners hold something as eighths are reserved, an owner has an
    eighth. For of `n` others, when one last takes something that makes it hold more than an eighth, all hold at most
    what is open; after that it can take nothing, and the others `n - 1` eighths.

    Attributes:
        limit: the most that all owners may hold together, `taken` what they hold; below 8, nothing is reserved.
        small: what a small holder may hold, an eighth; `largest` what one owner may.
    """

    def __init__(self, limit: int, reserved: int = RESERVED_PLACES) -> None:
        self.limit = limit
        self.small = limit // 8
        self.largest = limit - reserved * self.small
        self.taken = 0
        self._held: dict[Owner, int] = {}

    def held_by(self, owner: Owner) -> int:
        """What an owner holds."""
        return self._held.get(owner, 0)

    def has_room(self, owner: Owner, amount: int = 1) -> bool:
        """Whether an owner may take an amount now."""
        taken = self.taken + amount
        return taken <= self.largest or (taken <= self.limit and self.held_by(owner) + amount <= self.small)

    def take(self, owner: Owner, amount: int = 1) -> None:
        """Takes an amount, for which there must be room; a negative amount is given back."""
        self.taken += amount
        if held := self.held_by(owner) + amount:
            self._held[owner] = held
        else:
            self._held.pop(owner, None)


class Claim:
    """What one request holds for its owner: a place or none, and bytes of pools. A context, released at its end."""

    __slots__ = ("_n_bytes", "_owner", "_place", "_pools")

    def __init__(self, owner: Owner, place: Share | None, pools: tuple[Share, ...], n_bytes: int) -> None:
        self._owner, self._place, self._pools, self._n_bytes = owner, place, pools, 0
        if n_bytes:
            self.grow(n_bytes)
        if place is not None:
            place.take(owner)

    def grow(self, n_bytes: int) -> None:
        """Takes more bytes.

        Raises:
            DataError: they exceed what one owner may hold even without other requests.
            OverloadedError: not enough bytes are free for the owner at the moment.
        """
        for pool in self._pools:
            if n_bytes > pool.largest:
                asked, most = _megabytes(n_bytes), _megabytes(pool.largest)
                message = f"would take {asked} MB of memory, of at most {most} MB (max_work_bytes)"
                raise invalid_value("request", message, "limit_exceeded")
            if not pool.has_room(self._owner, n_bytes):
                held, own = _megabytes(pool.taken), _megabytes(pool.held_by(self._owner))
                message = f"requests hold {held} MB already, those of this client {own} MB (max_work_bytes)"
                raise OverloadedError(f"{message}; retry later")
        for pool in self._pools:
            pool.take(self._owner, n_bytes)
        self._n_bytes += n_bytes

    def release(self) -> None:
        """Gives everything back."""
        if self._place is not None:
            self._place.take(self._owner, -1)
        if self._n_bytes:
            for pool in self._pools:
                pool.take(self._owner, -self._n_bytes)
        self._place, self._n_bytes = None, 0

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f}" if n_bytes < 1e7 else f"{n_bytes / 1e6:.0f}"


@dataclass(frozen=True)
class Bounds:
    """Limits on pending work per process."""

    requests: int  # that are answered, `max_concurrent`, besides those for health and metrics
    forecasts: int  # requests that wait for one, `max_queue`
    explanations: int  # other requests that wait or are computed, `max_explanations`
    n_bytes: int  # memory of all requests together, `max_work_bytes`


class Budget:
    """The limits of `places` and of `pools` of bytes by class; explanations have half of the bytes."""

    def __init__(self, bounds: Bounds) -> None:
        self.places: dict[Place, Share] = {
            "request": Share(bounds.requests),
            "probe": Share(N_PROBES),
            "forecast": Share(bounds.forecasts),
            "explanation": Share(bounds.explanations),
            "background": Share(UNLIMITED),
        }
        self.pools: dict[Kind, Share] = {
            "forecast": Share(bounds.n_bytes, RESERVED_BYTES),
            "explanation": Share(int(bounds.n_bytes * EXPLAINING_SHARE), RESERVED_BYTES),
            "background": Share(UNLIMITED),
        }
        total, unlimited = Share(bounds.n_bytes, RESERVED_BYTES), Share(UNLIMITED)
        self.n_requests = 0  # that have asked for a place
        self._pools_of: dict[Place, tuple[Share, ...]] = {
            kind: (pool, unlimited if kind == "background" else total) for kind, pool in self.pools.items()
        }

    def claim(self, kind: Place, n_bytes: int = 0, place: bool = True) -> Claim:
        """A place, or none, and bytes for the owner of the current request. Background work is never refused.

        Raises:
            OverloadedError: no place is free for the owner, or not enough bytes.
            DataError: the bytes exceed the limit of the class even without other requests.
        """
        owner, places = OWNER.get(), self.places[kind] if place else None
        self.n_requests += kind == "request"
        if places is not None and not places.has_room(owner):
            message = f"{places.taken} {_TAKEN[kind]}"
            if places.taken < places.limit:
                message += f", {places.held_by(owner)} of them of this client, which is its share"
            code: ErrorCode = "busy" if kind in ("request", "probe") else "queue_full"
            raise OverloadedError(f"{message}; retry later", code=code)
        return Claim(owner, places, self._pools_of.get(kind, ()), n_bytes)
