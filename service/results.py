"""Global results: computed once however many ask, off the event loop, and kept while there is room."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

from starlette.concurrency import run_in_threadpool

from kanmodel.explain.importance import Importance, measure_importance
from kanmodel.explain.pruning import PruningRule
from kanmodel.explain.topology import Topology, build_topology
from service.registry import Served

Result = TypeVar("Result")


class ResultCache:
    """The last results by key. Belongs to one event loop, so it needs no lock.

    Args:
        size: results that are kept; beyond it, the one unused for longest goes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._tasks: OrderedDict[Hashable, asyncio.Task[Any]] = OrderedDict()

    async def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """The result of `compute`, which runs in a worker thread unless the key is known or on its way.

        A caller that goes away leaves the computation running for the others; one that fails is not kept.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(run_in_threadpool(compute))
            task.add_done_callback(lambda done: self._drop_failure(key, done))
        self._tasks.move_to_end(key)
        while len(self._tasks) > self._size:
            self._tasks.popitem(last=False)
        return cast(Result, await asyncio.shield(task))

    def _drop_failure(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        if (task.cancelled() or task.exception()) and self._tasks.get(key) is task:
            del self._tasks[key]


class GlobalResults:
    """What is known of a whole model, by the hash of its checkpoint.

    Args:
        size: results that are kept.
    """

    def __init__(self, size: int) -> None:
        self._cache = ResultCache(size)

    async def importance(self, served: Served, output: int) -> Importance:
        """What matters over the reference windows for one output."""
        key = ("importance", served.checkpoint, output)
        return await self._cache.get(key, lambda: measure_importance(served.model, output))

    async def topology(self, served: Served, output: int, rule: PruningRule) -> Topology:
        """The graph that a rule keeps for one output."""
        importance = await self.importance(served, output)
        key = ("topology", served.checkpoint, output, rule)
        return await self._cache.get(key, lambda: build_topology(served.model, importance, rule))
