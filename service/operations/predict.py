"""POST /v1/models/{model}:predict: forecasts for windows."""

from typing import Annotated, NotRequired

from fastapi import Response

from kanmodel.data import Array
from service.operations.members import Answer, about, head_of
from service.operations.route import MODEL, Call, Operation
from service.operations.windows import (
    AskTrust,
    CheckedWindows,
    OfWindows,
    TrustInfo,
    Windows,
    check_values,
    describe_trust,
    estimate_comparing,
    estimate_reading,
)
from service.telemetry.observation import span
from service.wire.bodies import find_limits, most_windows, parse_windows, read_body, validate_request
from service.wire.json import answer_json
from service.wire.windows import FORMS, UNREAD, read_windows
from service.work.forecasts import ForecastRequest
from service.work.jobs import Cost, estimate_describing

Predictions = Annotated[
    list[list[float]], about("n x n_outputs, in the order of the model's `outputs`, original units.")
]


class PredictRequest(Windows):
    """Windows to forecast, in one of three forms."""

    trust: AskTrust = False


class PredictResponse(Answer, OfWindows):
    """The forecasts of a request."""

    outputs: Annotated[list[str], about("Names of the outputs, `{target}+{step}`.")]
    predictions: Predictions
    logits: NotRequired[Annotated[list[list[float]], about("Logits of a classifier, n x n_outputs; absent otherwise.")]]
    trust: NotRequired[Annotated[list[TrustInfo], about("Of each instance; only if requested.")]]


PLAIN = PredictRequest()  # a request of windows alone


@Operation("POST", f"{MODEL}:predict", "predictions", "read", PredictResponse, body=PredictRequest)
async def predict(call: Call) -> Response:
    """Forecasts every output for each instance, in original units.

    With `trust` a key needs the scope explain, as for the reference windows, from which the instances are measured.
    """
    parts, served = call.parts, call.served
    limits, found = find_limits(served.model, parts.settings), list[tuple[PredictRequest, CheckedWindows]]()

    def read() -> Array:
        with span("parse"):
            document, asked = parse_windows(body, limits), PLAIN
            if document.keys() - set(FORMS):
                asked = validate_request(PredictRequest, document, unread=UNREAD)
            if asked.trust:  # distances say what the reference windows are
                call.state.caller.require("explain")
            found.append((asked, check_values(read_windows(document, served.model, limits), served)))
        return found[0][1].windows

    def estimate(windows: Array) -> Cost:
        cost = estimate_describing(windows, len(served.model.outputs))
        return cost + estimate_comparing(served.model, windows) if found[0][0].trust else cost

    def describe(windows: Array, predictions: Array) -> Response:
        call.state.windows = len(windows)
        asked, checked = found[0]
        with span("encode"):
            answer: PredictResponse = {
                **head_of(served),
                "outputs": list(served.model.outputs),
                "predictions": predictions.tolist(),
                **checked.describe(),  # type: ignore[typeddict-item]
            }
            if served.model.config.is_classifier:
                answer["logits"] = served.model.logits(windows).tolist()
            if asked.trust:
                answer["trust"] = describe_trust(served.model, windows)
            return answer_json(answer)

    with parts.work.claim("forecast", place=False) as held:
        body = await read_body(call, parts.settings, held)
        request = ForecastRequest(
            model=served.model,
            read=read,
            describe=describe,
            reading=estimate_reading(body),
            describing=estimate,
            most_windows=most_windows(body, served.model),
        )
        answer = await parts.work.answer(request, call.deadline)
    call.count_warnings(found[0][1].counts)
    return answer
