"""Baselines: the windows with which others are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.errors import DataError, UnknownNameError, quote

DEFAULT_COUNT = 16


@dataclass(frozen=True)
class Baseline:
    """A baseline.

    Attributes:
        kind: ``mean`` per feature over the reference windows and their steps; ``zero`` in model units, the training
            mean; ``values`` that are given; ``instance``, another window.
        values: for ``values``: feature name to a number, or to one number per step, original units.
        instance: for ``instance``: (lookback, n_features), original units, oldest step first.
    """

    kind: Literal["mean", "zero", "values", "instance"] = "mean"
    values: Mapping[str, float | Sequence[float]] | None = None
    instance: Array | None = None


@dataclass(frozen=True)
class ReferenceBaselines:
    """Reference windows as baselines, over which the ledger is averaged.

    Attributes:
        count: number of windows drawn without replacement.
        seed: of the draw.
    """

    count: int = DEFAULT_COUNT
    seed: int = 0


def draw_baselines(model: LoadedModel, count: int, seed: int = 0) -> Array:
    """Reference windows drawn without replacement, (count, lookback, n_features), original units.

    Raises:
        DataError: `count` is out of range.
    """
    available = len(model.reference.windows)
    if not 2 <= count <= available:
        message = f"must lie between 2 and {available}, the number of reference windows, but is {count}"
        raise DataError.at("baseline.reference", message)
    chosen = np.random.default_rng(seed).choice(available, count, replace=False)
    return model.scaling.features_to_original(model.reference.windows[chosen.tolist()])


def baseline_window(model: LoadedModel, baseline: Baseline) -> Array:
    """The window that a baseline stands for, (lookback, n_features), original units.

    Raises:
        DataError: a value is missing or has the wrong shape.
        UnknownNameError: `values` names a feature that does not exist.
    """
    shape = (model.config.lookback, len(model.config.features))
    if baseline.kind == "mean":
        return np.broadcast_to(model.reference_mean, shape).copy()
    if baseline.kind == "zero":
        return np.broadcast_to(model.scaling.feature_mean, shape).copy()
    if baseline.kind == "values":
        return _window_of_values(model.config.feature_names, shape[0], baseline.values or {})
    instance = np.asarray(baseline.instance, dtype=np.float64)
    if instance.shape != shape:
        message = f"must have shape {list(shape)}, but has {list(instance.shape)}"
        raise DataError.at("baseline.instance", message)
    return instance


def _window_of_values(names: Sequence[str], lookback: int, values: Mapping[str, float | Sequence[float]]) -> Array:
    for name in values:
        if name not in names:
            raise UnknownNameError(f"baseline.values has no feature {quote(name)}; the features are {', '.join(names)}")
    columns = []
    for name in names:
        place = f"baseline.values.{name}"
        if name not in values:
            raise DataError.at(place, "is missing")
        column = np.asarray(values[name], dtype=np.float64)
        if column.shape not in ((), (lookback,)):
            message = f"must be a number or {lookback} numbers, one per step"
            raise DataError.at(place, message)
        columns.append(np.broadcast_to(column, (lookback,)))
    return np.stack(columns, axis=1)
