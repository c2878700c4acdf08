"""Ledgers: contributions to one output that are complete at every layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.data import Array
from kanmodel.explain.attribution import Explanation as Explained
from kanmodel.explain.baseline import DEFAULT_COUNT
from kanmodel.explain.effects import Effects
from kanmodel.explain.paths.path import LedgerLayer
from service.schemas.baselines import BaselineInstance, BaselineName, BaselineReference, BaselineValues, UsedBaseline
from service.schemas.closed import Closed
from service.schemas.models import Checkpoint, Name, Version
from service.schemas.predictions import ONE_FORM, Columns, Instances, Predictions, Warnings, WarningsOmitted

Detail = TypeAliasType("Detail", Literal["features", "steps", "flow"])
Method = TypeAliasType("Method", Literal["integrated_gradients", "expected_gradients"])
Groups = dict[str, Annotated[list[str], Field(min_length=1)]]
Segments = dict[str, Annotated[list[int], Field(min_length=2, max_length=2)]]
ExplainedOutput = Annotated[str | list[str], Field(description="The explained output; a list if the request has one.")]


class ExplainRequest(Closed):
    """Windows to explain, in one of two forms, and the options of the explanation."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Annotated[
        str | list[str] | None,
        Field(description="Name of an output, or a list of names; optional if the model has one."),
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
            description="The baseline of the path: `mean`, each feature's mean over the reference windows; `zero`, its "
            f"training mean; `reference`, the average over {DEFAULT_COUNT} reference windows, or as many as given "
            "(expected gradients); given values; or another window.",
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
            '`{"last six hours": [-5, 0]}`. They may not overlap. Steps that are in none are entries of their own, '
            "such as `other steps -23 to -6`.",
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
    effects: Annotated[
        bool,
        Field(
            description="Whether each explanation has `effects` too: what the forecast loses without each feature, and "
            "what each does alone; with detail `steps` or `flow` also `step_effects`. 2 forecasts for each instance, "
            "output, baseline and feature, or cell, which count as path nodes in `max_path_nodes`.",
            strict=True,
        ),
    ] = False
    receipt: Annotated[
        bool,
        Field(
            description="Whether to include a `receipt`, from which `kanscope explain --receipt` repeats the answer.",
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
    """The contribution of one edge."""

    i: Annotated[int, Field(description="Index of the source node.")]
    j: Annotated[int, Field(description="Index of the target sub-node, in the next layer.")]
    contribution: Annotated[float, Field(description="Its contribution, in the target's unit.")]


class LayerContributions(TypedDict):
    """Contributions of one layer; they sum to prediction - baseline_prediction."""

    stage: Annotated[
        Literal["input", "front", "lstm", "gru", "cell", "head", "output"],
        Field(description="Part of the network."),
    ]
    layer: Annotated[int, Field(description="Index of the layer within its stage.")]
    nodes: NotRequired[
        Annotated[
            list[float],
            Field(description="Contribution of each node; absent if another stage lists them."),
        ]
    ]
    edges: NotRequired[
        Annotated[
            list[EdgeContribution],
            Field(description="Contributions of the edges from this layer, by i, then j; absent if there are none."),
        ]
    ]


class Effect(TypedDict):
    """What one feature does to a forecast, in the target's unit (feature ablation); both are differences of forecasts.

    For a feature that acts on its own both equal its contribution. `removed - alone` says how much it acts together
    with others. Neither sums to F(x) - F(x0).
    """

    removed: Annotated[float, Field(description="The loss by removal: F(x) - F(x with the feature at x0).")]
    alone: Annotated[float, Field(description="The effect alone: F(x0 with the feature at x) - F(x0).")]


class StepEffects(TypedDict):
    """The same for each step of each feature, lookback x n_features, oldest step first."""

    removed: Annotated[list[list[float]], Field(description="F(x) - F(x with that cell at x0).")]
    alone: Annotated[list[list[float]], Field(description="F(x0 with that cell at x) - F(x0).")]


class Explanation(TypedDict):
    """The ledger of one instance and one output, in the target's unit."""

    instance: Annotated[int, Field(description="Index of the instance.")]
    output: Annotated[str, Field(description="Name of the output.")]
    prediction: Annotated[float, Field(description="The forecast F(x).")]
    baseline_prediction: Annotated[
        float, Field(description="The forecast of the baseline, F(x0); the mean over several baselines.")
    ]
    contributions: Annotated[
        dict[str, float],
        Field(description="Contribution of each feature, over all steps; they sum to F(x) - F(x0) (completeness)."),
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
    effects: NotRequired[Annotated[dict[str, Effect], Field(description="Of each feature; only where asked for.")]]
    effects_by_group: NotRequired[
        Annotated[
            dict[str, Effect | dict[str, Effect]],
            Field(description="Of what `contributions_by_group` is of, in the same form; with `effects`."),
        ]
    ]
    step_effects: NotRequired[
        Annotated[StepEffects, Field(description="Of each cell; with `effects` and detail `steps` or `flow`.")]
    ]
    layers: NotRequired[
        Annotated[
            list[LayerContributions],
            Field(description="In the order input, front, lstm or gru or cell, head, output; only for detail `flow`."),
        ]
    ]
    residual: Annotated[
        float,
        Field(
            description="Largest deviation of a layer's sum from F(x) - F(x0), or of a KAN node from in = out (Captum: "
            "convergence delta)."
        ),
    ]
    error: Annotated[
        float,
        Field(description="Largest estimated error of any contribution of this explanation; not below the residual."),
    ]
    tolerance: Annotated[float, Field(description="The bound on residual and error, in the target's unit.")]
    converged: Annotated[
        bool,
        Field(
            description="Whether both are within the tolerance, and no node of the network jumps between two "
            "neighbouring points of the path."
        ),
    ]
    path_nodes: Annotated[int, Field(description="Number of nodes of the integration path.")]
    standard_error: Annotated[
        dict[str, float] | None,
        Field(description="Standard error of each feature's contribution, for baseline `reference`; otherwise null."),
    ]


class Versions(TypedDict):
    """Versions of the software that computed the numbers."""

    kanscope: Annotated[str, Field(description="This service.")]
    torch: Annotated[str, Field(description="PyTorch, with its build.")]
    numpy: Annotated[str, Field(description="NumPy.")]
    python: Annotated[str, Field(description="Python.")]


class InputHash(TypedDict):
    """A hash of the explained windows."""

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
    """What `kanscope explain --receipt` needs, besides the windows, to reproduce an answer."""

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
    detail: Annotated[Detail, Field(description="Level of detail.")]
    effects: NotRequired[Annotated[bool, Field(description="True if effects were requested.")]]
    baseline: Annotated[UsedBaseline, Field(description="The baseline, with the seed of a draw.")]
    groups: Annotated[Groups, Field(description="Groups of features whose contributions are summed; may be empty.")]
    segments: Annotated[
        Segments,
        Field(
            description="Segments of steps whose contributions are summed, with those of steps that no given one "
            "holds; may be empty."
        ),
    ]
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
        Field(description="Most bisections of any part of a path.", ge=0),
    ]


class ExplainHeader(TypedDict):
    """What all explanations of a request share; the first line of an NDJSON answer."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: ExplainedOutput
    unit: Annotated[
        str | list[str | None] | None,
        Field(description="Unit of the target, null if unknown; a list if `output` is one."),
    ]
    baseline: UsedBaseline
    predictions: Predictions
    warnings: Warnings
    warnings_omitted: NotRequired[WarningsOmitted]
    receipt: NotRequired[Annotated[Receipt, Field(description="Only if requested.")]]


class ExplainResponse(ExplainHeader):
    """The explanations of a request."""

    explanations: Annotated[
        list[Explanation],
        Field(description="One per instance; with several outputs, one per instance and output."),
    ]


def describe_explanation(explained: Explained, detail: Detail, first: int) -> Iterator[Explanation]:
    """Describes the explanation of each window.

    Args:
        explained: contributions for windows.
        detail: the level of detail.
        first: index of the first window in the request.
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
        if explained.effects is not None:
            explanation["effects"] = _describe_effects(explained, window)
        if explained.effects_by_group is not None:
            explanation["effects_by_group"] = _describe_effects_by_group(explained, window)
        if explained.step_effects is not None:
            removed, alone = explained.step_effects.removed, explained.step_effects.alone
            explanation["step_effects"] = {"removed": removed[window].tolist(), "alone": alone[window].tolist()}
        if detail == "flow":
            explanation["layers"] = [_describe_layer(layer, window) for layer in explained.layers]
        yield explanation


def _describe_effects(explained: Explained, window: int) -> dict[str, Effect]:
    assert explained.effects is not None
    return dict(zip(explained.features, _list_effects(explained.effects, window), strict=True))


def _describe_effects_by_group(explained: Explained, window: int) -> dict[str, Effect | dict[str, Effect]]:
    assert explained.effects_by_group is not None
    values, segments = _list_effects(explained.effects_by_group, window), list(explained.segments)
    if not segments:
        return dict(zip(explained.group_names, values, strict=True))
    of_names = [values[first : first + len(segments)] for first in range(0, len(values), len(segments))]
    by_segment = [dict(zip(segments, of_name, strict=True)) for of_name in of_names]
    return dict(zip(explained.group_names, by_segment, strict=True))


def _list_effects(effects: Effects, window: int) -> list[Effect]:
    """The effects of all parts, in order."""
    pairs = zip(effects.removed[window].ravel().tolist(), effects.alone[window].ravel().tolist(), strict=True)
    return [{"removed": removed, "alone": alone} for removed, alone in pairs]


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
