"""Global results: computed once (single flight), off the event loop, and cached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import replace
from itertools import islice
from time import thread_time
from typing import Any, TypeVar

from kanmodel.errors import ConfigError
from kanmodel.model import Model
from kanmodel.once import Once, Pinned
from kanmodel.pausing import Pause
from kanmodel.results import Formulas, Importance, ModelComparison, Report, Topology
from kanmodel.terms import Agreement, FidelityPoint, Fill, Metric, PruningRule
from service.http.errors import NotReadyError, unusable
from service.models.registry import Served
from service.work.executor import Executor
from service.work.jobs import UNKNOWN, Cost, Kind

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Question = Callable[[Model, str, Pause], Result]  # of a model and one of its outputs
N_PREPARED = 5  # results of one output that are computed before anybody asks
N_MEASURED = 10_000  # times of results that are known at most


class GlobalResults:
    """What is known of a whole model, by the hash of its checkpoint.

    `Model` computes the results; they are kept here, those of all models together, and computed by `work`.

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
        self._known = Once(size)
        self._prepared: set[tuple[str, int]] = set()  # checkpoints and outputs
        self._seconds: dict[tuple[str, str], float] = {}  # that a kind of result took, by its name and checkpoint
        self.unprepared = 0

    async def prepare(self, models: Iterable[Served]) -> None:
        """Computes what most will ask for, for one output after the other, as far as there is room for it."""
        wanted = {served.checkpoint for served in (*self._find_served(), *models)}
        self._prepared = {one for one in self._prepared if one[0] in wanted}
        self._known.unpin(lambda key: (f"sha256:{key[0]}", key[1]) not in self._prepared)  # type: ignore[index]
        outputs = ((served, output) for served in models for output in range(len(served.model.outputs)))
        new = [one for one in outputs if (one[0].checkpoint, one[1]) not in self._prepared]
        prepared = list(islice(new, max(0, self._size // N_PREPARED - len(self._prepared))))
        self._prepared |= {(served.checkpoint, output) for served, output in prepared}
        self.unprepared += len(prepared)
        for number, (served, output) in enumerate(prepared):
            try:
                await self.importance(served, output, "background")
                await self.report(served, output, "background")
            except NotReadyError:  # the service stops
                self.unprepared -= len(prepared) - number
                return
            except Exception:  # whoever asks for it is told the reason
                name = served.model.outputs[output]
                logger.warning("the results of model %s, output %s, fail", served.name, name, exc_info=True)
            self.unprepared -= 1

    async def importance(self, served: Served, output: int, kind: Kind = "explanation") -> Importance:
        """What matters over the reference windows for one output."""
        return await self._ask(
            "importance", lambda model, name, pause: model.importance(name, pause=pause), served, output, kind
        )

    async def agreements(self, served: Served, output: int) -> tuple[Agreement, ...]:
        """How far baselines agree on the features."""
        await self.importance(served, output)
        return await self._ask(
            "agreement", lambda model, name, pause: model.agreement(name, pause=pause), served, output
        )

    async def topology(self, served: Served, output: int, rule: PruningRule, kind: Kind = "explanation") -> Topology:
        """The graph that a rule keeps for one output."""
        await self.importance(served, output, kind)

        def ask(model: Model, name: str, pause: Pause) -> Topology:
            return model.topology(name, **vars(rule), pause=pause)

        return await self._ask("topology", ask, served, output, kind, rule)

    async def fidelity_curve(
        self, served: Served, output: int, metric: Metric, fill: Fill
    ) -> tuple[FidelityPoint, ...]:
        """What each number of edges costs along one metric's order."""
        await self.importance(served, output)

        def ask(model: Model, name: str, pause: Pause) -> tuple[FidelityPoint, ...]:
            return model.fidelity_curve(name, metric=metric, fill=fill, pause=pause)

        return await self._ask("fidelity", ask, served, output, "explanation", metric, fill)

    async def report(self, served: Served, output: int, kind: Kind = "explanation") -> Report:
        """The findings on one output, by the default topology."""
        await self.topology(served, output, PruningRule(), kind)
        return await self._ask(
            "report", lambda model, name, pause: model.report(name, pause=pause), served, output, kind
        )

    async def comparison(self, served: Served, output: int, other: Served, fidelity: float) -> ModelComparison:
        """What has changed from another model to this one, for one output."""
        rule, name = PruningRule(fidelity=fidelity), served.model.outputs[output]
        await self.topology(served, output, rule)
        if name in other.outputs:  # else the question itself is refused
            await self.topology(other, other.outputs.index(name), rule)

        def ask(model: Model, name: str, pause: Pause) -> ModelComparison:
            against = model if other.model is served.model else replace(other.model, results=model.results)
            return model.compare(against, output=name, fidelity=fidelity, pause=pause)

        rest = other.checkpoint, fidelity
        return await self._ask("comparison", ask, served, output, "explanation", *rest)

    async def formulas(self, served: Served, output: int) -> Formulas:
        """The head as formulas.

        Raises:
            DataError: a layer norm or an output function stands in the way.
        """
        await self.importance(served, output)
        try:
            return await self._ask(
                "formulas", lambda model, name, pause: model.formula(name, pause=pause), served, output
            )
        except ConfigError as error:
            raise unusable("model", f"has no formula: {error}", "no_formula") from error

    async def _ask(
        self,
        name: str,
        question: Question[Result],
        served: Served,
        output: int,
        kind: Kind = "explanation",
        *rest: Hashable,
    ) -> Result:
        """The answer to a question: at once where it is known, else from a thread; `rest` is what else it depends on.

        What it rests on is asked for before, so that nobody keeps a thread who waits for another's computation.
        """
        results: Any = Pinned(self._known) if kind == "background" else self._known
        model, of_output = replace(served.model, results=results), served.model.outputs[output]
        try:
            return question(model, of_output, _refuse)
        except _UnknownError:
            pass
        measured = (name, served.checkpoint)
        cost = Cost(self._seconds[measured]) if measured in self._seconds else UNKNOWN

        def compute(pause: Pause) -> Result:
            start = thread_time()
            result = question(model, of_output, pause)
            if len(self._seconds) >= N_MEASURED:
                self._seconds.clear()
            self._seconds[measured] = thread_time() - start
            return result

        return await self._work.compute(compute, kind, cost, (*measured, output, *rest))


class _UnknownError(Exception):
    """A result must be computed first."""


def _refuse() -> None:
    """The pause of who takes only what is known."""
    raise _UnknownError
