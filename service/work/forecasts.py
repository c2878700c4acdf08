"""Forecasts: whatever waits for one model goes through the network together.

A small batch is computed where it is, on the event loop: handing it to a thread and back takes longer. What is larger
waits for the thread of forecasts, and goes as soon as that is free, together with all that has arrived by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from time import thread_time
from typing import Any

import numpy as np

from kanmodel.model import Model
from kanmodel.scaling import Array
from service.telemetry.traces import span
from service.work.budget import Budget
from service.work.deadlines import Deadline
from service.work.threads import Worker

IN_PLACE = 1e-3  # seconds that forecasts may keep the event loop
TOGETHER = 512  # windows from which more at once gain nothing, and take memory that grows with the queue
N_TIMED = 64  # windows whose forecast tells how long a model takes
N_TIMINGS = 5  # of which the shortest counts: whatever else runs only ever adds
N_KNOWN = 1000  # models whose times are kept


@dataclass(frozen=True, eq=False)
class _Asked:
    """The forecast that one request waits for."""

    model: Model
    windows: Array
    deadline: Deadline
    outcome: asyncio.Future[Array]


class Forecasts:
    """Merges the forecasts of all requests.

    Args:
        budget: the places of forecasts.
        observe_batch: told the number of windows of each batch.
    """

    def __init__(self, budget: Budget, observe_batch: Callable[[int], None]) -> None:
        self._budget = budget
        self._observe_batch = observe_batch
        self._worker: Worker | None = None
        self.is_busy = False  # whether the thread computes
        self._arrived: list[_Asked] = []  # in this turn of the event loop
        self._n_arrived = 0  # in this turn, with one that was computed at once
        self._is_quiet = True  # whether no two forecasts arrived in one turn lately
        self._waiting: dict[str | None, list[_Asked]] = {}  # for the thread, by checkpoint; the next one first
        self._in_place: dict[str | None, int] = {}  # windows that may be computed on the event loop, by checkpoint

    def start(self, worker: Worker) -> None:
        """Begins to use its thread."""
        self._worker = worker

    def close(self) -> None:
        """Ends the thread."""
        if self._worker is not None:
            self._worker.close()

    async def predict(self, model: Model, windows: Array, deadline: Deadline) -> Array:
        """Forecasts for windows, together with others that wait for the same model; see `Executor.predict`."""
        self._budget.take("forecast")
        try:
            self._n_arrived += 1
            if self._n_arrived == 1:
                loop = asyncio.get_running_loop()
                loop.call_soon(self._end_turn)
                if self._is_quiet and len(windows) <= self._in_place.get(model.checkpoint, 0):
                    self._observe_batch(len(windows))
                    with span("forecast", windows=len(windows)):
                        return model.predict(windows)
            outcome: asyncio.Future[Array] = asyncio.get_running_loop().create_future()
            self._arrived.append(_Asked(model, windows, deadline, outcome))
            with span("wait"):
                return await outcome
        finally:
            self._budget.give_back("forecast")

    def _end_turn(self) -> None:
        """Computes what has arrived in this turn of the loop, here where that is quick."""
        self._is_quiet, self._n_arrived = self._n_arrived == 1, 0
        by_model: dict[str | None, list[_Asked]] = {}
        for asked in self._arrived:
            if not asked.outcome.done():
                by_model.setdefault(asked.model.checkpoint, []).append(asked)
        self._arrived = []
        share = 0.0  # of the time that forecasts may keep the loop
        for checkpoint, batch in by_model.items():
            n_windows = sum(len(asked.windows) for asked in batch)
            in_place = self._in_place.get(checkpoint, 0)
            if n_windows <= in_place * (1 - share):
                share += n_windows / in_place
                self._observe_batch(n_windows)
                _answer(batch, _forecast(batch))
            else:
                for asked in batch:
                    asked.deadline.watch(asked.outcome)
                self._waiting.setdefault(checkpoint, []).extend(batch)
        self._dispatch()

    def _dispatch(self) -> None:
        """Gives the thread all that waits for one model, if it is free; the models take turns."""
        if self.is_busy or self._worker is None:
            return
        while self._waiting:
            checkpoint = next(iter(self._waiting))
            waiting = [asked for asked in self._waiting.pop(checkpoint) if not asked.outcome.done()]
            ends = accumulate(len(asked.windows) for asked in waiting)
            n_taken = max(1, sum(end <= TOGETHER for end in ends))
            batch, rest = waiting[:n_taken], waiting[n_taken:]
            if rest:
                self._waiting[checkpoint] = rest  # behind the other models
            if batch:
                self.is_busy = True
                self._observe_batch(sum(len(asked.windows) for asked in batch))
                compute = partial(copy_context().run, self._compute, batch)
                self._worker.give(compute, partial(self._finish, batch))
                return

    def _compute(self, batch: list[_Asked]) -> list[Array | BaseException]:
        """On the thread; a new model is timed first."""
        if batch[0].model.checkpoint not in self._in_place:
            if len(self._in_place) >= N_KNOWN:
                self._in_place.clear()
            self._in_place[batch[0].model.checkpoint] = _measure_in_place(batch[0].model)
        return _forecast(batch)

    def _finish(self, batch: list[_Asked], results: Any, error: BaseException | None) -> None:
        """Answers a batch; whatever has happened on the thread, nobody goes on waiting."""
        self.is_busy = False
        _answer(batch, results if error is None else [error] * len(batch))
        self._dispatch()


def _forecast(batch: list[_Asked]) -> list[Array | BaseException]:
    """The forecasts of each request, or why there are none; a failing request does not affect the others."""
    if not batch:
        return []
    windows = [asked.windows for asked in batch]
    try:
        with span("forecast", windows=sum(map(len, windows))):
            predictions = batch[0].model.predict(windows[0] if len(windows) == 1 else np.concatenate(windows))
    except Exception as error:
        return [error] if len(batch) == 1 else [_forecast([asked])[0] for asked in batch]
    ends = accumulate(map(len, windows))
    return [predictions[end - len(of_request) : end] for of_request, end in zip(windows, ends, strict=True)]


def _answer(batch: list[_Asked], results: list[Array | BaseException]) -> None:
    for asked, result in zip(batch, results, strict=True):
        if asked.outcome.done():  # whoever asked has gone, or waited long enough
            continue
        if isinstance(result, BaseException):
            asked.outcome.set_exception(result)
        else:
            asked.outcome.set_result(result)


def _measure_in_place(model: Model) -> int:
    """How many windows a model forecasts in `IN_PLACE`, by a line through the times of one window and of several."""
    windows = model.reference.windows[:N_TIMED]
    one = _measure_forecast(model, windows[:1])
    if one > IN_PLACE:
        return 0
    per_window = max(_measure_forecast(model, windows) - one, 1e-9) / max(len(windows) - 1, 1)
    return min(int(1 + (IN_PLACE - one) / per_window), TOGETHER)


def _measure_forecast(model: Model, windows: Array) -> float:
    """Seconds of the processor that this thread takes, so that what runs beside it does not count."""
    seconds = []
    for _ in range(N_TIMINGS):
        start = thread_time()
        model.predict(windows)
        seconds.append(thread_time() - start)
    return min(seconds)
