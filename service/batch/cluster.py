"""The Ray engine: each chunk is a task on a cluster.

The table is read and the parts are written where the command runs; the nodes need no shared storage.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from kanmodel.errors import DataError, KanscopeError
from service.batch import join_cluster
from service.batch.chunks import Chunk, Plan
from service.batch.parts import Part, make_part
from service.batch.run import Start
from service.batch.tables import first_line


@contextmanager
def use_ray(plan: Plan, workers: int | None) -> Iterator[tuple[Start, int]]:
    """Explains on the cluster at ``RAY_ADDRESS``, or on one of `workers` cores that ends with the context.

    A task has one core, and is repeated if its process dies.

    Raises:
        DataError: Ray does not start, or the cluster fails.
    """
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
