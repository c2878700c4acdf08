"""Baselines: the windows with which others are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from kanmodel.arrays import Array, refuse_non_finite
from kanmodel.errors import DataError, Problem, UnknownNameError, check_lowest, quote
from kanmodel.forecaster import Forecaster
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.tables.windows import read_numbers, read_windows

DEFAULT_COUNT = 16
BASELINES = (
    '"mean", "zero", "reference", {"reference": count, "seed": number}, '
    '{"values": {feature: a number or one per step}} or {"instance": window}'
)


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
    """Some reference windows as baselines, `count` of them (2 to all), drawn without replacement by `seed`."""

    count: int = DEFAULT_COUNT
    seed: int = 0


Baselines = Baseline | ReferenceBaselines


def read_baseline(model: Forecaster, baseline: Any) -> Baselines:
    """A baseline in any form of `BASELINES`, which the HTTP API accepts too, or one that was read before.

    Raises:
        DataError: another form, or a value that does not fit.
    """
    match baseline:
        case Baseline() | ReferenceBaselines():
            return baseline
        case str() if baseline in ("mean", "zero"):
            return Baseline("mean" if baseline == "mean" else "zero")
        case str() if baseline == "reference":
            return ReferenceBaselines(min(DEFAULT_COUNT, len(model.reference.scaled)))
        case {"reference": count, **rest} if set(rest) <= {"seed"}:
            seed: Any = rest.get("seed", 0)
            check_lowest("baseline.reference", count, 2)
            check_lowest("baseline.seed", seed, 0)
            return ReferenceBaselines(int(count), int(seed))
        case {"values": Mapping() as values, **rest} if not rest:
            read = {name: read_numbers(value, f"baseline.values.{name}") for name, value in values.items()}
            for name, value in read.items():
                refuse_non_finite(value, f"baseline.values.{name}")
            return Baseline("values", values={name: value.tolist() for name, value in read.items()})
        case {"instance": instance, **rest} if not rest:
            window, _ = read_windows(model.config.table, instance, "baseline.instance")
            if len(window) != 1:
                raise DataError.at("baseline.instance", f"must be one window, but has {len(window)}")
            return Baseline("instance", instance=window[0])
    raise DataError(f"baseline must be {BASELINES}, but is {quote(baseline)}", [Problem("baseline", "is unknown")])


def baseline_windows(model: Forecaster, baseline: Baselines) -> Array:
    """The windows of a baseline, (n, lookback, n_features), original units; one, or `ReferenceBaselines.count`.

    Raises:
        DataError: a value is missing or has the wrong shape, or the count is out of range.
        UnknownNameError: `values` names a feature that does not exist.
    """
    shape = model.config.window_shape
    if isinstance(baseline, ReferenceBaselines):
        available = len(model.reference.scaled)
        if not 2 <= baseline.count <= available:
            message = f"must lie between 2 and {available}, the number of reference windows, but is {baseline.count}"
            raise DataError.at("baseline.reference", message)
        chosen = np.random.default_rng(baseline.seed).choice(available, baseline.count, replace=False)
        return model.scaling.features_to_original(model.reference.scaled[chosen.tolist()])
    if baseline.kind == "values":
        window = _window_of_values(model.config.feature_names, shape[0], baseline.values or {})
    elif baseline.kind == "instance":
        window = np.asarray(baseline.instance, dtype=np.float64)
        if window.shape != shape:
            raise DataError.at("baseline.instance", f"must have shape {list(shape)}, but has {list(window.shape)}")
    else:
        values = model.reference.mean if baseline.kind == "mean" else model.scaling.feature_mean
        window = np.broadcast_to(values, shape).copy()
    return window[None]


def scaled_baselines(model: Forecaster, baseline: Baselines | None = None) -> Tensor:
    """`baseline_windows` in model units; ``mean`` by default."""
    return model.to_model_units(baseline_windows(model, baseline or Baseline()), "baseline")


def spread_windows(model: Forecaster, n: int) -> Tensor:
    """At most `n` of the reference windows, spread evenly, (n, lookback, n_features), model units."""
    return model.reference.scaled[choose_evenly(len(model.reference.scaled), n)]


def _window_of_values(names: Sequence[str], lookback: int, values: Mapping[str, float | Sequence[float]]) -> Array:
    for name in values:
        if name not in names:
            raise UnknownNameError(f"baseline.values has no feature {quote(name)}; the features are {', '.join(names)}")
    columns = []
    for name in names:
        if name not in values:
            raise DataError.at(f"baseline.values.{name}", "is missing")
        column = np.asarray(values[name], dtype=np.float64)
        if column.shape not in ((), (lookback,)):
            raise DataError.at(f"baseline.values.{name}", f"must be a number or {lookback} numbers, one per step")
        columns.append(np.broadcast_to(column, (lookback,)))
    return np.stack(columns, axis=1)
