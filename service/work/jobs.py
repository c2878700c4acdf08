"""Jobs: computations with a class, a cost, a key, and the requests that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from service.http.owners import Owner
    from service.work.shares import Claim
    from service.work.threads import Worker

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
