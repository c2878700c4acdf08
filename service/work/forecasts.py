"""Natural batching of forecasts: those that wait for one model are computed together.

A small batch is computed where it is, on the event loop: handing it to a thread and back takes longer. What is larger
waits for the thread of forecasts, and goes as soon as that is free, together with all that has arrived by then. A
request that is large is read and answered there, too: each way to a thread and back costs as much as reading one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from time import thread_time
from typing import Any, Generic, TypeVar

import numpy as np

from kanmodel.model import Model
from kanmodel.scaling import Array
from service.telemetry.traces import span
from service.work.budget import Budget
from service.work.deadlines import Deadline
from service.work.jobs import Cost
from service.work.threads import Worker

Result = TypeVar("Result")
IN_PLACE = 1e-3  # seconds that forecasts may keep the event loop
TOGETHER = 512  # windows from which more at once gain nothing, and take memory that grows with the queue
N_TIMED = 64  # windows whose forecast tells how long a model takes
N_TIMINGS = 5  # of which the shortest counts: whatever else runs only ever adds
N_KNOWN = 1000  # models whose times are kept


@dataclass(slots=True)
class Answering(Generic[Result]):
    """How a request is read and answered, around its forecast.

    Attributes:
        read: gives its windows, (n, lookback, n_features), original units.
        describe: makes the answer of the windows and their forecasts.
        reading: what it costs to read.
        describing: what it costs to answer, by the windows.
        most_windows: more than this it cannot have.
    """

    read: Callable[[], Array]
    describe: Callable[[Array, Array], Result]
    reading: Cost
    describing: Callable[[Array], Cost]
    most_windows: int


@dataclass(eq=False)
class _Asked:
    """The forecast that one request waits for.

    Attributes:
        model: which model forecasts.
        deadline: until when somebody waits.
        outcome: the forecast, or else what `finish` makes of it.
        windows: what to forecast; None until it is read, on the thread.
        n_windows: how many they are; until they are read, at most.
        read: reads them on the thread; None where they are there.
        finish: makes the answer on the thread; None where that is not its task.
    """

    model: Model
    deadline: Deadline
    outcome: asyncio.Future[Any]
    windows: Array | None
    n_windows: int
    read: Callable[[], Array] | None = None
    finish: Callable[[Array, Array], Any] | None = None


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
                asyncio.get_running_loop().call_soon(self._end_turn)
                if self._is_quiet and len(windows) <= self._in_place.get(model.checkpoint, 0):
                    self._observe_batch(len(windows))
                    with span("forecast", windows=len(windows)):
                        return model.predict(windows)
            outcome: asyncio.Future[Array] = asyncio.get_running_loop().create_future()
            self._arrived.append(_Asked(model, deadline, outcome, windows, len(windows)))
            with span("wait"):
                return await outcome
        finally:
            self._budget.give_back("forecast")

    async def answer(self, model: Model, request: Answering[Result], deadline: Deadline) -> Result:
        """The answer to a request, read and made where its forecast is; see `Executor.answer`."""
        windows, n_bytes = None, request.reading.n_bytes
        if request.reading.seconds <= IN_PLACE:
            windows = request.read()
            describing = request.describing(windows)
            if describing.seconds <= IN_PLACE:
                return request.describe(windows, await self.predict(model, windows, deadline))
            n_bytes = describing.n_bytes
        self._budget.take("forecast", n_bytes)
        try:
            run: Callable[..., Any] = copy_context().run  # in which the spans of this request are
            n = request.most_windows if windows is None else len(windows)
            outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            asked = _Asked(model, deadline, outcome, windows, n, finish=partial(run, request.describe))
            if windows is None:
                asked.read = partial(run, request.read)
            self._wait_for_thread(asked)
            self._dispatch()
            with span("wait"):
                return await outcome
        finally:
            self._budget.give_back("forecast", n_bytes)

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
            n_windows = sum(asked.n_windows for asked in batch)
            in_place = self._in_place.get(checkpoint, 0)
            if n_windows <= in_place * (1 - share):
                share += n_windows / in_place
                self._observe_batch(n_windows)
                _answer(batch, _forecast(batch))
            else:
                for asked in batch:
                    self._wait_for_thread(asked)
        self._dispatch()

    def _wait_for_thread(self, asked: _Asked) -> None:
        asked.deadline.watch(asked.outcome)
        self._waiting.setdefault(asked.model.checkpoint, []).append(asked)

    def _dispatch(self) -> None:
        """Gives the thread all that waits for one model, if it is free; the models take turns."""
        if self.is_busy or self._worker is None:
            return
        while self._waiting:
            checkpoint = next(iter(self._waiting))
            waiting = [asked for asked in self._waiting.pop(checkpoint) if not asked.outcome.done()]
            ends = accumulate(asked.n_windows for asked in waiting)
            n_taken = max(1, sum(end <= TOGETHER for end in ends))
            batch, rest = waiting[:n_taken], waiting[n_taken:]
            if rest:
                self._waiting[checkpoint] = rest  # behind the other models
            if batch:
                self.is_busy = True
                compute = partial(copy_context().run, self._compute, batch)
                self._worker.give(compute, partial(self._finish, batch))
                return

    def _compute(self, batch: list[_Asked]) -> list[Any]:
        """On the thread; a new model is timed first."""
        if batch[0].model.checkpoint not in self._in_place:
            if len(self._in_place) >= N_KNOWN:
                self._in_place.clear()
            self._in_place[batch[0].model.checkpoint] = _measure_in_place(batch[0].model)
        results: dict[_Asked, Any] = {asked: _read(asked) for asked in batch}
        read = [asked for asked, error in results.items() if error is None]
        if read:
            self._observe_batch(sum(asked.n_windows for asked in read))
        results.update(zip(read, map(_finish, read, _forecast(read)), strict=True))
        return [*results.values()]

    def _finish(self, batch: list[_Asked], results: Any, error: BaseException | None) -> None:
        """Answers a batch; whatever has happened on the thread, nobody goes on waiting."""
        self.is_busy = False
        _answer(batch, results if error is None else [error] * len(batch))
        self._dispatch()


def _read(asked: _Asked) -> Exception | None:
    """Reads what is to be forecast, or gives the error of that."""
    try:
        if asked.read is not None:
            asked.windows = asked.read()
            asked.n_windows = len(asked.windows)
    except Exception as error:
        return error
    return None


def _finish(asked: _Asked, predictions: Array | BaseException) -> Any:
    """What a request gets for its forecast, or for the error of that."""
    if asked.finish is None or asked.windows is None or isinstance(predictions, BaseException):
        return predictions
    try:
        return asked.finish(asked.windows, predictions)
    except Exception as error:
        return error


def _forecast(batch: list[_Asked]) -> list[Array | BaseException]:
    """The forecasts of each request, or why there are none; a failing request does not affect the others."""
    if not batch:
        return []
    windows = [asked.windows for asked in batch if asked.windows is not None]
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
