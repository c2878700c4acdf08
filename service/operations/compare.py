"""POST /v1/models/{model}:compare: why two forecasts differ."""

from typing import Any

from kanmodel.attribution.comparison import Comparison
from kanmodel.attribution.ledger import USUAL_NODES
from kanmodel.model import Model
from service.answers.alternatives import CompareRequest, CompareResponse, DataPart, ForecastComparison, ModelPart
from service.answers.forms import describe
from service.answers.members import head_of
from service.operations.alternative import Plan, Reading, question
from service.wire.bodies import find_limits
from service.wire.errors import invalid_value
from service.wire.json import HELD_NUMBER_BYTES
from service.wire.windows import FORMS, is_absent, read_windows, refuse_infinite_values


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
