"""POST /v1/models/{model}:compare: why two forecasts differ."""

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from kanmodel.attribution.comparison import Comparison
from kanmodel.attribution.ledger import USUAL_NODES
from kanmodel.model import Model
from service.operations.alternative import Plan, Reading, WindowsAnswer, WindowsRequest, question
from service.operations.members import Answer, about, describe, head_of
from service.operations.windows import Windows
from service.wire.bodies import find_limits
from service.wire.errors import invalid_value
from service.wire.json import HELD_NUMBER_BYTES
from service.wire.windows import FORMS, is_absent, read_windows, refuse_infinite_values

Contributions = Annotated[dict[str, float], about("Contribution of each feature, in the target's unit.")]


class Against(Windows):
    """The other side of a comparison: other windows, another version or another model, or several of these.

    Its windows, in any one form, are as many as those of the request; absent: the same windows.
    """

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

    times: NotRequired[Annotated[list[str], about("The times of its windows, if a series of its own has times.")]]
    series: NotRequired[Annotated[list[str], about("Their series, if these are its own and many.")]]


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


@question("compare", CompareResponse, CompareRequest, may_load=True)
def compare(reading: Reading[CompareRequest]) -> Plan:
    """Explains why forecasts differ from those of other windows, of another version or model, or of both.

    The difference is divided into a data part and a model part, feature by feature, independently of their order.
    Exchanging the two sides reverses the signs of both parts.
    """
    served, windows, asked = reading.call.served, reading.windows, reading.asked.against
    other, names, about_windows = served, served.model.config.feature_names, dict[str, Any]()
    if asked.model is not None or asked.version is not None:
        name = served.name if asked.model is None else asked.model
        other = reading.call.parts.registry.get(name, asked.version)
    against, document = windows, reading.document["against"]
    if not all(is_absent(document.get(name)) for name in (*FORMS, "last")):
        limits = find_limits(other.model, reading.call.parts.settings)
        given = read_windows(document, other.model, limits, "against.")
        refuse_infinite_values(given, other.model)
        against = given.windows
        about_windows = {name: [*of] for name in ("times", "series") if (of := getattr(given, name)) is not None}
        if len(against) != len(windows):
            message = f"must have {len(windows)} windows, as the request has, but has {len(against)}"
            raise invalid_value(f"against.{next(form for form in FORMS if not is_absent(document.get(form)))}", message)

    def find(model: Model) -> dict[str, Any]:
        found = model.compare(other.model, windows, against, reading.output, tolerance=reading.asked.tolerance)
        return {"against": head_of(other) | about_windows, "comparisons": list(map(describe_one, found))}

    def describe_one(one: Comparison) -> ForecastComparison:
        of_data, of_model = (dict(zip(names, part.tolist(), strict=True)) for part in (one.data, one.model))
        data = DataPart(total=one.data_total, contributions=of_data)
        model = ModelPart(total=one.model_total, contributions=of_model, baseline_shift=one.baseline_shift)
        return describe(ForecastComparison, one, data=data, model=model)

    # The path nodes of three ledgers per model, without bisection; held: two contributions of each feature and window.
    n_models = 1 if other.model is served.model else 2
    n_bytes = 2 * len(windows) * len(names) * 2 * HELD_NUMBER_BYTES + 2 * int(windows.nbytes)
    return Plan(3 * n_models * len(windows) * USUAL_NODES, n_bytes, find)
