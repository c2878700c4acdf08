"""The thread engine: explains chunks in threads of this process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from kanmodel.errors import KanscopeError
from kanmodel.model import Model
from service.batch.chunks import read_chunks
from service.batch.parts import Part, make_part
from service.batch.plan import Plan

AHEAD = 2  # chunks per thread that are read in advance


def explain_with_threads(model: Model, plan: Plan, finished: Mapping[int, str], workers: int | None) -> Iterator[Part]:
    """Yields the missing parts in order. Threads run in parallel because torch releases the GIL while it computes.

    Args:
        model: the model.
        plan: the table.
        finished: digests of the finished chunks, by number.
        workers: threads; None for one per core.

    Raises:
        KanscopeError: as `read_chunks`, after the chunks read before are explained; as `make_part`.
    """
    workers = workers or _count_cores()
    stopped = Event()
    chunks = read_chunks(plan, finished)
    waiting: deque[Future[Part]] = deque()
    failure: KanscopeError | None = None
    with ThreadPoolExecutor(workers, thread_name_prefix="explain") as pool:
        try:
            while failure is None:
                try:
                    chunk = next(chunks, None)
                except KanscopeError as error:
                    failure = error
                    break
                if chunk is None:
                    break
                waiting.append(pool.submit(make_part, model, plan, chunk, stopped.is_set))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stopped.set()
    if failure is not None:
        raise failure


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
