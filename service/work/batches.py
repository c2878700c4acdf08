"""Natural batching of small explanations: items that wait for the same computation form one batch.

The first item of a key is computed at once; those that arrive meanwhile form the next batch. Nothing waits for a batch
to fill, and batches grow with the load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from kanmodel.computing import pause, pausing
from service.wire.security import OWNER, Owner
from service.work.budget import Turns

TOGETHER = 32  # largest batch
N_SLICES = 16  # after which the next batch may begin, so that a long batch blocks nothing

Compute = Callable[[Sequence[Any]], Sequence[Any]]  # a result, or an exception, for each item
RunInTurns = Callable[[Callable[[], Sequence[Any]], Sequence[Owner]], Awaitable[Sequence[Any]]]


@dataclass(eq=False, slots=True)
class _Waiting:
    """An item that waits for the current batch, with its size, the future of its result, and its owner."""

    item: Any
    size: int
    outcome: asyncio.Future[Any]
    owner: Owner


class Batches:
    """Merges items of the same key into batches.

    Args:
        run_in_turns: computes a batch, see `Executor.run_in_turns`.
    """

    def __init__(self, run_in_turns: RunInTurns) -> None:
        self._run_in_turns = run_in_turns
        self._waiting: dict[Hashable, list[_Waiting]] = {}  # by key; a key is here while a batch of it is computed
        self._latest: dict[Hashable, object] = {}  # by key, an identity of that batch
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, key: Hashable, compute: Compute, item: Any, size: int) -> Any:
        """The result for an item; see `Executor.run_together`."""
        if key not in self._waiting:
            self._waiting[key] = []
            (result,) = await self._compute(key, compute, [item], [OWNER.get()])
            if isinstance(result, Exception):
                raise result
            return result
        waiting = _Waiting(item, size, asyncio.get_running_loop().create_future(), OWNER.get())
        self._waiting[key].append(waiting)
        return await waiting.outcome

    async def _compute(
        self, key: Hashable, compute: Compute, items: Sequence[Any], owners: Sequence[Owner]
    ) -> Sequence[Any]:
        """Computes a batch; the next one begins after it, or after its first `N_SLICES` slices."""
        loop, n_slices, this = asyncio.get_running_loop(), 0, object()
        self._latest[key] = this

        def begin_next() -> None:
            if self._latest.get(key) is this:
                self._begin(key, compute)

        def compute_in_turns() -> Sequence[Any]:
            def pause_and_count() -> None:
                nonlocal n_slices
                n_slices += 1
                if n_slices == N_SLICES:
                    loop.call_soon_threadsafe(begin_next)
                pause()

            with pausing(pause_and_count):
                return compute(items)

        try:
            return await self._run_in_turns(compute_in_turns, owners)
        finally:
            begin_next()

    def _begin(self, key: Hashable, compute: Compute) -> None:
        """Begins the next batch, if any item still waits: of each owner as much, as far as it has as much."""
        del self._latest[key]
        waiting = [one for one in self._waiting.pop(key) if not one.outcome.done()]
        if not waiting:
            return
        waiting = Turns().order(waiting, lambda one: one.size)
        n = max(1, sum(end <= TOGETHER for end in accumulate(one.size for one in waiting)))
        batch, self._waiting[key] = waiting[:n], waiting[n:]
        task = asyncio.get_running_loop().create_task(self._answer(key, compute, batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        for one in batch:
            one.outcome.add_done_callback(partial(_cancel_unwanted, task, batch))

    async def _answer(self, key: Hashable, compute: Compute, batch: Sequence[_Waiting]) -> None:
        try:
            results = await self._compute(key, compute, [one.item for one in batch], [one.owner for one in batch])
        except Exception as error:
            results = [error] * len(batch)
        for one, result in zip(batch, results, strict=True):
            if one.outcome.done():  # the caller has gone
                continue
            if isinstance(result, Exception):
                one.outcome.set_exception(result)
            else:
                one.outcome.set_result(result)


def _cancel_unwanted(task: asyncio.Task[None], batch: Sequence[_Waiting], _: asyncio.Future[Any]) -> None:
    """Cancels a batch once no item of it is awaited."""
    if all(one.outcome.done() for one in batch):
        task.cancel()
