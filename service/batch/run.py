"""A run: reads the chunks of a table, has an engine explain those that are missing, and writes the parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event

from kanmodel.errors import KanscopeError
from service.batch.chunks import Chunk, Plan, Summary, hold_windows, read_chunks
from service.batch.parts import Folder, Part, make_part

Start = Callable[[Chunk], Future[Part]]
Engine = Callable[[Plan, int | None], AbstractContextManager[tuple[Start, int]]]
"""What explains chunks, given a plan and a number of workers, None for one per core; as a context it is the function
that starts to explain a chunk, and how many chunks are in progress at most."""


def explain_table(plan: Plan, output: Path, engine: Engine, workers: int | None) -> Iterator[tuple[Summary, int]]:
    """Explains the missing parts of a table.

    Yields, at the start and after each part, the counts of all parts in the folder `output`, and the bytes of the table
    that they cover, roughly. `workers` are threads or processes of the engine; None for one per core.

    Raises:
        DataError: the table cannot be read, or the folder belongs to another run or cannot be written to.
        UnknownNameError: a column does not exist.
    """
    hold_windows(plan)  # before anything is written
    folder = Folder(output, plan.describe())
    digests: dict[int, str] = {}
    summary, read = Summary(), 0
    for part in folder.finished():
        digests[part.number] = part.digest
        summary, read = summary + part.summary, max(read, part.read)
    yield summary, read
    for part in _make_parts(plan, digests, engine, workers):
        folder.add(part)
        summary, read = summary + part.summary, max(read, part.read)
        yield summary, read
    folder.complete(summary)


def _make_parts(plan: Plan, finished: Mapping[int, str], engine: Engine, workers: int | None) -> Iterator[Part]:
    """Yields the missing parts in any order; an error is raised after those in progress."""
    failure: KanscopeError | None = None
    waiting: set[Future[Part]] = set()
    with engine(plan, workers) as (start, at_most):
        try:
            for chunk in read_chunks(plan, finished):
                waiting.add(start(chunk))
                if len(waiting) == at_most:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from [part.result() for part in done]
        except KanscopeError as error:
            failure = error
        for part in waiting:
            yield part.result()
        if failure is not None:
            raise failure


@contextmanager
def use_threads(plan: Plan, workers: int | None) -> Iterator[tuple[Start, int]]:
    """Explains in threads of this process, which run in parallel because torch releases the GIL while it computes."""
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    stopped = Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="explain") as pool:
        try:
            yield lambda chunk: pool.submit(make_part, plan, chunk, stopped.is_set), 2 * workers
        finally:
            stopped.set()
