"""Small pieces of work that differ in one argument alone: those that wait are computed together.

The first of a kind is computed at once; what arrives meanwhile waits, and then is one batch. So nothing waits for
others to arrive, and the more there are, the larger the batches become.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from kanmodel.pausing import Pause

TOGETHER = 32  # the largest size of a batch
N_SLICES = 16  # after which the next batch may begin, so that nothing waits for what takes long

Compute = Callable[[Sequence[Any], Pause], Sequence[Any]]  # a result, or an exception, for each item
RunInTurns = Callable[[Callable[[Pause], Sequence[Any]]], Awaitable[Sequence[Any]]]


@dataclass(eq=False, slots=True)
class _Waiting:
    """An item that waits for the batch before, with its size, and what is to come of it."""

    item: Any
    size: int
    outcome: asyncio.Future[Any]


class Batches:
    """Merges what waits for the same.

    Args:
        run_in_turns: computes a batch, see `Executor.run_in_turns`.
    """

    def __init__(self, run_in_turns: RunInTurns) -> None:
        self._run_in_turns = run_in_turns
        self._waiting: dict[Hashable, list[_Waiting]] = {}  # by key, of which a batch is being computed
        self._latest: dict[Hashable, object] = {}  # by key, what stands for that batch
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, key: Hashable, compute: Compute, item: Any, size: int) -> Any:
        """The result for an item; see `Executor.run_together`."""
        if key not in self._waiting:
            self._waiting[key] = []
            (result,) = await self._compute(key, compute, [item])
            if isinstance(result, Exception):
                raise result
            return result
        waiting = _Waiting(item, size, asyncio.get_running_loop().create_future())
        self._waiting[key].append(waiting)
        return await waiting.outcome

    async def _compute(self, key: Hashable, compute: Compute, items: Sequence[Any]) -> Sequence[Any]:
        """The results of a batch, after which, or after its first slices, the next one begins."""
        loop, n_slices, this = asyncio.get_running_loop(), 0, object()
        self._latest[key] = this

        def begin_next() -> None:
            if self._latest.get(key) is this:
                self._begin(key, compute)

        def compute_in_turns(pause: Pause) -> Sequence[Any]:
            def pause_and_count() -> None:
                nonlocal n_slices
                n_slices += 1
                if n_slices == N_SLICES:
                    loop.call_soon_threadsafe(begin_next)
                pause()

            return compute(items, pause_and_count)

        try:
            return await self._run_in_turns(compute_in_turns)
        finally:
            begin_next()

    def _begin(self, key: Hashable, compute: Compute) -> None:
        """Begins the next batch of those that still wait, if there are any."""
        del self._latest[key]
        waiting = [one for one in self._waiting.pop(key) if not one.outcome.done()]
        if not waiting:
            return
        n = max(1, sum(end <= TOGETHER for end in accumulate(one.size for one in waiting)))
        batch, self._waiting[key] = waiting[:n], waiting[n:]
        task = asyncio.get_running_loop().create_task(self._answer(key, compute, batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        for one in batch:
            one.outcome.add_done_callback(partial(_cancel_unwanted, task, batch))

    async def _answer(self, key: Hashable, compute: Compute, batch: Sequence[_Waiting]) -> None:
        try:
            results = await self._compute(key, compute, [one.item for one in batch])
        except Exception as error:
            results = [error] * len(batch)
        for one, result in zip(batch, results, strict=True):
            if one.outcome.done():  # whoever asked has gone
                continue
            if isinstance(result, Exception):
                one.outcome.set_exception(result)
            else:
                one.outcome.set_result(result)


def _cancel_unwanted(task: asyncio.Task[None], batch: Sequence[_Waiting], _: asyncio.Future[Any]) -> None:
    """Gives up a batch once nobody waits for any of it."""
    if all(one.outcome.done() for one in batch):
        task.cancel()
