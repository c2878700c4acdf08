"""The Open Inference Protocol (V2): requests and answers in tensors.

Reads tensors of the Open Inference Protocol, in JSON or as binary data after it, into windows.

Reads infer requests of the Open Inference Protocol.

POST /v2/models/{model}/infer, of the Open Inference Protocol.

Metadata of the server and its models in the Open Inference Protocol (V2).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from math import prod
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from fastapi import Response
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.data import Array
from kanmodel.errors import Problem
from kanmodel.explain.attribution import Segments
from kanmodel.model import Model
from kanmodel.network.config import Groups
from service.models.registry import Entry, Served
from service.operations.baselines import BaselineName, read_baseline
from service.operations.explanations import ExplainQuestion, Explanation, Progress, compute_explanations
from service.operations.members import Checkpoint, Closed, Name, Version, about
from service.operations.models import ModelReadiness, describe_readiness
from service.operations.route import MODEL_V2, VERSION_V2, Call, operation
from service.operations.windows import warn_of_range
from service.settings import Settings
from service.telemetry.observation import span
from service.wire.bodies import Limits, find_limits, parse_object, read_body, validate_request
from service.wire.connections import while_connected
from service.wire.errors import invalid_value, invalid_values
from service.wire.headers import find_header
from service.wire.json import BYTES, JSON, answer_json, encode_json
from service.wire.security import require_scope
from service.wire.windows import Axis, parse_groups, read_array, read_groups, refuse_infinite_windows
from service.work.jobs import PARSED_BYTE, Kind, estimate_describing

Datatype = TypeAliasType(
    "Datatype",
    Literal["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"],
)
OutputName = TypeAliasType(
    "OutputName", Literal["predictions", "contributions", "contributions_by_group", "residual", "error"]
)
OutputDatatype = Annotated[Literal["FP64"], about("Datatype of the values.")]
TensorShape = Annotated[list[int], about("Its shape; -1 for any size.")]


class ServerMetadata(TypedDict):
    """What answers."""

    name: Annotated[str, about("Name of the service.")]
    version: Annotated[str, about("Its version.")]
    extensions: Annotated[list[str], about("Protocol extensions that it supports.")]


class TensorMetadata(TypedDict):
    """A tensor of requests or answers."""

    name: Annotated[str, about("Its name.")]
    datatype: Annotated[Datatype, about("Its datatype.")]
    shape: TensorShape


class ModelMetadataParameters(TypedDict):
    """The names along the axes of the tensors."""

    checkpoint: Checkpoint
    features: list[str]
    """Names along the last axis of the input; one tensor per feature may be sent instead."""
    outputs: Annotated[list[str], about("Names along the last axis of `predictions`.")]
    groups: list[str]
    """Names along the third axis of `contributions_by_group` for a request without groups; empty if the checkpoint has
    none."""


class ModelMetadata(TypedDict):
    """The tensors of a model."""

    name: Name
    versions: Annotated[list[str], about("Versions that are ready, highest first.")]
    platform: Annotated[Literal["kanscope"], about("Always `kanscope`.")]
    inputs: Annotated[list[TensorMetadata], about("Tensors of a request.")]
    outputs: Annotated[list[TensorMetadata], about("Tensors of an answer by default.")]
    parameters: ModelMetadataParameters


class InferInputParameters(Closed):
    """Parameters of an input."""

    binary_data_size: Annotated[int | None, Field(ge=0, strict=True)] = None
    """Length of its values in the binary part, which has them in the order of the inputs."""


class InferInput(Closed):
    """An input tensor."""

    name: Annotated[str, Field(strict=True)]
    """`instances` for all features, n x lookback x n_features; or the name of a feature, n x lookback, one tensor for
    each. Original units, oldest step first."""
    shape: Annotated[list[Annotated[int, Field(ge=0, strict=True)]], about("Its shape.", max_length=8)]
    datatype: Annotated[Datatype, about("Its datatype; values are read as numbers of any datatype.")]
    parameters: InferInputParameters | None = None
    data: Any = None
    """Its values, nested like the shape or flat in row-major order; absent if they are binary."""


class InferOutputParameters(Closed):
    """Parameters of a requested output."""

    binary_data: Annotated[bool | None, Field(strict=True)] = None
    """Whether its values are returned as binary data after the JSON."""


class InferOutputRequest(Closed):
    """A requested output tensor."""

    name: Annotated[OutputName, about("Its name.")]
    parameters: InferOutputParameters | None = None


class InferParameters(Closed):
    """Parameters of a request."""

    explain: Annotated[bool, Field(strict=True)] = False
    """Whether to explain the forecasts, in the tensors `contributions`, `residual` and `error`. Needs an API key with
    the scope explain, if keys are needed."""
    detail: Literal["features", "steps"] = "features"
    """Whether `contributions` are of features, or of steps and features."""
    baseline: Annotated[BaselineName, about("The baseline, as in `ExplainRequest`.")] = "mean"
    groups: Annotated[str | None, Field(strict=True)] = None
    """`groups` of `ExplainRequest` as a string of JSON, such as `{"hour": ["hour_sin", "hour_cos"]}` or `null`; by
    default those of the checkpoint."""
    segments: Annotated[str | None, Field(strict=True)] = None
    """`segments` of `ExplainRequest` as a string of JSON, such as `{"last six hours": [-5, 0]}`."""
    binary_data_output: Annotated[bool, about("Default of `binary_data` for all outputs.", strict=True)] = False


class InferRequest(Closed):
    """Windows to forecast, as tensors."""

    id: Annotated[str | None, about("Id of the request, repeated in the answer.", max_length=128, strict=True)] = None
    model_name: Annotated[str | None, about("Sent by KServe's client besides the path; ignored.", strict=True)] = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InferInput], about("The input tensors.", min_length=1, fail_fast=True)]
    outputs: Annotated[list[InferOutputRequest] | None, Field(max_length=5)] = None
    """The requested outputs; absent or empty: all."""


class InferResponseParameters(TypedDict):
    """Parameters of an answer."""

    checkpoint: Checkpoint
    outside_range: Annotated[int, about("Number of pairs of a window and a feature outside the training range.", ge=0)]
    converged: NotRequired[Annotated[bool, about("Whether every explanation has converged; only with explanations.")]]
    groups: NotRequired[list[str]]
    """Names along the third axis of `contributions_by_group`: the groups, then the features that are in none; only with
    groups or segments."""
    segments: NotRequired[Annotated[list[str], about("Names along its fourth axis; only with segments.")]]


class InferOutputSize(TypedDict):
    """Parameters of an output in an answer."""

    binary_data_size: Annotated[int, about("Length of its values in the binary part.")]


class InferOutput(TypedDict):
    """An output tensor."""

    name: OutputName
    """`predictions`, n x n_outputs; `contributions`, n x n_outputs x n_features or, by steps, n x n_outputs x lookback
    x n_features; `contributions_by_group`, n x n_outputs x n_names or, by segments, n x n_outputs x n_names x
    n_segments; `residual` and `error`, n x n_outputs. In the unit of the target."""
    shape: Annotated[list[int], about("Its shape.")]
    datatype: OutputDatatype
    parameters: NotRequired[InferOutputSize]
    data: NotRequired[Annotated[list[float], about("Its values, flat in row-major order; absent if they are binary.")]]


class InferResponse(TypedDict):
    """Forecasts, as tensors."""

    model_name: Name
    model_version: Version
    id: Annotated[str, about("Id of the request: its own, or that of `X-Request-Id`.")]
    parameters: InferResponseParameters
    outputs: Annotated[list[InferOutput], about("The output tensors, in the order of the request.")]


def describe_tensors(served: Served, entries: Sequence[Entry]) -> ModelMetadata:
    """Describes the tensors and versions of a model.

    Args:
        served: the model.
        entries: all its versions, highest first.
    """
    config = served.model.config
    return {
        "name": served.name,
        "versions": [entry.version for entry in entries if entry.is_ready],
        "platform": "kanscope",
        "inputs": [{"name": "instances", "datatype": "FP64", "shape": [-1, *config.window_shape]}],
        "outputs": [{"name": "predictions", "datatype": "FP64", "shape": [-1, len(config.outputs)]}],
        "parameters": {
            "checkpoint": served.checkpoint,
            "features": list(config.feature_names),
            "outputs": list(config.outputs),
            "groups": list(served.model.group_names),
        },
    }


def describe_inference(
    served: Served,
    answer_id: str,
    wanted: Mapping[OutputName, bool],
    predictions: Array,
    explanations: Sequence[Explanation],
    outside_range: int,
) -> tuple[InferResponse, list[bytes]]:
    """Describes the answer, and returns the bytes of its binary tensors.

    Args:
        served: the model.
        answer_id: id of the answer.
        wanted: the requested tensors, and whether each is binary.
        predictions: (n, n_outputs), original units.
        explanations: by window, then by output; may be empty.
        outside_range: number of pairs of a window and a feature outside the training range.
    """
    values = {"predictions": predictions, **_arrange(explanations, len(predictions))}
    outputs: list[InferOutput] = []
    buffers: list[bytes] = []
    for name, binary in wanted.items():
        tensor: InferOutput = {"name": name, "shape": list(values[name].shape), "datatype": "FP64"}
        if binary:
            buffers.append(values[name].astype("<f8").tobytes())
            tensor["parameters"] = {"binary_data_size": len(buffers[-1])}
        else:
            tensor["data"] = values[name].ravel().tolist()
        outputs.append(tensor)
    answer: InferResponse = {
        "model_name": served.name,
        "model_version": served.version,
        "id": answer_id,
        "parameters": {"checkpoint": served.checkpoint, "outside_range": outside_range},
        "outputs": outputs,
    }
    if explanations:
        answer["parameters"]["converged"] = all(one["converged"] for one in explanations)
        by_group = explanations[0].get("contributions_by_group")
        if by_group is not None:
            answer["parameters"]["groups"] = [*by_group]
            first = next(iter(by_group.values()))
            if isinstance(first, dict):
                answer["parameters"]["segments"] = [*first]
    return answer, buffers


def _arrange(explanations: Sequence[Explanation], n_windows: int) -> dict[str, Array]:
    """The tensors of explanations: (n, n_outputs), and for contributions the axes of one explanation after that."""
    lists: dict[str, list[Any]] = {
        "contributions": [one.get("steps") or [*one["contributions"].values()] for one in explanations],
        "contributions_by_group": [_list_groups(one) for one in explanations if "contributions_by_group" in one],
        "residual": [one["residual"] for one in explanations],
        "error": [one["error"] for one in explanations],
    }
    arrays = {name: np.array(values, np.float64) for name, values in lists.items() if values}
    n_outputs = len(explanations) // n_windows
    return {name: array.reshape(n_windows, n_outputs, *array.shape[1:]) for name, array in arrays.items()}


def _list_groups(explanation: Explanation) -> list[Any]:
    """The contribution of each group, or a list per segment."""
    values = explanation["contributions_by_group"].values()
    return [[*value.values()] if isinstance(value, dict) else value for value in values]


INSTANCES = "instances"  # the tensor that holds all features
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Tensor:
    """An input tensor whose values are not read yet.

    Attributes:
        path: its path in the request.
        name: its name.
        datatype: the protocol's, such as ``FP32``.
        shape: its shape.
        data: its values as parsed JSON; None if absent.
        n_bytes: length of its values in the binary part; None if they are in the JSON.
    """

    path: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    n_bytes: int | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The datatype in numpy's terms, little-endian."""
        return np.dtype(self.datatype.lower().replace("fp", "float")).newbyteorder("<")


def split_body(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """Splits a body into its JSON and the binary part after it.

    Args:
        body: the body.
        header_length: value of the header with the length of the JSON; None if the body is all JSON.

    Raises:
        DataError: the header is not an integer, or more than the length of the body.
    """
    if header_length is None:
        return body, b""
    if not (header_length.isascii() and header_length.isdecimal() and len(header_length) < 20):
        raise invalid_value(HEADER_LENGTH, "must be a whole number of bytes")
    length = int(header_length)
    if length > len(body):
        raise invalid_value(HEADER_LENGTH, f"must be at most the {len(body)} bytes of the body, but is {length}")
    return body[:length], body[length:]


def read_tensors(tensors: Sequence[Tensor], binary: bytes, model: Model, max_windows: int) -> Array:
    """The windows of one tensor with all features, or of one tensor per feature, by name.

    Args:
        tensors: the inputs of a request, at least one.
        binary: the binary part of its body.
        model: the model that they must fit.
        max_windows: the limit on windows.

    Returns:
        (n, lookback, n_features), original units, oldest step first.

    Raises:
        DataError: an invalid name, shape, size or value; the error names each place.
    """
    lookback, n_features = model.config.window_shape
    first, names = tensors[0], model.config.feature_names
    by_feature = first.name != INSTANCES or (INSTANCES in names and len(first.shape) != 3)
    if by_feature or len(tensors) > 1:
        by_name = _sort_by_name(tensors, names)
        _refuse_shapes(by_name, (lookback,), max_windows)
        values = _read_values(tensors, binary)
        windows = np.stack([values[one.path] for one in by_name], axis=-1)
        refuse_infinite_windows(windows, model, [f"{one.path}.data" for one in by_name])
    else:
        _refuse_shapes(tensors, (lookback, n_features), max_windows)
        windows = _read_values(tensors, binary)[first.path]
        refuse_infinite_windows(windows, model, f"{first.path}.data")
    return windows


def _sort_by_name(tensors: Sequence[Tensor], names: Sequence[str]) -> list[Tensor]:
    """The tensors in the order of the features."""
    problems = []
    by_name: dict[str, Tensor] = {}
    for tensor in tensors:
        if tensor.name not in names:
            known = f"expected {INSTANCES} alone, or the features {', '.join(names)}"
            problems.append(Problem(f"{tensor.path}.name", f"is unknown; {known}"))
        elif tensor.name in by_name:
            problems.append(Problem(f"{tensor.path}.name", "is given twice"))
        by_name[tensor.name] = tensor
    missing = [name for name in names if name not in by_name]
    if missing and not problems:
        problems.append(Problem("inputs", f"must have one tensor for each feature, but lacks {', '.join(missing)}"))
    if problems:
        raise invalid_values(problems, len(problems))
    return [by_name[name] for name in names]


def _refuse_shapes(tensors: Sequence[Tensor], window: tuple[int, ...], max_windows: int) -> None:
    """Refuses shapes that are not those of windows, or numbers of windows that differ between tensors."""
    n = tensors[0].shape[0] if tensors[0].shape else 0
    for tensor in tensors:
        path = f"{tensor.path}.shape"
        if tensor.shape[1:] != window or not tensor.shape:
            raise invalid_value(path, f"must be [n, {', '.join(map(str, window))}], but is {list(tensor.shape)}")
        if not 1 <= tensor.shape[0] <= max_windows:
            message = f"must be 1 to {max_windows} (max_windows), but is {tensor.shape[0]}"
            raise invalid_value(f"{path}[0]", message, "limit_exceeded" if tensor.shape[0] else "invalid_value")
        if tensor.shape[0] != n:
            raise invalid_value(f"{path}[0]", f"must be {n} as in {tensors[0].path}, but is {tensor.shape[0]}")


def _read_values(tensors: Sequence[Tensor], binary: bytes) -> Mapping[str, Array]:
    """The values of each tensor, in its shape, by its path."""
    start = 0
    values: dict[str, Array] = {}
    for tensor in tensors:
        if tensor.n_bytes is None:
            values[tensor.path] = _read_json(tensor)
            continue
        _refuse_size(tensor, len(binary) - start)
        numbers = np.frombuffer(binary, tensor.dtype, prod(tensor.shape), start)
        with np.errstate(invalid="ignore"):  # raised by a signalling NaN
            values[tensor.path] = numbers.astype(np.float64).reshape(tensor.shape)
        start += tensor.n_bytes
    if start != len(binary):
        raise invalid_value("body", f"must have {start} bytes after its JSON, as its inputs say, but has {len(binary)}")
    return values


def _refuse_size(tensor: Tensor, n_left: int) -> None:
    path, expected = f"{tensor.path}.parameters.binary_data_size", prod(tensor.shape) * tensor.dtype.itemsize
    if tensor.data is not None:
        raise invalid_value(f"{tensor.path}.data", "and parameters.binary_data_size are both given: give one")
    if tensor.n_bytes != expected:
        what = f"the bytes of {tensor.datatype} {list(tensor.shape)}"
        raise invalid_value(path, f"must be {expected}, {what}, but is {tensor.n_bytes}")
    if expected > n_left:
        raise invalid_value(
            path, f"is {expected}, but the body has {n_left} more bytes after its JSON ({HEADER_LENGTH})"
        )


def _read_json(tensor: Tensor) -> Array:
    """Values nested like the shape, or flat in row-major order."""
    path = f"{tensor.path}.data"
    if tensor.data is None:
        raise invalid_value(path, "is missing; give it, or parameters.binary_data_size")
    nested = isinstance(tensor.data, list) and tensor.data and isinstance(tensor.data[0], list)
    axes = [Axis(size, "items") for size in tensor.shape] if nested else [Axis(prod(tensor.shape), "values")]
    values = read_array(tensor.data, axes, path)
    if tensor.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a value that is too large becomes infinite, and is refused as such
            values = values.astype(tensor.dtype).astype(np.float64)
    else:
        _refuse_other_integers(values, tensor, path)
    return values.reshape(tensor.shape)


def _refuse_other_integers(values: Array, tensor: Tensor, path: str) -> None:
    limits = np.iinfo(tensor.dtype)
    fits = (values == np.rint(values)) & (values >= limits.min) & (values <= limits.max)
    for place in np.argwhere(~fits)[:1].tolist():
        index = "".join(f"[{number}]" for number in place)
        kind = f"a whole number from {limits.min} to {limits.max}, as it is {tensor.datatype}"
        raise invalid_value(f"{path}{index}", f"must be {kind}")


_EXPLAINED: tuple[OutputName, ...] = ("contributions", "residual", "error")
_BY_GROUP: OutputName = "contributions_by_group"


@dataclass(frozen=True)
class Inference:
    """A parsed infer request.

    Attributes:
        id: the client's id, repeated in the answer; None if absent.
        windows: what to forecast, (n, lookback, n_features), original units.
        question: how to explain them; None for forecasts alone.
        outputs: the requested tensors, and whether each is binary.
    """

    id: str | None
    windows: Array
    question: ExplainQuestion | None
    outputs: Mapping[OutputName, bool]


def read_inference(body: bytes, header_length: str | None, served: Served, settings: Settings) -> Inference:
    """Parses and validates an infer request.

    Args:
        body: JSON, and bytes after it.
        header_length: value of the header with the length of the JSON; None if the body is all JSON.
        served: the model.
        settings: the limits.

    Raises:
        DataError: the request is invalid; the error names each place.
    """
    head, binary = split_body(body, header_length)
    limits = find_limits(served.model, settings)
    document = parse_object(head, limits)
    _refuse_number_of_inputs(document.get("inputs"), len(served.model.config.features))
    request = validate_request(InferRequest, _leave_out_data(document), unread=())
    windows = read_tensors(_list_tensors(request, document), binary, served.model, settings.max_windows)
    groups, segments = _read_groups(request, served, limits)
    explained = _EXPLAINED if not groups and not segments else (*_EXPLAINED, _BY_GROUP)
    outputs = _choose_outputs(request, explained)
    question = _ask(request, served, windows, groups, segments) if any(name in outputs for name in explained) else None
    if question is not None:
        question.refuse_costly(settings.max_path_nodes)
    return Inference(request.id or None, windows, question, outputs)


def _refuse_number_of_inputs(inputs: Any, n_features: int) -> None:
    """Checks the number of inputs before validating each: a body has room for a million."""
    if isinstance(inputs, list) and len(inputs) > n_features:
        raise invalid_value(
            "inputs", f"must be 1 tensor, or {n_features}, one per feature, but there are {len(inputs)}"
        )


def _leave_out_data(document: dict[str, Any]) -> dict[str, Any]:
    """The request without the values of its tensors, which numpy reads."""
    inputs = document.get("inputs")
    if not isinstance(inputs, list):
        return document
    return {**document, "inputs": [{**one, "data": None} if isinstance(one, dict) else one for one in inputs]}


def _list_tensors(request: InferRequest, document: dict[str, Any]) -> list[Tensor]:
    return [
        Tensor(
            path=f"inputs[{number}]",
            name=described.name,
            datatype=described.datatype,
            shape=tuple(described.shape),
            data=raw.get("data"),
            n_bytes=described.parameters.binary_data_size if described.parameters else None,
        )
        for number, (described, raw) in enumerate(zip(request.inputs, document["inputs"], strict=True))
    ]


def _read_groups(request: InferRequest, served: Served, limits: Limits) -> tuple[Groups, Segments]:
    parameters = request.parameters
    given = {} if parameters is None else {"groups": parameters.groups, "segments": parameters.segments}
    return read_groups(parse_groups(given, limits, "parameters."), served.model)


def _choose_outputs(request: InferRequest, explained: Sequence[OutputName]) -> dict[OutputName, bool]:
    """The requested outputs, and whether each is binary; `explained` are available with explanations."""
    explain = request.parameters is not None and request.parameters.explain
    binary = request.parameters is not None and request.parameters.binary_data_output
    chosen: dict[OutputName, bool] = {}
    for number, wanted in enumerate(request.outputs or ()):
        if wanted.name in chosen:
            raise invalid_value(f"outputs[{number}].name", "is given twice")
        if wanted.name == _BY_GROUP and wanted.name not in explained:
            raise invalid_value(f"outputs[{number}].name", f"{wanted.name} needs groups or segments")
        if wanted.name in explained and not explain:
            raise invalid_value(f"outputs[{number}].name", f"{wanted.name} needs parameters.explain")
        own = wanted.parameters.binary_data if wanted.parameters else None
        chosen[wanted.name] = binary if own is None else own
    return chosen or dict.fromkeys(("predictions", *(explained if explain else ())), binary)


def _ask(request: InferRequest, served: Served, windows: Array, groups: Groups, segments: Segments) -> ExplainQuestion:
    assert request.parameters is not None
    return ExplainQuestion(
        served,
        windows,
        warn_of_range(served.model, windows),
        outputs=tuple(range(len(served.model.config.outputs))),
        detail=request.parameters.detail,
        baseline=read_baseline(request.parameters.baseline, served.model),
        groups=groups,
        segments=segments,
    )


_LENGTH = {
    "description": "Length of the JSON in bytes, if binary tensor data follows it.",
    "schema": {"type": "integer", "minimum": 0},
}
_BINARY = {"schema": {"type": "string", "format": "binary", "description": "JSON, followed by binary tensor data."}}


@operation("GET", "/v2", "inference", "read", ServerMetadata)
async def get_server_metadata(call: Call) -> Response:
    """The name and version of the service, and the protocol extensions that it supports."""
    extensions = ["binary_tensor_data", "parameters"]
    if call.parts.settings.repository_api:
        extensions.append("model_repository")
    metadata: ServerMetadata = {"name": "kanscope", "version": version("kanscope"), "extensions": extensions}
    return answer_json(metadata)


@operation("GET", MODEL_V2, "inference", "read", ModelMetadata, also=VERSION_V2)
async def get_model_metadata(call: Call) -> Response:
    """Describes the tensors of a model, and the names along their last axes.

    `/v2/models/{model}/versions/{version}` selects a version, and so do `ready` and `infer` below it.
    """
    return answer_json(describe_tensors(call.served, call.parts.registry.index().get(call.served.name, ())))


@operation("GET", f"{MODEL_V2}/ready", "inference", "read", ModelReadiness, also=f"{VERSION_V2}/ready", loads=False)
async def get_model_readiness_v2(call: Call) -> Response:
    """Readiness of a model; one that is not ready answers 503."""
    return answer_json(describe_readiness(call.state.model))


@operation(
    "POST",
    f"{MODEL_V2}/infer",
    "inference",
    "read",
    InferResponse,
    also=f"{VERSION_V2}/infer",
    body=InferRequest,
    body_types={BYTES: _BINARY},
    media_types=(JSON, BYTES),
    parameters=[{"name": HEADER_LENGTH, "in": "header", "required": False, **_LENGTH}],
    responses={200: {"content": {BYTES: _BINARY}, "headers": {HEADER_LENGTH: _LENGTH}}},
)
async def infer(call: Call) -> Response:
    """Forecasts every output for each instance, and explains the forecasts if requested, as tensors."""
    parts, served, deadline = call.parts, call.served, call.deadline
    kind: Kind = "forecast"
    with parts.work.claim(kind, place=False) as held:
        body = await read_body(call, parts.settings, held, (JSON, BYTES, ""))  # Triton's client sends none of them
        length = find_header(call.scope, HEADER_LENGTH.lower().encode())
        read = partial(read_inference, body, length, served, parts.settings)
        with span("parse"):
            inference = await parts.work.run(read, kind, PARSED_BYTE * len(body), deadline=deadline)
    if inference.question is not None:
        require_scope(call.scope["state"], "explain")
    windows = inference.windows
    call.state.windows = len(windows)
    predictions = await parts.work.predict(served.model, windows, deadline)
    cost = estimate_describing(windows, predictions.shape[1])
    warnings = await parts.work.run(partial(warn_of_range, served.model, windows), "forecast", cost)
    call.count_warnings(warnings)
    explanations: list[Explanation] = []
    if inference.question is not None:
        kind = "explanation"
        explaining = compute_explanations(inference.question, parts, deadline, "objects")
        explanations = await while_connected(call, _collect(explaining))
    answer_id = inference.id or call.state.request_id

    def describe() -> Response:
        return _answer(
            *describe_inference(served, answer_id, inference.outputs, predictions, explanations, len(warnings))
        )

    with span("encode"):
        return await parts.work.run(describe, kind, cost)


async def _collect(advances: AsyncIterator[Progress]) -> list[Explanation]:
    return [one async for advance in advances for one in advance.explanations]


def _answer(answer: InferResponse, buffers: list[bytes]) -> Response:
    """A response of JSON, or of JSON followed by binary data."""
    if not buffers:
        return answer_json(answer)
    head = encode_json(answer)
    return Response(b"".join([head, *buffers]), headers={HEADER_LENGTH: str(len(head))}, media_type=BYTES)
