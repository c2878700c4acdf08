"""What would the forecast be, what would it need, why does it differ: what these questions share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Response

from kanmodel.alternatives.changeable import find_rows
from kanmodel.arrays import Array
from kanmodel.errors import DataError, UnknownNameError
from kanmodel.model import Model
from kanmodel.network.config import ModelConfig
from kanmodel.structure.pruning import PruningRule
from service.answers.alternatives import WindowsAnswer, WindowsRequest
from service.answers.members import head_of
from service.operations.route import MODEL, Call, Operation, OperationRoute
from service.operations.windows import CheckedWindows, warn_of_range
from service.wire.bodies import PARSED, parse_windows, validate_request
from service.wire.connections import while_connected
from service.wire.errors import invalid_value
from service.wire.json import JSON, encode_json
from service.wire.windows import UNREAD, Given, read_output, read_windows, refuse_infinite_values

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
    find: Callable[[ModelConfig, list[str] | None], Found],
    config: ModelConfig,
    named: list[str] | None,
    steps: list[int] | None,
) -> Found:
    """What may change, which `find_columns` or `find_changeable` finds; refuses steps that a window does not have."""
    find_rows(config, steps)
    try:
        return find(config, named)
    except UnknownNameError as error:  # of a value in the body, and not of a place that a path names
        raise DataError(str(error), error.problems) from error
