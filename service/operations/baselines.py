"""Schemas of baselines, in requests and in answers.

Reads the ``baseline`` of a request, F(x0) of the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.data import Array, refuse_non_finite
from kanmodel.errors import quote
from kanmodel.explain.baseline import DEFAULT_COUNT, Baseline, ReferenceBaselines
from kanmodel.model import Model
from service.operations.members import Closed, about
from service.wire.errors import unusable
from service.wire.windows import Axis, read_array, refuse_other_names, window_axes

BaselineName = TypeAliasType("BaselineName", Literal["mean", "zero", "reference"])
BaselineKind = Literal["mean", "zero", "reference", "values", "instance"]
BaselineValue = Annotated[float | list[float], about("A number, or one per step, in original units.")]


class BaselineValues(Closed):
    """A baseline of given values."""

    values: dict[str, BaselineValue]
    """For every feature of the model a number or one per step, in original units, oldest step first."""


class BaselineInstance(Closed):
    """Another window as baseline: why has the forecast changed?"""

    instance: Annotated[list[list[float]], about("lookback x n_features, original units, oldest step first.")]


class BaselineReference(Closed):
    """Reference windows as baselines; the explanation is the mean over them."""

    reference: Annotated[int, about("Number of reference windows to draw.", ge=2)]
    seed: Annotated[int, about("Seed of the draw.", ge=0)] = 0


class UsedBaseline(TypedDict):
    """The baseline of an explanation, in original units."""

    kind: Annotated[BaselineKind, about("Kind of the baseline.")]
    values: NotRequired[dict[str, BaselineValue]]
    """Value per feature; for `reference` the mean over windows and steps; absent for `instance`."""
    reference: NotRequired[Annotated[int, about("Number of reference windows drawn; only for kind `reference`.")]]
    seed: NotRequired[Annotated[int, about("Seed of the draw; only for kind `reference`.")]]
    instance: NotRequired[Annotated[list[list[float]], about("lookback x n_features; only for kind `instance`.")]]


def describe_baseline(baseline: Baseline, features: Sequence[str], window: Array) -> UsedBaseline:
    """Describes a baseline in an answer.

    Args:
        baseline: the requested baseline.
        features: names of the features.
        window: its window, (lookback, n_features), original units.
    """
    if baseline.kind == "instance":
        return {"kind": "instance", "instance": np.asarray(baseline.instance).tolist()}
    values: dict[str, Any] = dict(baseline.values or {})
    if baseline.kind != "values":
        values = dict(zip(features, window[0].tolist(), strict=True))
    return {"kind": baseline.kind, "values": values}


def describe_reference_baselines(features: Sequence[str], windows: Array, seed: int) -> UsedBaseline:
    """Describes reference windows that serve as baselines.

    Args:
        features: names of the features.
        windows: the windows, (count, lookback, n_features), original units.
        seed: seed of the draw.
    """
    values = dict(zip(features, windows.mean(axis=(0, 1)).tolist(), strict=True))
    return {"kind": "reference", "reference": len(windows), "seed": seed, "values": values}


_KINDS = (
    'must be "mean", "zero", "reference", {"reference": count, "seed": number}, '
    '{"values": {feature: number or one per step}} or {"instance": [[…]]}'
)


def read_baseline(value: Any, model: Model) -> Baseline | ReferenceBaselines:
    """The baseline of a request; ``mean`` by default.

    Raises:
        DataError: an unknown kind, a value or length that does not fit, an unknown or missing feature, a value that
            is not finite after scaling, a count that is not an integer or out of range, or a negative seed; the error
            names each place.
    """
    match value:
        case None | "mean":
            return Baseline("mean")
        case "zero":
            return Baseline("zero")
        case "reference":
            return _read_reference({"reference": min(DEFAULT_COUNT, len(model.reference))}, model)
        case {"reference": _}:
            return _read_reference(value, model)
        case {"values": dict(values), **rest} if not rest:
            return _read_values(values, model)
        case {"instance": instance, **rest} if not rest:
            return _read_instance(instance, model)
        case str() as name:
            raise unusable("baseline", f"{_KINDS}, but is {quote(name)}")
        case dict() as members:
            raise unusable("baseline", f"{_KINDS}, but has {', '.join(map(quote, members)) or 'nothing'}")
        case _:
            raise unusable("baseline", _KINDS)


def _read_reference(members: dict[str, Any], model: Model) -> ReferenceBaselines:
    for name in members:
        if name not in ("reference", "seed"):
            raise unusable(f"baseline.{name}", "is unknown; expected one of reference, seed")
    count, seed, available = members["reference"], members.get("seed", 0), len(model.reference)
    if type(count) is not int or not 2 <= count <= available:
        raise unusable("baseline.reference", f"must be a whole number from 2 to {available}, the reference windows")
    if type(seed) is not int or seed < 0:
        raise unusable("baseline.seed", "must be a whole number from 0")
    return ReferenceBaselines(count, seed)


def _read_values(values: dict[str, Any], model: Model) -> Baseline:
    refuse_other_names(values, model, "baseline.values")
    steps = Axis(model.config.lookback, "steps")
    for name, value in values.items():
        axes = (steps,) if isinstance(value, list) else ()
        read_array(value, axes, f"baseline.values.{name}")
    baseline = Baseline("values", values=values)
    finite = model.find_representable(model.baseline(baseline)[0])
    for number, name in enumerate(model.config.feature_names):
        for step in np.flatnonzero(~finite[:, number]):
            place = f"[{step}]" if isinstance(values[name], list) else ""
            raise unusable(f"baseline.values.{name}{place}", "must be finite")
    return baseline


def _read_instance(value: Any, model: Model) -> Baseline:
    instance = read_array(value, window_axes(model), "baseline.instance")
    refuse_non_finite(np.where(model.find_representable(instance), instance, np.nan), "baseline.instance")
    return Baseline("instance", instance=instance)
