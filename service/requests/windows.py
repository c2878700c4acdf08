"""Reads the windows of a request, given as ``instances`` or as ``columns``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kanmodel.data import N_LISTED, Array, refuse_non_finite
from kanmodel.errors import Problem
from kanmodel.model import Model
from service.http.errors import unusable, unusable_values
from service.requests.arrays import Axis, read_array


def read_windows(members: Mapping[str, Any], model: Model, max_windows: int) -> Array:
    """The windows of a request in either form.

    Args:
        members: those of the request; ``instances`` may already be an array, see `parse_windows`.
        model: the model that they must fit.
        max_windows: the limit on windows.

    Returns:
        (n, lookback, n_features), original units, oldest step first.

    Raises:
        DataError: both forms or none, a value or length that does not fit, an unknown or missing feature, or a value
            that is not finite after scaling; the error names each place.
    """
    windows, paths = take_windows(members, model, max_windows)
    refuse_infinite_windows(windows, model, paths)
    return windows


def take_windows(members: Mapping[str, Any], model: Model, max_windows: int) -> tuple[Array, str | list[str]]:
    """As `read_windows`, but without the check for finite values, for which it also returns the paths."""
    given = [form for form in ("instances", "columns") if members.get(form) is not None]
    if len(given) != 1:
        reason = "and columns are both given: give one" if given else "is missing: give instances or columns"
        raise unusable("instances", reason)
    if given == ["instances"]:
        return _read_instances(members["instances"], model, max_windows), "instances"
    windows = _read_columns(members["columns"], model, max_windows)
    return windows, [f"columns.{name}" for name in model.config.feature_names]


def refuse_infinite_windows(windows: Array, model: Model, paths: str | Sequence[str]) -> None:
    """Refuses values that are not finite after scaling, naming each.

    Args:
        windows: (n, lookback, n_features), original units.
        model: the model whose scaling is applied.
        paths: path of the windows as a whole, or of the values of each feature.

    Raises:
        DataError: there are any.
    """
    representable = model.find_representable(windows)
    if representable.all():
        return
    finite = np.where(representable, windows, np.nan)
    if isinstance(paths, str):
        refuse_non_finite(finite, paths)
        return
    for number, path in enumerate(paths):
        refuse_non_finite(finite[..., number], path)


def window_axes(model: Model) -> tuple[Axis, Axis]:
    """The axes of one window: its steps and its features."""
    return Axis(model.config.lookback, "steps"), Axis(len(model.config.features), "features")


def refuse_other_names(given: Mapping[str, Any], model: Model, path: str) -> None:
    """Refuses a mapping with an unknown or a missing feature."""
    names = dict.fromkeys(model.config.feature_names)
    message = f"is unknown; the features are {', '.join(names)}"
    wrong = [(name, message) for name in given if name not in names]
    wrong += [(name, "is missing") for name in names if name not in given]
    if wrong:
        problems = [Problem(f"{path}.{name}", message) for name, message in wrong[:N_LISTED]]
        raise unusable_values(problems, len(wrong))


def _read_instances(value: Any, model: Model, max_windows: int) -> Array:
    _refuse_number_of_windows(value, max_windows, "instances")
    if isinstance(value, np.ndarray):
        return value
    return read_array(value, (Axis(None, "instances"), *window_axes(model)), "instances")


def _read_columns(value: Any, model: Model, max_windows: int) -> Array:
    """One list of instances per feature, stacked to (n, lookback, n_features)."""
    if not isinstance(value, dict):
        raise unusable("columns", "must be an object with a list of instances for each feature")
    refuse_other_names(value, model, "columns")
    names = model.config.feature_names
    _refuse_number_of_windows(value[names[0]], max_windows, f"columns.{names[0]}")
    n_windows = len(value[names[0]]) if isinstance(value[names[0]], list) else None
    axes = (Axis(n_windows, "instances"), Axis(model.config.lookback, "steps"))
    return np.stack([read_array(value[name], axes, f"columns.{name}") for name in names], axis=-1)


def _refuse_number_of_windows(value: Any, max_windows: int, path: str) -> None:
    if isinstance(value, (list, np.ndarray)) and not 1 <= len(value) <= max_windows:
        message = f"must have 1 to {max_windows} instances (max_windows), but has {len(value)}"
        raise unusable(path, message, "limit_exceeded" if len(value) else "invalid_value")
