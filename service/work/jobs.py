"""Jobs: computations with a class, a cost, a key, and the requests that wait for them.

Worker threads: each runs one function at a time and reports the result to the event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event, Semaphore, Thread, get_native_id
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from service.wire.security import Owner
    from service.work.budget import Claim


NICE = 10  # how much less urgent: forecasts get nine tenths of a shared core

Done = Callable[[Any, BaseException | None], None]


class Worker(Thread):
    """A thread that passes each result or error to a callback on the event loop that started it.

    Args:
        name: its name in a debugger.
        nice: whether it has a lower priority.
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
            give_way()
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
        """Called by the running function: if another job is due, waits until it is resumed.

        Args:
            is_wanted: whether another job should run first.
            yield_turn: called on the event loop, which later calls `resume`.
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


def give_way() -> None:
    """Lowers the priority of the calling thread permanently."""
    with suppress(AttributeError, OSError):  # only Linux has thread priorities, and may deny this
        thread = get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)


class StoppedError(Exception):
    """A computation was cancelled at a pause."""


Kind = Literal["forecast", "explanation", "background"]
Lane = Literal["short", "long", "background"]
URGENCY: dict[Kind, int] = {"forecast": 0, "explanation": 1, "background": 2}  # lower runs first
SHORT = 0.1  # estimated seconds up to which a job counts as short


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a computation.

    Attributes:
        seconds: processor time.
        n_bytes: memory that it holds from its admission to its end.
    """

    seconds: float
    n_bytes: int = 0


SLICE = Cost(seconds=SHORT / 10)  # of a computation, between two pauses
UNKNOWN = Cost(seconds=10 * SHORT)  # of what was never measured: counts as long, so that nothing short waits for it


@dataclass(eq=False)
class Job:
    """A computation that waits for a thread or runs on one.

    Attributes:
        function: the computation, with pauses between slices if it is long.
        urgency: its priority, see `URGENCY`.
        cost: its estimated cost.
        key: identity of the result, such as a checkpoint and a question; None if it cannot be shared.
        claim: its place and bytes; None for a part of a request, which has its own.
        waiters: owners of the requests that wait for it.
        outcome: future of its result.
        arrival: when it was admitted, by the clock of the event loop.
        lane: the lane in which it runs; None before.
        worker: its thread, once it has begun.
        owner: whose turn it runs in.
        begun: when that turn began.
        must_yield: whether another job is to run at its next pause.
        stopped: set once it is cancelled.
    """

    function: Callable[[Callable[[], None]], Any]
    urgency: int
    cost: Cost
    key: Hashable
    claim: Claim | None
    waiters: list[Owner]
    outcome: asyncio.Future[Any]
    arrival: float
    lane: Lane | None = None
    worker: Worker | None = None
    owner: Owner = ""
    begun: float = 0.0
    must_yield: bool = False
    stopped: Event = field(default_factory=Event)

    @property
    def is_long(self) -> bool:
        """Whether short jobs must not wait for it."""
        return self.cost.seconds > SHORT

    @property
    def is_part(self) -> bool:
        """Whether it is a part of a request: those take turns also with others of their owner."""
        return self.claim is None

    def makes_way_for(self, other: Job) -> bool:
        """Whether it yields to a waiting job at its next pause."""
        return self.is_part or self.owner not in other.waiters

    def choose_lane(self) -> Lane:
        """The lane in which it may run."""
        if self.urgency == URGENCY["background"]:
            return "background"
        return "long" if self.is_long else "short"
