"""Global results, computed once per checkpoint and output: contributions with intervals, and the graph."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from table import Row, times_in_turn

from kanmodel.forecaster import Forecaster
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.topology import build_topology

ROUNDS = 5


def rows(model: Forecaster) -> Iterator[Row]:
    """`measure_importance` and `build_topology`, as in a notebook."""
    torch.set_num_threads(1)  # as questions do
    importance = measure_importance(model, 0)
    calls = {
        "importance of features, steps, nodes and edges with intervals": partial(measure_importance, model, 0),
        "topology, pruned to an R2 of 0.99": partial(build_topology, model, importance, PruningRule()),
    }
    where = f"{len(model.reference.scaled)} windows"
    for (work, _), seconds in zip(calls.items(), times_in_turn(list(calls.values()), ROUNDS), strict=True):
        yield Row(f"{work}, {where}", f"{np.median(seconds):.2f} s")
