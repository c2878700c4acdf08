"""TODO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from kanmodel.data import Array
from kanmodel.explain.attribution import LedgerOptions
from kanmodel.explain.comparison import Comparison, Comparisons
from service.models.registry import Registry, Served
from service.operations.alternative import _WINDOWS, Alternative, Shared, answer, refuse_costly
from service.operations.members import (
    Checkpoint,
    Closed,
    Name,
    Output,
    Version,
    about,
)
from service.operations.route import MODEL, Call, operation
from service.operations.windows import ONE_FORM, Columns, Instances
from service.settings import Settings
from service.wire.bodies import find_limits, parse_windows, validate_request
from service.wire.windows import Axis, read_array, read_output, read_windows, refuse_infinite_windows, window_axes
from service.work.estimates import NUMBER, OBJECTS

Contributions = Annotated[dict[str, float], about("Contribution of each feature, in the target's unit.")]


class Against(Closed):
    """The other side of a comparison: other windows, another version or another model, or several of these."""

    instances: list[list[list[float]]] | None = None
    """As many windows as in the request; absent: the same windows."""
    version: str | None = None
    """Version of the other model; absent: that of the request, or the highest of another model."""
    model: str | None = None
    """Name of another model with the same features and lookback; absent: the same model."""


class CompareRequest(Closed):
    """Windows, and the other side of the comparison."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Output = None
    against: Annotated[Against, about("The other side.")]
    tolerance: Annotated[float, Field(gt=0, strict=True)] = 1e-3
    """Largest accepted residual and error of each ledger, in standard deviations of the output on the reference
    windows."""


class ComparedModel(TypedDict):
    """The model on the other side of a comparison."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint


class DataPart(TypedDict):
    """The part of the difference that is due to the windows."""

    total: Annotated[float, about("The data part, in the target's unit.")]
    contributions: Contributions


class ModelPart(TypedDict):
    """The part of the difference that is due to the models."""

    total: Annotated[float, about("The model part, in the target's unit.")]
    contributions: Contributions
    baseline_shift: Annotated[float, about("Difference of the models at their common baseline: the rest of the total.")]


class ComparisonInfo(TypedDict):
    """The difference of two forecasts: data + model = difference."""

    prediction: Annotated[float, about("The forecast.")]
    against_prediction: Annotated[float, about("The forecast that it is compared with.")]
    difference: Annotated[float, about("The first minus the second.")]
    data: DataPart
    model: ModelPart
    residual: Annotated[float, about("Largest gap between the contributions and the totals.")]
    error: Annotated[float, about("Largest estimated error of a contribution.")]
    tolerance: Annotated[float, about("Tolerance of residual and error of each ledger, in the target's unit.")]
    converged: Annotated[bool, about("Whether every ledger has converged.")]


class CompareResponse(Shared):
    """Why the forecasts differ."""

    against: ComparedModel
    comparisons: Annotated[list[ComparisonInfo], about("One per instance.")]


def describe_against(other: Served) -> ComparedModel:
    """The model on the other side of a comparison."""
    return {"model_name": other.name, "version": other.version, "checkpoint": other.checkpoint}


def describe_comparisons(found: Comparisons) -> list[ComparisonInfo]:
    """The comparison of each window."""
    return [_describe(one, found.features) for one in found]


def _describe(one: Comparison, names: tuple[str, ...]) -> ComparisonInfo:
    return {
        "prediction": one.prediction,
        "against_prediction": one.against_prediction,
        "difference": one.difference,
        "data": {
            "total": one.data_total,
            "contributions": dict(zip(names, one.data.tolist(), strict=True)),
        },
        "model": {
            "total": one.model_total,
            "contributions": dict(zip(names, one.model.tolist(), strict=True)),
            "baseline_shift": one.baseline_shift,
        },
        "residual": one.residual,
        "error": one.error,
        "tolerance": one.tolerance,
        "converged": one.converged,
    }


@dataclass(frozen=True)
class Compare(Alternative):
    """Why forecasts differ; see `kanmodel.model.Model.compare`."""

    against: Served
    against_windows: Array
    tolerance: float

    @property
    def forecasts(self) -> int:
        """The path nodes of three ledgers per model, without bisection."""
        n_models = 1 if self.against.model is self.served.model else 2
        return 3 * n_models * len(self.windows) * LedgerOptions.path_nodes

    @property
    def n_bytes(self) -> int:
        """Two contributions of each feature and window, and both windows."""
        contributions = 2 * len(self.windows) * int(self.windows.shape[2])
        return contributions * 2 * NUMBER * (1 + OBJECTS) + 2 * int(self.windows.nbytes)

    def answer(self) -> dict[str, Any]:
        """The comparisons."""
        model = self.served.model
        found = model.compare(
            self.against.model,
            self.windows,
            self.against_windows,
            model.outputs[self.output],
            tolerance=self.tolerance,
        )
        return {"against": describe_against(self.against), "comparisons": describe_comparisons(found)}


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


@operation("POST", f"{MODEL}:compare", "alternatives", "explain", CompareResponse, body=CompareRequest)
async def compare(call: Call) -> Response:
    """Explains why forecasts differ from those of other windows, of another version or model, or of both.

    The difference is divided into a data part and a model part, feature by feature, independently of their order.
    Exchanging the two sides reverses the signs of both parts.
    """
    registry = call.parts.registry

    def read(body: bytes, served: Served, settings: Settings) -> Compare:
        return read_compare(body, served, registry, settings)

    return await answer(call, read, may_load=True)
