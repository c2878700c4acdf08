"""Deadlines of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from service.telemetry.observation import span
from service.wire.errors import DeadlineError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Deadline:
    """When a request stops waiting.

    Attributes:
        seconds: the timeout, counted from its arrival.
        time: the deadline, by the clock of the event loop.
    """

    seconds: float
    time: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline of a request that arrives now."""
        return cls(seconds, asyncio.get_running_loop().time() + seconds)

    async def wait(self, result: Awaitable[Result]) -> Result:
        """Awaits a result until the deadline; the computation itself is not cancelled.

        Raises:
            DeadlineError: the deadline has passed.
        """
        try:
            async with asyncio.timeout_at(self.time) as timeout:
                with span("wait"):
                    return await result
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self._error() from None

    def watch(self, outcome: asyncio.Future[Any]) -> None:
        """Makes a future fail with the same error at the deadline."""

        def expire() -> None:
            if not outcome.done():
                outcome.set_exception(self._error())

        timer = outcome.get_loop().call_at(self.time, expire)
        outcome.add_done_callback(lambda _: timer.cancel())

    def _error(self) -> DeadlineError:
        message = f"the result is still being computed after {self.seconds:g} s (request_timeout); retry later"
        return DeadlineError(message)
