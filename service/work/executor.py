"""The executor of all computations: admission, scheduling by owner and class, single flight (one computation per key).

Forecasts have a thread of their own, see `Forecasts`. A few other jobs run at a time on threads of lower priority: that
of the owner whose turn it is, and of its jobs by class and then by arrival. At most one of them is background work and
at most one is long, so that a short job waits for neither. At each pause a running job lets one of another owner
continue if any waits, and keeps its thread; explanations also yield to those of the same owner. Background work rests
while requests come, see `Rests`.
"""

import asyncio
import sys
from bisect import insort
from collections.abc import Callable, Hashable, Sequence, Set
from contextlib import ExitStack
from functools import partial
from itertools import count, repeat
from typing import Any, TypeVar, cast

from kanmodel.computing import pause, pausing
from service.telemetry.metrics import Metrics
from service.telemetry.observation import span
from service.wire.errors import NotReadyError
from service.work import jobs
from service.work.budget import Bounds, Budget, Claim, Kind
from service.work.forecasts import BATCH_WINDOWS, ForecastRequest, Forecasts
from service.work.jobs import ComputeThread, Cost, Deadline, Job, Waiter, resolve

Result = TypeVar("Result")
Item = TypeVar("Item")
N_RUNNING = 3  # jobs: a long one, one in the background, a short one
BATCH_EXPLANATIONS = 32  # of small requests, in a batch
N_SLICES = 16  # of a batch, after which the next one may begin, so that a long one blocks nothing
OVERTAKING = 2.0  # seconds after which a job overtakes more urgent ones of its owner
SWITCH = 5e-4  # interpreter switch interval, for the event loop's latency: Python's default of 5 ms adds up
GRACE = 2.0  # seconds to wait at shutdown for a thread that does not pause


class Executor:
    """Runs the computations of one event loop; `claim` is that of its `Budget`, `predict` that of its `Forecasts`."""

    def __init__(self, bounds: Bounds, metrics: Metrics) -> None:
        self._metrics = metrics
        self._budget = Budget(bounds)
        self._forecasts = Forecasts(self._budget, metrics.batch_windows.observe)
        self.claim, self.predict = self._budget.claim, self._forecasts.predict
        self._make_thread: Callable[[str, bool], ComputeThread] = ComputeThread
        self._idle: list[ComputeThread] = []
        self._waiting: list[Job] = []  # by arrival
        self._running: set[Job] = set()
        self._ending: set[Job] = set()  # cancelled, but not yet at a pause
        self._turns = jobs.Turns()  # by seconds on a thread
        self._rests = jobs.Rests()
        self._by_key: dict[Hashable, Job] = {}
        self._batches = jobs.Batches(BATCH_EXPLANATIONS)  # of small requests
        self._latest: dict[Hashable, Job] = {}  # the latest batch, by key, while the next one may not begin
        self._closed = False
        self._loop: asyncio.AbstractEventLoop  # once started
        for kind in jobs.URGENCY:
            metrics.watch(metrics.queue_depth.labels(kind), partial(getattr, self._budget.places[kind], "taken"))
            metrics.watch(metrics.pending_bytes.labels(kind), partial(getattr, self._budget.pools[kind], "taken"))

    def start(self, make_thread: Callable[[str, bool], ComputeThread] = ComputeThread) -> None:
        """Starts the threads."""
        sys.setswitchinterval(SWITCH)
        self._loop = asyncio.get_running_loop()
        self._forecasts.thread = make_thread("forecasts", False)
        self._make_thread = make_thread
        self._idle = [make_thread("work", True) for _ in range(N_RUNNING)]
        self._dispatch()

    async def answer(self, request: ForecastRequest[Result], deadline: Deadline) -> Result:
        """Answers a request for forecasts, which are batched as by `predict`.

        A large request is parsed and answered on the thread of forecasts; one that may exceed a batch is parsed on
        another thread, and one that does answered there, so that forecasts do not wait for it.

        Raises:
            NonFiniteError: a forecast is not finite.
            DataError: as `run`, and likewise the other errors.
        """
        self._refuse_closed()
        n_windows, n_bytes = request.most_windows, request.reading.n_bytes
        if request.reading.seconds <= jobs.IN_PLACE or n_windows > BATCH_WINDOWS:
            windows = await self.run(request.read, "forecast", request.reading, deadline=deadline)
            describing = request.describing(windows)
            if describing.seconds <= jobs.IN_PLACE or len(windows) > BATCH_WINDOWS:
                with self.claim("forecast", windows.nbytes, place=False):
                    describe = partial(request.describe, windows, await self.predict(request.model, windows, deadline))
                    return await self.run(describe, "forecast", describing, deadline=deadline)
            request, n_windows, n_bytes = request._replace(read=lambda: windows), len(windows), describing.n_bytes
        return await self._forecasts.answer(request, n_windows, n_bytes, deadline)

    async def run(
        self,
        function: Callable[[], Result],
        kind: Kind,
        cost: Cost,
        key: Hashable = None,
        deadline: Deadline | None = None,
        claim: Claim | None = None,
    ) -> Result:
        """Runs a function on a thread, or in place if it is quick and has no key.

        A long one pauses between slices of its work (`kanmodel.computing.pause`). Requests for the same key share one
        computation (single flight). It is cancelled once the last of them has gone: before it starts, or else at its
        next pause, which then raises.

        Args:
            function: the computation.
            kind: class of the work.
            cost: its estimated cost.
            key: identity of the result, for single flight; None if no other request can share it.
            deadline: when to stop waiting; None if the caller handles it.
            claim: what the request holds already; the function is then a part of it, and yields at each pause to all.

        Raises:
            DataError: it would take more memory than its class may.
            DeadlineError: the deadline has passed.
            NotReadyError: the service is stopping.
            OverloadedError: too many requests wait.
        """
        if key is None and cost.seconds <= jobs.IN_PLACE:
            return function()
        self._refuse_closed()
        waiter, job = Waiter(), None if key is None else self._by_key.get(key)
        if job is None:
            own = self.claim(kind, cost.n_bytes) if claim is None else None
            running = function if claim is None else partial(self._time_slices, function)
            self._enqueue(Job(running, jobs.URGENCY[kind], cost, [waiter], _now(), key, own))
        else:
            waiter.job = job
            job.waiters.append(waiter)
            job.urgency = min(job.urgency, jobs.URGENCY[kind])  # background work that a request now waits for
            self._dispatch()
        if deadline is not None:
            deadline.watch(waiter.outcome)
        return cast(Result, await self._wait(waiter))

    async def run_together(
        self,
        key: Hashable,
        compute: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        item: Item,
        size: int,
        deadline: Deadline | None = None,
    ) -> Result:
        """As `run` for one item of a request that has a claim, batched with others of the same key.

        The first item of a key is computed at once; those that arrive meanwhile form the next batch, of which each
        takes its `size` of `BATCH_EXPLANATIONS`. `compute` returns the result or the error of each item of a batch.
        """
        self._refuse_closed()
        waiter = Waiter(item, size, deadline)
        self._batches.put(key, waiter)
        if key not in self._latest:
            self._begin_batch(key, compute)
        return cast(Result, await self._wait(waiter))

    async def close(self) -> None:
        """Cancels running jobs at their next pause, refuses waiting ones, and waits until the threads are idle."""
        self._closed = True
        while batch := self._batches.take():
            resolve(batch, repeat(_stopping()))
        for job in [*self._waiting]:
            self._cancel(job, _stopping())
        for job in self._running:
            job.stopped.set()
        end = _now() + GRACE
        while (self._running or self._ending or self._forecasts.is_busy) and _now() < end:
            await asyncio.sleep(0.005)
        for job in self._running:
            job.resolve(_stopping())
        for thread in (self._forecasts.thread, *self._idle, *(job.thread for job in self._running)):
            if thread is not None:
                thread.close()

    def _begin_batch(self, key: Hashable, compute: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        """Begins the next batch of a key, if any item waits; another one may begin after it, or after some slices."""
        self._latest.pop(key, None)
        batch = self._batches.take(key)
        if not batch:
            return

        def begin_next() -> None:
            if self._latest.get(key) is job:
                self._begin_batch(key, compute)

        compute_items = partial(compute, [waiter.item for waiter in batch])
        after_slices = partial(asyncio.get_running_loop().call_soon_threadsafe, begin_next)
        function = partial(self._time_slices, compute_items, after_slices)
        job = Job(function, jobs.URGENCY["explanation"], jobs.SLICE, [*batch], _now(), batch=batch, then=begin_next)
        self._latest[key] = job
        self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        for waiter in job.waiters:
            waiter.job = job
        if job.key is not None:
            self._by_key[job.key] = job
        self._waiting.append(job)
        self._dispatch()

    async def _wait(self, waiter: Waiter) -> Any:
        try:
            with span("wait"):
                return await waiter.outcome
        finally:
            job = waiter.job
            if job is not None and waiter in job.waiters:
                job.waiters.remove(waiter)
                if not job.waiters:
                    self._cancel(job)

    def _cancel(self, job: Job, error: BaseException | None = None) -> None:
        """Ends a job before it begins, or at its pause: there it keeps its place and bytes until then."""
        self._resolve(job, error)
        job.stopped.set()
        if job in self._running:
            return
        self._waiting.remove(job)
        if job.thread is None:
            job.release()
        else:  # it is paused, and ends in no time
            self._ending.add(job)
            job.thread.resume()

    def _dispatch(self) -> None:
        """Starts jobs of the owner whose turn it is: the most urgent, but first one that has waited too long."""
        now = _now()
        while len(self._running) < N_RUNNING and (ready := self._list_ready(self._running)):
            owner = self._turns.next(waiter.owner for job in ready for waiter in job.waiters)
            own = [job for job in ready if job.is_awaited_by(owner)]
            job = own[0] if now - own[0].arrival > OVERTAKING else min(own, key=lambda job: job.urgency)
            self._waiting.remove(job)
            job.lane, job.owner, job.begun = job.choose_lane(), owner, now
            self._running.add(job)
            if job.thread is not None:
                job.thread.resume()
                continue
            thread = job.thread = self._idle.pop() if self._idle else self._make_thread("work", True)
            run = partial(job.waiters[0].context.run, self._compute, job, thread)
            thread.give(run, partial(self._finish, job, thread))
        if not self._running and not self._waiting:
            self._turns.forget()
        for job in self._running:
            others = self._list_ready(self._running - {job})
            if job.claim is not None:  # else it is a part of a request, and yields also to others of its owner
                others = [one for one in others if not one.is_awaited_by(job.owner)]
            job.must_yield = bool(others)

    def _list_ready(self, running: Set[Job]) -> list[Job]:
        """Waiting jobs that could run beside others, by arrival."""
        taken = {job.lane for job in running} - {"short"}
        taken |= {"background"} if self._rests.is_on else set()
        return [job for job in self._waiting if job.choose_lane() not in taken]

    def _compute(self, job: Job, thread: ComputeThread) -> Any:
        """On a thread: between slices, the job yields to others, and raises once it is cancelled."""
        begun = thread.clock()

        def pause_job() -> None:
            nonlocal begun
            job.used = thread.clock() - begun
            if not job.stopped.is_set():
                thread.pause(lambda: job.must_yield or self._must_rest(job), partial(self._yield_turn, job))
            begun = thread.clock()
            if job.stopped.is_set():
                raise jobs.StoppedError

        try:
            with pausing(pause_job):
                return job.function()
        finally:
            job.used = thread.clock() - begun

    def _must_rest(self, job: Job) -> bool:
        """Whether it is background work, and requests come."""
        n_pending = self._budget.places["request"].taken
        return job.urgency == jobs.URGENCY["background"] and self._rests.are_due(
            self._budget.n_requests, n_pending, self._loop.time()
        )

    def _yield_turn(self, job: Job) -> None:
        """Puts a paused job back into the queue: a part of a request at the end, another where it was."""
        assert job.thread is not None, "it has begun"
        if job.stopped.is_set():
            job.thread.resume()
            return
        self._end_turn(job)
        if job.claim is None:
            job.arrival = _now()
        insort(self._waiting, job, key=lambda one: one.arrival)
        self._dispatch()

    def _end_turn(self, job: Job) -> None:
        self._running.remove(job)
        self._turns.charge(job.owner, _now() - job.begun)
        if self._must_rest(job):
            self._loop.call_later(self._rests.begin(job.used), self._end_rest)

    def _end_rest(self) -> None:
        self._rests.is_on = False
        self._dispatch()

    def _finish(self, job: Job, thread: ComputeThread, result: Any, error: BaseException | None) -> None:
        if job in self._running:
            self._end_turn(job)
        self._ending.discard(job)
        if self._closed or len(self._idle) >= N_RUNNING:
            thread.close()
        else:
            self._idle.append(thread)
        if error is not None:
            result = _stopping() if isinstance(error, jobs.StoppedError) else error
        job.release()
        self._resolve(job, result)
        if not self._closed:
            self._dispatch()

    def _resolve(self, job: Job, result: Any) -> None:
        """Gives the requests of a job their result; no other can join it then."""
        if self._by_key.get(job.key) is job:
            del self._by_key[job.key]
        job.resolve(result)
        job.then()

    def _time_slices(self, function: Callable[[], Result], after_slices: Callable[[], Any] = lambda: None) -> Result:
        """On a thread: times each slice, without the time during which others run; calls back after `N_SLICES`."""
        numbers = count(1)
        with ExitStack() as of_slice:

            def begin_slice() -> None:
                of_slice.enter_context(self._metrics.slice_seconds.time())
                of_slice.enter_context(span("slice"))

            def pause_timed() -> None:
                if next(numbers) == N_SLICES:
                    after_slices()
                of_slice.close()
                pause()
                begin_slice()

            begin_slice()
            with pausing(pause_timed):
                return function()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise _stopping()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _stopping() -> NotReadyError:
    return NotReadyError("the service is stopping", code="stopping")
