"""Global results: computed once (single flight), off the event loop, and cached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from time import thread_time
from typing import Any, TypeVar

from kanmodel.computing import Once, Pinned, pausing
from kanmodel.errors import ConfigError
from kanmodel.explain.faithfulness import Agreement
from kanmodel.explain.formula import Formulas
from kanmodel.explain.importance import Importance
from kanmodel.explain.model_comparison import ModelComparison
from kanmodel.explain.pruning import FidelityPoint, Fill, Metric, PruningRule
from kanmodel.explain.report import Report
from kanmodel.explain.topology import Topology
from kanmodel.model import Model
from kanmodel.network.config import Groups
from service.models.registry import Served
from service.wire.errors import NotReadyError, invalid_value
from service.work.executor import Executor
from service.work.jobs import UNKNOWN, Cost, Kind

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Points = tuple[FidelityPoint, ...]
Compute = Callable[[Model, str], Result]  # from a model and the name of an output
Key = tuple[Hashable, ...]
N_PREPARED = 5  # results per output that are computed in advance
N_MEASURED = 10_000  # most timings that are kept


class GlobalResults:
    """Global results of all models, by checkpoint hash: `Model` computes them, the executor runs them.

    Results that one depends on are computed first, so that no thread blocks on another computation.

    Args:
        size: most results that are cached. Those computed in advance stay as long as their model is served.
        work: the executor.
        find_served: returns the models that are served now by hash; None for those that are not in memory.

    Attributes:
        unprepared: outputs whose results are still to be computed in advance.
    """

    def __init__(self, size: int, work: Executor, find_served: Callable[[], Mapping[str, Served | None]]) -> None:
        self._size, self._work, self._find_served = size, work, find_served
        self._known = Once(size)
        self._prepared: set[tuple[str, int]] = set()  # checkpoints and outputs
        self._seconds: dict[tuple[str, str], float] = {}  # that a kind of result took, by its name and checkpoint
        self.unprepared = 0

    async def prepare(self, new: Iterable[str]) -> None:
        """Computes the usual results of new models in advance, output by output, as far as the cache has room.

        Models may go from memory before their turn, and are then left out: none is loaded for this.
        """
        known = self._find_served().keys()
        self._prepared = {one for one in self._prepared if one[0] in known}
        self._known.unpin(lambda key: (f"sha256:{key[0]}", key[1]) not in self._prepared)  # type: ignore[index]
        room = max(0, self._size // N_PREPARED - len(self._prepared))
        prepared = list(islice((one for one in self._list_outputs(new) if one not in self._prepared), room))
        self._prepared |= set(prepared)
        self.unprepared += len(prepared)
        for number, (checkpoint, output) in enumerate(prepared):
            served = self._find_served().get(checkpoint)
            try:
                if served is None:
                    self._prepared.discard((checkpoint, output))
                else:
                    await self.report(served, output, "background")
            except NotReadyError:  # the service is stopping
                self.unprepared -= len(prepared) - number
                return
            except Exception:  # a request for it gets the error
                name = served.model.outputs[output] if served else output
                logger.warning("the results of model %s, output %s, fail", served and served.name, name, exc_info=True)
            self.unprepared -= 1

    def _list_outputs(self, checkpoints: Iterable[str]) -> Iterator[tuple[str, int]]:
        for checkpoint in checkpoints:
            served = self._find_served().get(checkpoint)
            yield from ((checkpoint, output) for output in range(len(served.model.outputs) if served else 0))

    def share(self, served: Served) -> Served:
        """The same model, which knows the results that are cached here."""
        return replace(served, model=replace(served.model, results=self._known))

    async def importance(self, served: Served, output: int, kind: Kind = "explanation") -> Importance:
        """Importance over the reference windows for one output, with the groups of the checkpoint."""
        return await self._find(lambda model, name: model.importance(name), served, output, ("importance",), kind)

    async def group_importance(self, served: Served, output: int, groups: Groups) -> Importance:
        """The same with other groups."""
        await self.importance(served, output)
        key = ("group importance", *((name, *members) for name, members in groups.items()))
        return await self._find(lambda model, name: model.importance(name, groups=groups), served, output, key)

    async def agreements(self, served: Served, output: int) -> tuple[Agreement, ...]:
        """Agreement of baselines on the importance of features."""
        await self.importance(served, output)
        return await self._find(lambda model, name: model.agreement(name), served, output, ("agreement",))

    async def topology(self, served: Served, output: int, rule: PruningRule, kind: Kind = "explanation") -> Topology:
        """The pruned topology for one output."""
        await self.importance(served, output, kind)
        key = ("topology", rule)
        return await self._find(lambda model, name: model.topology(name, **vars(rule)), served, output, key, kind)

    async def fidelity_curve(self, served: Served, output: int, metric: Metric, fill: Fill) -> Points:
        """Fidelity by number of edges, in the order of one metric."""
        await self.importance(served, output)

        def trace(model: Model, name: str) -> Points:
            return model.fidelity_curve(name, metric=metric, fill=fill)

        return await self._find(trace, served, output, ("fidelity", metric, fill))

    async def report(self, served: Served, output: int, kind: Kind = "explanation") -> Report:
        """The report on one output, with the default topology."""
        await self.topology(served, output, PruningRule(), kind)
        return await self._find(lambda model, name: model.report(name), served, output, ("report",), kind)

    async def comparison(self, served: Served, output: int, other: Served, fidelity: float) -> ModelComparison:
        """Comparison with another model, for one output."""
        rule, name = PruningRule(fidelity=fidelity), served.model.outputs[output]
        await self.topology(served, output, rule)
        if name in other.model.outputs:  # otherwise the comparison is refused
            await self.topology(other, other.model.outputs.index(name), rule)

        def compare(model: Model, name: str) -> ModelComparison:
            against = model if other.model is served.model else replace(other.model, results=model.results)
            return model.compare(against, output=name, fidelity=fidelity)

        return await self._find(compare, served, output, ("comparison", other.checkpoint, fidelity))

    async def formulas(self, served: Served, output: int) -> Formulas:
        """The head as formulas.

        Raises:
            DataError: a layer norm or an output function makes a formula impossible.
        """
        await self.importance(served, output)
        try:
            return await self._find(lambda model, name: model.formula(name), served, output, ("formulas",))
        except ConfigError as error:
            raise invalid_value("model", f"has no formula: {error}", "no_formula") from error

    async def _find(
        self, compute: Compute[Result], served: Served, output: int, key: Key, kind: Kind = "explanation"
    ) -> Result:
        """A cached result, or else computed on a thread; its key has the kind of result and its arguments."""
        results: Any = Pinned(self._known) if kind == "background" else self._known
        model, name = replace(served.model, results=results), served.model.outputs[output]
        try:
            with pausing(_refuse):  # a lookup must not compute
                return compute(model, name)
        except _UnknownError:
            pass
        measured = (str(key[0]), served.checkpoint)
        cost = Cost(self._seconds[measured]) if measured in self._seconds else UNKNOWN

        def compute_timed() -> Result:
            start = thread_time()
            result = compute(model, name)
            if len(self._seconds) >= N_MEASURED:
                self._seconds.clear()
            self._seconds[measured] = thread_time() - start
            return result

        return await self._work.run(compute_timed, kind, cost, (served.checkpoint, output, *key))


class _UnknownError(Exception):
    """A result that is not cached yet."""


def _refuse() -> None:
    raise _UnknownError
