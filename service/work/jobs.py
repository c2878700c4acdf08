"""Jobs: what computations cost, who waits for them, and the threads that run them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import repeat
from queue import SimpleQueue
from threading import Event, Semaphore, Thread, get_native_id
from typing import TYPE_CHECKING, Any, Literal

from kanmodel.data import Array
from service.wire.security import Owner
from service.work.waiting import Waiter, resolve

if TYPE_CHECKING:
    from service.work.budget import Claim

Kind = Literal["forecast", "explanation", "background"]
Lane = Literal["short", "long", "background"]
URGENCY: dict[Kind, int] = {"forecast": 0, "explanation": 1, "background": 2}  # lower runs first
SHORT = 0.1  # estimated seconds up to which a job counts as short
IN_PLACE = 1e-3  # estimated seconds for which a computation may block the event loop
NICE = 10  # how much less urgent: forecasts get nine tenths of a shared core


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
CHECKED_BYTE = Cost(1e-9, 2)  # of windows, whose values are compared with the training range
JOINED_BYTE = Cost(1e-9)  # of an answer
COMPRESSED_BYTE = Cost(4e-8, 2)  # of an answer
DESCRIBED_VALUE = Cost(2e-6)  # a forecast, or a feature of a window
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
    """Describing forecasts, and warnings of values outside the training range."""
    n, _, n_features = windows.shape
    return DESCRIBED_VALUE * int(n * (n_outputs + n_features)) + CHECKED_BYTE * int(windows.nbytes)


def estimate_curves(n_edges: int, points: int) -> Cost:
    """Sampling edges, and describing the curves."""
    return CURVE_VALUE * (ARRAYS_PER_CURVE * n_edges * points) + DESCRIBED_CURVE * n_edges


def estimate_graph(n_parts: int, n_curves: int, points: int, drawn: bool) -> Cost:
    """Describing or drawing the nodes and edges of a graph, some of them with curves."""
    return (SVG_GRAPH_PART if drawn else JSON_GRAPH_PART) * n_parts + estimate_curves(n_curves, points)


class StoppedError(Exception):
    """A computation was cancelled at a pause."""


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
    must_yield: bool = False  # whether another job is to run at its next pause
    stopped: Event = field(default_factory=Event)  # set once it is cancelled

    def is_awaited_by(self, owner: Owner) -> bool:
        """Whether a request of an owner waits for it."""
        return any(waiter.owner == owner for waiter in self.waiters)

    def makes_way_for(self, other: Job) -> bool:
        """Whether it yields to a waiting job at its next pause: a part of a request also to others of its owner."""
        return self.claim is None or not other.is_awaited_by(self.owner)

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
