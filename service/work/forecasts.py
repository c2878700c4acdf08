"""Forecasts in batches: requests that wait for the same model are computed together.

A small batch is computed on the event loop, since handing it to a thread and back takes longer. A larger one waits for
the thread of forecasts, and runs as soon as that is free, together with everything that has arrived by then. A large
request is also parsed and answered there: each hand-over to a thread costs as much as parsing a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from time import thread_time
from typing import Any, Generic, TypeVar

import numpy as np

from kanmodel.data import Array
from kanmodel.model import Model
from service.telemetry.observation import span
from service.work.budget import Budget
from service.work.jobs import FREE, IN_PLACE, ComputeThread, Cost
from service.work.waiting import Batches, Deadline, Waiter

Result = TypeVar("Result")
BATCH_WINDOWS = 512  # of a batch, beyond which throughput no longer grows, but memory does
N_TIMED = 64  # windows whose forecast is timed
N_TIMINGS = 5  # the shortest counts, since other load only ever adds
N_MODELS = 1000  # whose timings are kept


@dataclass(frozen=True, slots=True)
class ForecastRequest(Generic[Result]):
    """A request for forecasts: how it is parsed before, and answered after.

    Attributes:
        model: the model.
        read: returns its windows, (n, lookback, n_features), original units.
        describe: returns the answer for windows and their forecasts, (n, n_outputs), original units.
        reading: cost of `read`.
        describing: cost of `describe`, by the windows.
        most_windows: upper bound of its windows.
    """

    model: Model
    read: Callable[[], Array]
    describe: Callable[[Array, Array], Result]
    reading: Cost = FREE
    describing: Callable[[Array], Cost] = lambda _: FREE
    most_windows: int = 1


class Forecasts:
    """Batches the forecasts of all requests.

    Args:
        budget: the limits on pending work.
        observe_batch: called with the number of windows of each batch.

    Attributes:
        is_busy: whether the thread is computing.
    """

    def __init__(self, budget: Budget, observe_batch: Callable[[int], None]) -> None:
        self._budget = budget
        self._observe_batch = observe_batch
        self._thread: ComputeThread | None = None
        self.is_busy = False
        self._arrived: list[tuple[Waiter, Deadline]] = []  # in this iteration of the event loop
        self._n_arrived = 0  # in this iteration, the one computed at once included
        self._arrive_alone = True  # whether the last iteration with forecasts had a single one
        self._batches = Batches(BATCH_WINDOWS)  # for the thread, by checkpoint
        self._in_place: dict[str | None, int] = {}  # windows that may be computed on the event loop, by checkpoint

    def start(self, thread: ComputeThread) -> None:
        """Begins to use its thread."""
        self._thread = thread

    def close(self) -> None:
        """Ends the thread."""
        if self._thread is not None:
            self._thread.close()

    async def predict(self, model: Model, windows: Array, deadline: Deadline) -> Array:
        """Forecasts windows, batched with others that wait for the same model; one that arrives alone at once.

        Args:
            model: the model.
            windows: (n, lookback, n_features), original units.
            deadline: when to stop waiting.

        Returns:
            (n, n_outputs), original units.

        Raises:
            NonFiniteError: a forecast is not finite.
            DeadlineError: the deadline has passed.
            OverloadedError: too many requests wait.
        """
        self._n_arrived += 1
        if self._n_arrived == 1:
            asyncio.get_running_loop().call_soon(self._end_iteration)
            if self._arrive_alone and len(windows) <= self._in_place.get(model.checkpoint, 0):
                self._observe_batch(len(windows))
                with span("forecast", windows=len(windows)):
                    return model.predict(windows)
        with self._budget.claim("forecast"):
            waiter = Waiter(ForecastRequest(model, lambda: windows, _take_predictions), len(windows))
            self._arrived.append((waiter, deadline))
            with span("wait"):
                predictions: Array = await waiter.outcome
                return predictions

    async def answer(
        self, request: ForecastRequest[Result], n_windows: int, n_bytes: int, deadline: Deadline
    ) -> Result:
        """Parses, forecasts and answers a request on the thread; see `Executor.answer`.

        Args:
            request: the request.
            n_windows: their number, or an upper bound.
            n_bytes: memory that it takes.
            deadline: when to stop waiting.
        """
        with self._budget.claim("forecast", n_bytes):
            waiter = Waiter(request, n_windows)
            self._wait_for_thread(waiter, deadline)
            self._dispatch()
            with span("wait"):
                answer: Result = await waiter.outcome
                return answer

    def _end_iteration(self) -> None:
        """Computes what has arrived in this iteration of the loop, in place if that is quick."""
        self._arrive_alone, self._n_arrived = self._n_arrived == 1, 0
        by_model: dict[str | None, list[tuple[Waiter, Deadline]]] = {}
        for waiter, deadline in self._arrived:
            if not waiter.outcome.done():
                by_model.setdefault(waiter.item.model.checkpoint, []).append((waiter, deadline))
        self._arrived = []
        share = 0.0  # of the time for which forecasts may block the loop
        for checkpoint, arrived in by_model.items():
            n_windows = sum(waiter.size for waiter, _ in arrived)
            in_place = self._in_place.get(checkpoint, 0)
            if n_windows <= in_place * (1 - share):
                share += n_windows / in_place
                batch = [waiter for waiter, _ in arrived]
                _resolve(batch, self._compute(batch))
            else:
                for waiter, deadline in arrived:
                    self._wait_for_thread(waiter, deadline)
        self._dispatch()

    def _wait_for_thread(self, waiter: Waiter, deadline: Deadline) -> None:
        deadline.watch(waiter.outcome)
        self._batches.put(waiter.item.model.checkpoint, waiter)

    def _dispatch(self) -> None:
        """Hands the free thread everything that waits for one model."""
        if not self.is_busy and self._thread is not None and (batch := self._batches.take()):
            self.is_busy = True
            self._thread.give(partial(self._compute, batch), partial(self._finish, batch))

    def _finish(self, batch: Sequence[Waiter], results: Any, error: BaseException | None) -> None:
        """Resolves every future of a batch, whatever happened on the thread."""
        self.is_busy = False
        _resolve(batch, results if error is None else [error] * len(batch))
        self._dispatch()

    def _compute(self, batch: Sequence[Waiter]) -> list[Any]:
        """The answer or the error of each request, alone in failing; a new model is timed first."""
        model: Model = batch[0].item.model
        if model.checkpoint not in self._in_place:
            if len(self._in_place) >= N_MODELS:
                self._in_place.clear()
            self._in_place[model.checkpoint] = _measure_in_place(model)
        answers = {one: one.attempt(one.item.read) for one in batch}  # at first the windows
        read = [one for one in batch if not isinstance(answers[one], Exception)]
        if read:
            windows = [answers[one] for one in read]
            self._observe_batch(sum(map(len, windows)))
            for one, predictions in zip(read, read[0].context.run(_forecast, model, windows), strict=True):
                failed = isinstance(predictions, Exception)
                answers[one] = predictions if failed else one.attempt(one.item.describe, answers[one], predictions)
        return [answers[one] for one in batch]


def _take_predictions(_: Array, predictions: Array) -> Array:
    return predictions


def _resolve(batch: Sequence[Waiter], results: Sequence[Any]) -> None:
    for waiter, result in zip(batch, results, strict=True):
        waiter.resolve(result)


def _forecast(model: Model, windows: Sequence[Array]) -> list[Array | Exception]:
    """The forecasts, or the error, of the windows of each request."""
    try:
        with span("forecast", windows=sum(map(len, windows))):
            predictions = model.predict(windows[0] if len(windows) == 1 else np.concatenate(windows))
    except Exception as error:
        return [error] if len(windows) == 1 else [_forecast(model, [of_request])[0] for of_request in windows]
    ends = accumulate(map(len, windows))
    return [predictions[end - len(of_request) : end] for of_request, end in zip(windows, ends, strict=True)]


def _measure_in_place(model: Model) -> int:
    """How many windows a model forecasts in `IN_PLACE` seconds, by linear extrapolation from one and from several."""
    windows = model.scaling.features_to_original(model.loaded.reference.windows[:N_TIMED])
    one = _measure_forecast(model, windows[:1])
    if one > IN_PLACE:
        return 0
    per_window = max(_measure_forecast(model, windows) - one, 1e-9) / max(len(windows) - 1, 1)
    return min(int(1 + (IN_PLACE - one) / per_window), BATCH_WINDOWS)


def _measure_forecast(model: Model, windows: Array) -> float:
    """CPU seconds of this thread, which other load does not affect."""
    seconds = []
    for _ in range(N_TIMINGS):
        start = thread_time()
        model.predict(windows)
        seconds.append(thread_time() - start)
    return min(seconds)
