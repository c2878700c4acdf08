"""Global results: computed once however many ask, off the event loop, and kept while there is room."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar, cast

from kanmodel.explain.agreement import Agreement, compare_baselines
from kanmodel.explain.attributions import Attribution, attribute_features
from kanmodel.explain.importance import Importance, measure_importance
from kanmodel.explain.pruning import FidelityPoint, Metric, PruningRule, prune_by_rule, trace_fidelity
from kanmodel.explain.replay import Fill
from kanmodel.explain.report import Finding, write_report
from kanmodel.explain.topology import Topology, lay_out
from service.models.registry import Served
from service.work.computations import Computations

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
N_PREPARED = 5  # results of one output that are computed before anybody asks


class ResultCache:
    """The last results by key. Belongs to one event loop, so it needs no lock.

    Args:
        size: results that are kept; beyond it, the one unused for longest goes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._tasks: OrderedDict[Hashable, asyncio.Task[Any]] = OrderedDict()
        self._computations = Computations()

    async def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """The result of `compute`, which runs in a thread unless the key is known or on its way.

        A caller that goes away leaves the computation running for the others; one that fails is not kept.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(self._computations.run(compute))
            task.add_done_callback(lambda done: self._drop_failure(key, done))
        self._tasks.move_to_end(key)
        while len(self._tasks) > self._size:
            self._tasks.popitem(last=False)
        return cast(Result, await asyncio.shield(task))

    async def close(self) -> None:
        """Breaks off what is being computed."""
        await self._computations.close()

    def _drop_failure(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        if (task.cancelled() or task.exception()) and self._tasks.get(key) is task:
            del self._tasks[key]


class GlobalResults:
    """What is known of a whole model, by the hash of its checkpoint.

    Args:
        size: results that are kept.

    Attributes:
        unprepared: outputs that `prepare` has still to compute.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._cache = ResultCache(size)
        self.unprepared = 0

    async def prepare(self, models: Iterable[Served]) -> None:
        """Computes what most will ask for, for one output after the other, as far as there is room for it."""
        outputs = ((served, output) for served in models for output in range(len(served.model.config.outputs)))
        prepared = list(islice(outputs, self._size // N_PREPARED))
        self.unprepared += len(prepared)
        for served, output in prepared:
            try:
                await self.attributions(served, output)
                await self.report(served, output)
            except Exception:  # whoever asks for it is told the reason
                name = served.model.config.outputs[output]
                logger.warning("the results of model %s, output %s, fail", served.name, name, exc_info=True)
            finally:
                self.unprepared -= 1

    async def close(self) -> None:
        """Breaks off what is being computed: nobody waits for it once the service stops."""
        await self._cache.close()

    async def importance(self, served: Served, output: int) -> Importance:
        """What matters over the reference windows for one output."""
        key = ("importance", served.checkpoint, output)
        return await self._cache.get(key, lambda: measure_importance(served.model, output))

    async def attributions(self, served: Served, output: int) -> tuple[Attribution, ...]:
        """The features by what they contribute to one output."""
        importance = await self.importance(served, output)
        key = ("attributions", served.checkpoint, output)
        return await self._cache.get(key, lambda: attribute_features(served.model, importance))

    async def agreements(self, served: Served, output: int) -> tuple[Agreement, ...]:
        """How far baselines agree on the features."""
        importance = await self.importance(served, output)
        key = ("agreements", served.checkpoint, output)
        return await self._cache.get(key, lambda: compare_baselines(served.model, importance))

    async def topology(self, served: Served, output: int, rule: PruningRule) -> Topology:
        """The graph that a rule keeps for one output; rules that keep the same share it, but for the rule."""
        importance = await self.importance(served, output)
        key: Hashable = ("pruning", served.checkpoint, output, rule)
        pruning = await self._cache.get(key, lambda: prune_by_rule(served.model, importance, rule))
        key = ("topology", served.checkpoint, output, pruning.kept, rule.fill)
        topology = await self._cache.get(key, lambda: lay_out(served.model, importance, pruning))
        return replace(topology, rule=pruning.rule)

    async def fidelity_curve(
        self, served: Served, output: int, metric: Metric, fill: Fill
    ) -> tuple[FidelityPoint, ...]:
        """What each number of edges costs along one metric's order."""
        importance = await self.importance(served, output)
        key = ("fidelity", served.checkpoint, output, metric, fill)
        return await self._cache.get(key, lambda: trace_fidelity(served.model, importance, metric, fill))

    async def report(self, served: Served, output: int) -> tuple[Finding, ...]:
        """The findings on one output, by the default topology."""
        importance = await self.importance(served, output)
        topology = await self.topology(served, output, PruningRule())
        key = ("report", served.checkpoint, output)
        return await self._cache.get(key, lambda: write_report(served.model, importance, topology))
