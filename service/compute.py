"""The one way to compute: what a request computes passes `Compute.submit`; what it holds is in its `room.Hold`.

There is one queue. Forecasts have a thread of their own, and everything that waits for the same model goes together.
Explanations and results have two: one for what has run less than `SHORT` seconds, one for what has run longer, so that
nothing short waits for something long. Loading models has the fourth, and background work, which rests while requests
come, the last.

The rule of fairness: when more than one client is waiting, they take turns; a lone client gets everything. Turns are
measured in seconds of computing, and taken at each pause (`kanmodel.computing.pause`). Of one client's work that goes
first which has run for less time, then what came first.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import count, repeat
from queue import SimpleQueue
from threading import Semaphore, Thread, get_native_id
from time import thread_time
from typing import Any, Literal, TypeVar, cast, get_args

from kanmodel.computing import Done, pausing, reporting
from service.room import HOLD, Deadline, Hold, Room, fail, refuse_large, retry_in
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.observation import span
from service.wire.errors import DeadlineError, NotReadyError
from service.wire.security import OWNER, Owner

Result = TypeVar("Result")
Kind = Literal["forecast", "explanation", "load", "background"]
Lane = Literal["forecast", "short", "long", "load", "background"]
LANES: tuple[Lane, ...] = ("forecast", "short", "long", "load", "background")
SHORT = 0.1  # seconds of computing up to which work counts as short
N_KNOWN = 1000  # clients whose turns are remembered
NICE = 10  # how much less urgent other threads are than that of forecasts, which get nine tenths of a shared core
BACKGROUND_SHARE = 0.1  # of a core, that background work takes while requests come
QUIET = 0.5  # seconds without a request, after which it takes what it can
SWITCH = 5e-4  # interpreter switch interval, for the event loop's latency: Python's default of 5 ms adds up
GRACE = 2.0  # seconds to wait at shutdown for a thread that does not pause
MOST_LEFT = 4  # computations of a client that go on though nobody waits for them


class StoppedError(Exception):
    """A computation was cancelled at a pause."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A request that waits for a result."""

    item: Any = None  # what is computed for it in a batch
    owner: Owner = field(default_factory=OWNER.get)
    hold: Hold | None = field(default_factory=HOLD.get)
    context: Context = field(default_factory=copy_context)  # with its span
    outcome: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    job: Job | None = None


@dataclass(eq=False)
class Job:
    """A computation that waits for a thread or runs on one."""

    compute: Callable[[Sequence[Any]], Any]  # of the items: one result for each, or without a group one for all
    kind: Kind
    arrival: int
    waiters: list[Waiter] = field(default_factory=list)
    key: Hashable = None
    keep: Callable[[Any], object] | None = None
    n_bytes: int = 0
    group: Hashable = None
    size: int = 1
    most: int = 1
    batch: Sequence[Waiter] = ()  # whose items are computed, once it has begun
    thread: ComputeThread | None = None  # once it has begun
    owner: Owner = ""  # whose turn it runs in, which began at `begun`
    begun: float = 0.0
    used: float = 0.0  # seconds that it has run
    slice: float = 0.0  # processor seconds of its latest slice
    seconds_left: float | None = None  # an estimate
    must_yield: bool = False  # whether another client's job waits for its lane
    rival: int | None = None  # the least level of what else of its client waits for it
    is_stopped: bool = False  # whether it was cancelled

    @property
    def level(self) -> int:
        """See `_level`, as of the end of its latest turn."""
        return _level(self.used)

    @property
    def lane(self) -> Lane:
        """The thread on which it may run next."""
        return ("long" if self.level else "short") if self.kind == "explanation" else self.kind

    def is_awaited_by(self, owner: Owner) -> bool:
        """Whether a request of a client waits for it."""
        return owner == self.owner if not self.waiters else any(one.owner == owner for one in self.waiters)

    def resolve(self, result: Any) -> None:
        """Gives every request the result, or its own of a batch; an exception is raised there."""
        waiters, self.waiters = self.waiters, []
        is_shared = self.group is None or isinstance(result, BaseException)
        batch, results = (waiters, repeat(result)) if is_shared else (self.batch, result)
        for waiter, own in zip(batch, results, strict=False):
            if waiter.outcome.done():
                continue
            if isinstance(own, BaseException):
                waiter.outcome.set_exception(own)
            else:
                waiter.outcome.set_result(own)


class Compute:
    """Runs the computations of one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics, self._most_seconds = metrics, settings.max_request_timeout
        self._most_bytes = settings.max_work_bytes
        self.room = Room(settings.max_concurrent, settings.max_work_bytes, self._expect_wait)
        self._make_thread: Callable[[str, bool], ComputeThread] = ComputeThread
        self._idle: dict[bool, list[ComputeThread]] = {False: [], True: []}  # by whether they are nice
        self._numbers = count()
        self._waiting: list[Job] = []
        self._running: dict[Lane, Job] = {}
        self._begun: set[Job] = set()  # running, paused, or ending after they were cancelled
        self._by_key: dict[Hashable, Job] = {}
        self._turns = {False: Turns(), True: Turns()}  # of forecasts, and of everything else
        self._rests = Rests()
        self._is_due = self._closed = False  # whether the queue is looked at once this turn of the loop ends
        self._waits = 0.0  # seconds that what has begun lately had waited, a moving average
        self._loop: asyncio.AbstractEventLoop  # once started
        for kind in get_args(Kind):
            metrics.watch(metrics.queue_depth.labels(kind), partial(self._count, kind))
        metrics.watch(metrics.pending_bytes, lambda: float(self.room.n_bytes))

    def start(self, make_thread: Callable[[str, bool], ComputeThread] | None = None) -> None:
        """Lets work begin, on threads of the class."""
        sys.setswitchinterval(SWITCH)
        self._make_thread = make_thread or ComputeThread
        self._loop = asyncio.get_running_loop()
        self._look()

    async def submit(
        self,
        compute: Callable[[], Result],
        kind: Kind,
        deadline: Deadline | None = None,
        *,
        key: Hashable = None,
        keep: Callable[[Result], object] | None = None,
        n_bytes: int = 0,
    ) -> Result:
        """Runs a function on a thread once it is its turn. It gives way to others at its pauses.

        Args:
            compute: the function.
            kind: of the work; forecasts come before the rest, and background work after it.
            deadline: when to stop waiting.
            key: identity of the result: who asks for the same joins one computation.
            keep: takes the result on the event loop. Once begun, the computation then goes on though nobody waits for
                it any more, up to `MOST_LEFT` of a client. Any other is cancelled at its next pause, which raises.
            n_bytes: memory that it takes while it runs; it begins once as much is free.

        Raises:
            DataError: it would take more memory than all requests may.
            DeadlineError: the deadline has passed; it says whether to retry.
            NotReadyError: the service is stopping.
            OverloadedError: the request has made room for another client.
        """
        job = None if key is None else self._by_key.get(key)
        if job is None:
            refuse_large(n_bytes, self._most_bytes)
            job = Job(lambda _: compute(), kind, next(self._numbers), key=key, keep=keep, n_bytes=n_bytes)
        elif kind != "background" and job.kind == "background":
            job.kind = kind  # which a request now waits for
        return cast(Result, await self._join(job, Waiter(), deadline))

    async def submit_together(
        self,
        compute: Callable[[Sequence[Any]], Sequence[Any]],
        kind: Kind,
        deadline: Deadline | None,
        *,
        item: Any,
        size: int,
        group: Hashable,
        most: int,
        n_bytes: int = 0,
    ) -> Any:
        """As `submit` for one item of a computation of several; those of a group that wait begin together.

        Nothing waits for a batch to fill: batches grow with the load, up to the sum of sizes `most`. `compute` returns
        a result or an exception for each item.
        """
        refuse_large(n_bytes, self._most_bytes)
        number = next(self._numbers)
        job = Job(compute, kind, number, group=group, size=size, most=most, n_bytes=n_bytes)
        return await self._join(job, Waiter(item), deadline)

    async def close(self) -> None:
        """Cancels running jobs at their next pause, refuses waiting ones, and waits until the threads are idle."""
        self._closed = True
        for job in [*self._waiting, *self._begun]:
            job.is_stopped = True
            job.resolve(_stopping())
            if job.thread is not None and job in self._waiting:
                job.thread.resume()
        self._waiting.clear()
        end = self._loop.time() + GRACE
        while self._begun and self._loop.time() < end:
            await asyncio.sleep(0.005)
        threads = [*self._idle[False], *self._idle[True], *(job.thread for job in self._begun)]
        for thread in threads:
            if thread is not None:
                thread.close()

    async def _join(self, job: Job, waiter: Waiter, deadline: Deadline | None) -> Any:
        if self._closed:
            raise _stopping()
        if deadline is not None and deadline.time <= self._loop.time():
            raise self._expire(waiter, deadline)
        self._settle(job.kind == "forecast")
        waiter.job = job
        job.waiters.append(waiter)
        if job not in self._begun:
            if len(job.waiters) == 1 and job not in self._waiting:
                job.owner, job.begun = waiter.owner, self._loop.time()
                self._waiting.append(job)
                if job.key is not None:
                    self._by_key[job.key] = job
            if waiter.hold is not None:
                waiter.hold.give_way, waiter.hold.has_begun = partial(fail, waiter.outcome), False
        if deadline is not None:
            deadline.watch(waiter.outcome, partial(self._expire, waiter))
        self._look_later()
        try:
            with span("wait"):
                return await waiter.outcome
        finally:
            if waiter.hold is not None:
                waiter.hold.give_way = None
            last, waiter.job = waiter.job, None  # or the two would keep each other, and a model, until a collection
            if last is not None and waiter in last.waiters:
                last.waiters.remove(waiter)
                if not last.waiters and not self._goes_on(last):
                    self._cancel(last)

    def _settle(self, are_forecasts: bool) -> None:
        """Charges what runs until now, so that who comes begins where those are who are there."""
        now, turns = self._loop.time(), self._turns[not are_forecasts]
        for job in self._running.values():
            if (job.kind == "forecast") == are_forecasts:
                seconds, job.begun = now - job.begun, now
                job.used += seconds
                turns.charge(job.owner, seconds)
        jobs = (*self._running.values(), *self._waiting)
        turns.follow({job.owner for job in jobs if (job.kind == "forecast") == are_forecasts})

    def _goes_on(self, job: Job) -> bool:
        """Whether a job is computed to its end if nobody waits for it: of a client only a few are."""
        left = [one for one in self._begun if not one.waiters and one.owner == job.owner and one is not job]
        return job.keep is not None and job in self._begun and len(left) < MOST_LEFT

    def _cancel(self, job: Job) -> None:
        job.is_stopped = True
        self._forget(job)
        if job in self._waiting:
            self._waiting.remove(job)
            if job.thread is not None:  # it is paused, and ends in no time
                job.thread.resume()

    def _forget(self, job: Job) -> None:
        """Nobody joins a job any more."""
        if self._by_key.get(job.key) is job:
            del self._by_key[job.key]

    def _look_later(self) -> None:
        """Looks at the queue after this turn of the event loop, by when everything that has arrived with it waits."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Begins or continues what is next in each free lane, and tells running jobs whether others wait."""
        self._is_due = False
        if self._closed:
            return
        wanted = {job.lane for job in self._waiting} - self._running.keys()
        for lane in LANES:
            if lane in wanted and (ready := self._list_ready(lane)):
                self._begin(self._choose(ready), lane)
        if not self._waiting and not self._running:
            for turns in self._turns.values():
                turns.forget()
        for lane, job in self._running.items():
            others = self._list_ready(lane) if self._waiting else []
            job.must_yield = any(not one.is_awaited_by(job.owner) for one in others)
            job.rival = min((one.level for one in others), default=None)

    def _list_ready(self, lane: Lane) -> list[Job]:
        """What may run in a lane now, by arrival: what has not begun needs its memory."""
        if lane == "background" and self._rests.is_on:
            return []
        free = self._most_bytes - sum(job.n_bytes for job in self._begun)
        ready = [job for job in self._waiting if job.lane == lane]
        return [job for job in ready if job.thread is not None or job.n_bytes <= free or not self._begun]

    def _choose(self, ready: Sequence[Job]) -> Job:
        owner = self._turns_of(ready[0]).next(
            one for job in ready for one in ([waiter.owner for waiter in job.waiters] or [job.owner])
        )
        job = min((one for one in ready if one.is_awaited_by(owner)), key=lambda one: (one.level, one.arrival))
        job.owner = owner
        return job

    def _begin(self, job: Job, lane: Lane) -> None:
        self._waiting.remove(job)
        now = self._loop.time()
        self._waits += (now - job.begun - self._waits) / 8 if job.thread is None else 0.0
        job.begun = now
        if job.thread is not None:
            self._running[lane] = job
            job.thread.resume()
            return
        if job.group is not None:
            self._gather(job)
        job.batch = [*job.waiters]
        for waiter in job.batch:
            if waiter.hold is not None:
                waiter.hold.has_begun = True
        self._begun.add(job)
        self._running[lane] = job
        is_nice = lane != "forecast"
        idle = self._idle[is_nice]
        thread = job.thread = idle.pop() if idle else self._make_thread("work" if is_nice else "forecasts", is_nice)
        run = partial((job.batch[0].context if job.batch else copy_context()).run, self._run, job, thread)
        thread.give(run, partial(self._finish, job, thread))

    def _gather(self, job: Job) -> None:
        """Adds what waits for the same as a job that begins: of each client as much, if it waits for that."""
        taken, before, order = job.size, {job.owner: job.size}, []
        others = [one for one in self._waiting if one.group == job.group and one.thread is None]  # not paused ones
        for number, other in enumerate(others):
            start = before.get(other.owner, 0)
            before[other.owner] = start + other.size
            order.append((start, number, other))
        for _, _, other in sorted(order, key=lambda one: one[:2]):
            if taken + other.size <= job.most and job.n_bytes + other.n_bytes <= self._most_bytes:
                taken += other.size
                job.n_bytes += other.n_bytes
                self._waiting.remove(other)
                for waiter in other.waiters:
                    waiter.job = job
                job.waiters += other.waiters
        job.size = taken

    def _compute_batch(self, job: Job) -> Any:
        return job.compute([waiter.item for waiter in job.batch])

    def _run(self, job: Job, thread: ComputeThread) -> Any:
        """On a thread: between slices, the job yields to others, and raises once it is cancelled."""
        begun, of_slice = thread.clock(), ExitStack()

        def begin_slice() -> None:
            if job.kind == "explanation":
                of_slice.enter_context(span("slice"))

        def end_slice() -> None:
            job.slice = thread.clock() - begun
            of_slice.close()
            if job.kind == "explanation":
                self._metrics.slice_seconds.observe(job.slice)

        def pause_job() -> None:
            nonlocal begun
            end_slice()
            if not job.is_stopped:
                thread.pause(lambda: self._must_pause(job), partial(self._yield_turn, job))
            begun = thread.clock()
            if job.is_stopped:
                raise StoppedError
            begin_slice()

        def note(done: float) -> None:
            job.seconds_left = done.seconds_left if isinstance(done, Done) else None

        begin_slice()
        try:
            with pausing(pause_job), reporting(note) if job.keep else nullcontext():
                return self._compute_batch(job)
        finally:
            end_slice()

    def _must_pause(self, job: Job) -> bool:
        """Whether others are to run, it has run too long for its lane, or it is background work and requests come."""
        level = _level(job.used + self._loop.time() - job.begun)
        is_long = self._running.get("short") is job and level > 0
        is_behind = job.rival is not None and job.rival < level
        return job.must_yield or is_long or is_behind or self._must_rest(job)

    def _must_rest(self, job: Job) -> bool:
        room = self.room
        return job.kind == "background" and self._rests.are_due(room.n_requests, room.n_taken, self._loop.time())

    def _yield_turn(self, job: Job) -> None:
        """Puts a paused job back into the queue."""
        assert job.thread is not None, "it has begun"
        self._end_turn(job)
        if job.is_stopped:
            job.thread.resume()
        else:
            job.begun = self._loop.time()
            self._waiting.append(job)
        self._look()

    def _end_turn(self, job: Job) -> None:
        for lane in [lane for lane, one in self._running.items() if one is job]:
            del self._running[lane]
            seconds = self._loop.time() - job.begun
            job.used += seconds
            self._turns_of(job).charge(job.owner, seconds)
            if self._must_rest(job):
                self._loop.call_later(self._rests.begin(job.slice), self._end_rest)

    def _end_rest(self) -> None:
        self._rests.is_on = False
        self._look()

    def _finish(self, job: Job, thread: ComputeThread, result: Any, error: BaseException | None) -> None:
        self._end_turn(job)
        self._begun.discard(job)
        idle = self._idle[job.kind != "forecast"]
        if self._closed or len(idle) >= len(LANES):
            thread.close()
        else:
            idle.append(thread)
        self._forget(job)
        if error is not None:
            result = _stopping() if isinstance(error, StoppedError) else error
        elif job.keep is not None:
            job.keep(result)
        job.resolve(result)
        self._look()

    def _expire(self, waiter: Waiter, deadline: Deadline) -> DeadlineError:
        """The error of a request whose deadline has passed, which says what to do."""
        job, within = waiter.job, f"within {deadline.seconds:g} s (request_timeout)"
        if job is None or job not in self._begun:
            if not {*self._begun, *self._waiting} - {job}:
                message = f"the request was not begun {within}: give X-Request-Timeout more"
                return DeadlineError(message, headers={"Retry-After": ""})
            message = f"other requests were before this one, which was not begun {within}; retry later"
            return DeadlineError(message, headers=retry_in(self._expect_wait()))
        if self._goes_on(job):
            message = f"the result is not computed {within}, and goes on being computed; retry later"
            return DeadlineError(
                message, headers=retry_in(job.seconds_left or job.used + self._loop.time() - job.begun)
            )
        most = f"of at most {self._most_seconds:g} (max_request_timeout)"
        message = f"the result was not computed {within}: ask for less, or give X-Request-Timeout, {most}"
        return DeadlineError(message, headers={"Retry-After": ""})

    def _expect_wait(self) -> float:
        """Seconds that who comes now may wait: as the last ones did, or as what waits now already has."""
        now = self._loop.time()
        return max([self._waits, *(now - job.begun for job in self._waiting)])

    def _turns_of(self, job: Job) -> Turns:
        return self._turns[job.kind != "forecast"]

    def _count(self, kind: Kind) -> float:
        return float(sum(len(job.waiters) for job in {*self._waiting, *self._begun} if job.kind == kind))


Finished = Callable[[Any, BaseException | None], None]


class ComputeThread(Thread):
    """A thread that passes each result or error to a callback on the event loop that started it.

    With `nice` it has a lower priority.
    """

    def __init__(self, name: str, nice: bool = False) -> None:
        super().__init__(name=name, daemon=True)
        self._nice = nice
        self._inbox: SimpleQueue[tuple[Callable[[], Any], Finished] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._turn = Semaphore(0)
        self.start()

    def give(self, function: Callable[[], Any], finish: Finished) -> None:
        """Queues a function."""
        self._inbox.put((function, finish))

    def run(self) -> None:
        """Runs queued functions until it is closed."""
        if self._nice:
            with suppress(AttributeError, OSError):  # only Linux has thread priorities, and may deny this
                thread = get_native_id()
                os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)
        while (given := self._inbox.get()) is not None:
            function, finish = given
            result, error = _attempt(function)
            with suppress(RuntimeError):  # the loop is closed, so nothing waits for the result
                self._loop.call_soon_threadsafe(finish, result, error)
            del given, function, finish, result, error  # an idle thread keeps no references

    def clock(self) -> float:
        """Processor seconds that the calling thread has used, read by the running function."""
        return thread_time()

    def pause(self, is_wanted: Callable[[], bool], yield_turn: Callable[[], None]) -> None:
        """Called by the running function: if another job should run first, waits for `resume`.

        `yield_turn` is then called on the event loop, which later resumes it.
        """
        if is_wanted():
            self._loop.call_soon_threadsafe(yield_turn)
            self._turn.acquire()

    def resume(self) -> None:
        """Resumes the paused function."""
        self._turn.release()

    def close(self) -> None:
        """Ends the thread after the queued functions."""
        self._inbox.put(None)


class Rests:
    """When background work rests, so that it takes at most `BACKGROUND_SHARE` of a core while requests come.

    A slice of some milliseconds holds the interpreter lock for much of its time, so a low priority is not enough. What
    a request waits for is no background work.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._n_seen = 0
        self._last = -QUIET  # when a request was last seen

    def are_due(self, n_requests: int, n_pending: int, now: float) -> bool:
        """Whether requests come: how many have come so far, and how many are being answered."""
        if n_pending or n_requests != self._n_seen:
            self._n_seen, self._last = n_requests, now
        return now - self._last < QUIET

    def begin(self, used: float) -> float:
        """Begins one after so many processor seconds, and returns how many seconds it lasts."""
        self.is_on = True
        return used * (1 / BACKGROUND_SHARE - 1)


class Turns:
    """Whose turn it is: start-time fair queueing (Goyal, Vin and Cheng 1996, SIGCOMM), with clients as flows.

    Each client has a virtual time, which advances by what it uses; the least is next. One that was away begins at the
    time of who was last served: it is next soon, and has saved nothing up.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._times: dict[Owner, float] = {}

    def next(self, owners: Iterable[Owner]) -> Owner:
        """The client whose turn it is; of several the first."""
        owner = min(owners, key=self._time_of)
        self._now = self._time_of(owner)
        if len(self._times) > N_KNOWN:
            self.forget()
        self._times[owner] = self._now
        return owner

    def follow(self, owners: Iterable[Owner]) -> None:
        """Moves on to the least time of the clients that are there."""
        self._now = max(self._now, min(map(self._time_of, owners), default=0.0))

    def charge(self, owner: Owner, amount: float) -> None:
        """Counts what a client has used since its turn began."""
        self._times[owner] = self._times.get(owner, self._now) + amount

    def forget(self) -> None:
        """Lets everyone begin anew, as when nobody waits any more."""
        self._times.clear()

    def _time_of(self, owner: Owner) -> float:
        return max(self._times.get(owner, 0.0), self._now)


def _level(seconds: float) -> int:
    """0 for what is short; beyond that one more each time that it has run twice as long."""
    return 0 if seconds < SHORT else 1 + int(math.log2(seconds / SHORT))


def leave(_: object) -> None:
    """`keep` of a result that stays where it was computed."""


def attempt_each(compute: Callable[[Sequence[Any]], Sequence[Any]], items: Sequence[Any]) -> list[Any]:
    """The results of a computation of all items, or if that fails the result or the error of each alone."""
    try:
        return [*compute(items)]
    except StoppedError:
        raise
    except Exception as error:
        return [error] if len(items) == 1 else [one for item in items for one in attempt_each(compute, [item])]


def _attempt(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:
        return None, error


def _stopping() -> NotReadyError:
    return NotReadyError("the service is stopping", code="stopping")
