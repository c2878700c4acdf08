"""POST /v1/models/{model}:predict: forecasts for windows."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, NotRequired

from fastapi import Response
from typing_extensions import TypedDict

from kanmodel.arrays import Array
from kanmodel.forecaster import Forecaster
from kanmodel.model import Model
from service.operations.members import Answer, AskAdaptation, about, head_of
from service.operations.outcomes import sign_receipts
from service.operations.recorded import begin_recording
from service.operations.route import DESCRIBED_ON_LOOP, MODEL, Call, Operation, is_quick_to_read
from service.operations.windows import (
    AskTrust,
    CheckedWindows,
    OfWindows,
    TrustInfo,
    Windows,
    check_values,
    describe_trust,
)
from service.telemetry.observation import span
from service.wire.bodies import PARSED, most_windows, parse_windows, validate_request
from service.wire.json import HELD_NUMBER_BYTES, answer_json
from service.wire.windows import FORMS, UNREAD, may_ask_for_bounds, read_levels, read_windows
from service.work.forecasts import ForecastRequest, Plain, Predictor, WithBounds

Predictions = Annotated[
    list[list[float]], about("n x n_outputs, in the order of the model's `outputs`, original units.")
]


class PredictRequest(Windows):
    """Windows to forecast, in one of three forms."""

    intervals: list[float] | None = None
    """Levels of the prediction intervals that the answer has too, such as `[0.8, 0.95]`, of those that the model
    states. `"all"` may stand in place of the list."""
    adaptation: AskAdaptation = None
    trust: AskTrust = False
    receipts: Annotated[bool, about("Whether to add `receipts`, with which `:outcomes` are sent.", strict=True)] = False
    echo: Annotated[bool, about("Whether to add `instances`, as those that are cut from a series.", strict=True)] = (
        False
    )


class ForecastIntervals(TypedDict):
    """The prediction intervals of one level, which cover about that share of what comes."""

    level: Annotated[float, about("Nominal coverage.")]
    outputs: list[str]
    """Names of the forecasts: the `outputs`, but of a target with quantiles the target itself or its median alone."""
    lower: Annotated[list[list[float]], about("Lower bounds, n x these, original units.")]
    upper: Annotated[list[list[float]], about("Upper bounds.")]


class PredictResponse(Answer, OfWindows):
    """The forecasts of a request."""

    outputs: Annotated[list[str], about("Names of the outputs, `{target}+{step}`.")]
    predictions: Predictions
    intervals: NotRequired[Annotated[list[ForecastIntervals], about("By level, ascending; only where asked for.")]]
    logits: NotRequired[Annotated[list[list[float]], about("Logits of a classifier, n x n_outputs; absent otherwise.")]]
    receipts: NotRequired[Annotated[list[str], about("Of each instance, to send with its outcome; only if requested.")]]
    trust: NotRequired[Annotated[list[TrustInfo], about("Of each instance; only if requested.")]]
    instances: NotRequired[list[list[list[float]]]]
    """The windows, n x lookback x n_features, original units; only with `echo`."""


PLAIN = PredictRequest()  # a request of windows alone


def describe_intervals(model: Model, levels: Sequence[float], lower: Array, upper: Array) -> list[ForecastIntervals]:
    """The intervals of some levels; the bounds are those of all, (n_levels, n, n_forecasts)."""
    outputs = [*model.bounded_outputs]
    return [
        {"level": level, "outputs": outputs, "lower": lower[k].tolist(), "upper": upper[k].tolist()}
        for k, level in enumerate(model.levels)
        if level in levels
    ]


@Operation("POST", f"{MODEL}:predict", "predictions", "read", PredictResponse, body=PredictRequest)
async def predict(call: Call) -> Response:
    """Forecasts every output for each instance, in original units; with prediction intervals if the request asks.

    With `trust` a key needs the scope explain, as for the reference windows, from which the instances are measured.
    """
    parts, served, model = call.parts, call.served, call.served.model
    limits = call.limits
    found: list[tuple[PredictRequest, CheckedWindows]] = []
    levels: list[float] = []
    forecasts: list[tuple[Array, ...]] = []
    adapted: list[Forecaster] = []

    def read() -> Array:
        with span("parse"):
            document, asked = parse_windows(body, limits), PLAIN
            if document.keys() - set(FORMS):
                asked = validate_request(PredictRequest, document, unread=(*UNREAD, "intervals"))
                levels.extend(read_levels(document.get("intervals"), model))
            if asked.adaptation is not None:
                adapted.append(model.adapt(asked.adaptation))
            if asked.trust:  # distances say what the reference windows are
                call.state.caller.require("explain")
            found.append((asked, check_values(read_windows(document, model, limits), served)))
        return found[0][1].windows

    def describe(windows: Array, values: Array) -> Response:
        call.state.windows = len(windows)
        asked, checked = found[0]
        with span("encode"):
            predictions, *bounds = predictor.split(values, *adapted)
            forecasts.append((predictions, *bounds))
            answer: PredictResponse = {
                **head_of(served),
                "outputs": list(model.outputs),
                "predictions": predictions.tolist(),
                **checked.describe(),  # type: ignore[typeddict-item]
            }
            if levels:
                answer["intervals"] = describe_intervals(model, levels, *bounds)
            if model.config.is_classifier:
                answer["logits"] = model.logits(windows).tolist()
            if asked.receipts and not call.explores:
                answer["receipts"] = sign_receipts(call, predictions, () if adapted else bounds)
            if asked.trust:
                answer["trust"] = describe_trust(model, windows)
            if asked.echo:
                answer["instances"] = windows.tolist()
            return answer_json(answer)

    body = await call.read_body()
    predictor: Predictor = (WithBounds if may_ask_for_bounds(body, model) else Plain)(model)
    most, n_described = most_windows(body, model), predictor.n_values + len(model.config.features)
    request = ForecastRequest(
        model=predictor,
        read=read,
        describe=describe,
        most_windows=most,
        n_bytes=PARSED * len(body) + min(most, parts.settings.max_windows) * predictor.n_values * HELD_NUMBER_BYTES,
        is_read_at_once=is_quick_to_read(body),
        is_described_at_once=lambda windows: (
            not (found[0][0].trust or found[0][0].receipts) and len(windows) * n_described <= DESCRIBED_ON_LOOP
        ),
    )
    answer = await parts.forecasts.answer(request, call.deadline)

    def observe() -> None:
        predictions, *bounds = forecasts[0]
        call.count_forecasts(found[0][1], predictions)
        if (recording := begin_recording(call)) is not None:
            intervals = partial(describe_intervals, model, levels, *bounds) if levels else None
            n_bytes = sum(values.nbytes for values in forecasts[0])
            recording.add(found[0][1].windows, predictions, intervals=intervals, n_bytes=n_bytes)

    call.observe = observe
    return answer
