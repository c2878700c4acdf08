"""Chunks through Ray Data: one task reads them, actors that hold the model explain them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kanmodel.checkpoint import LoadedModel, parse_checkpoint
from kanmodel.errors import DataError, KanscopeError
from service.batch.chunks import Chunk, read_chunks
from service.batch.parts import Part, make_part
from service.batch.plan import Plan
