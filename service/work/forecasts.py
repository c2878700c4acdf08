"""Forecasts in batches: requests that wait for the same model are computed together.

A small batch is computed on the event loop, since handing it to a thread and back takes longer. A larger one waits for
the thread of forecasts. There a large request is also parsed and answered: each hand-over to a thread costs as much as
parsing a request.
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
from service.compute import Compute, attempt_each
from service.room import Deadline
from service.telemetry.observation import span

Result = TypeVar("Result")
BATCH_WINDOWS = 512  # of a batch, beyond which throughput no longer grows, but memory does
ON_LOOP = 1e-3  # seconds for which a forecast may block the event loop
N_TIMED = 64  # windows whose forecast is timed
N_TIMINGS = 5
N_MODELS = 1000  # whose timings are kept


@dataclass(frozen=True, slots=True)
class Plain:
    """A model as it forecasts windows that are read and checked already."""

    model: Model

    @property
    def checkpoint(self) -> str | None:
        """That of the model."""
        return self.model.checkpoint

    @property
    def n_values(self) -> int:
        """Number of values of a window."""
        return len(self.model.outputs)

    def predict(self, windows: Array, /) -> Array:
        """(n, n_outputs), in original units."""
        return Forecaster.predict(self.model, windows)

    def split(self, values: Array, adapted: Forecaster | None = None) -> tuple[Array, ...]:
        """Predictions (n, n_outputs) alone."""
        return (values,)


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

    def split(self, values: Array, adapted: Forecaster | None = None) -> tuple[Array, ...]:
        """Predictions (n, n_outputs), and lower and upper bounds (n_levels, n, n_forecasts), perhaps as adapted.

        Raises `NonFiniteError`: a bound is not finite.
        """
        n_outputs = len(self.model.outputs)
        sides = values[:, n_outputs:].reshape(len(values), 2, len(self.model.levels), -1).transpose(1, 2, 0, 3)
        predictions = values[:, :n_outputs]
        return predictions, *(adapted or self.model).place_bounds(predictions, *sides)


Predictor = Plain | WithBounds
"""What forecasts windows, (n, n_values); those of an equal `checkpoint` are batched together."""


class ForecastRequest(NamedTuple, Generic[Result]):
    """A request for forecasts: how it is parsed before, and answered after."""

    model: Predictor
    read: Callable[[], Array]  # its windows, (n, lookback, n_features), original units
    describe: Callable[[Array, Array], Result]  # the answer for windows and their forecasts, (n, n_values)
    most_windows: int  # upper bound
    n_bytes: int  # of memory that this takes
    is_read_at_once: bool  # whether reading takes less than a hand-over to a thread
    is_described_at_once: Callable[[Array], bool]  # likewise, of its windows


class _Arrived(NamedTuple):
    """Windows to be forecast at the end of this turn of the event loop; the outcome is None if they have to wait."""

    model: Predictor
    windows: Array
    outcome: asyncio.Future[Array | None]


class Forecasts:
    """Batches the forecasts of all requests, and observes the number of windows of each batch."""

    def __init__(self, compute: Compute, observe_batch: Callable[[int], None]) -> None:
        self._compute, self._observe_batch = compute, observe_batch
        self._n_arrived, self._arrive_alone = 0, True  # in this turn of the event loop; whether one did in the last
        self._arrived: list[_Arrived] = []
        self._on_loop: dict[str | None, int] = {}  # windows that may be computed on the event loop, by checkpoint

    async def predict(self, model: Predictor, windows: Array, deadline: Deadline) -> Array:
        """Forecasts windows, batched with others that wait for the same model; one that arrives alone at once.

        More windows than a batch may have are forecast in several, between which other clients have their turn. Windows
        are (n, lookback, n_features), original units; forecasts are (n, n_values).

        Raises:
            NonFiniteError: a forecast is not finite.
            DeadlineError: as `Compute.submit`, and likewise other errors.
        """
        n = len(windows)
        if n > BATCH_WINDOWS:
            parts = [windows[first : first + BATCH_WINDOWS] for first in range(0, n, BATCH_WINDOWS)]
            with suppress(NonFiniteError):  # it would name its place in the part: computed together, it names the right
                return np.concatenate([await self.predict(model, part, deadline) for part in parts])
        self._n_arrived += 1
        loop = asyncio.get_running_loop()
        if self._n_arrived == 1:
            loop.call_soon(self._end_iteration)
        if n <= self._on_loop.get(model.checkpoint, 0) and loop.time() < deadline.time:
            if self._n_arrived == 1 and self._arrive_alone:
                return self._forecast(model, [windows])[0]
            self._arrived.append(_Arrived(model, windows, loop.create_future()))
            if (found := await self._arrived[-1].outcome) is not None:
                return found
        forecasts = await self._compute.submit_together(
            lambda batch: self._forecast_each(model, batch),
            "forecast",
            deadline,
            item=windows,
            size=n,
            group=("windows", model.checkpoint),
            most=BATCH_WINDOWS,
        )
        return cast(Array, forecasts)

    async def answer(self, request: ForecastRequest[Result], deadline: Deadline) -> Result:
        """Parses, forecasts and answers a request; raises as `predict`.

        One that may exceed a batch is parsed, and one that does answered, where forecasts do not wait for it.
        """
        submit, n = self._compute.submit, request.most_windows
        if request.is_read_at_once or n > BATCH_WINDOWS:
            read = request.read
            n_bytes = request.n_bytes
            windows = (
                read() if request.is_read_at_once else await submit(read, "explanation", deadline, n_bytes=n_bytes)
            )
            n = len(windows)
            is_quick = request.is_described_at_once(windows)
            if is_quick or n > BATCH_WINDOWS:
                values = await self.predict(request.model, windows, deadline)
                if is_quick:
                    return request.describe(windows, values)
                describe = partial(request.describe, windows, values)
                return await submit(describe, "explanation", deadline, n_bytes=n_bytes)
            request = request._replace(read=lambda: windows)
        answer = await self._compute.submit_together(
            self._answer_each,
            "forecast",
            deadline,
            item=request,
            size=n,
            group=("answers", request.model.checkpoint),
            most=BATCH_WINDOWS,
            n_bytes=request.n_bytes,
        )
        return cast(Result, answer)

    def _end_iteration(self) -> None:
        """Forecasts what has arrived together, on the event loop if that is quick; the rest gets None, and waits."""
        self._arrive_alone, self._n_arrived = self._n_arrived == 1, 0
        by_model: dict[str | None, list[_Arrived]] = {}
        for one in self._arrived:
            if not one.outcome.done():
                by_model.setdefault(one.model.checkpoint, []).append(one)
        self._arrived, left = [], 1.0  # of the time for which forecasts may block the loop
        for checkpoint, batch in by_model.items():
            share = sum(len(one.windows) for one in batch) / self._on_loop.get(checkpoint, 1)
            is_quick = share <= left
            left -= share if is_quick else 0.0
            windows = [one.windows for one in batch]
            found = self._forecast_each(batch[0].model, windows) if is_quick else repeat(None)
            for one, result in zip(batch, found, strict=False):
                if isinstance(result, Exception):
                    one.outcome.set_exception(result)
                else:
                    one.outcome.set_result(result)

    def _answer_each(self, requests: Sequence[ForecastRequest[Any]]) -> list[Any]:
        """The answer or the error of each request to one model, alone in failing."""
        answers = [_attempt(one.read) for one in requests]  # at first the windows
        read = [number for number, windows in enumerate(answers) if not isinstance(windows, Exception)]
        forecasts = self._forecast_each(requests[0].model, [answers[number] for number in read]) if read else []
        for number, values in zip(read, forecasts, strict=True):
            failed, describe = isinstance(values, Exception), requests[number].describe
            answers[number] = values if failed else _attempt(describe, answers[number], values)
        return answers

    def _forecast_each(self, model: Predictor, batch: Sequence[Array]) -> list[Any]:
        """The forecasts, or the error, of the windows of each request; a new model is timed first."""
        if model.checkpoint not in self._on_loop:
            if len(self._on_loop) >= N_MODELS:
                self._on_loop.clear()
            self._on_loop[model.checkpoint] = _measure_on_loop(model)
        return attempt_each(partial(self._forecast, model), batch)

    def _forecast(self, model: Predictor, batch: Sequence[Array]) -> list[Array]:
        """The forecasts of the windows of each request."""
        n = sum(map(len, batch))
        self._observe_batch(n)
        with span("forecast", windows=n):
            predictions = model.predict(batch[0] if len(batch) == 1 else np.concatenate(batch))
        ends = accumulate(map(len, batch))
        return [predictions[end - len(windows) : end] for windows, end in zip(batch, ends, strict=True)]


def _attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        return error


def _measure_on_loop(model: Predictor) -> int:
    """How many windows a model forecasts in `ON_LOOP` seconds, by linear extrapolation from one and from several."""
    windows = model.model.reference.windows[:N_TIMED]

    def measure(n: int) -> float:
        """CPU seconds of this thread, which other load does not affect; the least, since that only ever adds."""
        return min(timeit.repeat(lambda: model.predict(windows[:n]), timer=thread_time, number=1, repeat=N_TIMINGS))

    one = measure(1)
    if one > ON_LOOP:
        return 0
    per_window = max(measure(N_TIMED) - one, 1e-9) / max(len(windows) - 1, 1)
    return min(int(1 + (ON_LOOP - one) / per_window), BATCH_WINDOWS)
