"""Shadow versions: forecasts of a random share of the same windows, in the background, that are counted only."""

import asyncio
import logging
import random
from contextvars import Context

from kanmodel.arrays import Array
from kanmodel.errors import KanscopeError
from service.compute import Compute
from service.models.registry import Registry, Served
from service.telemetry.metrics import Metrics
from service.telemetry.monitor import Monitor
from service.wire.errors import NotReadyError, OverloadedError

logger = logging.getLogger(__name__)
MAX_WAITING = 32  # requests
MAX_BYTES = 16 << 20  # of their windows


class Shadows:
    """Forecasts what requests without a version ask for by shadow versions too; it belongs to one event loop.

    These run as background work and delay no request: what is drawn while too much waits is left out, and counted.
    """

    def __init__(self, registry: Registry, compute: Compute, metrics: Metrics, monitor: Monitor | None) -> None:
        self._registry, self._compute, self._metrics, self._monitor = registry, compute, metrics, monitor
        self._tasks: set[asyncio.Task[None]] = set()
        self._n_bytes = 0  # of the windows that wait

    def offer(self, served: Served, windows: Array) -> None:
        """Draws the shadows that forecast windows (n, lookback, n_features), original units, as `served` did."""
        versions = self._registry.index().get(served.name)
        if versions is None or versions.choice is None:
            return
        for version, share in versions.choice.shadow.items():
            if version == served.version or random.random() >= share:  # nosec B311
                continue
            if len(self._tasks) >= MAX_WAITING or self._n_bytes + windows.nbytes > MAX_BYTES:
                self._metrics.observe_forecasts(served.name, version, "skipped", len(windows))
                continue
            self._n_bytes += windows.nbytes
            forecast = self._forecast(served.name, version, windows)
            task = asyncio.create_task(forecast, context=Context())  # so that it is charged to no client
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Forgets what waits."""
        for task in self._tasks:
            task.cancel()

    async def _forecast(self, name: str, version: str, windows: Array) -> None:
        def forecast() -> tuple[Served, Array]:
            shadow = self._registry.get(name, version)
            return shadow, shadow.model.predict(windows)

        try:
            shadow, predictions = await self._compute.submit(forecast, "background")
        except (KanscopeError, NotReadyError, OverloadedError) as error:
            logger.debug("version %s of model %s, a shadow, has no forecast: %s", version, name, error)
            self._metrics.observe_forecasts(name, version, "skipped", len(windows))
        except Exception:
            logger.exception("version %s of model %s, a shadow, has no forecast; please report this", version, name)
            self._metrics.observe_forecasts(name, version, "skipped", len(windows))
        else:
            self._metrics.observe_forecasts(name, version, "shadow", len(predictions))
            if self._monitor is not None:
                self._monitor.watch(shadow, windows, predictions)
        finally:
            self._n_bytes -= windows.nbytes
