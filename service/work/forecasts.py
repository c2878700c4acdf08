"""Forecasts in batches: requests that wait for the same model are computed together.

A small batch is computed on the event loop, since handing it to a thread and back takes longer. A larger one waits for
the thread of forecasts, and runs as soon as that is free, together with everything that has arrived by then. A large
request is also parsed and answered there: each hand-over to a thread costs as much as parsing a request.
"""

import asyncio
import timeit
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, repeat
from time import thread_time
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np

from kanmodel.arrays import Array
from kanmodel.errors import NonFiniteError
from kanmodel.forecaster import Forecaster
from kanmodel.model import Model
from service.telemetry.observation import span
from service.work.budget import Budget
from service.work.jobs import FREE, IN_PLACE, Batches, ComputeThread, Cost, Deadline, Waiter, resolve

Result = TypeVar("Result")
BATCH_WINDOWS = 512  # of a batch, beyond which throughput no longer grows, but memory does
N_TIMED = 64  # windows whose forecast is timed
N_TIMINGS = 5
N_MODELS = 1000  # whose timings are kept


@dataclass(frozen=True, slots=True)
class WithBounds:
    """A model with what its bounds need besides forecasts: after its outputs the increments below, then above."""

    model: Model

    @property
    def checkpoint(self) -> str:
        """That of the model, with what tells it from the model alone."""
        return f"{self.model.checkpoint} with bounds"

    @property
    def n_values(self) -> int:
        """Number of values of a window."""
        return len(self.model.outputs) + 2 * len(self.model.levels) * len(self.model.bounded_outputs)

    def predict(self, windows: Array, /) -> Array:
        """(n, n_values), see `split`."""
        predictions, below, above = self.model.predict_increments(windows)
        return np.concatenate([predictions, *below, *above], axis=1)

    def split(self, values: Array, adapted: Forecaster | None = None) -> tuple[Array, Array, Array]:
        """Predictions (n, n_outputs), and lower and upper bounds (n_levels, n, n_forecasts), perhaps as adapted.

        Raises `NonFiniteError`: a bound is not finite.
        """
        n_outputs = len(self.model.outputs)
        sides = values[:, n_outputs:].reshape(len(values), 2, len(self.model.levels), -1).transpose(1, 2, 0, 3)
        predictions = values[:, :n_outputs]
        return predictions, *(adapted or self.model).place_bounds(predictions, *sides)


Predictor = Model | WithBounds
"""What forecasts windows, (n, n_values); those of an equal `checkpoint` are batched together."""


class ForecastRequest(NamedTuple, Generic[Result]):
    """A request for forecasts: how it is parsed before, and answered after."""

    model: Predictor
    read: Callable[[], Array]  # its windows, (n, lookback, n_features), original units
    describe: Callable[[Array, Array], Result]  # the answer for windows and their forecasts, (n, n_values)
    reading: Cost = FREE
    describing: Callable[[Array], Cost] = lambda _: FREE
    most_windows: int = 1  # upper bound


class Forecasts:
    """Batches the forecasts of all requests, and observes the number of windows of each batch."""

    def __init__(self, budget: Budget, observe_batch: Callable[[int], None]) -> None:
        self._budget = budget
        self._observe_batch = observe_batch
        self.thread: ComputeThread | None = None  # once started
        self.is_busy = False  # whether the thread is computing
        self._arrived: list[Waiter] = []  # in this iteration of the event loop
        self._n_arrived = 0  # in this iteration, the one computed at once included
        self._arrive_alone = True  # whether the last iteration with forecasts had a single one
        self._batches = Batches(BATCH_WINDOWS)  # for the thread, by checkpoint
        self._in_place: dict[str | None, int] = {}  # windows that may be computed on the event loop, by checkpoint

    async def predict(self, model: Predictor, windows: Array, deadline: Deadline) -> Array:
        """Forecasts windows, batched with others that wait for the same model; one that arrives alone at once.

        More windows than a batch may have are forecast in several, between which other owners have their turn. Windows
        are (n, lookback, n_features), original units; forecasts are (n, n_values).

        Raises:
            NonFiniteError: a forecast is not finite.
            DeadlineError: the deadline has passed.
            OverloadedError: too many requests wait.
        """
        if len(windows) > BATCH_WINDOWS:
            parts = [windows[first : first + BATCH_WINDOWS] for first in range(0, len(windows), BATCH_WINDOWS)]
            with suppress(NonFiniteError):  # it would name its place in the part: computed together, it names the right
                return np.concatenate([await self.predict(model, part, deadline) for part in parts])
        self._n_arrived += 1
        if self._n_arrived == 1:
            asyncio.get_running_loop().call_soon(self._end_iteration)
            if self._arrive_alone and len(windows) <= self._in_place.get(model.checkpoint, 0):
                self._observe_batch(len(windows))
                with span("forecast", windows=len(windows)):
                    return model.predict(windows)
        request = ForecastRequest(model, lambda: windows, lambda _, predictions: predictions)
        with self._budget.claim("forecast"):
            waiter = Waiter(request, len(windows), deadline)
            self._arrived.append(waiter)
            with span("wait"):
                return cast(Array, await waiter.outcome)

    async def answer(self, request: ForecastRequest[Result], size: int, n_bytes: int, deadline: Deadline) -> Result:
        """Parses, forecasts and answers a request on the thread, with at most `size` windows; see `Executor.answer`."""
        with self._budget.claim("forecast", n_bytes):
            waiter = Waiter(request, size, deadline)
            self._batches.put(request.model.checkpoint, waiter)
            self._dispatch()
            with span("wait"):
                return cast(Result, await waiter.outcome)

    def _end_iteration(self) -> None:
        """Computes what has arrived in this iteration of the loop, in place if that is quick."""
        self._arrive_alone, self._n_arrived = self._n_arrived == 1, 0
        by_model: dict[str | None, list[Waiter]] = {}
        for waiter in self._arrived:
            if not waiter.outcome.done():
                by_model.setdefault(waiter.item.model.checkpoint, []).append(waiter)
        self._arrived = []
        share = 0.0  # of the time for which forecasts may block the loop
        for checkpoint, batch in by_model.items():
            n_windows = sum(waiter.size for waiter in batch)
            in_place = self._in_place.get(checkpoint, 0)
            if n_windows <= in_place * (1 - share):
                share += n_windows / in_place
                resolve(batch, self._compute(batch))
            else:
                for waiter in batch:
                    self._batches.put(checkpoint, waiter)
        self._dispatch()

    def _dispatch(self) -> None:
        """Hands the free thread everything that waits for one model."""
        if not self.is_busy and self.thread is not None and (batch := self._batches.take()):
            self.is_busy = True
            self.thread.give(partial(self._compute, batch), partial(self._finish, batch))

    def _finish(self, batch: Sequence[Waiter], results: Any, error: BaseException | None) -> None:
        """Resolves every future of a batch, whatever happened on the thread."""
        self.is_busy = False
        resolve(batch, results if error is None else repeat(error))
        self._dispatch()

    def _compute(self, batch: Sequence[Waiter]) -> list[Any]:
        """The answer or the error of each request, alone in failing; a new model is timed first."""
        model: Predictor = batch[0].item.model
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
        return [*answers.values()]


def _forecast(model: Predictor, windows: Sequence[Array]) -> list[Array | Exception]:
    """The forecasts, or the error, of the windows of each request."""
    try:
        with span("forecast", windows=sum(map(len, windows))):
            predictions = model.predict(windows[0] if len(windows) == 1 else np.concatenate(windows))
    except Exception as error:
        return [error] if len(windows) == 1 else [_forecast(model, [of_request])[0] for of_request in windows]
    ends = accumulate(map(len, windows))
    return [predictions[end - len(of_request) : end] for of_request, end in zip(windows, ends, strict=True)]


def _measure_in_place(model: Predictor) -> int:
    """How many windows a model forecasts in `IN_PLACE` seconds, by linear extrapolation from one and from several."""
    core = model.model if isinstance(model, WithBounds) else model
    windows = core.scaling.features_to_original(core.reference.scaled[:N_TIMED])

    def measure(n: int) -> float:
        """CPU seconds of this thread, which other load does not affect; the least, since that only ever adds."""
        return min(timeit.repeat(lambda: model.predict(windows[:n]), timer=thread_time, number=1, repeat=N_TIMINGS))

    one = measure(1)
    if one > IN_PLACE:
        return 0
    per_window = max(measure(N_TIMED) - one, 1e-9) / max(len(windows) - 1, 1)
    return min(int(1 + (IN_PLACE - one) / per_window), BATCH_WINDOWS)
