"""Reads `:whatif`, `:counterfactual`, `:ablate` and `:compare` requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kanmodel.data import Array
from kanmodel.errors import quote
from kanmodel.explain.what_if import DEFAULT_POINTS
from kanmodel.network.config import ModelConfig
from service.http.errors import unusable
from service.models.registry import Registry, Served
from service.requests.arrays import Axis, read_array
from service.requests.bodies import find_limits, parse_windows, validate_request
from service.requests.outputs import read_output
from service.requests.windows import read_windows, refuse_infinite_windows, window_axes
from service.schemas.alternatives import AblateRequest, CounterfactualRequest, WhatIfRequest
from service.schemas.comparisons import CompareRequest
from service.settings import Settings
from service.work.alternatives import Ablate, Compare, Counterfactual, WhatIf, refuse_costly

_WINDOWS = frozenset({"instances", "columns"})


def read_what_if(body: bytes, served: Served, settings: Settings) -> WhatIf:
    """Parses and validates the body of a `:whatif` request.

    Raises:
        DataError: the body is invalid; the error names each place.
        UnknownValueError: there is no such output.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    request = validate_request(WhatIfRequest, document, unread=_WINDOWS)
    config, shift = served.model.config, request.shift
    if shift is not None and shift.points > settings.max_points:
        message = f"must be at most {settings.max_points} (max_points), but is {shift.points}"
        raise unusable("shift.points", message, "limit_exceeded")
    question = WhatIf(
        served=served,
        windows=read_windows(document, served.model, settings.max_windows),
        output=read_output(request.output, config),
        features=_read_features(request.features, config),
        steps=_read_steps(request.steps, config),
        shift=None if shift is None else (shift.from_, shift.to, shift.points),
        points=DEFAULT_POINTS if shift is None else shift.points,
    )
    refuse_costly(question, settings.max_path_nodes)
    return question


def read_counterfactual(body: bytes, served: Served, settings: Settings) -> Counterfactual:
    """Parses and validates the body of a `:counterfactual` request.

    Raises:
        DataError: the body is invalid; the error names each place.
        UnknownValueError: there is no such output.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    request = validate_request(CounterfactualRequest, document, unread=_WINDOWS)
    config = served.model.config
    target = {name: value for name, value in request.target if value is not None}
    if len(target) != 1:
        given = f"has {' and '.join(target)}" if target else "is empty"
        raise unusable("target", f"{given}: give one of at_least, at_most and between")
    if request.target.between is not None and request.target.between[0] > request.target.between[1]:
        raise unusable("target.between", "must be the lower bound, then the upper")
    question = Counterfactual(
        served=served,
        windows=read_windows(document, served.model, settings.max_windows),
        output=read_output(request.output, config),
        target=target,
        features=_read_features(request.features, config),
        steps=_read_steps(request.steps, config),
        max_features=request.max_features,
        within_training_range=request.within_training_range,
    )
    refuse_costly(question, settings.max_path_nodes)
    return question


def read_ablate(body: bytes, served: Served, settings: Settings) -> Ablate:
    """Parses and validates the body of an `:ablate` request.

    Raises:
        DataError: the body is invalid; the error names each place.
        UnknownValueError: there is no such output.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    request = validate_request(AblateRequest, document, unread=_WINDOWS)
    question = Ablate(
        served=served,
        windows=read_windows(document, served.model, settings.max_windows),
        output=read_output(request.output, served.model.config),
        rule=request.rule(served.model),
    )
    refuse_costly(question, settings.max_path_nodes)
    return question


def read_compare(body: bytes, served: Served, registry: Registry, settings: Settings) -> Compare:
    """Parses and validates the body of a `:compare` request; may load the other model.

    Raises:
        DataError: the body is invalid; the error names each place.
        UnknownModelError: there is no such model to compare with.
        UnknownVersionError: the other model has no such version.
        UnknownValueError: there is no such output.
        NotReadyError: the other model is not ready.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    request = validate_request(CompareRequest, _without_windows(document), unread=_WINDOWS)
    windows = read_windows(document, served.model, settings.max_windows)
    against, model, version = served, request.against.model, request.against.version
    if model is not None or version is not None:
        against = registry.get(served.name if model is None else model, version)
    question = Compare(
        served=served,
        windows=windows,
        output=read_output(request.output, served.model.config),
        against=against,
        against_windows=_read_against(document["against"], windows, against),
        tolerance=request.tolerance,
    )
    refuse_costly(question, settings.max_path_nodes)
    return question


def _without_windows(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without the other side's windows, which numpy reads faster than pydantic."""
    against = document.get("against")
    if not isinstance(against, dict):
        return dict(document)
    return {**document, "against": {name: value for name, value in against.items() if name != "instances"}}


def _read_against(against: Mapping[str, Any], windows: Array, other: Served) -> Array:
    given = against.get("instances")
    if given is None:
        return windows
    path = "against.instances"
    read = read_array(given, (Axis(len(windows), "instances"), *window_axes(other.model)), path)
    refuse_infinite_windows(read, other.model, path)
    return read


def _read_features(names: list[str] | None, config: ModelConfig) -> tuple[str, ...]:
    """The features that may change; all of them if none are named."""
    if names is None:
        return tuple(config.feature_names)
    if len(names) > len(config.features):
        message = f"must be at most {len(config.features)} names, one per feature, but are {len(names)}"
        raise unusable("features", message)
    for number, name in enumerate(names):
        if name not in config.feature_names:
            message = f"is unknown: {quote(name)}; the features are {', '.join(config.feature_names)}"
            raise unusable(f"features[{number}]", message)
        if name in names[:number]:
            raise unusable(f"features[{number}]", "is given twice")
    return tuple(names)


def _read_steps(steps: list[int] | None, config: ModelConfig) -> tuple[int, ...] | None:
    oldest = 1 - config.lookback
    if steps is not None and not oldest <= steps[0] <= steps[1] <= 0:
        raise unusable("steps", f"must be a first and a last step from {oldest}, the oldest, to 0, but is {steps}")
    return None if steps is None else tuple(steps)
