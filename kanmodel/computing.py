"""Long computations: one thread each, pauses between slices, progress, and results computed once (single flight).

Within `pausing` a hook is called between slices, mostly of a few milliseconds, and before what may take longer. It may
wait, to let more urgent work run first, or raise, to cancel the computation: no partial result is cached.

Within `reporting` a function is called with the share of the work that is done. `tracked` divides what is left of the
work around it evenly among its items, and `progress_share` takes a share of it; both nest, and shares never decrease. A
cached result, or one that another thread computes, is done at once.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any, TypeVar, cast

import torch

_hook: ContextVar[Callable[[], None] | None] = ContextVar("hook", default=None)


def pause() -> None:
    """Calls the hook of the computation's context, if it has one."""
    if (hook := _hook.get()) is not None:
        hook()


@contextmanager
def pausing(hook: Callable[[], None]) -> Iterator[None]:
    """Computations within call `hook` between slices of their work; `pause` within the hook calls the outer one."""
    outer = _hook.get()

    def call() -> None:
        with _set(outer):
            hook()

    with _set(call):
        yield


def unpaused() -> AbstractContextManager[None]:
    """Computations within do not pause, so that nothing outside ends them."""
    return _set(None)


@contextmanager
def _set(hook: Callable[[], None] | None) -> Iterator[None]:
    token = _hook.set(hook)
    try:
        yield
    finally:
        _hook.reset(token)


Slice = TypeVar("Slice")
UNTIL_DONE = 0.99  # of the work is what its slices report at most: 1 is reported when there is a result
N_MARKS, REDRAWN = 30, 0.1  # of a bar, and seconds between two drawings of it
BRIEF = 0.5  # seconds; the bar of a shorter computation disappears


class Done(float):
    """The share of a computation that is done, from 0 to 1.

    Attributes:
        seconds_left: an estimate, if the rest takes as long as what is done did by its share; None at 0.
    """

    seconds_left: float | None = None


Progress = bool | Callable[[float], object]
"""Whether to draw a bar on stderr, or a function that is called with `Done`, first 0, then growing shares, last 1. It
may raise, to cancel the computation, but must not ask for the result itself."""


class _Work:
    """A computation that reports: the share that is done, and the share at which its innermost part ends."""

    def __init__(self, report: Callable[[float], object]) -> None:
        self.report, self.start, self.end = report, monotonic(), UNTIL_DONE
        self.done = Done(0.0)
        report(self.done)

    def reach(self, share: float) -> None:
        """Reports a share, unless as much was reported before."""
        if share > self.done:
            self.done = Done(share)
            self.done.seconds_left = (monotonic() - self.start) * (1 - share) / share
            self.report(self.done)


class _Bar:
    """A bar in one line of text on stderr, in a terminal or a notebook."""

    def __init__(self) -> None:
        self.start = monotonic()
        self.drawn = -REDRAWN

    def __call__(self, done: float) -> None:
        now, left = monotonic(), getattr(done, "seconds_left", None)
        if 0 < done < 1 and now - self.drawn < REDRAWN:
            return
        self.drawn, marks = now, "#" * int(done * N_MARKS)
        time = f"{now - self.start:.0f} s" if done == 1 else "" if left is None else f"about {left:.0f} s left"
        line = f"[{marks:.<{N_MARKS}}] {done:4.0%}  {time}"
        if done == 1 and now - self.start < BRIEF:
            line = ""
        print(f"\r{line:<60}", end="\n" if line and done == 1 else "\r", file=sys.stderr, flush=True)


_work: ContextVar[_Work | None] = ContextVar("work", default=None)


@contextmanager
def reporting(progress: Progress) -> Iterator[None]:
    """Computations within report their progress; with False they are part of what reports around them, if anything."""
    if progress is False:
        yield
        return
    work = _Work(_Bar() if progress is True else progress)
    token = _work.set(work)
    try:
        yield
    except BaseException:
        if progress is True:
            print(file=sys.stderr)
        raise
    finally:
        _work.reset(token)
    work.reach(1.0)


@contextmanager
def progress_share(share: float) -> Iterator[None]:
    """What is computed within is a share of what is left of the work around it."""
    work = _work.get()
    if work is None:
        yield
        return
    around = work.end
    work.end = goal = around if share >= 1 else min(around, work.done + share * (around - work.done))
    try:
        yield
    finally:
        work.end = around
    work.reach(goal)


def tracked(work: Iterable[Slice]) -> Iterator[Slice]:
    """The slices of a computation, each an equal share of it, with a pause before each but the first."""
    each = list(work)
    for number, one in enumerate(each):
        if number:
            pause()
        with progress_share(1 / (len(each) - number)):
            yield one


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes within on the caller's thread alone, which other threads of the process do not notice.

    The arrays of a slice are small: torch's further threads cost more than they do, and keep those of numpy's products
    waiting. A thread that begins to use torch meanwhile has one thread from then on.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_publisher: ContextVar[Callable[[Callable[[], Any]], None] | None] = ContextVar("publisher", default=None)


@contextmanager
def publishing(publisher: Callable[[Callable[[], Any]], None]) -> Iterator[None]:
    """Computations within call `publisher` with functions that make parts of their result, which it need not call."""
    token = _publisher.set(publisher)
    try:
        yield
    finally:
        _publisher.reset(token)


def publish(make: Callable[[], Any]) -> None:
    """Publishes a part of the result of the computation, which is made only if someone listens."""
    if (publisher := _publisher.get()) is not None:
        publisher(make)


Result = TypeVar("Result")
POLL = 0.05  # seconds between two pauses of a thread that waits for another's computation


@dataclass
class _Cell:
    """One result, or none yet; the thread that holds the lock computes it."""

    lock: Lock = field(default_factory=Lock)
    results: list[Any] = field(default_factory=list)
    pinned: bool = False


class SingleFlightCache:
    """An LRU cache with single flight: threads that ask for the same key wait for one computation.

    A computation that fails is not cached.

    Args:
        size: most results; beyond it the least recently used one is evicted, unless it is pinned.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = Lock()
        self._cells: OrderedDict[Hashable, _Cell] = OrderedDict()

    def __reduce__(self) -> tuple[type[SingleFlightCache], tuple[int]]:
        """Pickles without results: a copy in another process starts empty."""
        return SingleFlightCache, (self._size,)

    @property
    def count(self) -> int:
        """Number of results."""
        return len(self._cells)

    def get(self, key: Hashable, compute: Callable[[], Result], pinned: bool = False) -> Result:
        """Returns the cached result of a key, or that of `compute`, which must not ask for the same key.

        Args:
            key: key of the result.
            compute: called if there is no result, after a pause.
            pinned: whether the result is never evicted until it is unpinned.
        """
        with self._lock:
            known = self._cells.get(key)
            if known is not None and known.results:
                known.pinned |= pinned
                self._cells.move_to_end(key)
                return cast(Result, known.results[0])
        pause()
        with self._lock:
            cell = self._cells.setdefault(key, _Cell())
            cell.pinned |= pinned
        while not cell.lock.acquire(timeout=POLL):
            pause()
        try:
            if not cell.results:
                cell.results.append(compute())
            return cast(Result, cell.results[0])
        finally:
            cell.lock.release()
            self._settle(key, cell)

    def unpin(self, chosen: Callable[[Hashable], bool]) -> None:
        """Makes the results of chosen keys evictable again."""
        with self._lock:
            for key, cell in self._cells.items():
                cell.pinned &= not chosen(key)

    def _settle(self, key: Hashable, cell: _Cell) -> None:
        """Marks a result as most recently used, and evicts others beyond `size`; forgets a failed computation."""
        with self._lock:
            if not cell.results:
                if self._cells.get(key) is cell:
                    del self._cells[key]
                return
            self._cells[key] = cell
            self._cells.move_to_end(key)
            kept = [key for key, cell in self._cells.items() if cell.results]
            unpinned = [key for key in kept if not self._cells[key].pinned]
            for oldest in [*unpinned, *kept][: max(0, len(kept) - self._size)]:
                self._cells.pop(oldest, None)


@dataclass(frozen=True)
class Pinned:
    """A view of a cache that pins every result that it returns."""

    results: SingleFlightCache

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """As `SingleFlightCache.get`."""
        return self.results.get(key, compute, pinned=True)
