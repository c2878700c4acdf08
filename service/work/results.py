"""Global results: computed once (single flight), off the event loop, and cached."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from time import thread_time
from typing import Any, TypeVar

from kanmodel.attribution.comparison import match_outputs
from kanmodel.computing import Pinned, SingleFlightCache, pausing, publishing
from kanmodel.model import Model
from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.structure.pruning import PruningRule
from service.models.registry import Served
from service.wire.errors import NotReadyError
from service.work.budget import Kind
from service.work.executor import Executor
from service.work.jobs import UNKNOWN, Cost

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
N_PREPARED = 5  # results per output that are computed in advance
N_MEASURED = 10_000  # most timings that are kept


class GlobalResults:
    """Global results of all models, by checkpoint hash: `Model` computes them, the executor runs them.

    Results that one depends on are computed first, so that no thread blocks on another computation.

    Args:
        size: most results that are cached. Those computed in advance stay as long as their model is served.
        work: the executor.
        find_served: returns the models that are served now by hash; None for those that are not in memory.
    """

    def __init__(self, size: int, work: Executor, find_served: Callable[[], Mapping[str, Served | None]]) -> None:
        self._size, self._work, self._find_served = size, work, find_served
        self._known = SingleFlightCache(size)
        self._prepared: set[tuple[str, str]] = set()  # checkpoints and outputs
        self._takers: defaultdict[Hashable, list[Callable[[Any], object]]] = defaultdict(list)
        self._seconds: dict[Hashable, float] = {}  # that a kind of result took, by checkpoint, method and options
        self.unprepared = 0  # outputs whose results are still to be computed in advance

    async def prepare(self, new: Iterable[str]) -> None:
        """Computes the usual results of new models in advance, output by output, as far as the cache has room.

        Not of those that have them (`Model.prepared`). Models may go from memory before their turn, and are then left
        out: none is loaded for this.
        """
        known = self._find_served()
        self._prepared = {one for one in self._prepared if one[0] in known}
        self._known.unpin(lambda key: (f"sha256:{key[0]}", key[1]) not in self._prepared)  # type: ignore[index]
        room = max(0, self._size // N_PREPARED - len(self._prepared))
        models = [
            (one, served) for one in new if (served := known.get(one)) is not None and served.model.prepared is None
        ]
        outputs = [(checkpoint, output) for checkpoint, served in models for output in served.model.outputs]
        prepared = [one for one in outputs if one not in self._prepared][:room]
        self._prepared |= set(prepared)
        self.unprepared += len(prepared)
        for number, (checkpoint, output) in enumerate(prepared):
            served = self._find_served().get(checkpoint)
            try:
                if served is None or served.model.prepared is not None:
                    self._prepared.discard((checkpoint, output))
                else:
                    await self._find("background", served, output, Model.report, {})
            except NotReadyError:  # the service is stopping
                self.unprepared -= len(prepared) - number
                return
            except Exception:  # a request for it gets the error
                of = served and served.name
                logger.warning("the results of model %s, output %s, fail", of, output, exc_info=True)
            self.unprepared -= 1

    def share(self, served: Served) -> Served:
        """The same model, which knows the results that are cached here."""
        return replace(served, model=served.model.with_results(self._known))

    async def find(self, served: Served, output: str, method: Callable[..., Result], **options: Any) -> Result:
        """The result of a method of `Model`, such as `Model.report`, for an output or bound: cached or computed."""
        return await self._find("explanation", served, output, method, options)

    async def find_later(self, served: Served, output: str, method: Callable[..., Result], **options: Any) -> Result:
        """The same as background work."""
        return await self._find("background", served, output, method, options)

    async def follow(
        self, served: Served, output: str, method: Callable[..., Result], take: Callable[[Any], object]
    ) -> Result:
        """The same as `find`; calls `take` with parts of a result that is being computed, as they are found."""
        loop, takers, key = asyncio.get_running_loop(), self._takers, _key_of(served, output, method, {})

        def take_later(found: Any) -> None:  # in the thread that computes
            loop.call_soon_threadsafe(take, found)

        takers[key].append(take_later)
        try:
            return await self.find(served, output, method)
        finally:
            takers[key].remove(take_later)
            if not takers[key]:
                del takers[key]

    async def comparison(self, served: Served, output: str, other: Served, fidelity: float) -> ModelComparison:
        """Comparison with another model, for one output."""
        names, rule = served.model.outputs, PruningRule(fidelity=fidelity)
        if output in names:  # what does not fit is refused before anything is computed
            match_outputs(served.model, other.model, names.index(output))
        await self.find(served, output, Model.topology, **vars(rule))
        if output in other.model.outputs or output in other.model.bounds:  # otherwise the comparison is refused
            await self.find(other, output, Model.topology, **vars(rule))

        def compare(model: Model, name: str, fidelity: float, other_checkpoint: str) -> ModelComparison:
            against = model if other.model is served.model else other.model.with_results(model.results)
            return model.compare(against, output=name, fidelity=fidelity)

        return await self.find(served, output, compare, fidelity=fidelity, other_checkpoint=other.checkpoint)

    async def _find(
        self, kind: Kind, served: Served, output: str, method: Callable[..., Result], options: Mapping[str, Any]
    ) -> Result:
        if method is Model.report:
            await self._find(kind, served, output, Model.topology, vars(PruningRule()))
        elif method not in (Model.importance, Model.formula) or options:
            await self._find(kind, served, output, Model.importance, {})
        results: Any = Pinned(self._known) if kind == "background" else self._known
        compute = partial(method, served.model.with_results(results), output, **options)
        try:
            with pausing(_refuse):  # a lookup must not compute
                return compute()
        except _UnknownError:
            pass
        measured = (served.checkpoint, method.__name__, *options)
        cost = Cost(self._seconds[measured]) if measured in self._seconds else UNKNOWN
        key = _key_of(served, output, method, options)

        def publish(make: Callable[[], Any]) -> None:
            if takers := self._takers.get(key):
                found = make()
                for take in [*takers]:
                    take(found)

        def compute_timed() -> Result:
            start = thread_time()
            with publishing(publish):
                result = compute()
            if len(self._seconds) >= N_MEASURED:
                self._seconds.clear()
            self._seconds[measured] = thread_time() - start
            return result

        return await self._work.run(compute_timed, kind, cost, key)


def _key_of(served: Served, output: str, method: Callable[..., Any], options: Mapping[str, Any]) -> Hashable:
    return served.checkpoint, output, method.__name__, repr({**options})


class _UnknownError(Exception):
    """A result that is not cached yet."""


def _refuse() -> None:
    raise _UnknownError
