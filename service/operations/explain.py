"""POST /v1/models/{model}:explain: contributions to forecasts, in one answer or line by line, with a receipt if asked.

A receipt is what an auditor needs to reproduce an answer; it does not repeat the numbers, which are compared with it.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import orjson
from fastapi import Response
from starlette.requests import ClientDisconnect

from kanmodel.arrays import Array, refuse_non_finite
from kanmodel.attribution import baseline as core
from kanmodel.attribution.baseline import DEFAULT_COUNT, ReferenceBaselines
from kanmodel.attribution.ledger import LedgerOptions
from kanmodel.attribution.shapley import Orders
from kanmodel.model import Model
from service.answers.explanations import Baseline, ExplainHeader, ExplainRequest, ExplainResponse, Explanation, Receipt
from service.answers.forms import describe, describe_all
from service.answers.members import find_versions, hash_windows, head_of
from service.models.registry import Served
from service.operations.explanations import SMALL, Explained, ExplainQuestion, compute_explanations
from service.operations.recorded import Recording, begin_recording
from service.operations.route import MODEL, Call, Operation
from service.operations.windows import check_values, describe_trust
from service.room import refuse_large
from service.settings import Settings
from service.telemetry.observation import span
from service.wire import windows as wire
from service.wire.bodies import find_limits, parse_windows, validate_request
from service.wire.connections import ClosingStream, while_connected
from service.wire.errors import end_stream, invalid_value
from service.wire.json import JSON, NDJSON, encode_json
from service.work.forecasts import Plain

UNREAD = (*wire.UNREAD, "output", "groups", "segments")  # by pydantic
BASELINE_MEMBERS: Mapping[str, tuple[str, ...]] = {  # by kind
    "reference": ("reference", "seed"),
    "values": ("values", "values_by_step"),
    "instance": ("instance",),
}


def read_baseline(asked: Baseline | None, model: Model) -> core.Baseline | ReferenceBaselines:
    """The baseline of a request; raises `DataError` if it does not fit the model, or becomes infinite."""
    given: dict[str, Any] = {} if asked is None else {name: value for name, value in asked if value is not None}
    kind: Any = given.pop("kind", None) or next(
        (k for k, names in BASELINE_MEMBERS.items() if given.keys() & names), "mean"
    )
    for name in given:
        if name not in BASELINE_MEMBERS.get(kind, ()):
            raise invalid_value(f"baseline.{name}", f"must not be given with the kind {kind}")
    if kind == "reference":
        return _read_reference(given, model)
    if kind == "values":
        return _read_values(given, model)
    if kind == "instance":
        if "instance" not in given:
            raise invalid_value("baseline.instance", "is missing")
        spec, axes = model.config.table, wire.window_axes(model)
        instance: Array = wire.read_array(given["instance"], axes, "baseline.instance", bool(spec.masks))
        instance = spec.fill_masked(instance)
        refuse_non_finite(np.where(model.find_representable(instance), instance, np.nan), "baseline.instance")
        return core.Baseline("instance", instance=instance)
    return core.Baseline(kind)


def _read_reference(given: dict[str, int], model: Model) -> ReferenceBaselines:
    available = len(model.reference)
    count = given.get("reference", min(DEFAULT_COUNT, available))
    if count > available:
        message = f"must be a whole number from 2 to {available}, the reference windows"
        raise invalid_value("baseline.reference", message)
    return ReferenceBaselines(count, given.get("seed", 0))


def _read_values(given: dict[str, dict[str, Any]], model: Model) -> core.Baseline:
    by_step = given.get("values_by_step", {})
    values = {**given.get("values", {}), **by_step}
    if len(values) < sum(map(len, given.values())):
        twice = next(name for name in by_step if name in given["values"])
        raise invalid_value(f"baseline.values_by_step.{twice}", "is given in values too")
    wire.refuse_other_names(values, model.config.feature_names, "baseline.values")
    for name, steps in by_step.items():
        wire.read_array(steps, (wire.Axis(model.config.lookback, "steps"),), f"baseline.values_by_step.{name}")
    baseline = core.Baseline("values", values=values)
    finite = model.find_representable(core.baseline_windows(model, baseline)[0])
    for number, name in enumerate(model.config.feature_names):
        for step in np.flatnonzero(~finite[:, number]):
            place = f"values_by_step.{name}[{step}]" if name in by_step else f"values.{name}"
            raise invalid_value(f"baseline.{place}", "must be finite")
    return baseline


def read_question(body: bytes, served: Served, settings: Settings) -> ExplainQuestion:
    """Parses a body; raises `DataError`, which names each place, or `UnknownNameError` if there is no such output."""
    model, limits = served.model, find_limits(served.model, settings)
    document = parse_windows(body, limits)
    asked = validate_request(ExplainRequest, document, unread=UNREAD)
    if asked.adaptation is not None:
        model = model.adapt(asked.adaptation)
        served = replace(served, model=model)
    groups, segments = wire.read_groups(document, model)
    checked, output = check_values(wire.read_windows(document, model, limits), served), document.get("output")
    outputs, baseline = wire.read_outputs(output, model), read_baseline(asked.baseline, model)
    options = LedgerOptions(tolerance=asked.tolerance)
    flags: dict[str, Any] = {
        name: getattr(asked, name) for name in ("effects", "receipt", "progress", "trust", "adaptation")
    }
    flags["shapley"] = Orders(asked.orders, asked.seed) if asked.method == "shapley" else None
    question = ExplainQuestion(
        *(served, checked.windows, checked, outputs, asked.detail, baseline, groups, segments, options),
        **flags,
    )
    question.refuse_costly(settings.max_path_nodes)
    return question


def describe_question(question: ExplainQuestion, predictions: Array) -> dict[str, Any]:
    """The members of an `ExplainHeader` but `values`, which are not recorded.

    Predictions for its windows are (n, n_outputs), original units.
    """
    served = question.served
    header: dict[str, Any] = {
        **head_of(served),
        "output": [*question.outputs],
        "unit": [served.model.unit_of(name) or "" for name in question.outputs],
        "baseline": describe_baseline(question.baseline, served.model),
        "predictions": predictions.tolist(),
        **question.checked.describe(),
    }
    if question.trust:
        header["trust"] = describe_trust(served.model, question.windows)
    if question.receipt:
        is_mean = isinstance(question.baseline, ReferenceBaselines)
        header["receipt"] = describe(
            Receipt,
            question,
            checkpoint=served.checkpoint,
            versions=find_versions(),
            input=hash_windows(question.windows),
            method="expected_gradients" if is_mean else "integrated_gradients",
            output=header["output"],
            effects=question.effects or None,
            shapley=None if question.shapley is None else vars(question.shapley),
            baseline=header["baseline"],
            **vars(question.options),
        )
    return header


def describe_values(question: ExplainQuestion) -> list[Any]:
    """The newest values of each instance, in the terms of the table."""
    return [*map(describe_all, question.served.model.inputs.decode(question.windows[:, -1]))]


def describe_baseline(baseline: core.Baseline | ReferenceBaselines, model: Model) -> dict[str, Any]:
    """The baseline of a request as its answer states it."""
    if isinstance(baseline, core.Baseline) and baseline.kind == "instance":
        return {"kind": "instance", "instance": np.asarray(baseline.instance).tolist()}
    if isinstance(baseline, core.Baseline) and baseline.kind == "values":
        steps = {name: value for name, value in (baseline.values or {}).items() if isinstance(value, list)}
        values = {name: value for name, value in (baseline.values or {}).items() if name not in steps}
        return {"kind": "values", "values": values} | ({"values_by_step": steps} if steps else {})
    windows, names = core.baseline_windows(model, baseline), model.config.feature_names
    if isinstance(baseline, core.Baseline):  # the same at each step
        return {"kind": baseline.kind, "values": dict(zip(names, windows[0, 0].tolist(), strict=True))}
    values = dict(zip(names, windows.mean(axis=(0, 1)).tolist(), strict=True))
    return {"kind": "reference", "reference": len(windows), "seed": baseline.seed, "values": values}


@Operation(
    "POST",
    f"{MODEL}:explain",
    "explanations",
    "explain",
    ExplainResponse,
    body=ExplainRequest,
    media_types=(JSON, NDJSON),
    others=(ExplainHeader,),
)
async def explain(call: Call) -> Response:
    """Explains forecasts: contributions that are complete at every layer, with residual and estimated error.

    With `Accept: application/x-ndjson` there is one JSON object per line: an `ExplainHeader`, what all explanations
    share; then each `Explanation`, sent as soon as it is ready; with `progress` objects `{"progress": {"done": 32,
    "total": 96, "slices": 7}}` between them. If one fails, or the deadline passes, the last line is an `ErrorResponse`.
    """
    parts, served, deadline = call.parts, call.served, call.deadline
    is_stream, n_outputs = call.media_type == NDJSON, len(served.model.outputs)
    body = await call.read_body()
    question = await call.parse(partial(read_question, body, served, parts.settings), body)
    if question.progress and not is_stream:
        raise invalid_value("progress", f"needs Accept: {NDJSON}")
    call.state.windows = len(question.windows)
    explaining = compute_explanations(question, parts, deadline, encoded=True)
    is_alone = question.outputs == served.model.outputs and n_outputs == 1
    if is_stream or not is_alone:
        predictions = await parts.forecasts.predict(Plain(served.model), question.windows, deadline)
    if is_stream:
        call.observe = partial(call.count_forecasts, question.checked, predictions)
        header = await call.submit(partial(_encode, question, predictions))
        return ClosingStream(_stream(call, question, predictions, header, explaining), media_type=NDJSON)
    encoded, forecasts = await while_connected(call, _collect(call, question, explaining))
    if is_alone:  # the forecast of a window is the end of its path
        predictions = np.array(forecasts)[:, None]
    join = partial(_encode, question, predictions, encoded)
    is_brief = len(encoded) <= SMALL and not (question.trust or question.receipt)
    with span("encode"):
        answer = Response(join() if is_brief else await call.submit(join), media_type=JSON)
    call.hold.add(-sum(map(len, encoded)))

    def observe() -> None:
        call.count_forecasts(question.checked, predictions)
        if (recording := begin_recording(call)) is not None:
            record_explanations(recording, question, predictions, encoded, len(answer.body))

    call.observe = observe
    return answer


def record_explanations(
    recording: Recording,
    question: ExplainQuestion,
    predictions: Array,
    explanations: Sequence[bytes] | Sequence[Explanation],
    n_bytes: int,
    part: slice = slice(None),
) -> None:
    """Records explanations, in JSON or as objects of `n_bytes`; those of a part as if it had been asked for alone."""
    windows, forecasts = question.windows[part], predictions[part]
    first, last = part.start or 0, part.stop or len(question.windows)

    def answer() -> dict[str, Any]:
        asked = replace(question, windows=windows, receipt=True, trust=False)
        header = describe_question(asked, forecasts)
        listed = [one for one in header["warnings"] if first <= one["instance"] < last]
        header["warnings"] = _count_from(first, listed)
        header |= {name: header[name][part] for name in ("times", "series") if name in header}
        if isinstance(explanations[0], bytes):
            return {**header, "explanations": [*map(orjson.Fragment, explanations)]}
        return {**header, "explanations": _count_from(first, explanations)}

    recording.add(windows, forecasts, answer, n_bytes=n_bytes, first=first)


def _count_from(first: int, ones: Sequence[Any]) -> list[Any]:
    return [{**one, "instance": one["instance"] - first} for one in ones] if first else [*ones]


async def _collect(
    call: Call, question: ExplainQuestion, explaining: AsyncGenerator[Explained, None]
) -> tuple[list[bytes], list[float]]:
    """All explanations in JSON, and their forecasts.

    Raises `DataError` after the first part, if by its size all would take more memory than requests may.
    """
    encoded, forecasts = list[bytes](), list[float]()
    most = call.parts.settings.max_work_bytes
    async for found in explaining:
        encoded += found.encoded
        forecasts += [one["prediction"] for one in found.explanations]
        n_bytes = sum(map(len, found.encoded))
        call.hold.add(n_bytes)
        expected = 2 * n_bytes * question.total // max(len(found.encoded), 1)  # twice, while it is joined
        refuse_large(expected, most, f": send fewer windows, or Accept: {NDJSON}")
    return encoded, forecasts


def _encode(question: ExplainQuestion, predictions: Array, explanations: Sequence[bytes] | None = None) -> bytes:
    """An `ExplainResponse` with its encoded explanations, or an `ExplainHeader`."""
    header = encode_json({**describe_question(question, predictions), "values": describe_values(question)})
    if explanations is None:
        return header
    return b"".join((header[:-1], b',"explanations":[', b",".join(explanations), b"]}"))


async def _stream(
    call: Call,
    question: ExplainQuestion,
    predictions: Array,
    header: bytes,
    explaining: AsyncGenerator[Explained, None],
) -> AsyncGenerator[bytes, None]:
    """The answer line by line. Its status has been sent, so an error can only be the last line."""
    yield header + b"\n"
    slices, recording = 0, begin_recording(call)
    try:
        while (progress := await while_connected(call, anext(explaining, None))) is not None:
            slices += 1
            lines = [*progress.encoded]
            if question.progress:
                counts = {"done": progress.done, "total": question.total, "slices": slices}
                lines.insert(0, encode_json({"progress": counts}))
            if lines:
                yield b"\n".join([*lines, b""])
            if recording is not None and progress.explanations:
                sent, n_bytes = progress.explanations, sum(map(len, progress.encoded))
                part = slice(sent[0]["instance"], sent[-1]["instance"] + 1)
                record_explanations(recording, question, predictions, sent, n_bytes, part)
    except GeneratorExit:  # the client has gone while a line was sent
        await explaining.aclose()
        raise
    except ClientDisconnect:
        return
    except Exception as error:
        yield end_stream(call, error)
