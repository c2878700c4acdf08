"""Requests that wait: until when, whose turn it is, and which of them are computed together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from service.telemetry.observation import span
from service.wire.errors import DeadlineError
from service.wire.security import OWNER, Owner

if TYPE_CHECKING:
    from service.work.jobs import Job

Result = TypeVar("Result")
N_KNOWN = 1000  # owners whose use is remembered


@dataclass(frozen=True)
class Deadline:
    """When a request stops waiting: `time` by the clock of the event loop, `seconds` after its arrival."""

    seconds: float
    time: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline of a request that arrives now."""
        return cls(seconds, asyncio.get_running_loop().time() + seconds)

    async def wait(self, result: Awaitable[Result]) -> Result:
        """Awaits a result until the deadline, when it is cancelled; then raises `DeadlineError`."""
        try:
            async with asyncio.timeout_at(self.time) as timeout:
                with span("wait"):
                    return await result
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self._error() from None

    def watch(self, outcome: asyncio.Future[Any]) -> None:
        """Makes a future fail with the same error at the deadline, by a timer alone."""

        def expire() -> None:
            if not outcome.done():
                outcome.set_exception(self._error())

        timer = outcome.get_loop().call_at(self.time, expire)
        outcome.add_done_callback(lambda _: timer.cancel())

    def _error(self) -> DeadlineError:
        message = f"the result is still being computed after {self.seconds:g} s (request_timeout); retry later"
        return DeadlineError(message)


@dataclass(eq=False, slots=True)
class Waiter:
    """A request that waits for a result."""

    item: Any = None  # what is computed for it in a batch, of which it takes `size`
    size: int = 1
    deadline: Deadline | None = None  # when it leaves a queue; None if the caller handles it
    owner: Owner = field(default_factory=OWNER.get)
    context: Context = field(default_factory=copy_context)  # with its span
    outcome: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    job: Job | None = None  # what computes it on a thread of the executor

    def attempt(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a function in the request's context, or the error that it raises."""
        try:
            return self.context.run(function, *arguments)
        except Exception as error:
            return error


def resolve(waiters: Iterable[Waiter], results: Iterable[Any]) -> None:
    """Gives each request its result, or the exception to raise, unless it has gone or is past its deadline."""
    for waiter, result in zip(waiters, results, strict=False):  # a repeated error has no end
        if waiter.outcome.done():
            continue
        if isinstance(result, BaseException):
            waiter.outcome.set_exception(result)
        else:
            waiter.outcome.set_result(result)


class Turns:
    """Whose turn it is: start-time fair queueing (Goyal, Vin and Cheng 1996, SIGCOMM), with owners as flows.

    Each owner has a virtual time, which advances by what it uses; the least is next. One that was away begins at the
    time of who was last served: it is next soon, and has saved nothing up.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._times: dict[Owner, float] = {}

    def next(self, owners: Iterable[Owner]) -> Owner:
        """The owner whose turn it is; of several the first."""
        owner = min(owners, key=self._time_of)
        self._now = self._time_of(owner)
        if len(self._times) > N_KNOWN:
            self.forget()
        self._times[owner] = self._now
        return owner

    def charge(self, owner: Owner, amount: float) -> None:
        """Counts what an owner has used since its turn began."""
        self._times[owner] = self._times.get(owner, self._now) + amount

    def forget(self) -> None:
        """Lets everyone begin anew, as when nobody waits any more."""
        self._times.clear()

    def order(self, waiters: Iterable[Waiter]) -> list[Waiter]:
        """Requests in the order of their owners' turns, if each uses its size."""
        times: dict[Owner, float] = {}
        starts: list[tuple[float, Waiter]] = []
        for waiter in waiters:
            start = times.get(waiter.owner, self._time_of(waiter.owner))
            times[waiter.owner] = start + waiter.size
            starts.append((start, waiter))
        return [waiter for _, waiter in sorted(starts, key=lambda one: one[0])]

    def _time_of(self, owner: Owner) -> float:
        return max(self._times.get(owner, 0.0), self._now)


class Batches:
    """Natural batching: what waits for the same computation when a batch of it can begin, forms that batch.

    Nothing waits for a batch to fill, and batches grow with the load up to the size `largest`; a larger item is a batch
    of its own.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._waiting: dict[Hashable, list[Waiter]] = {}  # by computation; the next one first
        self._turns = Turns()  # by size

    def put(self, key: Hashable, waiter: Waiter) -> None:
        """Lets a request wait for a computation, until its deadline."""
        if waiter.deadline is not None:
            waiter.deadline.watch(waiter.outcome)
        self._waiting.setdefault(key, []).append(waiter)

    def take(self, key: Hashable = None) -> Sequence[Waiter]:
        """The next batch of a computation, empty if nobody waits for it; by default of any of them.

        Owners take turns, and the computations of one owner; of each owner a batch has as much, if it waits for that.
        """
        keys = [*self._waiting] if key is None else [key]
        waiting = {of: [one for one in self._waiting.pop(of, ()) if not one.outcome.done()] for of in keys}
        waiting = {of: waiters for of, waiters in waiting.items() if waiters}
        self._waiting |= waiting
        if not self._waiting:
            self._turns.forget()
        if not waiting:
            return []
        owner = self._turns.next(one.owner for waiters in waiting.values() for one in waiters)
        key = next(of for of, waiters in waiting.items() if any(one.owner == owner for one in waiters))
        ordered = self._turns.order(self._waiting.pop(key))
        n = max(1, sum(end <= self._largest for end in accumulate(one.size for one in ordered)))
        if n < len(ordered):
            self._waiting[key] = ordered[n:]  # behind the others
        for one in ordered[:n]:
            self._turns.charge(one.owner, one.size)
        return ordered[:n]
