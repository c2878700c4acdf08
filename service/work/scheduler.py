"""Who uses the models when: forecasts of many requests together, and explanations between them.

Forecasts that arrive while others are being read or computed go through the network together. A small batch is
computed where it is, on the event loop: handing it to a thread and back takes longer. A large batch goes to a thread of
its own, and explanations go, slice by slice, to another one that gives way: no forecast waits for a slice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, groupby
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any, Literal, TypeVar

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.scaling import Array
from service.http.errors import OverloadedError
from service.telemetry.metrics import Metrics
from service.telemetry.traces import span
from service.work.computations import give_way
from service.work.deadlines import Deadline

Result = TypeVar("Result")
Kind = Literal["forecast", "explanation"]
IN_PLACE = 2e-3  # seconds that a batch may keep the event loop
TOGETHER = 512  # windows from which more at once gain nothing, and take memory that grows with the queue
N_TIMED = 32  # windows whose forecast tells how long a model takes


@dataclass
class _Batch:
    """Forecasts of one model that wait to be computed together."""

    model: LoadedModel
    windows: list[Array] = field(default_factory=list)
    outcomes: list[asyncio.Future[Array]] = field(default_factory=list)
    deadlines: list[Deadline] = field(default_factory=list)

    def split(self) -> Iterator[_Batch]:
        """The same in batches of about `TOGETHER` windows; what one request asks stays together."""
        ends = accumulate(map(len, self.windows))
        for _, numbers in groupby(enumerate(ends), key=lambda end: (end[1] - 1) // TOGETHER):
            yield self._take(number for number, _ in numbers)

    def waiting(self) -> _Batch:
        """Those that are still waited for, not those of requests that were given up."""
        still = [number for number, outcome in enumerate(self.outcomes) if not outcome.done()]
        return self._take(still)

    def _take(self, numbers: Iterable[int]) -> _Batch:
        taken = _Batch(self.model)
        for number in numbers:
            taken.windows.append(self.windows[number])
            taken.outcomes.append(self.outcomes[number])
            taken.deadlines.append(self.deadlines[number])
        return taken


class Scheduler:
    """Runs the models of one process, for the requests of one event loop.

    Args:
        max_queue: requests that may wait at a time.
        metrics: where the work is counted.
    """

    def __init__(self, max_queue: int, metrics: Metrics) -> None:
        self._max_queue = max_queue
        self._metrics = metrics
        self._waiting: dict[Kind, int] = {"forecast": 0, "explanation": 0}
        for kind in self._waiting:
            metrics.watch_queue(kind, partial(self._waiting.__getitem__, kind))
        self._batches: dict[str, _Batch] = {}  # by checkpoint
        self._in_place: dict[str, int] = {}  # windows that may be computed on the event loop, by checkpoint
        self._forecasts = _Worker("forecasts")
        self._explanations = _Worker("explanations", background=True)

    def start(self) -> None:
        """Starts the threads."""
        self._forecasts.start()
        self._explanations.start()

    async def predict(self, model: LoadedModel, windows: Array, deadline: Deadline) -> Array:
        """Forecasts for windows, together with others that wait for the same model.

        Args:
            model: the model.
            windows: (n, lookback, n_features), original units.
            deadline: until when.

        Returns:
            (n, n_outputs), original units.

        Raises:
            NonFiniteError: a forecast is not finite.
            DeadlineError: the deadline has passed.
            OverloadedError: too many requests wait.
        """
        outcome: asyncio.Future[Array] = asyncio.get_running_loop().create_future()
        with self.admit("forecast"):
            batch = self._batches.get(model.sha256)
            if batch is None:
                batch = self._batches[model.sha256] = _Batch(model)
                asyncio.get_running_loop().call_soon(self._flush, model.sha256)
            batch.windows.append(windows)
            batch.outcomes.append(outcome)
            batch.deadlines.append(deadline)
            with span("wait"):
                return await outcome

    async def run(self, slice_: Callable[[], Result]) -> Result:
        """What a slice of an explanation returns, computed on a thread that gives way to all else."""
        return await self._explanations.submit(partial(self._time_slice, slice_))

    @contextmanager
    def admit(self, kind: Kind) -> Iterator[None]:
        """The place of one request among those that wait or are being computed.

        Raises:
            OverloadedError: all places are taken.
        """
        if sum(self._waiting.values()) >= self._max_queue:
            message = f"{self._max_queue} requests wait already (max_queue); ask again"
            raise OverloadedError(message)
        self._waiting[kind] += 1
        try:
            yield
        finally:
            self._waiting[kind] -= 1

    def close(self) -> None:
        """Ends the threads after what they are computing, and what waits for them."""
        self._forecasts.close()
        self._explanations.close()

    def _flush(self, checkpoint: str) -> None:
        """Computes a batch, here or on its thread."""
        batch = self._batches.pop(checkpoint)
        n_windows = sum(map(len, batch.windows))
        if n_windows <= self._in_place.get(checkpoint, 0):
            self._metrics.observe_batch(n_windows)
            _answer(batch, _forecast(batch.model, batch.windows))
        else:
            for part in batch.split():
                self._hand_over(part)

    def _hand_over(self, batch: _Batch) -> None:
        """Has a batch computed on the thread."""
        self._metrics.observe_batch(sum(map(len, batch.windows)))
        for outcome, deadline in zip(batch.outcomes, batch.deadlines, strict=True):
            deadline.watch(outcome)
        forecast = self._forecasts.submit(lambda: self._forecast_timed(batch))
        forecast.add_done_callback(partial(_answer_all, batch))

    def _forecast_timed(self, batch: _Batch) -> tuple[_Batch, list[Array | Exception]]:
        """What still waits of a batch, on the thread; a new model also tells how much of it fits the event loop."""
        if batch.model.sha256 not in self._in_place:
            windows = batch.model.scaling.features_to_original(batch.model.reference.windows[:N_TIMED])
            start = perf_counter()
            _forecast(batch.model, [windows])
            seconds = perf_counter() - start
            self._in_place[batch.model.sha256] = int(IN_PLACE / seconds * len(windows))
        waiting = batch.waiting()
        return waiting, _forecast(batch.model, waiting.windows) if waiting.outcomes else []

    def _time_slice(self, slice_: Callable[[], Result]) -> Result:
        start = perf_counter()
        try:
            with span("slice"):
                return slice_()
        finally:
            self._metrics.observe_slice(perf_counter() - start)


class _Worker(Thread):
    """A thread that does one job after the other, and tells those who wait for it on their event loop.

    Args:
        name: what it is called in a debugger.
        background: whether it gives way to other threads that want the same core.
    """

    def __init__(self, name: str, background: bool = False) -> None:
        super().__init__(name=name, daemon=True)
        self._background = background
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()

    def submit(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """What a job returns, once its turn has come; it is left out where nobody waits for it any more."""
        outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._jobs.put((partial(copy_context().run, work), outcome))  # with the span of the request
        return outcome

    def run(self) -> None:
        """Goes on until it is closed."""
        if self._background:
            give_way()
        while (job := self._jobs.get()) is not None:
            work, outcome = job
            if outcome.cancelled():  # whoever asked has gone
                continue
            try:
                result, error = work(), None
            except BaseException as raised:
                result, error = None, raised
            outcome.get_loop().call_soon_threadsafe(_settle, outcome, result, error)

    def close(self) -> None:
        """Ends it after what waits already."""
        self._jobs.put(None)
        self.join()


def _settle(outcome: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if outcome.done():  # whoever asked has gone, or waited long enough
        return
    if error is None:
        outcome.set_result(result)
    else:
        outcome.set_exception(error)


def _forecast(model: LoadedModel, windows: list[Array]) -> list[Array | Exception]:
    """The forecasts of each request, or why there are none; one that fails spoils no other's."""
    try:
        with span("forecast", windows=sum(map(len, windows))):
            predictions = model.predict(windows[0] if len(windows) == 1 else np.concatenate(windows))
    except Exception as error:
        return [error] if len(windows) == 1 else [_forecast(model, [of_request])[0] for of_request in windows]
    ends = accumulate(map(len, windows))
    return [predictions[end - len(of_request) : end] for of_request, end in zip(windows, ends, strict=True)]


def _answer_all(batch: _Batch, done: asyncio.Future[tuple[_Batch, list[Array | Exception]]]) -> None:
    """Answers a batch that was on the thread; whatever has happened there, nobody goes on waiting."""
    error = done.exception()
    if error is None:
        _answer(*done.result())
    else:
        for outcome in batch.outcomes:
            _settle(outcome, None, error)


def _answer(batch: _Batch, results: list[Array | Exception]) -> None:
    for outcome, result in zip(batch.outcomes, results, strict=True):
        _settle(outcome, result, result if isinstance(result, Exception) else None)
