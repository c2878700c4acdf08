"""TODO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Response
from pydantic import ConfigDict, Field, StrictFloat
from typing_extensions import TypedDict

from kanmodel.explain.counterfactual import Counterfactual as Found
from kanmodel.explain.counterfactual import Counterfactuals
from kanmodel.explain.counterfactual_search import LARGEST_BATCH, count_forecasts
from kanmodel.explain.shifts import Search
from service.models.registry import Served
from service.operations.alternative import (
    _WINDOWS,
    Alternative,
    Shared,
    _read_features,
    _read_steps,
    answer,
    refuse_costly,
)
from service.operations.members import Closed, Features, Output, Steps, UnitOf, about, describe
from service.operations.route import MODEL, Call, operation
from service.operations.windows import ONE_FORM, Columns, Instances
from service.settings import Settings
from service.wire.bodies import find_limits, parse_windows, validate_request
from service.wire.errors import unusable
from service.wire.windows import read_output, read_windows
from service.work.estimates import NUMBER, OBJECTS


class Target(Closed):
    """The desired range of the forecast, in the target's unit: one of the three members."""

    # Below allOf, since openapi-python-client otherwise generates a class for each form.
    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [{"oneOf": [{"required": ["at_least"]}, {"required": ["at_most"]}, {"required": ["between"]}]}]
        }
    )

    at_least: Annotated[StrictFloat | None, about("Lower bound.")] = None
    at_most: Annotated[StrictFloat | None, about("Upper bound.")] = None
    between: Annotated[list[StrictFloat] | None, about("Lower and upper bound.", min_length=2, max_length=2)] = None


class CounterfactualRequest(Closed):
    """Windows, a target for their forecasts, and what may change."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Output = None
    target: Target
    features: Features = None
    steps: Steps = None
    max_features: Annotated[int, about("Most features that change together.", ge=1, strict=True)] = Search.max_features
    within_training_range: Annotated[bool, Field(strict=True)] = True
    """Whether changed values must stay in the feature's training range. A feature shifts by at most 10 standard
    deviations in any case."""


class ChangeInfo(TypedDict):
    """A constant added to one feature."""

    feature: Annotated[str, about("Name of the feature.")]
    unit: UnitOf
    steps: Annotated[list[int], about("First and last step that change; 0 is the newest.")]
    shift: Annotated[float, about("The constant added at each of these steps, in the feature's unit.")]
    shift_in_std: Annotated[float, about("The same in training standard deviations.")]


class SingleFeatureInfo(TypedDict):
    """The effect of changing one feature alone, by sampling its range, and by bounds if there is no recurrent part."""

    feature: Annotated[str, about("Name of the feature.")]
    unit: UnitOf
    shift: Annotated[float | None, about("The smallest shift found that reaches the target; null if none.")]
    shift_in_std: Annotated[float | None, about("The same in training standard deviations.")]
    proven: bool
    """True if bounds of the forecasts prove that no shift with a `shift_in_std` nearer to 0 by more than 0.001 reaches
    the target, or none over its range if `shift` is null. False if only samples stand behind it: the model has a
    recurrent part, or 4,096 intervals of the range were not enough."""
    best_prediction: Annotated[float, about("The sampled forecast nearest to the target.")]
    searched: int
    """Samples over its range. Unless `proven`, the target may be reached unseen between two."""


class NearestReference(TypedDict):
    """The reference window nearest to the changed window.

    Distances are root mean square differences over all cells, in training standard deviations.
    """

    index: Annotated[int, about("Index of the reference window.")]
    distance: Annotated[float, about("Its distance from the changed window.")]
    typical: float | None
    """Median distance between a reference window and its nearest other; null if there is only one."""


class CounterfactualInfo(TypedDict):
    """The smallest change found; if the target is not reached, the change that comes nearest to it."""

    prediction: Annotated[float, about("The forecast of the instance as given.")]
    reached: Annotated[bool, about("Whether the target is reached.")]
    changes: Annotated[list[ChangeInfo], about("Largest first; empty if the forecast already reaches the target.")]
    new_prediction: Annotated[float, about("The forecast of `instance`, as `:predict` returns it.")]
    distance: Annotated[float, about("Sum of the magnitudes of `shift_in_std`.")]
    nearest_reference: NearestReference
    instance: Annotated[list[list[float]], about("The changed window, lookback x n_features.")]
    single_features: list[SingleFeatureInfo]
    """One entry per feature that may change, in the order of the model."""


class CounterfactualResponse(Shared):
    """The smallest changes that reach the target."""

    counterfactuals: Annotated[list[CounterfactualInfo], about("One per instance.")]


def describe_counterfactuals(found: Counterfactuals) -> list[CounterfactualInfo]:
    """The counterfactual of each window."""
    return [_describe_counterfactual(one, list(found.steps)) for one in found]


def _describe_counterfactual(found: Found, steps: list[int]) -> CounterfactualInfo:
    return describe(
        CounterfactualInfo,
        found,
        changes=[describe(ChangeInfo, change, steps=steps) for change in found.changes],
        nearest_reference=describe(NearestReference, found.nearest_reference),
        instance=found.window.tolist(),
        single_features=[describe(SingleFeatureInfo, single) for single in found.single_features],
    )


@dataclass(frozen=True)
class Counterfactual(Alternative):
    """The smallest change that reaches a target; see `kanmodel.model.Model.counterfactual`."""

    target: dict[str, Any]
    features: tuple[str, ...]
    steps: tuple[int, ...] | None
    max_features: int
    within_training_range: bool

    @property
    def forecasts(self) -> int:
        """Those of each window's search."""
        return len(self.windows) * count_forecasts(len(self.features), self.max_features)

    @property
    def n_bytes(self) -> int:
        """The changed windows of the answer, and those of one search."""
        return NUMBER * (1 + OBJECTS) * int(self.windows.size) + 3 * LARGEST_BATCH * int(self.windows[0].nbytes)

    def answer(self) -> dict[str, Any]:
        """The counterfactuals."""
        model = self.served.model
        found = model.counterfactual(
            self.windows,
            model.outputs[self.output],
            **self.target,
            features=self.features,
            steps=self.steps,
            max_features=self.max_features,
            within_training_range=self.within_training_range,
        )
        return {"counterfactuals": describe_counterfactuals(found)}


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


@operation(
    "POST", f"{MODEL}:counterfactual", "alternatives", "explain", CounterfactualResponse, body=CounterfactualRequest
)
async def counterfactual(call: Call) -> Response:
    """Finds the smallest change of a few features that moves each forecast to a target, verified by a forecast.

    The range of each single feature is sampled, and `proven` says whether bounds show that no smaller shift reaches the
    target; several together are searched by gradient descent from many starts, so that a smaller change may exist.
    """
    return await answer(call, read_counterfactual)
