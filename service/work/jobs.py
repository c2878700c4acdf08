"""Jobs: what computations cost, the requests that wait for them, whose turn it is, and the threads that run them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from queue import SimpleQueue
from threading import Event, Semaphore, Thread, get_native_id
from time import thread_time
from typing import Any, Literal, NamedTuple, TypeVar

from kanmodel.arrays import Array
from service.telemetry.observation import span
from service.wire.errors import DeadlineError
from service.wire.security import OWNER, Owner
from service.work.budget import Claim, Kind

Result = TypeVar("Result")
Lane = Literal["short", "long", "background"]
URGENCY: dict[Kind, int] = {"forecast": 0, "explanation": 1, "background": 2}  # lower runs first
SHORT = 0.1  # estimated seconds up to which a job counts as short
IN_PLACE = 1e-3  # estimated seconds for which a computation may block the event loop
N_KNOWN = 1000  # owners whose use is remembered
NICE = 10  # how much less urgent: forecasts get nine tenths of a shared core
BACKGROUND_SHARE = 0.1  # of a core, that background work takes while requests come
QUIET = 0.5  # seconds without a request, after which it takes what it can


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a computation, or of one of its parts: `PARSED_BYTE * len(body)`."""

    seconds: float  # of a processor
    n_bytes: int = 0  # of memory, from its admission to its end

    def __mul__(self, n: int) -> Cost:
        """The cost of n such parts."""
        return Cost(n * self.seconds, n * self.n_bytes)

    def __add__(self, other: Cost) -> Cost:
        """The cost of both."""
        return Cost(self.seconds + other.seconds, self.n_bytes + other.n_bytes)


FREE = Cost(0)
SLICE = Cost(SHORT / 10)  # of a computation, between two pauses
UNKNOWN = Cost(10 * SHORT)  # of what was never measured: counts as long, so that nothing short waits for it

# Measured on a slow core, and rounded up.
PARSED_BYTE = Cost(2e-8, 16)  # of a request
COPIED_BYTE = Cost(3e-9, 16)  # of binary values, which become float64 and are compared with the training range
READ_BYTE = Cost(3e-7)  # of a series, in addition
CHECKED_BYTE = Cost(1e-9, 2)  # of windows, whose values are compared with the training range
JOINED_BYTE = Cost(1e-9)  # of an answer
COMPRESSED_BYTE = Cost(4e-8, 2)  # of an answer
DESCRIBED_TRUST = Cost(2e-4, 20_000)  # of a window
COMPARED_REFERENCE, COMPARED_VALUE = Cost(1e-8, 24), Cost(2e-10)  # a value of the reference windows: prepared, compared
DESCRIBED_VALUE = Cost(2e-6)  # a forecast or a bound of one, or a feature of a window
ANSWERED_VALUE = Cost(0, 160)  # a forecast or a bound, in arrays, as an object alone in a list, and in JSON
LIST_ENTRY = Cost(1e-5)  # such as a point of a fidelity curve
EDGE_FORMULAS = Cost(0.05, 1 << 20)  # the candidates for one edge
CURVE_VALUE = Cost(4e-7, 64)  # in an array, in a list, and in JSON
DESCRIBED_CURVE = Cost(5e-5)
JSON_GRAPH_PART, SVG_GRAPH_PART = Cost(5e-5, 1200), Cost(5e-5, 6000)  # a node or an edge, as objects and text
ARRAYS_PER_CURVE = 7
NUMBER_BYTES = 24  # most of a number in JSON
OBJECT_BYTES_PER_JSON_BYTE = 6  # memory of an answer as Python objects
HELD_NUMBER_BYTES = NUMBER_BYTES * (1 + OBJECT_BYTES_PER_JSON_BYTE)  # as an object and in JSON


def estimate_describing(windows: Array, n_outputs: int) -> Cost:
    """Describing forecasts and bounds, `n_outputs` values each, and warnings of values outside the training range."""
    (n, _, n_features), n_bytes = windows.shape, windows.nbytes
    seconds = DESCRIBED_VALUE.seconds * n * (n_outputs + n_features) + CHECKED_BYTE.seconds * n_bytes
    return Cost(seconds, ANSWERED_VALUE.n_bytes * n * n_outputs + CHECKED_BYTE.n_bytes * n_bytes)


def estimate_trust(windows: Array, n_reference: int) -> Cost:
    """Comparing windows with the reference windows, which have so many values, and describing how like these are."""
    per_window = DESCRIBED_TRUST + COMPARED_VALUE * n_reference + CHECKED_BYTE * (4 * int(windows[0].nbytes))
    return COMPARED_REFERENCE * n_reference + per_window * len(windows)


def estimate_curves(n_edges: int, points: int) -> Cost:
    """Sampling edges, and describing the curves."""
    return CURVE_VALUE * (ARRAYS_PER_CURVE * n_edges * points) + DESCRIBED_CURVE * n_edges


def estimate_graph(n_parts: int, n_curves: int, points: int, drawn: bool) -> Cost:
    """Describing or drawing the nodes and edges of a graph, some of them with curves."""
    return (SVG_GRAPH_PART if drawn else JSON_GRAPH_PART) * n_parts + estimate_curves(n_curves, points)


class StoppedError(Exception):
    """A computation was cancelled at a pause."""


class Deadline(NamedTuple):
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


@dataclass(eq=False)
class Job:
    """A computation that waits for a thread or runs on one."""

    function: Callable[[], Any]  # with pauses between slices if it is long
    urgency: int  # see `URGENCY`
    cost: Cost
    waiters: list[Waiter]  # the requests that wait for it
    arrival: float  # when it was admitted, by the clock of the event loop
    key: Hashable = None  # of the result, such as a checkpoint and a question; None if it cannot be shared
    claim: Claim | None = None  # its place and bytes; None for a part of a request, which has its own
    batch: Sequence[Waiter] = ()  # requests that get results of their own, in their order; empty if all get the same
    then: Callable[[], None] = lambda: None  # called when the next batch may begin
    lane: Lane | None = None  # in which it runs
    thread: ComputeThread | None = None  # once it has begun
    owner: Owner = ""  # whose turn it runs in, which began at `begun`
    begun: float = 0.0
    used: float = 0.0  # processor seconds of its latest slice
    must_yield: bool = False  # whether another job is to run at its next pause
    stopped: Event = field(default_factory=Event)  # set once it is cancelled

    def is_awaited_by(self, owner: Owner) -> bool:
        """Whether a request of an owner waits for it."""
        return any(waiter.owner == owner for waiter in self.waiters)

    def choose_lane(self) -> Lane:
        """The lane in which it may run; short jobs must not wait for a long one."""
        if self.urgency == URGENCY["background"]:
            return "background"
        return "long" if self.cost.seconds > SHORT else "short"

    def release(self) -> None:
        """Gives its place and bytes back."""
        if self.claim is not None:
            self.claim.release()

    def resolve(self, result: Any) -> None:
        """Gives every request the result, or its own of a batch; an exception is raised there."""
        waiters, self.waiters = self.waiters, []
        if waiters and self.batch and not isinstance(result, BaseException):
            resolve(self.batch, result)
        else:
            resolve(waiters, repeat(result))


Done = Callable[[Any, BaseException | None], None]


class ComputeThread(Thread):
    """A thread that passes each result or error to a callback on the event loop that started it.

    With `nice` it has a lower priority.
    """

    def __init__(self, name: str, nice: bool = False) -> None:
        super().__init__(name=name, daemon=True)
        self._nice = nice
        self._inbox: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._turn = Semaphore(0)
        self.start()

    def give(self, function: Callable[[], Any], done: Done) -> None:
        """Queues a function."""
        self._inbox.put((function, done))

    def run(self) -> None:
        """Runs queued functions until it is closed."""
        if self._nice:
            with suppress(AttributeError, OSError):  # only Linux has thread priorities, and may deny this
                thread = get_native_id()
                os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)
        while (given := self._inbox.get()) is not None:
            function, done = given
            try:
                result, error = function(), None
            except BaseException as raised:
                result, error = None, raised
            with suppress(RuntimeError):  # the loop is closed, so nothing waits for the result
                self._loop.call_soon_threadsafe(done, result, error)
            del given, function, done, result, error  # an idle thread keeps no references

    def clock(self) -> float:
        """Processor seconds that the calling thread has used, read by the running function."""
        return thread_time()

    def pause(self, is_wanted: Callable[[], bool], yield_turn: Callable[[], None]) -> None:
        """Called by the running function: if another job should run first, waits for `resume`.

        `yield_turn` is then called on the event loop, which later resumes it.
        """
        if is_wanted():
            self._loop.call_soon_threadsafe(yield_turn)
            self._turn.acquire()

    def resume(self) -> None:
        """Resumes the paused function."""
        self._turn.release()

    def close(self) -> None:
        """Ends the thread after the queued functions."""
        self._inbox.put(None)


class Rests:
    """When background work rests, so that it takes at most `BACKGROUND_SHARE` of a core while requests come.

    A slice of some milliseconds holds the interpreter lock for much of its time, so a low priority is not enough. What
    a request waits for is no background work.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._n_seen = 0
        self._last = -QUIET  # when a request was last seen

    def are_due(self, n_requests: int, n_pending: int, now: float) -> bool:
        """Whether requests come: how many have come so far, and how many are being answered."""
        if n_pending or n_requests != self._n_seen:
            self._n_seen, self._last = n_requests, now
        return now - self._last < QUIET

    def begin(self, used: float) -> float:
        """Begins one after so many processor seconds, and returns how many seconds it lasts."""
        self.is_on = True
        return used * (1 / BACKGROUND_SHARE - 1)


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
