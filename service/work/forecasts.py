"""Natural batching of forecasts: requests that wait for the same model are computed together.

A small batch is computed on the event loop, since handing it to a thread and back takes longer. A larger one waits for
the thread of forecasts, and runs as soon as that is free, together with everything that has arrived by then. A large
request is also parsed and answered there: each hand-over to a thread costs as much as parsing a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from time import thread_time
from typing import Any, Generic, TypeVar

import numpy as np

from kanmodel.data import Array
from kanmodel.model import Model
from service.telemetry.observation import span
from service.wire.security import OWNER, Owner
from service.work.budget import Budget, Turns
from service.work.deadlines import Deadline
from service.work.jobs import Cost, Worker

Result = TypeVar("Result")
IN_PLACE = 1e-3  # seconds for which forecasts may block the event loop
TOGETHER = 512  # windows of a batch beyond which throughput no longer grows, but memory does
N_TIMED = 64  # windows whose forecast is timed
N_TIMINGS = 5  # the shortest counts, since other load only ever adds
N_KNOWN = 1000  # models whose timings are kept


@dataclass(slots=True)
class Answering(Generic[Result]):
    """How a request is parsed and answered, before and after its forecast.

    Attributes:
        read: returns its windows, (n, lookback, n_features), original units.
        describe: returns the answer for windows and their forecasts.
        reading: cost of `read`.
        describing: cost of `describe`, by the windows.
        most_windows: upper bound of its windows.
    """

    read: Callable[[], Array]
    describe: Callable[[Array, Array], Result]
    reading: Cost
    describing: Callable[[Array], Cost]
    most_windows: int


@dataclass(eq=False)
class _Asked:
    """The pending forecast of one request.

    Attributes:
        model: which model forecasts.
        deadline: when the request stops waiting.
        outcome: future of the forecast, or of what `finish` makes of it.
        windows: what to forecast; None until parsed on the thread.
        n_windows: their number; an upper bound until they are parsed.
        read: parses them on the thread; None if they are given.
        finish: makes the answer on the thread; None for a bare forecast.
        owner: whose request it is.
    """

    model: Model
    deadline: Deadline
    outcome: asyncio.Future[Any]
    windows: Array | None
    n_windows: int
    read: Callable[[], Array] | None = None
    finish: Callable[[Array, Array], Any] | None = None
    owner: Owner = field(default_factory=OWNER.get)


class Forecasts:
    """Batches the forecasts of all requests.

    Args:
        budget: the limits on pending work.
        observe_batch: called with the number of windows of each batch.
    """

    def __init__(self, budget: Budget, observe_batch: Callable[[int], None]) -> None:
        self._budget = budget
        self._observe_batch = observe_batch
        self._worker: Worker | None = None
        self.is_busy = False  # whether the thread is computing
        self._arrived: list[_Asked] = []  # arrived in this iteration of the event loop
        self._n_arrived = 0  # arrived in this iteration, the one computed at once included
        self._is_quiet = True  # whether forecasts have lately arrived one per iteration
        self._waiting: dict[str | None, list[_Asked]] = {}  # for the thread, by checkpoint; the next one first
        self._turns = Turns()  # by windows forecast on the thread
        self._in_place: dict[str | None, int] = {}  # windows that may be computed on the event loop, by checkpoint

    def start(self, worker: Worker) -> None:
        """Begins to use its thread."""
        self._worker = worker

    def close(self) -> None:
        """Ends the thread."""
        if self._worker is not None:
            self._worker.close()

    async def predict(self, model: Model, windows: Array, deadline: Deadline) -> Array:
        """Forecasts windows, batched with others of the same model; see `Executor.predict`."""
        self._n_arrived += 1
        if self._n_arrived == 1:
            asyncio.get_running_loop().call_soon(self._end_turn)
            if self._is_quiet and len(windows) <= self._in_place.get(model.checkpoint, 0):
                self._observe_batch(len(windows))
                with span("forecast", windows=len(windows)):
                    return model.predict(windows)
        with self._budget.claim("forecast"):
            outcome: asyncio.Future[Array] = asyncio.get_running_loop().create_future()
            self._arrived.append(_Asked(model, deadline, outcome, windows, len(windows)))
            with span("wait"):
                return await outcome

    async def answer(self, model: Model, request: Answering[Result], deadline: Deadline) -> Result:
        """Parses and answers a request where its forecast is computed; see `Executor.answer`."""
        windows, n_bytes = None, request.reading.n_bytes
        if request.reading.seconds <= IN_PLACE:
            windows = request.read()
            describing = request.describing(windows)
            if describing.seconds <= IN_PLACE:
                return request.describe(windows, await self.predict(model, windows, deadline))
            n_bytes = describing.n_bytes
        with self._budget.claim("forecast", n_bytes):
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

    def _end_turn(self) -> None:
        """Computes what has arrived in this iteration of the loop, in place if that is quick."""
        self._is_quiet, self._n_arrived = self._n_arrived == 1, 0
        by_model: dict[str | None, list[_Asked]] = {}
        for asked in self._arrived:
            if not asked.outcome.done():
                by_model.setdefault(asked.model.checkpoint, []).append(asked)
        self._arrived = []
        share = 0.0  # share of the time for which forecasts may block the loop
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
        """Hands the free thread everything that waits for one model; owners take turns, and models of one owner."""
        if self.is_busy or self._worker is None or not self._waiting:
            return
        pending = {key: [asked for asked in of if not asked.outcome.done()] for key, of in self._waiting.items()}
        self._waiting = {checkpoint: of_model for checkpoint, of_model in pending.items() if of_model}
        if not self._waiting:
            self._turns.forget()
            return
        owner = self._turns.next(asked.owner for of_model in self._waiting.values() for asked in of_model)
        checkpoint = next(key for key, of in self._waiting.items() if any(asked.owner == owner for asked in of))
        waiting = self._turns.order(self._waiting.pop(checkpoint), lambda asked: asked.n_windows)
        n_taken = max(1, sum(end <= TOGETHER for end in accumulate(asked.n_windows for asked in waiting)))
        batch, rest = waiting[:n_taken], waiting[n_taken:]
        if rest:
            self._waiting[checkpoint] = rest  # behind the other models
        for asked in batch:
            self._turns.charge(asked.owner, asked.n_windows)
        self.is_busy = True
        self._worker.give(partial(copy_context().run, self._compute, batch), partial(self._finish, batch))

    def _compute(self, batch: list[_Asked]) -> list[Any]:
        """Runs on the thread; times a new model first."""
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
        """Resolves every future of a batch, whatever happened on the thread."""
        self.is_busy = False
        _answer(batch, results if error is None else [error] * len(batch))
        self._dispatch()


def _read(asked: _Asked) -> Exception | None:
    """Parses the windows; returns the error if that fails."""
    try:
        if asked.read is not None:
            asked.windows = asked.read()
            asked.n_windows = len(asked.windows)
    except Exception as error:
        return error
    return None


def _finish(asked: _Asked, predictions: Array | BaseException) -> Any:
    """The result of a request, from its forecast or the error."""
    if asked.finish is None or asked.windows is None or isinstance(predictions, BaseException):
        return predictions
    try:
        return asked.finish(asked.windows, predictions)
    except Exception as error:
        return error


def _forecast(batch: list[_Asked]) -> list[Array | BaseException]:
    """The forecasts or the error of each request; a failing request does not affect the others."""
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
        if asked.outcome.done():  # cancelled, or past its deadline
            continue
        if isinstance(result, BaseException):
            asked.outcome.set_exception(result)
        else:
            asked.outcome.set_result(result)


def _measure_in_place(model: Model) -> int:
    """How many windows a model forecasts in `IN_PLACE` seconds, by linear extrapolation from one and from several."""
    windows = model.scaling.features_to_original(model.loaded.reference.windows[:N_TIMED])
    one = _measure_forecast(model, windows[:1])
    if one > IN_PLACE:
        return 0
    per_window = max(_measure_forecast(model, windows) - one, 1e-9) / max(len(windows) - 1, 1)
    return min(int(1 + (IN_PLACE - one) / per_window), TOGETHER)


def _measure_forecast(model: Model, windows: Array) -> float:
    """CPU seconds of this thread, which other load does not affect."""
    seconds = []
    for _ in range(N_TIMINGS):
        start = thread_time()
        model.predict(windows)
        seconds.append(thread_time() - start)
    return min(seconds)
