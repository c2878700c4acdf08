"""POST /v1/models/{model}:predict: forecasts for windows."""

from functools import partial
from typing import Annotated, NotRequired

from fastapi import Response

from kanmodel.data import Array
from service.operations.members import Answer, about, head_of
from service.operations.route import MODEL, Call, Operation
from service.operations.windows import CheckedWindows, OfWindows, Windows, check_values, estimate_reading
from service.telemetry.observation import span
from service.wire.bodies import find_limits, most_windows, parse_windows, read_body, validate_request
from service.wire.json import answer_json
from service.wire.windows import FORMS, UNREAD, read_windows
from service.work.forecasts import ForecastRequest
from service.work.jobs import estimate_describing

Predictions = Annotated[
    list[list[float]], about("n x n_outputs, in the order of the model's `outputs`, original units.")
]


class PredictRequest(Windows):
    """Windows to forecast, in one of three forms."""


class PredictResponse(Answer, OfWindows):
    """The forecasts of a request."""

    outputs: Annotated[list[str], about("Names of the outputs, `{target}+{step}`.")]
    predictions: Predictions
    logits: NotRequired[Annotated[list[list[float]], about("Logits of a classifier, n x n_outputs; absent otherwise.")]]


@Operation("POST", f"{MODEL}:predict", "predictions", "read", PredictResponse, body=PredictRequest)
async def predict(call: Call) -> Response:
    """Forecasts every output for each instance, in original units."""
    parts, served = call.parts, call.served
    limits, checked = find_limits(served.model, parts.settings), list[CheckedWindows]()

    def read() -> Array:
        with span("parse"):
            document = parse_windows(body, limits)
            if document.keys() - set(FORMS):
                validate_request(PredictRequest, document, unread=UNREAD)
            checked.append(check_values(read_windows(document, served.model, limits), served))
        return checked[0].windows

    def describe(windows: Array, predictions: Array) -> Response:
        call.state.windows = len(windows)
        with span("encode"):
            answer: PredictResponse = {
                **head_of(served),
                "outputs": list(served.model.outputs),
                "predictions": predictions.tolist(),
                **checked[0].describe(),  # type: ignore[typeddict-item]
            }
            if served.model.config.is_classifier:
                answer["logits"] = served.model.logits(windows).tolist()
            return answer_json(answer)

    with parts.work.claim("forecast", place=False) as held:
        body = await read_body(call, parts.settings, held)
        request = ForecastRequest(
            model=served.model,
            read=read,
            describe=describe,
            reading=estimate_reading(body),
            describing=partial(estimate_describing, n_outputs=len(served.model.outputs)),
            most_windows=most_windows(body, served.model),
        )
        answer = await parts.work.answer(request, call.deadline)
    call.count_warnings(checked[0].counts)
    return answer
