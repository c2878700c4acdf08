"""The watcher: polls the model repository for changes and updates the registry while the service runs."""

import asyncio
import ctypes
import gc
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from starlette.concurrency import run_in_threadpool

from kanmodel.errors import CheckpointError
from service.models.registry import Registry

logger = logging.getLogger(__name__)
RETRY = 10.0  # seconds until a store is listed again that never was, where there are no scans


class Watch:
    """Loads the models, and polls for changes of their files every `seconds`; only once, at the start, if these are 0.

    A store that cannot be listed at the start is tried again until it was.

    It has `prepare` compute the global results of new models, which are given by their hashes.
    """

    def __init__(
        self, registry: Registry, prepare: Callable[[tuple[str, ...]], Awaitable[None]], seconds: float
    ) -> None:
        self._registry, self._prepare_results, self._seconds = registry, prepare, seconds
        self._stopping, self.loaded = asyncio.Event(), asyncio.Event()  # loaded: one is ready, or none of the folder is
        self._preparing: set[asyncio.Task[None]] = set()
        self._failure = ""  # of the last scan

    async def run(self) -> None:
        """Runs until it is closed, without blocking requests: liveness probes must pass while a large folder loads."""
        await self._scan(partial(self._registry.load, until_ready=True))
        self.loaded.set()
        await self._scan(self._registry.load)
        await trim_memory()
        gc.freeze()  # loaded models are long-lived; collecting over them would pause everything for 0.1 seconds
        try:
            while not self._stopping.is_set():
                try:
                    seconds = self._seconds or (None if self._registry.is_listed else RETRY)
                    await asyncio.wait_for(self._stopping.wait(), seconds)
                except TimeoutError:
                    await self._scan(self._registry.poll)
                    await trim_memory()
        finally:
            gc.unfreeze()  # otherwise an app that has shut down would never be collected

    def close(self) -> None:
        """Ends the run; a running scan ends after the file that it is reading."""
        self._stopping.set()
        self._registry.stop()
        for task in self._preparing:
            task.cancel()

    async def apply(self, change: Callable[[], tuple[str, ...] | None]) -> None:
        """Changes the registry on a thread, which may wait for a scan, and computes the results of new models later."""
        new = await run_in_threadpool(change)
        if new and not self._stopping.is_set():
            task = asyncio.create_task(self._prepare(new))
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    async def _scan(self, scan: Callable[[], tuple[str, ...]]) -> None:
        """Runs one scan. A failure changes nothing, and is logged unless the previous scan failed the same way."""
        try:
            await self.apply(scan)
        except Exception as error:
            failure = str(error) or type(error).__name__
            if failure != self._failure and isinstance(error, CheckpointError):
                text = "the models cannot be scanned, and those that are loaded are still served: %s; mend that"
                logger.error(text, failure)
            elif failure != self._failure:
                logger.exception("the models cannot be scanned, those that are loaded are served; please report this")
            self._failure = failure
        else:
            if self._failure:
                logger.info("the models are scanned again")
            self._failure = ""

    async def _prepare(self, new: tuple[str, ...]) -> None:
        await self._prepare_results(new)
        await trim_memory()


async def trim_memory() -> None:
    """Gives back what glibc retains: 20 MB after a model is loaded, 50 MB after its results or large requests."""
    await run_in_threadpool(_call_libc, "malloc_trim", 0)


def share_memory() -> None:
    """Lets threads allocate from the same memory: a tenth less under load. To be called before they start."""
    # M_ARENA_MAX: one for the event loop, one for the thread that explains; with one in all that takes a fifth longer.
    _call_libc("mallopt", -8, 2)


def _call_libc(function: str, *arguments: int) -> None:
    with suppress(AttributeError, OSError):  # other C libraries do not have these functions
        getattr(ctypes.CDLL(None), function)(*arguments)
