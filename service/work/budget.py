"""Admission control (backpressure): how many requests and bytes a process takes on, by class of work and by owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.http.errors import BusyError, OverloadedError, RetryError
from service.http.owners import OWNER, Owner
from service.work.jobs import Kind
from service.work.shares import BYTES, Claim, Share

Place = Kind | Literal["request", "probe"]
EXPLAINING_SHARE = 0.5  # of the bytes, the most that explanations may hold, so that forecasts always have the rest
UNLIMITED = 1 << 62  # places or bytes of background work, which is never refused
N_PROBES = 32  # requests for health and metrics


@dataclass(frozen=True)
class Bounds:
    """Limits on pending work per process.

    Attributes:
        requests: requests that are answered, `max_concurrent`, besides those for health and metrics.
        forecasts: requests that wait for a forecast, `max_queue`.
        explanations: other requests that wait or are computed, `max_explanations`.
        n_bytes: memory of all requests together, `max_work_bytes`.
    """

    requests: int
    forecasts: int
    explanations: int
    n_bytes: int


class Budget:
    """The limits. Classes have places of their own, explanations at most half of the bytes; owners share each limit.

    Args:
        bounds: the limits.

    Attributes:
        places: usage of the places, by class.
        pools: usage of the bytes, by class.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.places: dict[Place, Share] = {
            "request": Share(bounds.requests),
            "probe": Share(N_PROBES),
            "forecast": Share(bounds.forecasts),
            "explanation": Share(bounds.explanations),
            "background": Share(UNLIMITED),
        }
        self.pools: dict[Kind, Share] = {
            "forecast": Share(bounds.n_bytes, BYTES),
            "explanation": Share(int(bounds.n_bytes * EXPLAINING_SHARE), BYTES),
            "background": Share(UNLIMITED),
        }
        together = Share(bounds.n_bytes, BYTES)
        self._pools_of: dict[Place, tuple[Share, ...]] = {
            "forecast": (self.pools["forecast"], together),
            "explanation": (self.pools["explanation"], together),
            "background": (self.pools["background"],),
        }

    def claim(self, kind: Place, n_bytes: int = 0, place: bool = True) -> Claim:
        """A place and bytes for the owner of the current request. Background work is never refused.

        Args:
            kind: the class.
            n_bytes: bytes to begin with.
            place: whether it takes a place, or only bytes.

        Raises:
            BusyError: no place is free for the owner, of those of requests or probes.
            DataError: the bytes exceed the limit of the class even without other requests.
            OverloadedError: no place, or not enough bytes, are free for the owner at the moment.
        """
        owner, places = OWNER.get(), self.places[kind] if place else None
        if places is not None and not places.has_room(owner):
            raise _refusal(kind, places, owner)
        claim = Claim(owner, places, self._pools_of.get(kind, ()))
        if n_bytes:
            try:
                claim.grow(n_bytes)
            except Exception:
                claim.release()
                raise
        return claim


def _refusal(kind: Place, places: Share, owner: Owner) -> RetryError:
    what, setting = {
        "request": ("requests are being answered", "max_concurrent"),
        "probe": ("requests for health and metrics are being answered", f"of at most {N_PROBES}"),
        "forecast": ("requests are waiting", "max_queue"),
        "explanation": ("explanations are waiting", "max_explanations"),
    }[kind]
    message = f"{places.taken} {what} already ({setting})"
    if places.taken < places.limit:
        message += f", {places.held_by(owner)} of them of this client, which is its share"
    return (BusyError if kind in ("request", "probe") else OverloadedError)(f"{message}; retry later")
