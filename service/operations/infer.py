"""The Open Inference Protocol (V2): what the server and its models are, and POST /v2/models/{model}/infer.

Requests and answers are tensors, with their values in JSON or as binary data after it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from fastapi import Response

from kanmodel.arrays import Array
from kanmodel.errors import Problem
from kanmodel.model import Model
from service.answers.explanations import Baseline, Explanation
from service.answers.infer import (
    BOUND_TENSOR,
    EXPLAINED,
    NAMES,
    TRUST,
    InferInput,
    InferOutput,
    InferParameters,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ServerMetadata,
)
from service.answers.models import ModelReadiness
from service.models.registry import Served
from service.operations.explain import read_baseline, record_explanations
from service.operations.explanations import ALL_STEPS, ExplainQuestion, compute_explanations
from service.operations.predict import describe_intervals
from service.operations.recorded import begin_recording
from service.operations.route import DESCRIBED_ON_LOOP, MODEL_V2, VERSION_V2, Call, Operation
from service.operations.windows import check_values
from service.settings import Settings
from service.telemetry.observation import span
from service.wire.bodies import Limits, find_limits, parse_object, validate_request
from service.wire.connections import while_connected
from service.wire.errors import invalid_value, invalid_values
from service.wire.headers import find_header
from service.wire.json import BYTES, HELD_NUMBER_BYTES, JSON, answer_json, encode_json
from service.wire.windows import ALL, Axis, Given, parse_groups, read_array, read_groups, read_levels
from service.work.forecasts import Plain, Predictor, WithBounds

INSTANCES = "instances"  # the tensor that holds all features
HEADER_LENGTH = "Inference-Header-Content-Length"


@Operation("GET", "/v2", "inference", "read", ServerMetadata)
async def get_server_metadata(call: Call) -> Response:
    """The name and version of the service, and the protocol extensions that it supports."""
    extensions = ["binary_tensor_data", "parameters"]
    extensions += ["model_repository"] if call.parts.settings.repository_api else []
    return answer_json(ServerMetadata(name="kanscope", version=version("kanscope"), extensions=extensions))


@Operation("GET", MODEL_V2, "inference", "read", ModelMetadata, also=VERSION_V2)
async def get_model_metadata(call: Call) -> Response:
    """Describes the tensors of a model, and the names along their last axes.

    `/v2/models/{model}/versions/{version}` selects a version, and so do `ready` and `infer` below it.
    """
    served, config = call.served, call.served.model.config
    entries = call.parts.registry.index().get(served.name, ())  # highest first
    metadata: ModelMetadata = {
        "name": served.name,
        "versions": [entry.version for entry in entries if entry.state == "ready"],
        "platform": "kanscope",
        "inputs": [{"name": INSTANCES, "datatype": "FP64", "shape": [-1, *config.window_shape]}],
        "outputs": [{"name": "predictions", "datatype": "FP64", "shape": [-1, len(config.outputs)]}],
        "parameters": {
            "checkpoint": served.checkpoint,
            "features": list(config.feature_names),
            "outputs": list(config.outputs),
            "bounded_outputs": list(served.model.bounded_outputs),
            "levels": list(served.model.levels),
            "groups": list(served.model.group_names),
        },
    }
    return answer_json(metadata)


@Operation("GET", f"{MODEL_V2}/ready", "inference", "read", ModelReadiness, also=f"{VERSION_V2}/ready", loads=False)
async def get_model_readiness_v2(call: Call) -> Response:
    """Readiness of a model; one that is not ready answers 503."""
    return answer_json(ModelReadiness(name=call.state.model, ready=True))


def read_inference(
    body: bytes, header_length: str | None, served: Served, settings: Settings
) -> tuple[ExplainQuestion, dict[str, bool], str | None]:
    """Parses a request, of which `header_length` is the header with the length of its JSON; raises `DataError`.

    Returns its windows, and how to explain them; the requested tensors, and whether each is binary; the client's id.
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal() and len(header_length) < 20):
            raise invalid_value(HEADER_LENGTH, "must be a whole number of bytes")
        if (length := int(header_length)) > len(body):
            raise invalid_value(HEADER_LENGTH, f"must be at most the {len(body)} bytes of the body, but is {length}")
    model, limits = served.model, find_limits(served.model, settings)
    document = parse_object(body[:length], limits)
    inputs, n_features = document.get("inputs"), len(model.config.features)
    if isinstance(inputs, list) and len(inputs) > n_features:  # before each is validated: there is room for a million
        message = f"must be 1 tensor, or {n_features}, one per feature, but there are {len(inputs)}"
        raise invalid_value("inputs", message)
    request = validate_request(InferRequest, document)
    checked = check_values(read_tensors(request.inputs, body[length:], model, settings.max_windows), served)
    asked = request.parameters or InferParameters()
    summed = parse_groups({"groups": asked.groups, "segments": asked.segments}, limits, "parameters.")
    groups, segments = read_groups(summed, model)
    intervals = None if asked.intervals is None else _parse_levels(asked.intervals, limits)
    levels = read_levels(intervals, model, "parameters.intervals")
    outputs = _choose_outputs(request, asked, levels, model, is_grouped=bool(groups or segments))
    is_explained = outputs.keys() & {*EXPLAINED}
    baseline = read_baseline(Baseline(kind=asked.baseline) if is_explained else None, model)
    question = ExplainQuestion(
        *(served, checked.windows, checked, model.outputs, asked.detail, baseline, groups, segments),
        trust=any(name in outputs for name in TRUST),
    )
    if is_explained:
        question.refuse_costly(settings.max_path_nodes)
    return question, outputs, request.id or None


def read_tensors(tensors: Sequence[InferInput], binary: bytes, model: Model, max_windows: int) -> Given:
    """The windows of one tensor with all features, or of one tensor per feature, by name; raises `DataError`.

    `binary` has the values of those that are binary, in their order.
    """
    inputs = {f"inputs[{number}]": tensor for number, tensor in enumerate(tensors)}
    name, names, window = tensors[0].name, model.config.feature_names, model.config.window_shape
    by_feature = len(tensors) > 1 or name != INSTANCES or (INSTANCES in names and len(tensors[0].shape) != 3)
    ordered = _sort_by_name(inputs, names) if by_feature else inputs
    first = next(iter(ordered))
    for path, tensor in ordered.items():
        shape, where, expected = tensor.shape, f"{path}.shape", window[:1] if by_feature else window
        if not shape or tuple(shape[1:]) != expected:
            raise invalid_value(where, f"must be [n, {', '.join(map(str, expected))}], but is {shape}")
        if not 1 <= shape[0] <= max_windows:
            message = f"must be 1 to {max_windows} (max_windows), but is {shape[0]}"
            raise invalid_value(f"{where}[0]", message, "limit_exceeded" if shape[0] else "invalid_value")
        if shape[0] != (n := ordered[first].shape[0]):
            raise invalid_value(f"{where}[0]", f"must be {n} as in {first}, but is {shape[0]}")
    values = _read_values(inputs, binary)
    paths = [*ordered]

    def place(window: int, step: int, feature: int) -> str:
        return (
            f"{paths[feature]}.data[{window}][{step}]" if by_feature else f"{first}.data[{window}][{step}][{feature}]"
        )

    windows = np.stack([values[path] for path in paths], axis=-1) if by_feature else values[first]
    return Given(windows, windows, place)


def _sort_by_name(inputs: Mapping[str, InferInput], names: Sequence[str]) -> dict[str, InferInput]:
    """The tensors by their paths, in the order of the features."""
    problems, paths = [], dict[str, str]()
    for path, tensor in inputs.items():
        if tensor.name not in names:
            message = f"is unknown; expected {INSTANCES} alone, or the features {', '.join(names)}"
            problems.append(Problem(f"{path}.name", message))
        elif tensor.name in paths:
            problems.append(Problem(f"{path}.name", "is given twice"))
        paths[tensor.name] = path
    missing = [name for name in names if name not in paths]
    if missing and not problems:
        problems.append(Problem("inputs", f"must have one tensor for each feature, but lacks {', '.join(missing)}"))
    if problems:
        raise invalid_values(problems, len(problems))
    return {paths[name]: inputs[paths[name]] for name in names}


def _read_values(inputs: Mapping[str, InferInput], binary: bytes) -> Mapping[str, Array]:
    """The values of each tensor, in its shape, by its path."""
    start, values = 0, dict[str, Array]()
    for path, tensor in inputs.items():
        given = None if tensor.parameters is None else tensor.parameters.binary_data_size
        if given is None:
            values[path] = _read_json(tensor, f"{path}.data")
            continue
        expected, n_left = prod(tensor.shape) * tensor.dtype.itemsize, len(binary) - start
        place = f"{path}.parameters.binary_data_size"
        if tensor.data is not None:
            raise invalid_value(f"{path}.data", "and parameters.binary_data_size are both given: give one")
        if given != expected:
            what = f"the bytes of {tensor.datatype} {tensor.shape}"
            raise invalid_value(place, f"must be {expected}, {what}, but is {given}")
        if expected > n_left:
            message = f"is {expected}, but the body has {n_left} more bytes after its JSON ({HEADER_LENGTH})"
            raise invalid_value(place, message)
        numbers = np.frombuffer(binary, tensor.dtype, prod(tensor.shape), start)
        with np.errstate(invalid="ignore"):  # raised by a signalling NaN
            values[path] = numbers.astype(np.float64).reshape(tensor.shape)
        start += expected
    if start != len(binary):
        raise invalid_value("body", f"must have {start} bytes after its JSON, as its inputs say, but has {len(binary)}")
    return values


def _read_json(tensor: InferInput, path: str) -> Array:
    """Values nested like the shape, or flat in row-major order; whole numbers of the range of an integer datatype."""
    if tensor.data is None:
        raise invalid_value(path, "is missing; give it, or parameters.binary_data_size")
    nested = isinstance(tensor.data, list) and tensor.data and isinstance(tensor.data[0], list)
    axes = [Axis(size, "items") for size in tensor.shape] if nested else [Axis(prod(tensor.shape), "values")]
    values = read_array(tensor.data, axes, path)
    if tensor.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a value that is too large becomes infinite, and is refused as such
            return values.astype(tensor.dtype).astype(np.float64).reshape(tensor.shape)
    limits = np.iinfo(tensor.dtype)
    fits = (values == np.rint(values)) & (values >= limits.min) & (values < limits.max + 1.0)
    for place in np.argwhere(~fits)[:1].tolist():
        index = "".join(f"[{number}]" for number in place)
        kind = f"a whole number from {limits.min} to {limits.max}, as it is {tensor.datatype}"
        raise invalid_value(f"{path}{index}", f"must be {kind}")
    return values.reshape(tensor.shape)


def _name_tensors(levels: Sequence[float]) -> list[str]:
    """The names of the tensors of bounds."""
    return [f"{bound}@{level:g}" for level in levels for bound in ("lower", "upper")]


def _parse_levels(text: str, limits: Limits) -> Any:
    return text if text == ALL else parse_groups({"intervals": text}, limits, "parameters.")["intervals"]


def _choose_outputs(
    request: InferRequest, parameters: InferParameters, levels: Sequence[float], model: Model, is_grouped: bool
) -> dict[str, bool]:
    """The requested outputs, and whether each is binary."""
    explain, binary, chosen = parameters.explain, parameters.binary_data_output, dict[str, bool]()
    for number, wanted in enumerate(request.outputs or ()):
        place = f"outputs[{number}].name"
        if wanted.name in chosen:
            raise invalid_value(place, "is given twice")
        if wanted.name == "contributions_by_group" and not is_grouped:
            raise invalid_value(place, f"{wanted.name} needs groups or segments")
        needs, is_given = ("trust", parameters.trust) if wanted.name in TRUST else ("explain", explain)
        if BOUND_TENSOR.fullmatch(wanted.name):
            known = _name_tensors(model.levels)
            if wanted.name not in known:
                there = f"the bounds are {', '.join(known)}" if known else "the model has no intervals"
                raise invalid_value(place, f"{wanted.name} does not exist; {there}")
        elif wanted.name not in NAMES:
            names = f"{', '.join(map(repr, NAMES[:-1]))} or {NAMES[-1]!r}"
            raise invalid_value(place, f"must be {names}, or a bound such as 'lower@0.8'")
        elif wanted.name != "predictions" and not is_given:
            raise invalid_value(place, f"{wanted.name} needs parameters.{needs}")
        own = None if wanted.parameters is None else wanted.parameters.binary_data
        chosen[wanted.name] = binary if own is None else own
    usual = ["predictions", *_name_tensors(levels)]
    if explain:
        usual += ["contributions", "residual", "error"]
        usual += ["contributions_by_group"] if is_grouped else []
    usual += TRUST if parameters.trust else ()
    return chosen or dict.fromkeys(usual, binary)


@Operation(
    "POST",
    f"{MODEL_V2}/infer",
    "inference",
    "read",
    InferResponse,
    also=f"{VERSION_V2}/infer",
    body=InferRequest,
    media_types=(JSON, BYTES),
)
async def infer(call: Call) -> Response:
    """Forecasts every output for each instance, as tensors; if requested with intervals, and explained.

    Binary tensor data follows the JSON, in requests and in answers, whose length in bytes is then in the header
    `Inference-Header-Content-Length`, with the media type `application/octet-stream`.
    """
    parts, served, deadline = call.parts, call.served, call.deadline
    body = await call.read_body((JSON, BYTES, ""))  # Triton's client sends none of them
    length = find_header(call.scope, HEADER_LENGTH.lower().encode())
    question, outputs, request_id = await call.parse(
        partial(read_inference, body, length, served, parts.settings), body
    )
    is_explained = bool(outputs.keys() & {*EXPLAINED})
    if is_explained or question.trust:
        call.state.caller.require("explain")
    call.state.windows = len(question.windows)
    predictor: Predictor = (WithBounds if any(map(BOUND_TENSOR.fullmatch, outputs)) else Plain)(served.model)
    values = await parts.forecasts.predict(predictor, question.windows, deadline)
    answer_id = request_id or call.state.request_id
    predictions, *bounds = predictor.split(values)
    explanations: list[Explanation] = []

    async def explain() -> None:
        async for found in compute_explanations(question, parts, deadline, encoded=False):
            explanations.extend(found.explanations)

    if is_explained:
        await while_connected(call, explain())
    tensors = {"predictions": predictions, **_name_bounds(served.model.levels, bounds)}
    describe = partial(_answer, question, outputs, answer_id, tensors, explanations)
    is_brief = not (is_explained or question.trust) and values.size <= DESCRIBED_ON_LOOP
    with span("encode"):
        answer = describe() if is_brief else await call.submit(describe, 2 * HELD_NUMBER_BYTES * values.size)

    def observe() -> None:
        call.count_forecasts(question.checked, predictions)
        if (recording := begin_recording(call)) is None:
            return
        if is_explained:
            record_explanations(recording, question, predictions, explanations, 2 * len(answer.body))
        else:
            model = served.model
            intervals = partial(describe_intervals, model, model.levels, *bounds) if bounds else None
            recording.add(question.windows, predictions, intervals=intervals, n_bytes=values.nbytes)

    call.observe = observe
    return answer


def _name_bounds(levels: Sequence[float], bounds: Sequence[Array]) -> dict[str, Array]:
    """The tensors of lower and upper bounds, (n_levels, n, n_bounded) each, by name; none without bounds."""
    return dict(zip(_name_tensors(levels), chain.from_iterable(zip(*bounds, strict=True)), strict=bool(bounds)))


def _answer(
    question: ExplainQuestion,
    wanted: Mapping[str, bool],
    answer_id: str,
    forecasts: Mapping[str, Array],
    explanations: Sequence[Explanation],
) -> Response:
    """JSON, then the binary tensors; explanations are by window, then output, or none."""
    served, shape = question.served, forecasts["predictions"].shape
    by_group = [one["contributions_by_group"].values() for one in explanations if "contributions_by_group" in one]
    lists: dict[str, list[Any]] = {
        "contributions": [one.get("steps") or [*one["contributions"].values()] for one in explanations],
        "contributions_by_group": [
            [[*of.values()] if question.segments else of[ALL_STEPS] for of in groups] for groups in by_group
        ],
        "residual": [one["residual"] for one in explanations],
        "error": [one["error"] for one in explanations],
    }
    arrays = {name: np.array(values, np.float64) for name, values in lists.items() if values}
    tensors = {**forecasts, **{name: array.reshape(*shape, *array.shape[1:]) for name, array in arrays.items()}}
    if question.trust:
        found = [(one.nearest_reference.distance, one.p_value) for one in served.model.trust(question.windows)]
        tensors["distance"] = np.array([distance for distance, _ in found])
        tensors["p_value"] = np.array([1.0 if p_value is None else p_value for _, p_value in found])
    answer: InferResponse = {
        "model_name": served.name,
        "model_version": served.version,
        "id": answer_id,
        "parameters": {"checkpoint": served.checkpoint, "outside_range": sum(question.checked.counts.values())},
        "outputs": [],
    }
    buffers: list[bytes] = []
    for name, binary in wanted.items():
        tensor: InferOutput = {"name": name, "shape": list(tensors[name].shape), "datatype": "FP64"}
        if binary:
            buffers.append(tensors[name].astype("<f8").tobytes())
            tensor["parameters"] = {"binary_data_size": len(buffers[-1])}
        else:
            tensor["data"] = tensors[name].ravel().tolist()
        answer["outputs"].append(tensor)
    if explanations:
        answer["parameters"]["converged"] = all(one["converged"] for one in explanations)
    if by_group:
        names = explanations[0]["contributions_by_group"]
        answer["parameters"]["groups"] = [*names]
        if question.segments:
            answer["parameters"]["segments"] = [*question.segments]
    if not buffers:
        return answer_json(answer)
    head = encode_json(answer)
    return Response(b"".join([head, *buffers]), headers={HEADER_LENGTH: str(len(head))}, media_type=BYTES)
