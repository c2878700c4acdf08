"""Baselines: the windows with which others are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import DataError, UnknownNameError, quote
from kanmodel.tables.statistics.choose import choose_evenly

DEFAULT_COUNT = 16


@dataclass(frozen=True)
class Baseline:
    """One window as the baseline.

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
    """Reference windows over which explanations are averaged, drawn without replacement.

    Attributes:
        count: their number, from 2 to all.
        seed: of the draw.
    """

    count: int = DEFAULT_COUNT
    seed: int = 0


def baseline_windows(model: LoadedModel, baseline: Baseline | ReferenceBaselines) -> Array:
    """The windows of a baseline, (n, lookback, n_features), original units; one, or `ReferenceBaselines.count`.

    Raises:
        DataError: a value is missing or has the wrong shape, or the count is out of range.
        UnknownNameError: `values` names a feature that does not exist.
    """
    shape = (model.config.lookback, len(model.config.features))
    if isinstance(baseline, ReferenceBaselines):
        available = len(model.reference.windows)
        if not 2 <= baseline.count <= available:
            message = f"must lie between 2 and {available}, the number of reference windows, but is {baseline.count}"
            raise DataError.at("baseline.reference", message)
        chosen = np.random.default_rng(baseline.seed).choice(available, baseline.count, replace=False)
        return model.scaling.features_to_original(model.reference.windows[chosen.tolist()])
    if baseline.kind == "values":
        window = _window_of_values(model.config.feature_names, shape[0], baseline.values or {})
    elif baseline.kind == "instance":
        window = np.asarray(baseline.instance, dtype=np.float64)
        if window.shape != shape:
            raise DataError.at("baseline.instance", f"must have shape {list(shape)}, but has {list(window.shape)}")
    else:
        values = model.reference_mean if baseline.kind == "mean" else model.scaling.feature_mean
        window = np.broadcast_to(values, shape).copy()
    return window[None]


def scaled_baselines(model: LoadedModel, baseline: Baseline | ReferenceBaselines | None = None) -> Tensor:
    """`baseline_windows` in model units; ``mean`` by default."""
    return model.to_model_units(baseline_windows(model, baseline or Baseline()), "baseline")


def spread_windows(model: LoadedModel, n: int) -> Tensor:
    """At most `n` of the reference windows, spread evenly, (n, lookback, n_features), model units."""
    windows = model.reference.windows
    return windows[choose_evenly(len(windows), n)]


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
            raise DataError.at(place, f"must be a number or {lookback} numbers, one per step")
        columns.append(np.broadcast_to(column, (lookback,)))
    return np.stack(columns, axis=1)
