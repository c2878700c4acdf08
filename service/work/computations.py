"""Long computations, in threads that give way to forecasts and end with the service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Event, Thread, get_native_id
from typing import Any, TypeVar

from torch.overrides import TorchFunctionMode

from service.http.errors import NotReadyError

Result = TypeVar("Result")
NICE = 10  # where forecasts want the same core, they have nine tenths of it
N_THREADS = 4  # computations beside each other: a quick one need not wait for a long one
GRACE = 2.0  # seconds to wait for a thread that does not come to an operation of torch


def give_way() -> None:
    """Lowers the priority of the thread that calls, for good."""
    with suppress(AttributeError, OSError):  # only Linux knows priorities of threads, and it may not allow this
        os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)


class Computations:
    """Runs functions in threads, and breaks them off at their next operation of torch once it is closed.

    Else a thread inside of torch would keep the process, or take it down, when the interpreter ends.
    """

    def __init__(self) -> None:
        self._closed = Event()
        self._slots = asyncio.Semaphore(N_THREADS)
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, compute: Callable[[], Result]) -> Result:
        """What `compute` returns.

        Raises:
            NotReadyError: it was broken off.
        """
        outcome: Future[Result] = Future()
        outcome.set_running_or_notify_cancel()  # so that a caller that goes away does not cancel it

        def work() -> None:
            give_way()
            try:
                with _BreakOff(self._closed):
                    result = compute()
            except BaseException as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        async with self._slots:
            _refuse_closed(self._closed)
            Thread(target=work, name="computation", daemon=True).start()
            running = asyncio.wrap_future(outcome)
            self._running.add(running)
            running.add_done_callback(self._running.discard)
            return await running

    async def close(self) -> None:
        """Breaks off what is running, and waits until it has ended."""
        self._closed.set()
        if self._running:
            await asyncio.wait(self._running, timeout=GRACE)


class _BreakOff(TorchFunctionMode):
    """Within it each operation of torch looks first whether to go on."""

    def __init__(self, closed: Event) -> None:
        super().__init__()
        self._closed = closed

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The operation itself, unless it is too late."""
        _refuse_closed(self._closed)
        return func(*args, **(kwargs or {}))


def _refuse_closed(closed: Event) -> None:
    if closed.is_set():
        raise NotReadyError("the service is stopping", code="stopping")
