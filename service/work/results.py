"""Global results: computed once (single flight), off the event loop, and cached."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from kanmodel.attribution.comparison import match_outputs
from kanmodel.computing import Pinned, SingleFlightCache, pausing, publishing
from kanmodel.errors import KanscopeError
from kanmodel.model import Model
from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.structure.pruning import PruningRule
from service.compute import Compute, Kind, leave
from service.models.registry import Served
from service.room import Deadline
from service.wire.errors import NotReadyError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
RESULT_BYTES = 4 << 20  # roughly what computing one takes
N_PREPARED = 5  # results per output that are computed in advance


class GlobalResults:
    """Global results of all models, by checkpoint hash: `Model` computes them, `Compute` runs them.

    Results that one depends on are computed first, so that no thread blocks on another computation. One that has begun
    goes on although nobody waits for it any more, so that a result that takes long is there for who asks again.

    Args:
        size: most results that are cached. Those computed in advance stay as long as their model is served.
        compute: what runs them.
        find_served: returns the models that are served now by hash; None for those that are not in memory.
    """

    def __init__(self, size: int, compute: Compute, find_served: Callable[[], Mapping[str, Served | None]]) -> None:
        self._size, self._compute, self._find_served = size, compute, find_served
        self._known = SingleFlightCache(size)
        self._prepared: set[tuple[str, str]] = set()  # checkpoints and outputs
        self._takers: defaultdict[Hashable, list[Callable[[Any], object]]] = defaultdict(list)
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
            of = served and served.name
            try:
                if served is None or served.model.prepared is not None:
                    self._prepared.discard((checkpoint, output))
                else:
                    await self.find(served, output, Model.report, kind="background")
            except NotReadyError:  # the service is stopping
                self.unprepared -= len(prepared) - number
                return
            except KanscopeError as error:  # a request for it gets the error
                text = "the results of model %s, output %s, fail: %s; replace its checkpoint"
                logger.warning(text, of, output, error)
            except Exception:
                logger.exception("the results of model %s, output %s, fail; please report this", of, output)
            self.unprepared -= 1

    def share(self, served: Served) -> Served:
        """The same model, which knows the results that are cached here."""
        return replace(served, model=served.model.with_results(self._known))

    async def find(
        self,
        served: Served,
        output: str,
        method: Callable[..., Result],
        deadline: Deadline | None = None,
        kind: Kind = "explanation",
        **options: Any,
    ) -> Result:
        """The result of a method of `Model`, such as `Model.report`, for an output or bound: cached or computed.

        Raises as `Compute.submit`.
        """
        if method is Model.report:
            await self.find(served, output, Model.topology, deadline, kind, **vars(PruningRule()))
        elif method not in (Model.importance, Model.formula) or options:
            await self.find(served, output, Model.importance, deadline, kind)
        results: Any = Pinned(self._known) if kind == "background" else self._known
        compute = partial(method, served.model.with_results(results), output, **options)
        try:
            with pausing(_refuse):  # a lookup must not compute
                return compute()
        except _UnknownError:
            pass
        key = _key_of(served, output, method, options)

        def publish(make: Callable[[], Any]) -> None:
            if takers := self._takers.get(key):
                found = make()
                for take in [*takers]:
                    take(found)

        def compute_published() -> Result:
            with publishing(publish):
                return compute()

        submit = self._compute.submit
        return await submit(compute_published, kind, deadline, key=key, keep=leave, n_bytes=RESULT_BYTES)

    async def follow(
        self,
        served: Served,
        output: str,
        method: Callable[..., Result],
        deadline: Deadline,
        take: Callable[[Any], object],
    ) -> Result:
        """The same as `find`; calls `take` with parts of a result that is being computed, as they are found."""
        loop, takers, key = asyncio.get_running_loop(), self._takers, _key_of(served, output, method, {})

        def take_later(found: Any) -> None:  # in the thread that computes
            loop.call_soon_threadsafe(take, found)

        takers[key].append(take_later)
        try:
            return await self.find(served, output, method, deadline)
        finally:
            takers[key].remove(take_later)
            if not takers[key]:
                del takers[key]

    async def comparison(
        self, served: Served, output: str, other: Served, fidelity: float, deadline: Deadline
    ) -> ModelComparison:
        """Comparison with another model, for one output."""
        names, rule = served.model.outputs, vars(PruningRule(fidelity=fidelity))
        if output in names:  # what does not fit is refused before anything is computed
            match_outputs(served.model, other.model, names.index(output))
        await self.find(served, output, Model.topology, deadline, **rule)
        if output in other.model.outputs or output in other.model.bounds:  # otherwise the comparison is refused
            await self.find(other, output, Model.topology, deadline, **rule)

        def compare(model: Model, name: str, fidelity: float, other_checkpoint: str) -> ModelComparison:
            against = model if other.model is served.model else other.model.with_results(model.results)
            return model.compare(against, output=name, fidelity=fidelity)

        return await self.find(served, output, compare, deadline, fidelity=fidelity, other_checkpoint=other.checkpoint)


def _key_of(served: Served, output: str, method: Callable[..., Any], options: Mapping[str, Any]) -> Hashable:
    return served.checkpoint, output, method.__name__, repr({**options})


class _UnknownError(Exception):
    """A result that is not cached yet."""


def _refuse() -> None:
    raise _UnknownError
