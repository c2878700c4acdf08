"""The watcher, which polls the folder and brings the registry up to date while the service runs."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from service.models.registry import Registry, Served

logger = logging.getLogger(__name__)


class Watch:
    """Loads the models, looks for changes of their files, and has global results computed for what is new.

    Args:
        registry: the models.
        prepare: computes the global results of what is new.
        seconds: time between two looks; 0 for none after the first.

    Attributes:
        loaded: set once the first look is over.
    """

    def __init__(
        self, registry: Registry, prepare: Callable[[tuple[Served, ...]], Awaitable[None]], seconds: float
    ) -> None:
        self._registry = registry
        self._prepare_results = prepare
        self._seconds = seconds
        self.loaded = asyncio.Event()
        self._stopping = asyncio.Event()
        self._preparing: set[asyncio.Task[None]] = set()
        self._failure = ""  # of the last look

    async def run(self) -> None:
        """Goes on until it is closed, beside requests: a large folder must not look like a dead process."""
        await self._look(self._registry.load)
        self.loaded.set()
        gc.freeze()  # what is here stays: a collection that looks at all of it stops everything for a tenth of a second
        try:
            while self._seconds and not await self._stops_within(self._seconds):
                await self._look(self._registry.poll)
            await self._stopping.wait()
        finally:
            gc.unfreeze()  # or an app that has ended would stay for as long as its process

    def close(self) -> None:
        """Ends the run: a look that is under way ends after the file that it reads."""
        self._stopping.set()
        self._registry.stop()
        for task in self._preparing:
            task.cancel()

    async def load_model(self, name: str) -> None:
        """Loads the versions of a model that do not serve as they lie in the folder, see `Registry.load_model`.

        Raises:
            UnknownNameError: there are no files of that name.
            CheckpointError: there is nothing at the path.
        """
        self._follow_up(await run_in_threadpool(self._registry.load_model, name))

    async def unload_model(self, name: str) -> None:
        """Lets go of a model, see `Registry.unload_model`; beside requests, as a look that is under way comes first.

        Raises:
            UnknownNameError: there is no model of that name.
        """
        await run_in_threadpool(self._registry.unload_model, name)

    async def _look(self, look: Callable[[], tuple[Served, ...]]) -> None:
        """One look. Its failure changes nothing, and is logged unless it is the one before again."""
        try:
            served = await run_in_threadpool(look)
        except Exception as error:
            if str(error) != self._failure:
                logger.exception("the models cannot be looked at; those that are loaded are still served")
            self._failure = str(error)
            return
        self._failure = ""
        self._follow_up(served)

    def _follow_up(self, served: tuple[Served, ...]) -> None:
        """Has the global results of what is new computed, unless all ends."""
        if served and not self._stopping.is_set():
            task = asyncio.create_task(self._prepare(served))
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    async def _prepare(self, served: tuple[Served, ...]) -> None:
        await self._prepare_results(served)
        await run_in_threadpool(_give_back_memory)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False


def _give_back_memory() -> None:
    """Hands what was freed to the system, which glibc would keep: 50 MB after the results of one small model."""
    with suppress(AttributeError, OSError):  # other C libraries do not know this
        ctypes.CDLL(None).malloc_trim(0)
