"""Deadlines of requests that wait for a result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from service.http.errors import DeadlineError
from service.telemetry.traces import span

Result = TypeVar("Result")


@dataclass(frozen=True)
class Deadline:
    """When a request has waited long enough.

    Attributes:
        seconds: how long it waits, from its arrival.
        time: when that is over, by the clock of the event loop.
    """

    seconds: float
    time: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """That of a request which arrives now."""
        return cls(seconds, asyncio.get_running_loop().time() + seconds)

    async def wait(self, result: Awaitable[Result]) -> Result:
        """A result, if it is there in time; whatever computes it goes on.

        Raises:
            DeadlineError: it is not.
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
        """Gives an outcome the same error, should it not be there in time."""

        def expire() -> None:
            if not outcome.done():
                outcome.set_exception(self._error())

        timer = outcome.get_loop().call_at(self.time, expire)
        outcome.add_done_callback(lambda _: timer.cancel())

    def _error(self) -> DeadlineError:
        message = f"the result is still being computed after {self.seconds:g} s (request_timeout); ask again"
        return DeadlineError(message)
