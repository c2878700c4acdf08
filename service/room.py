"""What requests hold until their answers are sent: places, and the bytes of bodies and answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

from service.wire.errors import DeadlineError, OverloadedError, invalid_value
from service.wire.security import Owner

PATIENCE = 1.0  # seconds that a request waits for memory before bodies of who holds the most make room


class Deadline(NamedTuple):
    """When a request stops waiting: `time` by the clock of the event loop, `seconds` after its arrival."""

    seconds: float
    time: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline of a request that arrives now."""
        return cls(seconds, asyncio.get_running_loop().time() + seconds)

    def watch(self, outcome: asyncio.Future[Any], make_error: Callable[[Deadline], Exception]) -> None:
        """Makes a future fail at the deadline, by a timer alone."""

        def expire() -> None:
            if not outcome.done():
                outcome.set_exception(make_error(self))

        timer = outcome.get_loop().call_at(self.time, expire)
        outcome.add_done_callback(lambda _: timer.cancel())


class Hold:
    """What a request holds until its answer is sent: a place, and the bytes of its body and its answer.

    A context, released at its end.

    Attributes:
        owner: the client.
        is_forecast: whether it asks for a forecast, which comes before other requests.
        n_bytes: what it holds.
        give_way: refuses the request in favour of another one; None where it waits for nothing.
        has_begun: whether some of it is being computed.
    """

    __slots__ = ("_room", "give_way", "has_begun", "has_place", "is_forecast", "n_bytes", "owner")

    def __init__(self, room: Room, owner: Owner, is_forecast: bool) -> None:
        self._room, self.owner, self.is_forecast, self.n_bytes, self.has_place = room, owner, is_forecast, 0, True
        self.give_way: Callable[[Exception], object] | None = None
        self.has_begun = False

    async def take(self, n_bytes: int, deadline: Deadline) -> None:
        """Takes bytes, and waits for them where too many are held.

        Raises:
            DataError: they are more than all requests together may hold.
            DeadlineError: they were not free by the deadline.
            OverloadedError: the request has made room for another client.
        """
        await self._room.take(self, n_bytes, deadline)

    def add(self, n_bytes: int) -> None:
        """Counts bytes that are there already, such as those of an answer; negative ones are given back."""
        self._room.count(self, n_bytes)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.leave(self)


HOLD: ContextVar[Hold | None] = ContextVar("hold", default=None)  # of this task's request


class Room:
    """The places and the memory of all requests.

    A full room refuses the newest request of whoever has the most, first of those that have not begun: so a lone client
    gets everything, and another one still gets in (longest queue drop; Suter et al. 1998, INFOCOM). A forecast also
    takes the place of another request of its client that has not begun. What does not fit into memory waits unread.

    Args:
        places: most requests.
        most: most bytes.
        retry_after: seconds after which a refused request may be sent again.
    """

    def __init__(self, places: int, most: int, retry_after: Callable[[], float]) -> None:
        self.n_bytes = self.n_requests = 0  # held now; that have come so far
        self._places, self._most, self._retry_after, self.n_taken = places, most, retry_after, 0
        self._holds: dict[Owner, dict[Hold, None]] = {}  # by age
        self._waiting: list[tuple[Hold, int, asyncio.Future[None]]] = []

    def enter(self, owner: Owner, is_forecast: bool = False) -> Hold:
        """Takes a place; raises OverloadedError if none is free, and none can be made."""
        self.n_requests += 1
        if self.n_taken >= self._places and not self._make_place(owner, is_forecast):
            raise self._refuse(f"{self.n_taken} requests are being answered already (max_concurrent)")
        hold = Hold(self, owner, is_forecast)
        self._holds.setdefault(owner, {})[hold] = None
        self.n_taken += 1
        return hold

    async def take(self, hold: Hold, n_bytes: int, deadline: Deadline) -> None:
        """See `Hold.take`."""
        refuse_large(n_bytes, self._most)
        if not self._waiting and self.n_bytes + n_bytes <= self._most:
            return self.count(hold, n_bytes)
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        deadline.watch(outcome, self._expire)
        hold.give_way = partial(fail, outcome)
        patience = outcome.get_loop().call_later(PATIENCE, self._make_room, hold, n_bytes)
        waiting = (hold, n_bytes, outcome)
        self._waiting.append(waiting)
        try:
            await outcome
        finally:
            patience.cancel()
            hold.give_way = None
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._serve()

    def count(self, hold: Hold, n_bytes: int) -> None:
        """Counts bytes of a request."""
        hold.n_bytes += n_bytes
        self.n_bytes += n_bytes
        if n_bytes < 0:
            self._serve()

    def leave(self, hold: Hold) -> None:
        """Gives back all that a request holds."""
        self._free_place(hold)
        if hold.n_bytes:
            self.count(hold, -hold.n_bytes)

    def held_by(self, owner: Owner) -> int:
        """Bytes of one client."""
        return sum(hold.n_bytes for hold in self._holds.get(owner, ()))

    def _serve(self) -> None:
        """Gives bytes to those that wait: to who holds the least first, as far as they fit."""
        self._waiting = [one for one in self._waiting if not one[2].done()]
        while self._waiting:
            hold, n_bytes, outcome = first = min(self._waiting, key=lambda one: self.held_by(one[0].owner))
            if self.n_bytes + n_bytes > self._most:
                return
            self._waiting.remove(first)
            hold.give_way = None
            self.count(hold, n_bytes)
            outcome.set_result(None)

    def _make_place(self, owner: Owner, is_forecast: bool) -> bool:
        own, by_size = len(self._holds.get(owner, ())), sorted(self._holds, key=lambda one: -len(self._holds[one]))
        greedy = [one for one in by_size if one != owner and len(self._holds[one]) > own + 1]
        candidates = [hold for one in greedy for hold in reversed(self._holds[one]) if hold.give_way]
        candidates.sort(key=lambda hold: hold.has_begun)
        if is_forecast:
            own_holds = reversed(self._holds.get(owner, {}))
            candidates += [one for one in own_holds if one.give_way and not (one.is_forecast or one.has_begun)]
        if candidates:
            self._dismiss(candidates[0])
        return bool(candidates)

    def _make_room(self, hold: Hold, n_bytes: int) -> None:
        """Refuses bodies that are still arriving, of clients that hold more than this one would, until it fits."""
        wanted = self.held_by(hold.owner) + n_bytes
        for owner in sorted(self._holds, key=self.held_by, reverse=True):
            for other in [*reversed(self._holds[owner])]:
                is_served = hold.give_way is None or self.n_bytes + n_bytes <= self._most
                if is_served or self.held_by(owner) <= wanted:
                    break
                if owner != hold.owner and other.give_way and not other.has_begun and other.n_bytes:
                    self._dismiss(other)
                    self.count(other, -other.n_bytes)

    def _dismiss(self, hold: Hold) -> None:
        give_way, hold.give_way = hold.give_way, None
        assert give_way is not None
        give_way(self._refuse("other clients wait, and this one has the most requests"))
        self._free_place(hold)

    def _free_place(self, hold: Hold) -> None:
        if hold.has_place:
            hold.has_place = False
            self.n_taken -= 1
            del self._holds[hold.owner][hold]
            if not self._holds[hold.owner]:
                del self._holds[hold.owner]

    def _refuse(self, message: str) -> OverloadedError:
        return OverloadedError(f"{message}; retry later", headers=retry_in(self._retry_after()))

    def _expire(self, deadline: Deadline) -> DeadlineError:
        message = f"no memory was free for {deadline.seconds:g} s (max_work_bytes, request_timeout); retry later"
        return DeadlineError(message, headers=retry_in(self._retry_after()))


def refuse_large(n_bytes: int, most: int, advice: str = "") -> None:
    """Raises `DataError` if a request would take more memory than there is for all."""
    if n_bytes > most:
        asked, limit = (f"{n / 1e6:.1f}" if n < 1e7 else f"{n / 1e6:.0f}" for n in (n_bytes, most))
        message = f"would take {asked} MB of memory, of at most {limit} MB (max_work_bytes){advice}"
        raise invalid_value("request", message, "limit_exceeded")


def fail(outcome: asyncio.Future[Any], error: Exception) -> None:
    """Lets a future raise an error, unless it is done."""
    if not outcome.done():
        outcome.set_exception(error)


def retry_in(seconds: float) -> dict[str, str]:
    """The header that says when to try again, in whole seconds."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
