"""The one place through which everything passes that computes: forecasts, explanations, global results, answers.

Forecasts have a thread of their own, see `Forecasts`. All else goes, by class and by arrival, to a few threads of lower
priority. What is prepared before anybody asks has one of them at most, and so has what takes long: something short
never waits for either.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, TypeVar, cast

from kanmodel.checkpoint import LoadedModel
from kanmodel.scaling import Array
from service.http.errors import NotReadyError
from service.telemetry.metrics import Metrics
from service.telemetry.traces import span
from service.work.budget import Bounds, Budget, Held
from service.work.deadlines import Deadline
from service.work.forecasts import TOGETHER, Answering, Forecasts
from service.work.jobs import SLICE, URGENCY, Cost, Job, Kind
from service.work.threads import BreakOff, StoppedError, Worker

Result = TypeVar("Result")
N_THREADS = 3  # one for what takes long, one for what is prepared, one that is left for what is short
IN_PLACE = 1e-3  # estimated seconds up to which a job without a key is computed on the event loop
PATIENCE = 2.0  # seconds after which a job goes before more urgent ones
SWITCH = 5e-4  # seconds after which a thread in Python must let the event loop on: Python's own 5 ms add up
GRACE = 2.0  # seconds to wait at the end for a thread that does not come to an operation of torch


class Executor:
    """Computes for the requests of one event loop.

    Args:
        bounds: how much is accepted.
        metrics: where the work is counted.
    """

    def __init__(self, bounds: Bounds, metrics: Metrics) -> None:
        self._metrics = metrics
        self._budget = Budget(bounds)
        self._forecasts = Forecasts(self._budget, metrics.observe_batch)
        self._threads: list[Worker] = []
        self._idle: list[Worker] = []
        self._waiting: list[Job] = []  # by arrival
        self._running: set[Job] = set()
        self._by_key: dict[Hashable, Job] = {}
        self._closed = False
        for kind in URGENCY:
            metrics.watch_queue(kind, partial(self._budget.taken.__getitem__, kind))
            metrics.watch_pending_bytes(kind, partial(self._budget.held.__getitem__, kind))

    def start(self, make_worker: Callable[[str, bool], Worker] = Worker) -> None:
        """Starts the threads."""
        sys.setswitchinterval(SWITCH)
        self._forecasts.start(make_worker("forecasts", False))
        self._threads = [make_worker(f"work {number}", True) for number in range(N_THREADS)]
        self._idle = [*self._threads]
        self._dispatch()

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
        return await self._forecasts.predict(model, windows, deadline)

    async def answer(self, model: LoadedModel, request: Answering[Result], deadline: Deadline) -> Result:
        """The answer to a request for forecasts, which are computed together with others as by `predict`.

        A large request is read and answered on the thread of forecasts; one that may be more than a batch is read by
        the others, so that forecasts don't wait for that.

        Args:
            model: the model.
            request: how it is read and answered.
            deadline: until when.

        Raises:
            DataError: it takes more memory than there is for forecasts.
            NonFiniteError: a forecast is not finite.
            DeadlineError: the deadline has passed.
            NotReadyError: the service is stopping.
            OverloadedError: too many requests wait.
        """
        self._refuse_closed()
        if request.reading.seconds > IN_PLACE and request.most_windows > TOGETHER:
            windows = await self.run(request.read, "forecast", request.reading, deadline=deadline)
            request = replace(request, read=lambda: windows, reading=Cost(0))
        return await self._forecasts.answer(model, request, deadline)

    async def run(
        self,
        function: Callable[[], Result],
        kind: Kind,
        cost: Cost,
        key: Hashable = None,
        deadline: Deadline | None = None,
    ) -> Result:
        """What a function returns: computed on a thread, or at once where that is quick and nobody shares it.

        Several who ask for the same key while it is computed share one computation. It is given up once the last of
        them has gone: before it starts, or else at its next operation of torch where it is long.

        Args:
            function: what to compute.
            kind: class of the work.
            cost: its estimated cost.
            key: names what is computed; None where nobody else can ask for the same.
            deadline: until when; None where the caller sees to that.

        Raises:
            DataError: it takes more memory than there is for its class.
            DeadlineError: the deadline has passed.
            NotReadyError: the service is stopping.
            OverloadedError: too much waits already.
        """
        if key is None and cost.seconds <= IN_PLACE:
            return function()
        self._refuse_closed()
        job = self._by_key.get(key) if key is not None else None
        if job is None:
            self._budget.take(kind, cost.n_bytes)
            job = self._enqueue(function, kind, cost, key)
        elif URGENCY[kind] < job.urgency:
            job.urgency = URGENCY[kind]  # somebody waits for what was only to be prepared
            self._dispatch()
        computing = self._wait(job)
        return cast(Result, await (computing if deadline is None else deadline.wait(computing)))

    async def run_slice(self, function: Callable[[], Result]) -> Result:
        """What one of many slices returns, for a request that has its place already; see `place`."""
        self._refuse_closed()
        timed = partial(self._time_slice, function)
        return cast(Result, await self._wait(self._enqueue(timed, "explanation", SLICE, None, has_place=False)))

    def place(self, kind: Kind, n_bytes: int = 0) -> AbstractContextManager[None]:
        """A place among the requests that wait, and bytes, for work that consists of slices; see `Budget.take`."""
        return self._budget.place(kind, n_bytes)

    def hold(self, kind: Kind) -> Held:
        """What a request holds in memory while it is read, as a context."""
        return Held(self._budget, kind)

    async def close(self) -> None:
        """Breaks off what is computed, refuses what waits, and waits until the threads are idle."""
        self._closed = True
        for job in [*self._waiting]:
            self._settle(job, None, _stopping())
        self._waiting.clear()
        for job in self._running:
            job.stopped.set()
        loop = asyncio.get_running_loop()
        end = loop.time() + GRACE
        while (self._running or self._forecasts.is_busy) and loop.time() < end:
            await asyncio.sleep(0.005)
        for job in self._running:
            if not job.outcome.done():
                job.outcome.set_exception(_stopping())
        self._forecasts.close()
        for thread in self._threads:
            thread.close()

    def _enqueue(
        self, function: Callable[[], Any], kind: Kind, cost: Cost, key: Hashable, has_place: bool = True
    ) -> Job:
        loop = asyncio.get_running_loop()
        within = partial(copy_context().run, function)  # the span of the request that asked first
        job = Job(within, kind, URGENCY[kind], cost, key, has_place, loop.create_future(), loop.time())
        if key is not None:
            self._by_key[key] = job
        self._waiting.append(job)
        self._dispatch()
        return job

    async def _wait(self, job: Job) -> Any:
        job.waiters += 1
        try:
            return await asyncio.shield(job.outcome)
        finally:
            job.waiters -= 1
            if not job.waiters and not job.outcome.done():
                self._give_up(job)

    def _give_up(self, job: Job) -> None:
        """Ends a job that nobody waits for. One that runs has its place and its bytes until it has ended."""
        job.outcome.cancel()
        job.stopped.set()
        if job in self._running:
            self._forget_key(job)
        else:
            self._waiting.remove(job)
            self._settle(job, None, None)

    def _dispatch(self) -> None:
        """Gives idle threads what may run: the most urgent that arrived first, or what has waited too long."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            taken = {job.lane for job in self._running} - {"short"}
            ready = [job for job in self._waiting if job.choose_lane() not in taken]
            if not ready:
                return
            oldest = ready[0]
            job = oldest if now - oldest.arrival > PATIENCE else min(ready, key=lambda job: job.urgency)
            self._waiting.remove(job)
            job.lane = job.choose_lane()
            self._running.add(job)
            thread = self._idle.pop()
            thread.give(partial(_compute, job), partial(self._finish, job, thread))

    def _finish(self, job: Job, thread: Worker, result: Any, error: BaseException | None) -> None:
        self._idle.append(thread)
        self._running.discard(job)
        self._settle(job, result, _stopping() if isinstance(error, StoppedError) else error)
        if not self._closed:
            self._dispatch()

    def _settle(self, job: Job, result: Any, error: BaseException | None) -> None:
        """Gives back what a job had, and tells who waits."""
        self._forget_key(job)
        if job.has_place:
            self._budget.give_back(job.kind, job.cost.n_bytes)
        if job.outcome.done():
            return
        if error is None:
            job.outcome.set_result(result)
        else:
            job.outcome.set_exception(error)

    def _forget_key(self, job: Job) -> None:
        if job.key is not None and self._by_key.get(job.key) is job:
            del self._by_key[job.key]

    def _time_slice(self, function: Callable[[], Result]) -> Result:
        start = perf_counter()
        try:
            with span("slice"):
                return function()
        finally:
            self._metrics.observe_slice(perf_counter() - start)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise _stopping()


def _compute(job: Job) -> Any:
    """On a thread; what is long can be broken off."""
    if not job.is_long:
        return job.function()
    with BreakOff(job.stopped):
        return job.function()


def _stopping() -> NotReadyError:
    return NotReadyError("the service is stopping", code="stopping")
