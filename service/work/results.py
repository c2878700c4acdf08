"""Global results: computed once however many ask, off the event loop, and kept while there is room."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import replace
from itertools import islice
from time import thread_time
from typing import Any, TypeVar, cast

from kanmodel.explain.importance.agreement import Agreement, compare_baselines
from kanmodel.explain.importance.attributions import Attribution, attribute_features
from kanmodel.explain.importance.global_importance import Importance, measure_importance
from kanmodel.explain.report import Finding, collect_findings
from kanmodel.explain.structure.replay import Fill
from kanmodel.explain.topology.construction import assemble_topology
from kanmodel.explain.topology.graph import Topology
from kanmodel.explain.topology.metrics import Metric
from kanmodel.explain.topology.pruning import FidelityPoint, PruningRule, prune_by_rule, trace_fidelity
from service.http.errors import NotReadyError
from service.models.registry import Served
from service.work.cache import Cache
from service.work.executor import Executor
from service.work.jobs import UNKNOWN, Cost, Kind

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
N_PREPARED = 5  # results of one output that are computed before anybody asks
N_MEASURED = 10_000  # times of results that are known at most


class GlobalResults:
    """What is known of a whole model, by the hash of its checkpoint.

    Args:
        size: results that are kept. What was prepared stays as long as its model is served.
        work: what computes them.
        find_served: the models that are served now.

    Attributes:
        unprepared: outputs that `prepare` has still to compute.
    """

    def __init__(self, size: int, work: Executor, find_served: Callable[[], Collection[Served]]) -> None:
        self._size = size
        self._work = work
        self._find_served = find_served
        self._known: Cache[Any] = Cache(size)
        self._prepared: set[tuple[str, int]] = set()  # checkpoints and outputs
        self._seconds: dict[tuple[Hashable, ...], float] = {}  # that a kind of result took, by its name and checkpoint
        self.unprepared = 0

    async def prepare(self, models: Iterable[Served]) -> None:
        """Computes what most will ask for, for one output after the other, as far as there is room for it."""
        wanted = {served.checkpoint for served in (*self._find_served(), *models)}
        self._prepared = {one for one in self._prepared if one[0] in wanted}
        self._known.unpin(lambda key: (key[1], key[2]) not in self._prepared)  # type: ignore[index]
        outputs = ((served, output) for served in models for output in range(len(served.model.config.outputs)))
        new = [one for one in outputs if (one[0].checkpoint, one[1]) not in self._prepared]
        prepared = list(islice(new, max(0, self._size // N_PREPARED - len(self._prepared))))
        self._prepared |= {(served.checkpoint, output) for served, output in prepared}
        self.unprepared += len(prepared)
        for number, (served, output) in enumerate(prepared):
            try:
                await self.attributions(served, output, "background")
                await self.report(served, output, "background")
            except NotReadyError:  # the service stops
                self.unprepared -= len(prepared) - number
                return
            except Exception:  # whoever asks for it is told the reason
                name = served.model.config.outputs[output]
                logger.warning("the results of model %s, output %s, fail", served.name, name, exc_info=True)
            self.unprepared -= 1

    async def _get(self, kind: Kind, key: tuple[Hashable, ...], compute: Callable[[], Result]) -> Result:
        """A result by its name, checkpoint, output and whatever else it depends on."""
        known = self._known.get(key)
        if known is not None:
            if kind == "background":
                self._known.pin(key)
            return cast(Result, known)
        measured = key[:2]
        cost = Cost(self._seconds[measured]) if measured in self._seconds else UNKNOWN

        def compute_timed() -> Result:
            start = thread_time()
            result = compute()
            if len(self._seconds) >= N_MEASURED:
                self._seconds.clear()
            self._seconds[measured] = thread_time() - start
            return result

        result = await self._work.run(compute_timed, kind, cost, key)
        self._known.put(key, result, pinned=kind == "background")
        return result

    async def importance(self, served: Served, output: int, kind: Kind = "explanation") -> Importance:
        """What matters over the reference windows for one output."""
        key = ("importance", served.checkpoint, output)
        return await self._get(kind, key, lambda: measure_importance(served.model, output))

    async def attributions(self, served: Served, output: int, kind: Kind = "explanation") -> tuple[Attribution, ...]:
        """The features by what they contribute to one output."""
        importance = await self.importance(served, output, kind)
        key = ("attributions", served.checkpoint, output)
        return await self._get(kind, key, lambda: attribute_features(served.model, importance))

    async def agreements(self, served: Served, output: int) -> tuple[Agreement, ...]:
        """How far baselines agree on the features."""
        importance = await self.importance(served, output)
        key = ("agreements", served.checkpoint, output)
        return await self._get("explanation", key, lambda: compare_baselines(served.model, importance))

    async def topology(self, served: Served, output: int, rule: PruningRule, kind: Kind = "explanation") -> Topology:
        """The graph that a rule keeps for one output; rules that keep the same share it, but for the rule."""
        importance = await self.importance(served, output, kind)
        key: tuple[Hashable, ...] = ("pruning", served.checkpoint, output, rule)
        pruning = await self._get(kind, key, lambda: prune_by_rule(served.model, importance, rule))
        key = ("topology", served.checkpoint, output, pruning.kept, rule.fill)
        topology = await self._get(kind, key, lambda: assemble_topology(served.model, importance, pruning))
        return replace(topology, rule=pruning.rule)

    async def fidelity_curve(
        self, served: Served, output: int, metric: Metric, fill: Fill
    ) -> tuple[FidelityPoint, ...]:
        """What each number of edges costs along one metric's order."""
        importance = await self.importance(served, output)
        key = ("fidelity", served.checkpoint, output, metric, fill)
        return await self._get("explanation", key, lambda: trace_fidelity(served.model, importance, metric, fill))

    async def report(self, served: Served, output: int, kind: Kind = "explanation") -> tuple[Finding, ...]:
        """The findings on one output, by the default topology."""
        importance = await self.importance(served, output, kind)
        topology = await self.topology(served, output, PruningRule(), kind)
        key = ("report", served.checkpoint, output)
        return await self._get(kind, key, lambda: collect_findings(served.model, importance, topology))
