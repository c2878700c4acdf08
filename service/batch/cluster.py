"""The Ray engine: chunks through Ray Data, read by one task and explained by actors that hold the model.

The table is read and the parts are written on the node of the command; the others need no shared storage.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import ray
import torch
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import RayError

from kanmodel.errors import DataError, KanscopeError
from kanmodel.model import Model
from service.batch.chunks import Chunk, read_chunks
from service.batch.parts import Part, make_part
from service.batch.plan import Plan
from service.batch.tables import first_line
from service.engines.clusters import join_cluster

COLUMN = "item"  # the one column of the data set, of Python objects


@dataclass(frozen=True)
class Failure:
    """An error in reading the table or explaining a chunk; sent as data, so that the other chunks are finished."""

    message: str


def explain_with_ray(model: Model, plan: Plan, finished: Mapping[int, str], workers: int | None) -> Iterator[Part]:
    """Yields the missing parts in any order, computed on the cluster at ``RAY_ADDRESS``, or on a temporary one.

    Args:
        model: the model.
        plan: the table.
        finished: digests of the finished chunks, by number.
        workers: actors, with one core each; None for all cores.

    Raises:
        DataError: as `read_chunks` and `make_part`, after all other chunks are explained; the cluster fails.
    """
    failure: Failure | None = None
    try:
        with _cluster(workers):
            workers = workers or int(ray.cluster_resources()["CPU"])  # type: ignore[no-untyped-call]
            chunks = ray.data.read_datasource(
                _Chunks(replace(plan, table=plan.table.absolute()), finished),
                num_cpus=0,  # leaves all cores to the actors: reading takes a hundredth of the time
                override_num_blocks=1,
                label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
            )
            parts = chunks.map_batches(
                _Explainer,
                fn_constructor_args=(model, plan),
                compute=ActorPoolStrategy(size=workers),
                batch_size=1,
                batch_format="pandas",
                num_cpus=1,
            )
            for row in parts.iter_rows():
                if isinstance(row[COLUMN], Part):
                    yield row[COLUMN]
                else:
                    failure = failure or row[COLUMN]
    except RayError as error:
        raise DataError(f"the Ray cluster failed: {first_line(error)}") from error
    if failure is not None:
        raise DataError(failure.message)


@contextmanager
def _cluster(workers: int | None) -> Iterator[None]:
    """A cluster, with a data context that makes each chunk a block of its own."""
    ours = not ray.is_initialized()
    if ours:
        _start(workers)
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        with DataContext.current(context):
            yield
    finally:
        if ours:
            ray.shutdown()


def _start(workers: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        join_cluster(workers, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray has no exception class for this
        raise DataError(f"Ray does not start: {first_line(error)}") from error


class _Chunks(Datasource):
    """The chunks of a table, read by a single task, because each starts where the previous one ends."""

    def __init__(self, plan: Plan, finished: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._read = partial(_read_blocks, plan, dict(finished))

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        return [ReadTask(self._read, BlockMetadata(None, None, None, None), per_task_row_limit=per_task_row_limit)]


def _read_blocks(plan: Plan, finished: Mapping[int, str]) -> Iterator[pd.DataFrame]:
    try:
        for chunk in read_chunks(plan, finished):
            yield pd.DataFrame({COLUMN: [chunk]})
    except KanscopeError as error:
        yield pd.DataFrame({COLUMN: [Failure(str(error))]})


class _Explainer:
    """An actor that holds the model."""

    def __init__(self, model: Model, plan: Plan) -> None:
        torch.set_num_threads(1)
        self._model, self._plan = model, plan

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({COLUMN: [self._explain(item) for item in batch[COLUMN]]})

    def _explain(self, item: Chunk | Failure) -> Part | Failure:
        if isinstance(item, Failure):
            return item
        try:
            return make_part(self._model, self._plan, item)
        except KanscopeError as error:
            return Failure(str(error))
