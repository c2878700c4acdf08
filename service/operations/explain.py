"""POST /v1/models/{model}:explain: contributions to forecasts, in one answer or line by line, with a receipt if asked.

A receipt is what an auditor needs to reproduce an answer; it does not repeat the numbers, which are compared with it.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
import orjson
from fastapi import Response
from pydantic import Field
from starlette.requests import ClientDisconnect
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.arrays import Array, refuse_non_finite
from kanmodel.attribution.baseline import DEFAULT_COUNT, Baseline, ReferenceBaselines, baseline_windows
from kanmodel.attribution.ledger import LedgerOptions
from kanmodel.attribution.shapley import Orders
from kanmodel.errors import quote
from kanmodel.model import Model
from service.models.registry import Served
from service.operations.explanations import (
    SMALL,
    Detail,
    Explained,
    ExplainQuestion,
    Explanation,
    compute_explanations,
)
from service.operations.members import (
    Answer,
    AskAdaptation,
    Checkpoint,
    Closed,
    InputHash,
    LibraryVersions,
    about,
    describe,
    find_versions,
    hash_windows,
    head_of,
)
from service.operations.predict import Predictions
from service.operations.recorded import Recording, begin_recording
from service.operations.route import MODEL, Call, Operation
from service.operations.windows import (
    AskTrust,
    OfWindows,
    TrustInfo,
    Windows,
    check_values,
    describe_trust,
)
from service.settings import Settings
from service.telemetry.observation import span
from service.wire import windows as wire
from service.wire.bodies import find_limits, parse_windows, validate_request
from service.wire.connections import ClosingStream, while_connected
from service.wire.errors import ErrorResponse, end_stream, invalid_value
from service.wire.json import JSON, NDJSON, encode_json
from service.work.forecasts import Plain

UNREAD = (*wire.UNREAD, "output", "baseline", "groups", "segments")  # by pydantic
Method = TypeAliasType("Method", Literal["integrated_gradients", "expected_gradients"])
ExplainedOutput = Annotated[str | list[str], about("The explained output; a list if the request has one, or `all`.")]
BaselineName = TypeAliasType("BaselineName", Literal["mean", "zero", "reference"])
BaselineValue = Annotated[float | list[float], about("A number, or one per step, in original units.")]
_KINDS = (
    'must be "mean", "zero", "reference", {"reference": count, "seed": number}, '
    '{"values": {feature: number or one per step}} or {"instance": [[…]]}'
)
_Groups = dict[str, Annotated[list[str], Field(min_length=1)]]
_Segments = dict[str, Annotated[list[int], Field(min_length=2, max_length=2)]]


class BaselineValues(Closed):
    """A baseline of given values."""

    values: dict[str, BaselineValue]
    """For every feature of the model a number or one per step, in original units, oldest step first."""


class BaselineInstance(Closed):
    """Another window as baseline: why has the forecast changed?"""

    instance: Annotated[list[list[float]], about("lookback x n_features, original units, oldest step first.")]


class BaselineReference(Closed):
    """Reference windows as baselines; the explanation is the mean over them."""

    reference: Annotated[int, about("Number of reference windows to draw.", ge=2)]
    seed: Annotated[int, about("Seed of the draw.", ge=0)] = 0


class ExplainRequest(Windows):
    """Windows to explain, in one of three forms, and the options of the explanation."""

    output: str | list[str] | None = None
    """Name of an output, a list of names, or `all`; optional if the model has one. Of a model with intervals also a
    bound or a width of one, such as `load+24:lower@0.8`, `load+24:upper@0.8` or `load+24:width@0.8`."""
    detail: Detail = "features"
    """`features` for totals; `steps` for steps x features too; `flow` for every layer's nodes and edges as well."""
    baseline: Annotated[
        BaselineName | BaselineReference | BaselineValues | BaselineInstance | None,
        about(
            "The baseline of the path: `mean`, each feature's mean over the reference windows; `zero`, its "
            f"training mean; `reference`, the average over {DEFAULT_COUNT} reference windows, or as many as given "
            "(expected gradients); given values; or another window."
        ),
    ] = "mean"
    groups: _Groups | None = None
    """Features that mean one thing, whose contributions are summed in `contributions_by_group`: `{"hour": ["hour_sin",
    "hour_cos"]}`. A member may be another group; each is in one at most. Absent: those of the checkpoint; null:
    none."""
    segments: _Segments | None = None
    """Steps whose contributions are summed, by their first and last, 0 the newest: `{"last six hours": [-5, 0]}`. They
    may not overlap. Steps that are in none are entries of their own, such as `other steps -23 to -6`."""
    tolerance: Annotated[float, Field(gt=0, strict=True)] = 1e-3
    """Largest accepted residual and error, in standard deviations of the output on the reference windows."""
    effects: Annotated[bool, Field(strict=True)] = False
    """Whether each explanation has `effects` too: what the forecast loses without each feature, and what each does
    alone; with detail `steps` or `flow` also `step_effects`. 2 forecasts for each instance, output, baseline and
    feature, or cell, which count as path nodes in `max_path_nodes`."""
    method: Literal["path", "shapley"] = "path"
    """`shapley` adds Shapley values beside the contributions of the path, of the outermost groups and of the features
    without a group, in each segment where there are `segments`. Of at most 12 such parts they are exact, from the
    forecasts of all 2^n coalitions; of more they are means over `orders`, with a standard error. These forecasts count
    as path nodes in `max_path_nodes`."""
    orders: Annotated[int, Field(ge=4, multiple_of=2, strict=True)] = Orders.count
    """Number of random orders for the Shapley values of more than 12 parts, half of them the reverse of the others."""
    seed: Annotated[int, Field(ge=0, strict=True)] = Orders.seed
    """Seed of these orders."""
    receipt: Annotated[bool, Field(strict=True)] = False
    """Whether to include a `receipt`, from which `kanscope explain --receipt` repeats the answer."""
    adaptation: AskAdaptation = None
    trust: AskTrust = False
    progress: Annotated[bool, Field(strict=True)] = False
    """Whether lines such as `{"progress": {"done": 32, "total": 96, "slices": 7}}` come between the explanations, one
    after each slice of work: how many explanations are computed, of how many, and how many slices that took. Only with
    `Accept: application/x-ndjson`."""


class UsedBaseline(TypedDict):
    """The baseline of an explanation, in original units."""

    kind: Annotated[Literal["mean", "zero", "reference", "values", "instance"], about("Kind of the baseline.")]
    values: NotRequired[dict[str, BaselineValue]]
    """Value per feature; for `reference` the mean over windows and steps; absent for `instance`."""
    reference: NotRequired[Annotated[int, about("Number of reference windows drawn; only for kind `reference`.")]]
    seed: NotRequired[Annotated[int, about("Seed of the draw; only for kind `reference`.")]]
    instance: NotRequired[Annotated[list[list[float]], about("lookback x n_features; only for kind `instance`.")]]


class ShapleyOrders(TypedDict):
    """The random orders of the parts, from which Shapley values of more than 12 parts are."""

    count: Annotated[int, about("Their number, half of them the reverse of the others.")]
    seed: Annotated[int, about("Seed of the draw.")]


class Receipt(TypedDict):
    """What `kanscope explain --receipt` needs, besides the windows, to reproduce an answer."""

    checkpoint: Checkpoint
    versions: LibraryVersions
    input: InputHash
    method: Method
    """`integrated_gradients` along the straight path from one baseline, or `expected_gradients`, their mean over
    several; units, nodes and edges by conductance along the same path."""
    output: ExplainedOutput
    detail: Annotated[Detail, about("Level of detail.")]
    effects: NotRequired[Annotated[bool, about("True if effects were requested.")]]
    shapley: NotRequired[Annotated[ShapleyOrders, about("The random orders, if Shapley values were requested.")]]
    baseline: Annotated[UsedBaseline, about("The baseline, with the seed of a draw.")]
    groups: Annotated[_Groups, about("Groups of features whose contributions are summed; may be empty.")]
    segments: _Segments
    """Segments of steps whose contributions are summed, with those of steps that no given one holds; may be empty."""
    tolerance: Annotated[float, about("Largest accepted residual and error, in standard deviations of the output.")]
    path_nodes: Annotated[int, Field(ge=5)]
    """Nodes of the path to begin with, positions of a Clenshaw-Curtis rule: a multiple of 4, and one."""
    halvings: Annotated[int, about("Most bisections of any part of a path.", ge=0)]


class ExplainHeader(Answer, OfWindows):
    """What all explanations of a request share; the first line of an NDJSON answer."""

    output: ExplainedOutput
    unit: str | list[str | None] | None
    """Unit of the target, null if unknown; a list if `output` is one."""
    baseline: UsedBaseline
    predictions: Predictions
    receipt: NotRequired[Annotated[Receipt, about("Only if requested.")]]
    trust: NotRequired[Annotated[list[TrustInfo], about("Of each instance; only if requested.")]]


class ExplainResponse(ExplainHeader):
    """The explanations of a request."""

    explanations: list[Explanation]
    """One per instance; with several outputs, one per instance and output."""


class ProgressCounts(TypedDict):
    """How far an answer is."""

    done: Annotated[int, about("Number of computed explanations.")]
    total: Annotated[int, about("Number of all explanations.")]
    slices: Annotated[int, about("Slices of work so far.")]


class ProgressLine(TypedDict):
    """A line of an NDJSON answer with `progress`."""

    progress: ProgressCounts


ExplainLine = TypeAliasType(
    "ExplainLine",
    Annotated[
        ExplainHeader | Explanation | ProgressLine | ErrorResponse,
        about(
            "One JSON object per line: the members of `ExplainResponse` except `explanations`, then each "
            "`Explanation`; with `progress`, objects with that one member between them; after a failure, an "
            "`ErrorResponse` as the last line."
        ),
    ],
)


def read_baseline(value: Any, model: Model) -> Baseline | ReferenceBaselines:
    """The baseline of a request; raises `DataError` if it is unknown, does not fit the model, or becomes infinite."""
    match value:
        case None | "mean" | "zero":
            return Baseline(value or "mean")
        case "reference":
            return _read_reference({"reference": min(DEFAULT_COUNT, len(model.reference))}, model)
        case {"reference": _}:
            return _read_reference(value, model)
        case {"values": dict(values), **rest} if not rest:
            return _read_values(values, model)
        case {"instance": given, **rest} if not rest:
            instance: Array = wire.read_array(given, wire.window_axes(model), "baseline.instance")
            refuse_non_finite(np.where(model.find_representable(instance), instance, np.nan), "baseline.instance")
            return Baseline("instance", instance=instance)
        case str():
            raise invalid_value("baseline", f"{_KINDS}, but is {quote(value)}")
        case dict():
            raise invalid_value("baseline", f"{_KINDS}, but has {', '.join(map(quote, value)) or 'nothing'}")
    raise invalid_value("baseline", _KINDS)


def _read_reference(members: dict[str, Any], model: Model) -> ReferenceBaselines:
    for name in members:
        if name not in ("reference", "seed"):
            raise invalid_value(f"baseline.{name}", "is unknown; expected one of reference, seed")
    count, seed, available = members["reference"], members.get("seed", 0), len(model.reference)
    if type(count) is not int or not 2 <= count <= available:
        message = f"must be a whole number from 2 to {available}, the reference windows"
        raise invalid_value("baseline.reference", message)
    if type(seed) is not int or seed < 0:
        raise invalid_value("baseline.seed", "must be a whole number from 0")
    return ReferenceBaselines(count, seed)


def _read_values(values: dict[str, Any], model: Model) -> Baseline:
    wire.refuse_other_names(values, model.config.feature_names, "baseline.values")
    for name, value in values.items():
        axes = (wire.Axis(model.config.lookback, "steps"),) if isinstance(value, list) else ()
        wire.read_array(value, axes, f"baseline.values.{name}")
    baseline = Baseline("values", values=values)
    finite = model.find_representable(baseline_windows(model, baseline)[0])
    for number, name in enumerate(model.config.feature_names):
        for step in np.flatnonzero(~finite[:, number]):
            place = f"[{step}]" if isinstance(values[name], list) else ""
            raise invalid_value(f"baseline.values.{name}{place}", "must be finite")
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
    outputs, baseline = wire.read_outputs(output, model), read_baseline(document.get("baseline"), model)
    options, as_list = LedgerOptions(tolerance=asked.tolerance), isinstance(output, list) or output == wire.ALL
    flags: dict[str, Any] = {
        name: getattr(asked, name) for name in ("effects", "receipt", "progress", "trust", "adaptation")
    }
    flags["shapley"] = Orders(asked.orders, asked.seed) if asked.method == "shapley" else None
    question = ExplainQuestion(
        *(served, checked.windows, checked, outputs, asked.detail, baseline, groups, segments, options),
        as_list=as_list,
        **flags,
    )
    question.refuse_costly(settings.max_path_nodes)
    return question


def describe_question(question: ExplainQuestion, predictions: Array) -> ExplainHeader:
    """The members that all explanations share; predictions for its windows are (n, n_outputs), original units."""
    served, names = question.served, [*question.outputs]
    units = [served.model.unit_of(name) for name in names]
    header: ExplainHeader = {
        **head_of(served),
        "output": names if question.as_list else names[0],
        "unit": units if question.as_list else units[0],
        "baseline": describe_baseline(question.baseline, served.model),
        "predictions": predictions.tolist(),
        **question.checked.describe(),  # type: ignore[typeddict-item]
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


def describe_baseline(baseline: Baseline | ReferenceBaselines, model: Model) -> UsedBaseline:
    """The baseline of a request as its answer states it."""
    if isinstance(baseline, Baseline) and baseline.kind == "instance":
        return {"kind": "instance", "instance": np.asarray(baseline.instance).tolist()}
    if isinstance(baseline, Baseline) and baseline.kind == "values":
        return {"kind": "values", "values": dict[str, Any](baseline.values or {})}
    windows, names = baseline_windows(model, baseline), model.config.feature_names
    if isinstance(baseline, Baseline):  # the same at each step
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
    lines=ExplainLine,
)
async def explain(call: Call) -> Response:
    """Explains forecasts: contributions that are complete at every layer, with residual and estimated error.

    With `Accept: application/x-ndjson` the first line has what all explanations share, and each further line one
    explanation, sent as soon as it is ready. If one fails, or the deadline passes, the last line is an error.
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
        header: dict[str, Any] = {**describe_question(asked, forecasts)}
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
        if (expected := 2 * n_bytes * question.total // max(len(found.encoded), 1)) > most:  # twice, while it is joined
            message = f"would take {expected / 1e6:.0f} MB of memory, of at most {most / 1e6:.0f} MB (max_work_bytes)"
            raise invalid_value("request", f"{message}: send fewer windows, or Accept: {NDJSON}", "limit_exceeded")
    return encoded, forecasts


def _encode(question: ExplainQuestion, predictions: Array, explanations: Sequence[bytes] | None = None) -> bytes:
    """An `ExplainResponse` with its encoded explanations, or an `ExplainHeader`."""
    header = encode_json(describe_question(question, predictions))
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
                counts: ProgressCounts = {"done": progress.done, "total": question.total, "slices": slices}
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
