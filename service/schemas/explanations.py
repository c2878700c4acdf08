"""Ledgers: contributions of one output that add up at every layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.results import Explanation as Explained
from kanmodel.scaling import Array
from kanmodel.terms import DEFAULT_COUNT, LedgerLayer
from service.schemas.baselines import BaselineInstance, BaselineName, BaselineReference, BaselineValues, UsedBaseline
from service.schemas.closed import Closed
from service.schemas.models import Checkpoint, Name, Version
from service.schemas.predictions import ONE_FORM, Columns, Instances, Predictions, Warnings, WarningsOmitted

Detail = TypeAliasType("Detail", Literal["features", "steps", "flow"])
Method = TypeAliasType("Method", Literal["integrated_gradients", "expected_gradients"])
Groups = dict[str, Annotated[list[str], Field(min_length=1)]]
Segments = dict[str, Annotated[list[int], Field(min_length=2, max_length=2)]]
ExplainedOutput = Annotated[
    str | list[str], Field(description="The explained output; a list where a list was asked for.")
]


class ExplainRequest(Closed):
    """Windows to explain, in one of two forms, and what to say of them."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Annotated[
        str | list[str] | None,
        Field(description="Name of an output, or a list of them; may be left out where the model has one."),
    ] = None
    detail: Annotated[
        Detail,
        Field(
            description="`features` for totals; `steps` for steps x features too; `flow` for every layer's nodes "
            "and edges as well.",
        ),
    ] = "features"
    baseline: Annotated[
        BaselineName | BaselineReference | BaselineValues | BaselineInstance | None,
        Field(
            description="What a window is compared with: `mean`, each feature's mean over the reference windows; "
            f"`zero`, its training mean; `reference`, {DEFAULT_COUNT} reference windows, or as many as given, over "
            "which the explanation is averaged (expected gradients); given values; or another window.",
        ),
    ] = "mean"
    groups: Annotated[
        Groups | None,
        Field(
            description="Features that mean one thing, whose contributions are summed in `contributions_by_group`: "
            '`{"hour": ["hour_sin", "hour_cos"]}`. A member may be another group; each is in one at most. Absent: '
            "those of the checkpoint; null: none.",
        ),
    ] = None
    segments: Annotated[
        Segments | None,
        Field(
            description="Steps whose contributions are summed, by their first and last, 0 the newest: "
            '`{"last six hours": [-5, 0]}`. They may not overlap.',
        ),
    ] = None
    tolerance: Annotated[
        float,
        Field(
            description="Largest accepted residual and error, in standard deviations of the output on the reference "
            "windows.",
            gt=0,
            strict=True,
        ),
    ] = 1e-3
    receipt: Annotated[
        bool,
        Field(
            description="Whether the answer holds a `receipt`, with which `kanscope explain --receipt` repeats it.",
            strict=True,
        ),
    ] = False
    progress: Annotated[
        bool,
        Field(
            description='Whether lines such as `{"progress": {"done": 32, "total": 96, "slices": 7}}` come between the '
            "explanations, one after each slice of work: how many explanations are computed, of how many, and how many "
            "slices that took. Only with `Accept: application/x-ndjson`.",
            strict=True,
        ),
    ] = False


class EdgeContribution(TypedDict):
    """What passes through one edge."""

    i: Annotated[int, Field(description="Number of the node that the edge leaves.")]
    j: Annotated[int, Field(description="Number of the sub-node, in the next layer, that it enters.")]
    contribution: Annotated[float, Field(description="Its contribution, in the target's unit.")]


class LayerContributions(TypedDict):
    """Contributions of one layer; they sum to prediction - baseline_prediction."""

    stage: Annotated[
        Literal["input", "front", "lstm", "gru", "cell", "head", "output"],
        Field(description="Which part of the network."),
    ]
    layer: Annotated[int, Field(description="Number of the layer within its stage.")]
    nodes: NotRequired[
        Annotated[
            list[float],
            Field(description="Contribution of each node; absent where another stage lists them."),
        ]
    ]
    edges: NotRequired[
        Annotated[
            list[EdgeContribution],
            Field(description="Of the edges that leave this layer, by i, then j; absent where there are none."),
        ]
    ]


class Explanation(TypedDict):
    """The ledger of one instance and one output, in the target's unit."""

    instance: Annotated[int, Field(description="Number of the instance, from 0.")]
    output: Annotated[str, Field(description="Name of the output.")]
    prediction: Annotated[float, Field(description="The forecast F(x).")]
    baseline_prediction: Annotated[
        float, Field(description="The forecast of the baseline, F(x0); of several baselines, the mean.")
    ]
    contributions: Annotated[
        dict[str, float], Field(description="Of each feature, over all steps; they sum to F(x) - F(x0).")
    ]
    contributions_by_group: NotRequired[
        Annotated[
            dict[str, float | dict[str, float]],
            Field(
                description="Of each group, and of each feature that is in none; of each segment where there are "
                "`segments`. Only where there are groups or segments."
            ),
        ]
    ]
    steps: NotRequired[
        Annotated[
            list[list[float]],
            Field(description="lookback x n_features, oldest step first; only for detail `steps` and `flow`."),
        ]
    ]
    layers: NotRequired[
        Annotated[
            list[LayerContributions],
            Field(description="In the order input, front, lstm or gru or cell, head, output; only for detail `flow`."),
        ]
    ]
    residual: Annotated[
        float,
        Field(description="Furthest that any layer is from F(x) - F(x0), or any KAN node from in = out."),
    ]
    error: Annotated[
        float,
        Field(description="Largest estimated error of any contribution of this explanation; not below the residual."),
    ]
    tolerance: Annotated[float, Field(description="What residual and error are compared with, in the target's unit.")]
    converged: Annotated[
        bool,
        Field(
            description="Whether both are within the tolerance, and no node of the network jumps between two "
            "neighbouring points of the path."
        ),
    ]
    path_nodes: Annotated[int, Field(description="Nodes of the integration path that were used.")]
    standard_error: Annotated[
        dict[str, float] | None,
        Field(description="Of each feature's contribution, for baseline `reference`; else null."),
    ]


class Versions(TypedDict):
    """What computed the numbers."""

    kanscope: Annotated[str, Field(description="This service.")]
    torch: Annotated[str, Field(description="PyTorch, with its build.")]
    numpy: Annotated[str, Field(description="NumPy.")]
    python: Annotated[str, Field(description="Python.")]


class InputHash(TypedDict):
    """What was explained, without its values."""

    sha256: Annotated[
        str,
        Field(
            description="SHA-256 of the windows in original units as little-endian float64, row by row: in Python "
            '`hashlib.sha256(numpy.asarray(instances, "<f8").tobytes())`.',
            pattern="^[0-9a-f]{64}$",
        ),
    ]
    shape: Annotated[list[int], Field(description="[n, lookback, n_features].", min_length=3, max_length=3)]


class Receipt(TypedDict):
    """What is needed to repeat an answer: `kanscope explain --receipt` does, from the answer and the windows."""

    checkpoint: Checkpoint
    versions: Versions
    input: InputHash
    method: Annotated[
        Method,
        Field(
            description="`integrated_gradients` along the straight path from one baseline, or `expected_gradients`, "
            "their mean over several; units, nodes and edges by conductance along the same path."
        ),
    ]
    output: ExplainedOutput
    detail: Annotated[Detail, Field(description="What is said.")]
    baseline: Annotated[UsedBaseline, Field(description="What the windows are compared with, and the seed of a draw.")]
    groups: Annotated[Groups, Field(description="Features that are summed; empty where none are.")]
    segments: Annotated[Segments, Field(description="Steps that are summed; empty where none are.")]
    tolerance: Annotated[
        float, Field(description="Largest accepted residual and error, in standard deviations of the output.")
    ]
    path_nodes: Annotated[
        int,
        Field(
            description="Nodes of the path to begin with, positions of a Clenshaw-Curtis rule: a multiple of 4, and "
            "one.",
            ge=5,
        ),
    ]
    halvings: Annotated[
        int,
        Field(
            description="How often a part of a path may be halved where its residual or error is above its share.", ge=0
        ),
    ]


class ExplainHeader(TypedDict):
    """What all explanations of a request share; the first line of an NDJSON answer."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: ExplainedOutput
    unit: Annotated[
        str | list[str | None] | None,
        Field(description="Unit of the target, null where unknown; a list where `output` is one."),
    ]
    baseline: UsedBaseline
    predictions: Predictions
    warnings: Warnings
    warnings_omitted: NotRequired[WarningsOmitted]
    receipt: NotRequired[Annotated[Receipt, Field(description="Where it was asked for.")]]


class ExplainResponse(ExplainHeader):
    """The explanations of a request."""

    explanations: Annotated[
        list[Explanation],
        Field(description="One for each instance; of several outputs, one for each instance and output."),
    ]


def describe_explanation(explained: Explained, detail: Detail, first: int) -> Iterator[Explanation]:
    """An explanation for each window.

    Args:
        explained: contributions for windows.
        detail: what to say.
        first: number of the first of them in the request.
    """
    features, errors = explained.features, explained.standard_error
    for window in range(len(explained)):
        explanation: Explanation = {
            "instance": first + window,
            "output": explained.output,
            "prediction": float(explained.predictions[window]),
            "baseline_prediction": explained.baseline_prediction,
            "contributions": dict(zip(features, explained.contributions[window].tolist(), strict=True)),
            "residual": float(explained.residual[window]),
            "error": float(explained.error[window]),
            "tolerance": explained.tolerance,
            "converged": bool(explained.converged[window]),
            "path_nodes": int(explained.path_nodes[window]),
            "standard_error": None if errors is None else dict(zip(features, errors[window].tolist(), strict=True)),
        }
        if explained.groups or explained.segments:
            explanation["contributions_by_group"] = _describe_groups(explained, window)
        if detail != "features":
            explanation["steps"] = explained.steps[window].tolist()
        if detail == "flow":
            explanation["layers"] = [_describe_layer(layer, window) for layer in explained.layers]
        yield explanation


def _describe_groups(explained: Explained, window: int) -> dict[str, float | dict[str, float]]:
    values, segments = explained.contributions_by_group[window].tolist(), explained.segments
    if segments:
        values = [dict(zip(segments, of_name, strict=True)) for of_name in values]
    return dict(zip(explained.group_names, values, strict=True))


def _describe_layer(layer: LedgerLayer, window: int) -> LayerContributions:
    described: LayerContributions = {"stage": layer.stage, "layer": layer.layer}  # type: ignore[typeddict-item]
    if layer.nodes is not None:
        described["nodes"] = layer.nodes[window].tolist()
    if layer.edges is not None:
        described["edges"] = _describe_edges(layer.edges[window])
    return described


def _describe_edges(contributions: Array) -> list[EdgeContribution]:
    """(n_subnodes, n_nodes) -> a list by i, then j."""
    return [
        {"i": i, "j": j, "contribution": value}
        for i, column in enumerate(contributions.T.tolist())
        for j, value in enumerate(column)
    ]
