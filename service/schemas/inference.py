"""The Open Inference Protocol (V2): requests and answers in tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.data import Array
from service.models.registry import Entry, Served
from service.schemas.baselines import BaselineName
from service.schemas.closed import Closed
from service.schemas.explanations import Explanation
from service.schemas.models import Checkpoint, Name, Version

Datatype = TypeAliasType(
    "Datatype",
    Literal["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"],
)
OutputName = TypeAliasType(
    "OutputName", Literal["predictions", "contributions", "contributions_by_group", "residual", "error"]
)
OutputDatatype = Annotated[Literal["FP64"], Field(description="Datatype of the values.")]
TensorShape = Annotated[list[int], Field(description="Its shape; -1 for any size.")]


class ServerMetadata(TypedDict):
    """What answers."""

    name: Annotated[str, Field(description="Name of the service.")]
    version: Annotated[str, Field(description="Its version.")]
    extensions: Annotated[list[str], Field(description="Protocol extensions that it supports.")]


class TensorMetadata(TypedDict):
    """A tensor of requests or answers."""

    name: Annotated[str, Field(description="Its name.")]
    datatype: Annotated[Datatype, Field(description="Its datatype.")]
    shape: TensorShape


class ModelMetadataParameters(TypedDict):
    """The names along the axes of the tensors."""

    checkpoint: Checkpoint
    features: Annotated[
        list[str],
        Field(description="Names along the last axis of the input; one tensor per feature may be sent instead."),
    ]
    outputs: Annotated[list[str], Field(description="Names along the last axis of `predictions`.")]
    groups: Annotated[
        list[str],
        Field(
            description="Names along the third axis of `contributions_by_group` for a request without groups; empty if "
            "the checkpoint has none."
        ),
    ]


class ModelMetadata(TypedDict):
    """The tensors of a model."""

    name: Name
    versions: Annotated[list[str], Field(description="Versions that are ready, highest first.")]
    platform: Annotated[Literal["kanscope"], Field(description="Always `kanscope`.")]
    inputs: Annotated[list[TensorMetadata], Field(description="Tensors of a request.")]
    outputs: Annotated[list[TensorMetadata], Field(description="Tensors of an answer by default.")]
    parameters: ModelMetadataParameters


class InferInputParameters(Closed):
    """Parameters of an input."""

    binary_data_size: Annotated[
        int | None,
        Field(
            description="Length of its values in the binary part, which has them in the order of the inputs.",
            ge=0,
            strict=True,
        ),
    ] = None


class InferInput(Closed):
    """An input tensor."""

    name: Annotated[
        str,
        Field(
            description="`instances` for all features, n x lookback x n_features; or the name of a feature, n x "
            "lookback, one tensor for each. Original units, oldest step first.",
            strict=True,
        ),
    ]
    shape: Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(description="Its shape.", max_length=8)]
    datatype: Annotated[Datatype, Field(description="Its datatype; values are read as numbers of any datatype.")]
    parameters: InferInputParameters | None = None
    data: Annotated[
        Any,
        Field(description="Its values, nested like the shape or flat in row-major order; absent if they are binary."),
    ] = None


class InferOutputParameters(Closed):
    """Parameters of a requested output."""

    binary_data: Annotated[
        bool | None, Field(description="Whether its values are returned as binary data after the JSON.", strict=True)
    ] = None


class InferOutputRequest(Closed):
    """A requested output tensor."""

    name: Annotated[OutputName, Field(description="Its name.")]
    parameters: InferOutputParameters | None = None


class InferParameters(Closed):
    """Parameters of a request."""

    explain: Annotated[
        bool,
        Field(
            description="Whether to explain the forecasts, in the tensors `contributions`, `residual` and `error`. "
            "Needs an API key with the scope explain, if keys are needed.",
            strict=True,
        ),
    ] = False
    detail: Annotated[
        Literal["features", "steps"],
        Field(description="Whether `contributions` are of features, or of steps and features."),
    ] = "features"
    baseline: Annotated[BaselineName, Field(description="The baseline, as in `ExplainRequest`.")] = "mean"
    groups: Annotated[
        str | None,
        Field(
            description="`groups` of `ExplainRequest` as a string of JSON, such as "
            '`{"hour": ["hour_sin", "hour_cos"]}` or `null`; by default those of the checkpoint.',
            strict=True,
        ),
    ] = None
    segments: Annotated[
        str | None,
        Field(
            description='`segments` of `ExplainRequest` as a string of JSON, such as `{"last six hours": [-5, 0]}`.',
            strict=True,
        ),
    ] = None
    binary_data_output: Annotated[bool, Field(description="Default of `binary_data` for all outputs.", strict=True)] = (
        False
    )


class InferRequest(Closed):
    """Windows to forecast, as tensors."""

    id: Annotated[
        str | None,
        Field(description="Id of the request, repeated in the answer.", max_length=128, strict=True),
    ] = None
    model_name: Annotated[
        str | None, Field(description="Sent by KServe's client besides the path; ignored.", strict=True)
    ] = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InferInput], Field(description="The input tensors.", min_length=1, fail_fast=True)]
    outputs: Annotated[
        list[InferOutputRequest] | None,
        Field(description="The requested outputs; absent or empty: all.", max_length=5),
    ] = None


class InferResponseParameters(TypedDict):
    """Parameters of an answer."""

    checkpoint: Checkpoint
    outside_range: Annotated[
        int, Field(description="Number of pairs of a window and a feature outside the training range.", ge=0)
    ]
    converged: NotRequired[
        Annotated[bool, Field(description="Whether every explanation has converged; only with explanations.")]
    ]
    groups: NotRequired[
        Annotated[
            list[str],
            Field(
                description="Names along the third axis of `contributions_by_group`: the groups, then the features "
                "that are in none; only with groups or segments."
            ),
        ]
    ]
    segments: NotRequired[Annotated[list[str], Field(description="Names along its fourth axis; only with segments.")]]


class InferOutputSize(TypedDict):
    """Parameters of an output in an answer."""

    binary_data_size: Annotated[int, Field(description="Length of its values in the binary part.")]


class InferOutput(TypedDict):
    """An output tensor."""

    name: Annotated[
        OutputName,
        Field(
            description="`predictions`, n x n_outputs; `contributions`, n x n_outputs x n_features or, by steps, n x "
            "n_outputs x lookback x n_features; `contributions_by_group`, n x n_outputs x n_names or, by segments, n x "
            "n_outputs x n_names x n_segments; `residual` and `error`, n x n_outputs. In the unit of the target."
        ),
    ]
    shape: Annotated[list[int], Field(description="Its shape.")]
    datatype: OutputDatatype
    parameters: NotRequired[InferOutputSize]
    data: NotRequired[
        Annotated[list[float], Field(description="Its values, flat in row-major order; absent if they are binary.")]
    ]


class InferResponse(TypedDict):
    """Forecasts, as tensors."""

    model_name: Name
    model_version: Version
    id: Annotated[str, Field(description="Id of the request: its own, or that of `X-Request-Id`.")]
    parameters: InferResponseParameters
    outputs: Annotated[list[InferOutput], Field(description="The output tensors, in the order of the request.")]


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
