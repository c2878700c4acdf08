"""The Open Inference Protocol (V2): what the server and its models are, and POST /v2/models/{model}/infer."""

import re
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from service.answers.explanations import BaselineName
from service.answers.members import Checkpoint, Closed, Name, Version, about

MAX_OUTPUTS = 64


Datatype = TypeAliasType(
    "Datatype",
    Literal["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"],
)


EXPLAINED = ("contributions", "contributions_by_group", "residual", "error")


TRUST = ("distance", "p_value")


NAMES = ("predictions", *EXPLAINED, *TRUST)  # of tensors, besides those of bounds


BOUND_TENSOR = re.compile(r"(lower|upper)@0\.[0-9]+")


_PATTERN = f"^({'|'.join(NAMES)}|{BOUND_TENSOR.pattern})$"  # refused in words: see `_choose_outputs`


OutputName = Annotated[str, Field(strict=True, max_length=32, json_schema_extra={"pattern": _PATTERN})]


class ServerMetadata(TypedDict):
    """What answers."""

    name: Annotated[str, about("Name of the service.")]
    version: Annotated[str, about("Its version.")]
    extensions: Annotated[list[str], about("Protocol extensions that it supports.")]


class TensorMetadata(TypedDict):
    """A tensor of requests or answers."""

    name: Annotated[str, about("Its name.")]
    datatype: Annotated[Datatype, about("Its datatype.")]
    shape: Annotated[list[int], about("Its shape; -1 for any size.")]


class ModelMetadataParameters(TypedDict):
    """The names along the axes of the tensors."""

    checkpoint: Checkpoint
    features: list[str]
    """Names along the last axis of the input; one tensor per feature may be sent instead."""
    outputs: Annotated[list[str], about("Names along the last axis of `predictions`.")]
    bounded_outputs: Annotated[list[str], about("Names along that of `lower@0.8` and `upper@0.8`, by the levels.")]
    levels: Annotated[list[float], about("Levels of the prediction intervals, ascending; empty without intervals.")]
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

    @property
    def dtype(self) -> np.dtype[Any]:
        """The datatype in numpy's terms, little-endian."""
        return np.dtype(self.datatype.lower().replace("fp", "float")).newbyteorder("<")


class InferOutputParameters(Closed):
    """Parameters of a requested output."""

    binary_data: Annotated[bool | None, Field(strict=True)] = None
    """Whether its values are returned as binary data after the JSON."""


class InferOutputRequest(Closed):
    """A requested output tensor."""

    name: OutputName
    """`predictions`, `contributions`, `contributions_by_group`, `residual` or `error`, or the bounds of prediction
    intervals by their level, such as `lower@0.8`."""
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
    trust: Annotated[bool, Field(strict=True)] = False
    """Whether to add the tensors `distance` and `p_value`: how unlike the reference windows each instance is, as in
    `TrustInfo`. Needs the scope explain too."""
    intervals: Annotated[str | None, Field(strict=True)] = None
    """`intervals` of `PredictRequest` as a string: `all`, or a list in JSON such as `[0.8, 0.95]`. They are in the
    tensors `lower@0.8`, `upper@0.8` and so on, which `outputs` may name without this parameter too."""
    binary_data_output: Annotated[bool, about("Default of `binary_data` for all outputs.", strict=True)] = False


class InferRequest(Closed):
    """Windows to forecast, as tensors."""

    id: Annotated[str | None, about("Id of the request, repeated in the answer.", max_length=128, strict=True)] = None
    model_name: Annotated[str | None, about("Sent by KServe's client besides the path; ignored.", strict=True)] = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InferInput], about("The input tensors.", min_length=1, fail_fast=True)]
    outputs: Annotated[list[InferOutputRequest] | None, Field(max_length=MAX_OUTPUTS)] = None
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
    """`predictions`, n x n_outputs; `lower@0.8`, `upper@0.8` and so on, n x n_bounded_outputs; `contributions`, n x
    n_outputs x n_features or, by steps, n x n_outputs x lookback x n_features; `contributions_by_group`, n x n_outputs
    x n_names or, by segments, n x n_outputs x n_names x n_segments; `residual` and `error`, n x n_outputs. In the unit
    of the target. `distance` and `p_value`, n, are those of `TrustInfo`; the latter is 1 where all reference windows
    overlap."""
    shape: Annotated[list[int], about("Its shape.")]
    datatype: Annotated[Literal["FP64"], about("Datatype of the values.")]
    parameters: NotRequired[InferOutputSize]
    data: NotRequired[Annotated[list[float], about("Its values, flat in row-major order; absent if they are binary.")]]


class InferResponse(TypedDict):
    """Forecasts, as tensors."""

    model_name: Name
    model_version: Version
    id: Annotated[str, about("Id of the request: its own, or that of `X-Request-Id`.")]
    parameters: InferResponseParameters
    outputs: Annotated[list[InferOutput], about("The output tensors, in the order of the request.")]
