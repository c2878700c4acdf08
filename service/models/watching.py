"""The watcher: polls the model repository for changes and updates the registry while the service runs."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.concurrency import run_in_threadpool

from service.memory import give_back_memory
from service.models.registry import Registry

logger = logging.getLogger(__name__)


class Watch:
    """Loads the models, polls for changes of their files, and starts the global results of new models.

    Args:
        registry: the models.
        prepare: computes the global results of new models, given by their hashes.
        seconds: time between two scans; 0 for a single scan at the start.

    Attributes:
        loaded: set once a model is ready, or none of the folder is.
    """

    def __init__(
        self, registry: Registry, prepare: Callable[[tuple[str, ...]], Awaitable[None]], seconds: float
    ) -> None:
        self._registry = registry
        self._prepare_results = prepare
        self._seconds = seconds
        self.loaded = asyncio.Event()
        self._stopping = asyncio.Event()
        self._preparing: set[asyncio.Task[None]] = set()
        self._failure = ""  # of the last scan

    async def run(self) -> None:
        """Runs until it is closed, without blocking requests: liveness probes must pass while a large folder loads."""
        await self._look(partial(self._registry.load, until_ready=True))
        self.loaded.set()
        await self._look(self._registry.load)
        gc.freeze()  # loaded models are long-lived; collecting over them would pause everything for 0.1 seconds
        try:
            while self._seconds and not await self._stops_within(self._seconds):
                await self._look(self._registry.poll)
            await self._stopping.wait()
        finally:
            gc.unfreeze()  # otherwise an app that has shut down would never be collected

    def close(self) -> None:
        """Ends the run; a running scan ends after the file that it is reading."""
        self._stopping.set()
        self._registry.stop()
        for task in self._preparing:
            task.cancel()

    async def load_model(self, name: str) -> None:
        """Loads the versions of a model that are not served as they are on disk, see `Registry.load_model`.

        Raises:
            UnknownNameError: there are no files of that name.
            CheckpointError: there is nothing at the path.
        """
        self._follow_up(await run_in_threadpool(self._registry.load_model, name))

    async def unload_model(self, name: str) -> None:
        """Unloads a model, see `Registry.unload_model`; in a thread, because it waits for a running scan.

        Raises:
            UnknownNameError: there is no model of that name.
        """
        await run_in_threadpool(self._registry.unload_model, name)

    async def _look(self, look: Callable[[], tuple[str, ...]]) -> None:
        """Runs one scan. A failure changes nothing, and is logged unless the previous scan failed the same way."""
        try:
            new = await run_in_threadpool(look)
        except Exception as error:
            if str(error) != self._failure:
                logger.exception("the models cannot be scanned; those that are loaded are still served")
            self._failure = str(error)
            return
        self._failure = ""
        self._follow_up(new)

    def _follow_up(self, new: tuple[str, ...]) -> None:
        """Starts the global results of new models, unless the service is shutting down."""
        if new and not self._stopping.is_set():
            task = asyncio.create_task(self._prepare(new))
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    async def _prepare(self, new: tuple[str, ...]) -> None:
        await self._prepare_results(new)
        await run_in_threadpool(give_back_memory)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False
