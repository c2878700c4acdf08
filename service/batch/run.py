"""A run: reads the chunks of a table, has an engine explain those that are missing, and writes the parts."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event

import polars
import torch

from kanmodel.errors import DataError, KanscopeError
from service.batch import join_cluster
from service.batch.chunks import Chunk, Plan, Summary, hold_windows, read_chunks
from service.batch.parts import Folder, Part, make_part
from service.batch.tables import first_line

Start = Callable[[Chunk], Future[Part]]
Engine = Callable[[Plan, int | None], AbstractContextManager[tuple[Start, int]]]
"""What explains chunks, given a plan and a number of workers, None for one per core; as a context it is the function
that starts to explain a chunk, and how many chunks are in progress at most."""


def explain_table(plan: Plan, output: Path, engine: Engine, workers: int | None) -> Iterator[tuple[Summary, int]]:
    """Explains the missing parts of a table.

    Yields, at the start and after each part, the counts of all parts in the folder `output`, and the bytes of the table
    that they cover, roughly. `workers` are threads or processes of the engine; None for one per core. Raises as
    `read_chunks`, `make_part` and `Folder`.
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
        yield from (part.result() for part in waiting)
        if failure is not None:
            raise failure


@contextmanager
def use_threads(plan: Plan, workers: int | None) -> Iterator[tuple[Start, int]]:
    """Explains in threads of this process, which run in parallel because torch releases the GIL while it computes."""
    workers = workers or polars.thread_pool_size()  # the cores that this process may use, also by a quota of a cgroup
    stopped = Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="explain") as pool:
        try:
            yield lambda chunk: pool.submit(make_part, plan, chunk, stopped.is_set), 2 * workers
        finally:
            stopped.set()


@contextmanager
def use_ray(plan: Plan, workers: int | None) -> Iterator[tuple[Start, int]]:
    """Explains each chunk in a task of one core, repeated if its process dies, on the cluster of `join_cluster`.

    The nodes need no shared storage. Raises DataError if Ray does not start, or the cluster fails.
    """
    import ray  # here, since it is an extra, and takes seconds to import
    from ray.exceptions import RayError, RayTaskError

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        join_cluster(workers, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray has no exception class for this
        raise DataError(f"Ray does not start: {first_line(error)}") from error
    try:
        task = ray.remote(num_cpus=1, max_retries=-1)(_explain_chunk)
        shared = ray.put(plan)
        workers = workers or int(ray.cluster_resources()["CPU"])  # type: ignore[no-untyped-call]
        yield lambda chunk: task.remote(shared, chunk).future(), workers
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else None
        if isinstance(cause, KanscopeError):
            raise cause from None
        raise DataError(f"the Ray cluster failed: {first_line(error)}") from error
    finally:
        ray.shutdown()


def _explain_chunk(plan: Plan, chunk: Chunk) -> Part:
    torch.set_num_threads(1)
    return make_part(plan, chunk)
