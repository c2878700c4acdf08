"""What would the forecast be, what would it need, why does it differ: questions on windows, and two models compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Response

from kanmodel.alternatives.changeable import Goal, Levels, find_changeable, find_columns, find_rows
from kanmodel.alternatives.search import LARGEST_BATCH, count_forecasts
from kanmodel.alternatives.what_if import DEFAULT_POINTS, Curve
from kanmodel.arrays import Array
from kanmodel.attribution.comparison import Comparison
from kanmodel.attribution.ledger import USUAL_NODES
from kanmodel.errors import DataError, UnknownNameError
from kanmodel.model import Model
from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.structure.pruning import PruningRule
from service.answers.alternatives import (
    AblateRequest,
    AblateResponse,
    AblationInfo,
    CompareRequest,
    CompareResponse,
    ComparisonQuery,
    CounterfactualRequest,
    CounterfactualResponse,
    ModelComparisonResponse,
    WhatIfRequest,
    WhatIfResponse,
    WindowsAnswer,
    WindowsRequest,
)
from service.answers.forms import Answered, describe_one
from service.answers.members import DataPart, ModelPart, head_of
from service.answers.topology import Count
from service.models.registry import Served
from service.operations.reference import describe_span
from service.operations.route import MODEL, Call, Operation, OperationRoute, result
from service.operations.windows import CheckedWindows, warn_of_range
from service.wire.bodies import PARSED, find_limits, parse_windows, validate_request
from service.wire.connections import while_connected
from service.wire.errors import invalid_value
from service.wire.json import HELD_NUMBER_BYTES, JSON, answer_json, encode_json
from service.wire.windows import (
    FORMS,
    UNREAD,
    Given,
    is_absent,
    read_output,
    read_windows,
    refuse_infinite_values,
    refuse_series_options,
)

CURVE_ARRAYS = 3  # of a what-if curve

Asked = TypeVar("Asked", bound=WindowsRequest)
Found = TypeVar("Found")


@dataclass(frozen=True)
class Reading(Generic[Asked]):
    """A request that is read: `document` is its JSON, `asked` the same, validated, apart from windows.

    `output` is a name, perhaps of a bound.
    """

    call: Call
    document: dict[str, Any]
    asked: Asked
    given: Given
    output: str

    @property
    def model(self) -> Model:
        """The model that has the output, see `Model.find_output`."""
        return self.call.served.model.find_output(self.output)[0]

    @property
    def windows(self) -> Array:
        """(n, lookback, n_features), original units."""
        return self.given.windows


@dataclass(frozen=True)
class Plan:
    """How a question is answered, and what that costs.

    Attributes:
        n_forecasts: forecasts, or nodes of integration paths, that it takes; known before it starts.
        n_bytes: upper bound of the memory that it holds, apart from long names.
        answer: the members of the answer besides those of `WindowsAnswer`.
        rule: the pruning whose topology the model must know, which is a global result.
    """

    n_forecasts: int
    n_bytes: int
    answer: Callable[[Model], dict[str, Any]]
    rule: PruningRule | None = None


def question(
    name: str, kind: type[WindowsAnswer], cls: type[Asked], may_load: bool = False
) -> Callable[[Callable[[Reading[Asked]], Plan]], OperationRoute]:
    """Declares the operation whose decorated function plans its answer, of a kind, to a body of a class.

    That may load another model where `may_load` says so, and must not run on the event loop then.
    """

    def declare(make_plan: Callable[[Reading[Asked]], Plan]) -> OperationRoute:
        async def handler(call: Call) -> Response:
            return await _answer(call, cls, make_plan, may_load)

        handler.__name__, handler.__doc__ = make_plan.__name__, make_plan.__doc__
        return Operation("POST", f"{MODEL}:{name}", "alternatives", "explain", kind, body=cls)(handler)

    return declare


async def _answer(
    call: Call, cls: type[Asked], make_plan: Callable[[Reading[Asked]], Plan], may_load: bool
) -> Response:
    """Reads a question, and answers it in turn with others.

    Raises:
        DataError: the body is invalid, naming each place; it would take more than `max_path_nodes` forecasts; or it has
            no answer, such as a comparison of models with different features.
        NonFiniteError: a result is not finite.
        NotFoundError: there is no such output.
    """
    parts, served = call.parts, call.served
    most = parts.settings.max_path_nodes
    body, limits = await call.read_body(), call.limits

    def read() -> tuple[Reading[Asked], Plan]:
        document = parse_windows(body, limits)
        unread = dict(document)
        if isinstance(against := document.get("against"), dict):  # its windows are read by numpy, which is faster
            unread["against"] = {name: value for name, value in against.items() if name not in UNREAD}
        asked = validate_request(cls, unread, unread=UNREAD)
        given = read_windows(document, served.model, limits)
        refuse_infinite_values(given, served.model)
        reading = Reading(call, document, asked, given, read_output(asked.output, served.model))
        plan = make_plan(reading)
        if plan.n_forecasts > most:
            reason = f"would take {plan.n_forecasts} forecasts, of at most {most} (max_path_nodes): "
            advice = "send fewer windows, features or points at a time"
            raise invalid_value("body", reason + advice, "limit_exceeded")
        return reading, plan

    if may_load or served.model.levels:  # whose bounds it may make
        reading, plan = await call.submit(read, PARSED * len(body))
    else:
        reading, plan = await call.parse(read, body)
    call.state.windows, model = len(reading.windows), served.model

    def compute() -> tuple[bytes, CheckedWindows]:
        checked = warn_of_range(model, reading.given)
        head = {"output": reading.output, "unit": served.model.unit_of(reading.output)}
        return encode_json({**head_of(served), **head, **checked.describe(), **plan.answer(model)}), checked

    if plan.rule is not None:
        await while_connected(call, call.find(Model.topology, reading.output, **vars(plan.rule)))
        model = parts.results.share(served).model
    n_bytes = plan.n_bytes + reading.windows.nbytes
    described, checked = await while_connected(call, call.submit(compute, n_bytes))
    call.count_warnings(checked.counts)
    return Response(described, media_type=JSON)


def read_range(
    find: Callable[[Model, list[str] | None], Found],
    model: Model,
    named: list[str] | None,
    steps: list[int] | None,
) -> Found:
    """What may change, which `find_columns` or `find_changeable` finds; refuses steps that a window does not have."""
    find_rows(model.config, steps)
    try:
        return find(model, named)
    except UnknownNameError as error:  # of a value in the body, and not of a place that a path names
        raise DataError(str(error), error.problems) from error


@question("whatif", WhatIfResponse, WhatIfRequest)
def what_if(reading: Reading[WhatIfRequest]) -> Plan:
    """Forecasts each instance with one feature changed and everything else as given: a curve per feature.

    Every number is what `:predict` returns for the changed window, up to rounding.
    """
    asked, windows, served = reading.asked, reading.windows, reading.call.served
    most = reading.call.parts.settings.max_points
    shift = None if asked.shift is None else (asked.shift.from_, asked.shift.to, asked.shift.points)
    points = DEFAULT_POINTS if shift is None else shift[2]
    if points > most and shift is not None:
        raise invalid_value("shift.points", f"must be at most {most} (max_points), but is {points}", "limit_exceeded")
    columns = read_range(find_columns, served.model, asked.features, asked.steps)
    # Held: the curves, and the changed windows of one of them.
    n_points = [len(one.chosen) if isinstance(one, Levels) else points for one in columns]
    n_forecasts = len(windows) * sum(n_points)
    n_bytes = n_forecasts * (CURVE_ARRAYS * HELD_NUMBER_BYTES + 8 * len(reading.model.outputs))

    def find(model: Model) -> dict[str, Any]:
        found = model.what_if(windows, asked.features, asked.steps, shift, output=reading.output, points=points)
        number = found.outputs.index(reading.output)
        return {"curves": [[describe_curve(curve, number) for curve in of_window] for of_window in found]}

    def describe_curve(curve: Curve, number: int) -> Answered[Curve]:
        return describe_one(curve, predictions=curve.predictions[:, number].tolist())

    return Plan(n_forecasts, n_bytes + 3 * max(n_points) * int(windows[0].nbytes), find)


@question("counterfactual", CounterfactualResponse, CounterfactualRequest)
def counterfactual(reading: Reading[CounterfactualRequest]) -> Plan:
    """Finds the smallest change of a few features that moves each forecast to a target, verified by a forecast.

    The range of each single feature is sampled, and several together are searched by gradient descent from many starts,
    so that a smaller change may exist. Fixed features do not change. The history of a target, and a column of levels as
    a whole, do if `features` names them.
    """
    asked, windows, served = reading.asked, reading.windows, reading.call.served
    target = dict(asked.target)
    Goal.of(**target)
    numbers, columns = read_range(find_changeable, served.model, asked.features, asked.steps)

    def find(model: Model) -> dict[str, Any]:
        found = model.counterfactual(
            windows,
            reading.output,
            **target,
            features=asked.features,
            steps=asked.steps,
            max_features=asked.max_features,
            within_training_range=asked.within_training_range,
        )
        described, steps = [], list(found.steps)
        for one in found:
            changes = [describe_one(change, steps=steps) for change in one.changes]
            described.append(describe_one(one, changes=changes))
        return {"counterfactuals": described}

    # Held: the changed windows of the answer, and those of one search.
    n_bytes = HELD_NUMBER_BYTES * int(windows.size) + 3 * LARGEST_BATCH * int(windows[0].nbytes)
    return Plan(len(windows) * count_forecasts(len(numbers), asked.max_features, columns), n_bytes, find)


@question("ablate", AblateResponse, AblateRequest)
def ablate(reading: Reading[AblateRequest]) -> Plan:
    """Forecasts each instance with the full network and with the edges that a pruning rule keeps (mean ablation).

    The rule is that of the topology, which shows the pruned network; `without` names further edges to remove.
    """
    rule, windows = reading.asked.rule(reading.model), reading.windows

    def find(model: Model) -> dict[str, Any]:
        found = model.ablate(windows, reading.output, **vars(rule))
        pairs = zip(found.predictions.tolist(), found.ablated_predictions.tolist(), strict=True)
        ablations = [AblationInfo(prediction=full, ablated_prediction=ablated) for full, ablated in pairs]
        edges, fidelity = Count(kept=found.n_kept, total=found.n_edges), describe_one(found.fidelity)
        return {"rule": describe_one(found.rule), "fidelity": fidelity, "edges": edges, "ablations": ablations}

    n_forecasts = 2 * len(windows)  # held, with the scaled windows
    return Plan(n_forecasts, n_forecasts * HELD_NUMBER_BYTES + 2 * int(windows.nbytes), find, rule)


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
    if all(is_absent(document.get(name)) for name in FORMS):
        refuse_series_options(document, "against.")
    else:
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
        return {"against": head_of(other) | about_windows, "comparisons": list(map(describe_comparison, found))}

    def describe_comparison(one: Comparison) -> Answered[Comparison]:
        of_data, of_model = (dict(zip(names, part.tolist(), strict=True)) for part in (one.data, one.model))
        data = DataPart(total=one.data_total, contributions=of_data)
        model = ModelPart(total=one.model_total, contributions=of_model, baseline_shift=one.baseline_shift)
        return describe_one(one, data=data, model=model)

    # The path nodes of three ledgers per model, without bisection; held: two contributions of each feature and window.
    n_models = 1 if other.model is served.model else 2
    n_bytes = 2 * len(windows) * len(names) * 2 * HELD_NUMBER_BYTES + 2 * int(windows.nbytes)
    return Plan(3 * n_models * len(windows) * USUAL_NODES, n_bytes, find)


def describe_model_comparison(served: Served, other: Served, found: ModelComparison) -> dict[str, Any]:
    """A comparison of models."""
    return {**describe_span(served), **describe_one(found, against=head_of(other))}


@result("comparison", "alternatives", ModelComparisonResponse, ComparisonQuery)
async def get_comparison(call: Call) -> Response:
    """Compares a model with another version or model: shares of features, edges and their curves, and errors.

    Both explain the reference windows of this model, so intervals are those of paired differences.
    """
    served, query, output = call.served, call.query, call.output
    other = served
    if query.against_model is not None or query.against_version is not None:
        name = served.name if query.against_model is None else query.against_model
        other = await call.load(name, query.against_version)
    found = await call.parts.results.comparison(served, output, other, query.fidelity, call.deadline)
    return await call.make(lambda: answer_json(describe_model_comparison(served, other, found)))
