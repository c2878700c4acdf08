"""The executor of all computations: admission, scheduling by owner and class, single flight (one computation per key).

Forecasts have a thread of their own, see `Forecasts`. A few other jobs run at a time on threads of lower priority: that
of the owner whose turn it is, and of its jobs by class and then by arrival. At most one of them is background work and
at most one is long, so that a short job waits for neither. At each pause a running job lets one of another owner
continue if any waits, and keeps its thread; explanations also yield to those of the same owner.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import insort
from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, TypeVar, cast

from kanmodel.computing import pause, pausing
from kanmodel.data import Array
from kanmodel.model import Model
from service.telemetry.metrics import Metrics
from service.telemetry.observation import span
from service.wire.errors import NotReadyError
from service.wire.security import OWNER, Owner
from service.work.batches import Batches
from service.work.budget import Bounds, Budget, Claim, Turns
from service.work.deadlines import Deadline
from service.work.forecasts import TOGETHER, Answering, Forecasts
from service.work.jobs import SLICE, URGENCY, Cost, Job, Kind, StoppedError, Worker

Result = TypeVar("Result")
Item = TypeVar("Item")
N_RUNNING = 3  # jobs: a long one, one in the background, a short one
IN_PLACE = 1e-3  # estimated seconds up to which a job without a key is computed on the event loop
PATIENCE = 2.0  # seconds after which a job overtakes more urgent ones of its owner
SWITCH = 5e-4  # interpreter switch interval, for the event loop's latency: Python's default of 5 ms adds up
GRACE = 2.0  # seconds to wait at shutdown for a thread that does not pause


class Executor:
    """Runs the computations of one event loop.

    Args:
        bounds: limits on pending work.
        metrics: the metrics that are updated.

    Attributes:
        claim: a place and bytes for a request while it is read, or while it waits for its parts; see `Budget.claim`.
    """

    def __init__(self, bounds: Bounds, metrics: Metrics) -> None:
        self._metrics = metrics
        self._budget = Budget(bounds)
        self.claim = self._budget.claim
        self._forecasts = Forecasts(self._budget, metrics.batch_windows.observe)
        self._batches = Batches(self.run_in_turns)
        self._make_worker: Callable[[str, bool], Worker] = Worker
        self._idle: list[Worker] = []
        self._waiting: list[Job] = []  # by arrival
        self._running: set[Job] = set()
        self._ending: set[Job] = set()  # cancelled, but not yet at a pause
        self._turns = Turns()  # by seconds on a thread
        self._by_key: dict[Hashable, Job] = {}
        self._closed = False
        for kind in URGENCY:
            metrics.watch(metrics.queue_depth.labels(kind), partial(getattr, self._budget.places[kind], "taken"))
            metrics.watch(metrics.pending_bytes.labels(kind), partial(getattr, self._budget.pools[kind], "taken"))

    def start(self, make_worker: Callable[[str, bool], Worker] = Worker) -> None:
        """Starts the threads."""
        sys.setswitchinterval(SWITCH)
        self._forecasts.start(make_worker("forecasts", False))
        self._make_worker = make_worker
        self._idle = [make_worker("work", True) for _ in range(N_RUNNING)]
        self._dispatch()

    async def predict(self, model: Model, windows: Array, deadline: Deadline) -> Array:
        """Forecasts windows, batched with others that wait for the same model.

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
        return await self._forecasts.predict(model, windows, deadline)

    async def answer(self, model: Model, request: Answering[Result], deadline: Deadline) -> Result:
        """Answers a request for forecasts, which are batched as by `predict`.

        A large request is parsed and answered on the thread of forecasts; one that may exceed a batch is parsed on
        another thread, so that forecasts do not wait for it.

        Args:
            model: the model.
            request: how it is parsed and answered.
            deadline: when to stop waiting.

        Raises:
            DataError: it would take more memory than forecasts may.
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
        """Runs a function on a thread, or in place if it is quick and has no key.

        As `compute`, for functions short enough not to pause.

        Args:
            function: the computation.
            kind: class of the work.
            cost: its estimated cost.
            key: identity of the result, for single flight; None if no other request can share it.
            deadline: when to stop waiting; None if the caller handles it.

        Raises:
            DataError: it would take more memory than its class may.
            DeadlineError: the deadline has passed.
            NotReadyError: the service is stopping.
            OverloadedError: too many requests wait.
        """
        if key is None and cost.seconds <= IN_PLACE:
            return function()
        return await self.compute(function, kind, cost, key, deadline)

    async def compute(
        self,
        function: Callable[[], Result],
        kind: Kind,
        cost: Cost,
        key: Hashable = None,
        deadline: Deadline | None = None,
    ) -> Result:
        """Runs a function on a thread, with pauses (`kanmodel.computing.pause`) between slices of its work.

        Requests for the same key share one computation (single flight). It is cancelled once the last of them has
        gone: before it starts, or else at its next pause.

        Args:
            function: the computation; a pause raises once it is cancelled.
            kind: class of the work.
            cost: its estimated cost.
            key: identity of the result, for single flight; None if no other request can share it.
            deadline: when to stop waiting; None if the caller handles it.

        Raises:
            DataError: as `run`, and likewise the other errors.
        """
        self._refuse_closed()
        job = self._by_key.get(key) if key is not None else None
        owner = OWNER.get()
        if job is None:
            claim = self._budget.claim(kind, cost.n_bytes)
            job = self._enqueue(function, kind, cost, [owner], key, claim)
        else:
            job.waiters.append(owner)
            job.urgency = min(job.urgency, URGENCY[kind])  # background work that a request now waits for
            self._dispatch()
        computing = self._wait(job, [owner])
        return cast(Result, await (computing if deadline is None else deadline.wait(computing)))

    async def run_in_turns(self, function: Callable[[], Result], owners: Sequence[Owner] = ()) -> Result:
        """As `compute`, for a request that already has a `claim`; it yields to others at each pause.

        Args:
            function: the computation.
            owners: who waits for it; by default the owner of the current request.
        """
        self._refuse_closed()
        owners = owners or [OWNER.get()]
        job = self._enqueue(partial(self._time_slices, function), "explanation", SLICE, owners)
        return cast(Result, await self._wait(job, owners))

    async def run_together(
        self,
        key: Hashable,
        compute: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        item: Item,
        size: int,
    ) -> Result:
        """As `run_in_turns` for one item, batched with others of the same key.

        Args:
            key: identity of the computation; items of one key differ in `item` alone.
            compute: returns the result or the error of each item of a batch.
            item: the argument.
            size: how much of a batch it takes, see `batches.TOGETHER`.
        """
        return cast(Result, await self._batches.run(key, compute, item, size))

    async def close(self) -> None:
        """Cancels running jobs at their next pause, refuses waiting ones, and waits until the threads are idle."""
        self._closed = True
        for job in [*self._waiting]:
            self._drop(job, _stopping())
        for job in self._running:
            job.stopped.set()
        loop = asyncio.get_running_loop()
        end = loop.time() + GRACE
        while (self._running or self._ending or self._forecasts.is_busy) and loop.time() < end:
            await asyncio.sleep(0.005)
        for job in self._running:
            if not job.outcome.done():
                job.outcome.set_exception(_stopping())
        self._forecasts.close()
        for thread in (*self._idle, *(job.worker for job in self._running if job.worker is not None)):
            thread.close()

    def _enqueue(
        self,
        function: Callable[[], Any],
        kind: Kind,
        cost: Cost,
        owners: Sequence[Owner],
        key: Hashable = None,
        claim: Claim | None = None,
    ) -> Job:
        loop = asyncio.get_running_loop()
        context = copy_context()  # with the span of the first request
        job = Job(
            lambda hook: context.run(_run_pausing, function, hook),
            URGENCY[kind],
            cost,
            key,
            claim,
            [*owners],
            loop.create_future(),
            loop.time(),
        )
        if key is not None:
            self._by_key[key] = job
        self._waiting.append(job)
        self._dispatch()
        return job

    async def _wait(self, job: Job, owners: Sequence[Owner]) -> Any:
        try:
            return await asyncio.shield(job.outcome)
        finally:
            for owner in owners:
                job.waiters.remove(owner)
            if not job.waiters and not job.outcome.done():
                self._give_up(job)

    def _give_up(self, job: Job) -> None:
        """Cancels a job that nobody waits for. A running one keeps its place and bytes until it ends."""
        job.outcome.cancel()
        if job in self._running:
            job.stopped.set()
            self._forget_key(job)
        else:
            self._drop(job, None)

    def _drop(self, job: Job, error: BaseException | None) -> None:
        """Drops a waiting job; a paused one ends on its thread, which takes no time."""
        self._waiting.remove(job)
        if job.worker is None:
            self._settle(job, None, error)
            return
        if error is not None and not job.outcome.done():
            job.outcome.set_exception(error)
        job.stopped.set()
        self._ending.add(job)
        job.worker.resume()

    def _dispatch(self) -> None:
        """Starts jobs of the owner whose turn it is: the most urgent, but first one that has waited too long."""
        now = asyncio.get_running_loop().time()
        while len(self._running) < N_RUNNING and (ready := self._list_ready(self._running)):
            owner = self._turns.next(owner for job in ready for owner in job.waiters)
            own = [job for job in ready if owner in job.waiters]
            job = own[0] if now - own[0].arrival > PATIENCE else min(own, key=lambda job: job.urgency)
            self._waiting.remove(job)
            job.lane, job.owner, job.begun = job.choose_lane(), owner, now
            self._running.add(job)
            if job.worker is not None:
                job.worker.resume()
                continue
            worker = job.worker = self._idle.pop() if self._idle else self._make_worker("work", True)
            worker.give(partial(job.function, partial(self._pause, job, worker)), partial(self._finish, job, worker))
        if not self._running and not self._waiting:
            self._turns.forget()
        for job in self._running:
            job.must_yield = any(map(job.makes_way_for, self._list_ready(self._running - {job})))

    def _list_ready(self, running: Set[Job]) -> list[Job]:
        """Waiting jobs that could run beside others, by arrival."""
        taken = {job.lane for job in running} - {"short"}
        return [job for job in self._waiting if job.choose_lane() not in taken]

    def _pause(self, job: Job, worker: Worker) -> None:
        """On the thread of a job, between slices: yields to others, and raises once it is cancelled."""
        if not job.stopped.is_set():
            worker.pause(lambda: job.must_yield, partial(self._yield_turn, job))
        if job.stopped.is_set():
            raise StoppedError

    def _yield_turn(self, job: Job) -> None:
        """Puts a paused job back into the queue: a part of a request at the end, another where it was."""
        assert job.worker is not None, "it has begun"
        if job.stopped.is_set():
            job.worker.resume()
            return
        self._end_turn(job)
        if job.is_part:
            job.arrival = asyncio.get_running_loop().time()
        insort(self._waiting, job, key=lambda one: one.arrival)
        self._dispatch()

    def _end_turn(self, job: Job) -> None:
        """Charges a running job to the owner in whose turn it ran."""
        self._running.remove(job)
        self._turns.charge(job.owner, asyncio.get_running_loop().time() - job.begun)

    def _finish(self, job: Job, worker: Worker, result: Any, error: BaseException | None) -> None:
        if job in self._running:
            self._end_turn(job)
        self._ending.discard(job)
        if self._closed or len(self._idle) >= N_RUNNING:
            worker.close()
        else:
            self._idle.append(worker)
        self._settle(job, result, _stopping() if isinstance(error, StoppedError) else error)
        if not self._closed:
            self._dispatch()

    def _settle(self, job: Job, result: Any, error: BaseException | None) -> None:
        """Returns a job's place and bytes, and resolves its future."""
        self._forget_key(job)
        if job.claim is not None:
            job.claim.release()
        if job.outcome.done():
            return
        if error is None:
            job.outcome.set_result(result)
        else:
            job.outcome.set_exception(error)

    def _forget_key(self, job: Job) -> None:
        if job.key is not None and self._by_key.get(job.key) is job:
            del self._by_key[job.key]

    def _time_slices(self, function: Callable[[], Result]) -> Result:
        """On a thread: times each slice, without the time during which others run."""
        with ExitStack() as of_slice:
            of_slice.enter_context(self._time_slice())

            def pause_timed() -> None:
                of_slice.close()
                pause()
                of_slice.enter_context(self._time_slice())

            with pausing(pause_timed):
                return function()

    @contextmanager
    def _time_slice(self) -> Iterator[None]:
        start = perf_counter()
        try:
            with span("slice"):
                yield
        finally:
            self._metrics.slice_seconds.observe(perf_counter() - start)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise _stopping()


def _run_pausing(function: Callable[[], Result], hook: Callable[[], None]) -> Result:
    with pausing(hook):
        return function()


def _stopping() -> NotReadyError:
    return NotReadyError("the service is stopping", code="stopping")
