"""Baselines, in requests and in answers: the windows x0 with which a forecast is compared."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.data import Array, refuse_non_finite
from kanmodel.errors import quote
from kanmodel.explain.baseline import DEFAULT_COUNT, Baseline, ReferenceBaselines, baseline_windows
from kanmodel.model import Model
from service.operations.members import Closed, about
from service.wire.errors import invalid_value
from service.wire.windows import Axis, read_array, refuse_other_names, window_axes

BaselineName = TypeAliasType("BaselineName", Literal["mean", "zero", "reference"])
BaselineKind = Literal["mean", "zero", "reference", "values", "instance"]
BaselineValue = Annotated[float | list[float], about("A number, or one per step, in original units.")]
_KINDS = (
    'must be "mean", "zero", "reference", {"reference": count, "seed": number}, '
    '{"values": {feature: number or one per step}} or {"instance": [[…]]}'
)


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


def describe_baseline(baseline: Baseline | ReferenceBaselines, model: Model) -> UsedBaseline:
    """The baseline of a request as its answer states it."""
    kind = baseline.kind if isinstance(baseline, Baseline) else "reference"
    if isinstance(baseline, Baseline) and kind == "instance":
        return {"kind": kind, "instance": np.asarray(baseline.instance).tolist()}
    if isinstance(baseline, Baseline) and kind == "values":
        return {"kind": kind, "values": dict[str, Any](baseline.values or {})}
    windows, names = baseline_windows(model.loaded, baseline), model.config.feature_names
    if isinstance(baseline, Baseline):  # the same at each step
        return {"kind": kind, "values": dict(zip(names, windows[0, 0].tolist(), strict=True))}
    values = dict(zip(names, windows.mean(axis=(0, 1)).tolist(), strict=True))
    return {"kind": kind, "reference": len(windows), "seed": baseline.seed, "values": values}


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
        case {"instance": given, **rest} if not rest:
            instance: Array = read_array(given, window_axes(model), "baseline.instance")
            refuse_non_finite(np.where(model.find_representable(instance), instance, np.nan), "baseline.instance")
            return Baseline("instance", instance=instance)
        case str() as name:
            raise invalid_value("baseline", f"{_KINDS}, but is {quote(name)}")
        case dict() as members:
            raise invalid_value("baseline", f"{_KINDS}, but has {', '.join(map(quote, members)) or 'nothing'}")
        case _:
            raise invalid_value("baseline", _KINDS)


def _read_reference(members: dict[str, Any], model: Model) -> ReferenceBaselines:
    for name in members:
        if name not in ("reference", "seed"):
            raise invalid_value(f"baseline.{name}", "is unknown; expected one of reference, seed")
    count, seed, available = members["reference"], members.get("seed", 0), len(model.reference)
    if type(count) is not int or not 2 <= count <= available:
        raise invalid_value(
            "baseline.reference", f"must be a whole number from 2 to {available}, the reference windows"
        )
    if type(seed) is not int or seed < 0:
        raise invalid_value("baseline.seed", "must be a whole number from 0")
    return ReferenceBaselines(count, seed)


def _read_values(values: dict[str, Any], model: Model) -> Baseline:
    refuse_other_names(values, model, "baseline.values")
    for name, value in values.items():
        axes = (Axis(model.config.lookback, "steps"),) if isinstance(value, list) else ()
        read_array(value, axes, f"baseline.values.{name}")
    baseline = Baseline("values", values=values)
    finite = model.find_representable(baseline_windows(model.loaded, baseline)[0])
    for number, name in enumerate(model.config.feature_names):
        for step in np.flatnonzero(~finite[:, number]):
            place = f"[{step}]" if isinstance(values[name], list) else ""
            raise invalid_value(f"baseline.values.{name}{place}", "must be finite")
    return baseline
