"""Explanations of drawn forecasts, in the background and within a budget of processor time, for the monitor."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from time import monotonic, thread_time

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.ledger import sum_groups
from kanmodel.errors import KanscopeError
from kanmodel.model import Model
from kanmodel.structure.importance import Importance
from kanmodel.tables.statistics.errors import covered
from kanmodel.tables.statistics.tally import Tally
from service.compute import Compute
from service.models.registry import Served
from service.settings import Settings
from service.telemetry.monitor import Counter, Monitor, Sample, reference_values, watched_output
from service.wire.errors import NotReadyError
from service.work.results import GlobalResults

logger = logging.getLogger(__name__)
SAVED_SECONDS = 60.0  # of the budget that may be saved up


class Sampling:
    """Explains samples of the monitor as background work, and what they are compared with: the reference windows.

    A sample that is drawn while the budget is used up is left out: what is explained stays a random share of the
    forecasts at that time. Explanations that clients ask for do not count, since people ask about what is unusual.
    """

    def __init__(self, monitor: Monitor, compute: Compute, results: GlobalResults, settings: Settings) -> None:
        self._monitor, self._compute, self._results = monitor, compute, results
        self._cpu, self._seconds = settings.monitor_cpu, settings.monitor_seconds
        self._left = 0.0  # of the budget, seconds; below 0 after more was used

    async def run(self) -> None:
        """Explains, until it is cancelled or the service stops."""
        while True:
            before = monotonic()
            await asyncio.sleep(self._seconds)
            self._left = min(self._left + self._cpu * (monotonic() - before), self._cpu * SAVED_SECONDS)
            by_model: dict[tuple[str, str], list[Sample]] = {}
            for sample in self._monitor.take_samples():
                by_model.setdefault((sample.served.name, sample.served.version), []).append(sample)
            for samples in by_model.values():
                try:
                    if self._left > 0:
                        await self._explain(samples)
                except NotReadyError:  # the service is stopping
                    return
                except KanscopeError as error:
                    logger.debug("samples of model %s cannot be explained: %s", samples[0].served.name, error)
                except Exception:
                    name = samples[0].served.name
                    logger.exception("samples of model %s cannot be explained; please report this", name)

    async def _explain(self, samples: Sequence[Sample]) -> None:
        served = samples[-1].served
        windows = np.stack([one.window for one in samples if one.served.checkpoint == served.checkpoint])
        await self._compute.submit(partial(self._count, served, windows), "background")
        if self._monitor.stated.get((served.name, served.version)) != served.checkpoint:
            output = served.model.outputs[watched_output(served.model)]
            importance = await self._results.find(served, output, Model.importance, kind="background")
            state = partial(self._state, served, importance)
            await self._compute.submit(state, "background")

    def _count(self, served: Served, windows: Array) -> None:
        start, counter = thread_time(), self._monitor.counter_of(served)
        explained = served.model.explain(windows, served.model.outputs[counter.output])
        self._monitor.count_explained(served, sum_groups(explained.contributions, counter.watched.members))
        self._left -= thread_time() - start

    def _state(self, served: Served, importance: Importance) -> None:
        self._monitor.state_reference(
            served, count_reference(served.model, self._monitor.counter_of(served), importance)
        )


def count_reference(model: Model, counter: Counter, importance: Importance) -> Tally:
    """The reference windows of a model as a tally, each in a block of its own."""
    n, output, values = len(model.reference), counter.output, reference_values(model, counter.output)
    errors, inside = np.full(n, np.nan), np.full((n, len(counter.watched.levels)), np.nan)
    if (actual := model.reference.actual(output)) is not None:
        errors = values[:, -1] - actual
        if counter.watched.levels:
            found = model.predict(model.reference.windows, intervals="all")
            place = found.outputs.index(model.outputs[output])
            lower, upper = found.lower[:, :, place], found.upper[:, :, place]
            inside = covered(lower, upper, actual).T
    contributions = sum_groups(importance.contributions, counter.watched.members)
    blocks = np.arange(n)
    return Tally.of(counter.bins, values[:, :-1], values[:, -1], contributions, errors, inside, blocks, n)
