"""POST /v1/models/{model}:compare: why two forecasts differ."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Response
from pydantic import Field
from typing_extensions import TypedDict

from kanmodel.data import Array
from kanmodel.explain.attribution import LedgerOptions
from kanmodel.explain.comparison import Comparison
from kanmodel.model import Model
from service.models.registry import Served
from service.operations.alternative import Plan, Reading, WindowsAnswer, WindowsRequest, answer
from service.operations.members import Answer, Closed, about, describe, head_of
from service.operations.route import MODEL, Call, operation
from service.wire.windows import Axis, read_array, refuse_infinite_windows, window_axes
from service.work.jobs import HELD_NUMBER_BYTES

Contributions = Annotated[dict[str, float], about("Contribution of each feature, in the target's unit.")]


class Against(Closed):
    """The other side of a comparison: other windows, another version or another model, or several of these."""

    instances: list[list[list[float]]] | None = None
    """As many windows as in the request; absent: the same windows."""
    version: str | None = None
    """Version of the other model; absent: that of the request, or the highest of another model."""
    model: str | None = None
    """Name of another model with the same features and lookback; absent: the same model."""


class CompareRequest(WindowsRequest):
    """Windows, and the other side of the comparison."""

    against: Annotated[Against, about("The other side.")]
    tolerance: Annotated[float, Field(gt=0, strict=True)] = 1e-3
    """Largest accepted residual and error of each ledger, in standard deviations of the output on the reference
    windows."""


class ComparedModel(Answer):
    """The model on the other side of a comparison."""


class DataPart(TypedDict):
    """The part of the difference that is due to the windows."""

    total: Annotated[float, about("The data part, in the target's unit.")]
    contributions: Contributions


class ModelPart(TypedDict):
    """The part of the difference that is due to the models."""

    total: Annotated[float, about("The model part, in the target's unit.")]
    contributions: Contributions
    baseline_shift: Annotated[float, about("Difference of the models at their common baseline: the rest of the total.")]


class ForecastComparison(TypedDict):
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


class CompareResponse(WindowsAnswer):
    """Why the forecasts differ."""

    against: ComparedModel
    comparisons: Annotated[list[ForecastComparison], about("One per instance.")]


@operation("POST", f"{MODEL}:compare", "alternatives", "explain", CompareResponse, body=CompareRequest)
async def compare(call: Call) -> Response:
    """Explains why forecasts differ from those of other windows, of another version or model, or of both.

    The difference is divided into a data part and a model part, feature by feature, independently of their order.
    Exchanging the two sides reverses the signs of both parts.
    """
    return await answer(call, CompareRequest, _make_plan, may_load=True)


def _make_plan(reading: Reading[CompareRequest]) -> Plan:
    """The path nodes of three ledgers per model, without bisection; holds two contributions of each feature and window.

    Raises:
        NotFoundError: there is no such model or version to compare with.
        NotReadyError: the other model is not ready.
    """
    served, windows, asked = reading.call.served, reading.windows, reading.asked.against
    other, names = served, served.model.config.feature_names
    if asked.model is not None or asked.version is not None:
        name = served.name if asked.model is None else asked.model
        other = reading.call.parts.registry.get(name, asked.version)
    against = _read_windows(reading.document["against"].get("instances"), windows, other)

    def find(model: Model) -> dict[str, Any]:
        output = model.outputs[reading.output]
        found = model.compare(other.model, windows, against, output, tolerance=reading.asked.tolerance)
        return {"against": head_of(other), "comparisons": [_describe(one, found.features) for one in found]}

    n_models = 1 if other.model is served.model else 2
    n_bytes = 2 * len(windows) * len(names) * 2 * HELD_NUMBER_BYTES + 2 * int(windows.nbytes)
    return Plan(3 * n_models * len(windows) * LedgerOptions.path_nodes, n_bytes, find)


def _read_windows(given: Any, windows: Array, other: Served) -> Array:
    """The windows of the other side; those of the request if none are given."""
    if given is None:
        return windows
    read = read_array(given, (Axis(len(windows), "instances"), *window_axes(other.model)), "against.instances")
    refuse_infinite_windows(read, other.model, "against.instances")
    return read


def _describe(one: Comparison, names: tuple[str, ...]) -> ForecastComparison:
    data: DataPart = {"total": one.data_total, "contributions": dict(zip(names, one.data.tolist(), strict=True))}
    model: ModelPart = {
        "total": one.model_total,
        "contributions": dict(zip(names, one.model.tolist(), strict=True)),
        "baseline_shift": one.baseline_shift,
    }
    return describe(ForecastComparison, one, data=data, model=model)
