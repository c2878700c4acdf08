"""A job: a computation with its class, cost, key, and the requests that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

from kanmodel.pausing import Pause

if TYPE_CHECKING:
    from service.work.threads import Worker

Kind = Literal["forecast", "explanation", "background"]
Lane = Literal["short", "long", "background"]
URGENCY: dict[Kind, int] = {"forecast": 0, "explanation": 1, "background": 2}  # the lower number goes first
SHORT = 0.1  # estimated seconds up to which a job counts as short


@dataclass(frozen=True)
class Cost:
    """What a piece of work takes, estimated before it starts.

    Attributes:
        seconds: processor time.
        n_bytes: memory that it holds from its admission to its end.
    """

    seconds: float
    n_bytes: int = 0


SLICE = Cost(seconds=SHORT / 10)  # of a computation that gives its turn to others after each
UNKNOWN = Cost(seconds=10 * SHORT)  # of what was never measured: as long, so that nothing short waits behind it


@dataclass(eq=False)
class Job:
    """One piece of work on its way to a thread.

    Attributes:
        function: what computes it, with pauses between slices where it is long.
        kind: the class whose place and bytes it takes.
        urgency: by which it is chosen, see `URGENCY`.
        cost: its estimated cost.
        key: what it computes, such as a checkpoint and a question; None where nobody else can want the same.
        takes_turns: whether it lets others go on at each pause; it has the place and the bytes of its request then.
        outcome: its result, for everyone who waits.
        arrival: when it was admitted, by the clock of the event loop.
        waiters: how many wait for it.
        lane: where it runs, once it does.
        worker: the thread that has begun with it.
        stopped: set once nobody waits for it any more.
    """

    function: Callable[[Pause], Any]
    kind: Kind
    urgency: int
    cost: Cost
    key: Hashable
    takes_turns: bool
    outcome: asyncio.Future[Any]
    arrival: float
    waiters: int = 0
    lane: Lane | None = None
    worker: Worker | None = None
    stopped: Event = field(default_factory=Event)

    @property
    def is_long(self) -> bool:
        """Whether others should not have to wait for it."""
        return self.cost.seconds > SHORT

    def choose_lane(self) -> Lane:
        """Where it may run."""
        if self.urgency == URGENCY["background"]:
            return "background"
        return "long" if self.is_long else "short"
