"""What would the forecast be, what would it need, why does it differ: what these questions share."""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, StrictFloat
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.alternatives.what_if import DEFAULT_POINTS
from kanmodel.monitoring.trust import Neighbour
from kanmodel.structure.pruning import Fidelity, PruningRule
from service.answers.forms import Answered
from service.answers.members import (
    Answer,
    Closed,
    Features,
    Interval,
    Output,
    OutputQuery,
    Steps,
    UnitOf,
    Whole,
    about,
)
from service.answers.reference import OnReference
from service.answers.topology import Count, RuleMembers
from service.answers.windows import OfWindows, Windows


class WindowsRequest(Windows):
    """Windows in one of three forms, and an output."""

    output: Output = None


class WindowsAnswer(Answer, OfWindows):
    """What the answers to these questions say first."""

    output: Annotated[str, about("Name of the output.")]
    unit: Annotated[str | None, about("Unit of its forecasts; null if unknown.")]


WhatIfKind = TypeAliasType("WhatIfKind", Literal["shift", "value", "level"])


class Shift(Closed):
    """Evenly spaced constants that are added to a feature, in its own unit."""

    from_: Annotated[float, about("The first.", alias="from", strict=True)]
    to: Annotated[float, about("The last.", strict=True)]
    points: Annotated[Whole, about("Number of constants, at most `max_points`.", ge=2, strict=True)] = DEFAULT_POINTS


class WhatIfRequest(WindowsRequest):
    """Windows, and the changes to try."""

    features: Features = None
    steps: Steps = None
    shift: Annotated[
        Shift | None,
        about(
            "Constants to add. Absent: each feature is set to constant values from its training minimum to "
            f"its maximum, {DEFAULT_POINTS} of them or whole numbers among them, and a column of levels to each level."
        ),
    ] = None


class ResponseCurve(TypedDict):
    """Forecasts of one instance with one feature, or one column of levels, changed."""

    feature: Annotated[str, about("Name of the feature, or of the column.")]
    unit: UnitOf
    kind: WhatIfKind
    """`shift`: the values are added to the feature; `value`: they replace it; `level`: they are indices of `levels`,
    each of which is set, with the others unset."""
    values: Annotated[list[float], about("Shifts or values, in the feature's unit, or indices of levels.")]
    levels: NotRequired[Annotated[list[str], about("All levels of the column.")]]
    predictions: Annotated[list[float], about("The forecast for each, as `:predict` returns it.")]
    outside_training_range: list[bool]
    """For each, whether a changed value is outside the feature's training range."""


class WhatIfResponse(WindowsAnswer):
    """Forecasts of changed windows."""

    curves: Annotated[list[list[ResponseCurve]], about("By instance, then by feature in the order of the request.")]


class CounterfactualTarget(Closed):
    """The desired range of the forecast, in the target's unit: one of the three members."""

    at_least: Annotated[StrictFloat | None, about("Lower bound.")] = None
    at_most: Annotated[StrictFloat | None, about("Upper bound.")] = None
    between: Annotated[list[StrictFloat] | None, about("Lower and upper bound.", min_length=2, max_length=2)] = None


class CounterfactualRequest(WindowsRequest):
    """Windows, a target for their forecasts, and what may change."""

    target: CounterfactualTarget
    features: Features = None
    steps: Steps = None
    max_features: Annotated[Whole, about("Most features that change together.", ge=1, strict=True)] = 2
    within_training_range: Annotated[bool, Field(strict=True)] = True
    """Whether changed values must stay in the feature's training range. A feature shifts by at most 10 standard
    deviations in any case. One of 0 and 1 alone stays 0 or 1, so it changes only if the steps have one value."""


class ChangeInfo(TypedDict):
    """A constant added to one feature. A level that is set has 1 at each step then, and the others of its column 0."""

    feature: Annotated[str, about("Name of the feature.")]
    unit: UnitOf
    steps: Annotated[list[int], about("First and last step that change; 0 is the newest.")]
    shift: Annotated[float, about("The constant added at each of these steps, in its unit; of a level the mean added.")]
    shift_in_std: Annotated[float, about("The same in training standard deviations.")]


class SingleFeatureInfo(TypedDict):
    """The effect of changing one feature alone, by sampling its range."""

    feature: Annotated[str, about("Name of the feature.")]
    unit: UnitOf
    shift: Annotated[float | None, about("The smallest shift found that reaches the target; null if none.")]
    shift_in_std: Annotated[float | None, about("The same in training standard deviations.")]
    best_prediction: Annotated[float, about("The sampled forecast nearest to the target.")]
    searched: int
    """Samples over its range; the target may be reached unseen between two."""


class CounterfactualInfo(TypedDict):
    """The smallest change found; if the target is not reached, the change that comes nearest to it."""

    prediction: Annotated[float, about("The forecast of the instance as given.")]
    reached: Annotated[bool, about("Whether the target is reached.")]
    changes: Annotated[list[ChangeInfo], about("Largest first; empty if the forecast already reaches the target.")]
    new_prediction: Annotated[float, about("The forecast of `instance`, as `:predict` returns it.")]
    distance: Annotated[float, about("Sum of the magnitudes of `shift_in_std`.")]
    nearest_reference: Answered[Neighbour]
    instance: Annotated[list[list[float]], about("The changed window, lookback x n_features.")]
    single_features: list[SingleFeatureInfo]
    """One entry per feature, or level, that may change, in the order of the model."""


class CounterfactualResponse(WindowsAnswer):
    """The smallest changes that reach the target."""

    counterfactuals: Annotated[list[CounterfactualInfo], about("One per instance.")]


class AblateRequest(RuleMembers, WindowsRequest):
    """Windows, and the rule by which the network is pruned; the forecast of the rest is asked for."""

    model_config = ConfigDict(strict=True)


class AblationInfo(TypedDict):
    """The forecast of one instance with and without the removed edges."""

    prediction: Annotated[float, about("Of the full network, as `:predict` returns it.")]
    ablated_prediction: Annotated[float, about("Of the pruned network; equal to `prediction` if nothing is removed.")]


class AblateResponse(WindowsAnswer):
    """Forecasts of the pruned network beside those of the full one."""

    rule: Answered[PruningRule]
    fidelity: Answered[Fidelity]
    edges: Annotated[Count, about("Edges that hold functions.")]
    ablations: Annotated[list[AblationInfo], about("One per instance.")]


Contributions = Annotated[dict[str, float], about("Contribution of each feature, in the target's unit.")]


class Against(Windows):
    """The other side of a comparison: other windows, another version or another model, or several of these.

    Its windows, in any one form, are as many as those of the request; absent: the same windows.
    """

    version: str | None = None
    """Version of the other model; absent: that of the request, or the highest of another model."""
    model: str | None = None
    """Name of another model with the same features and lookback; absent: the same model."""


class CompareRequest(WindowsRequest):
    """Windows, and the other side of the comparison."""

    against: Annotated[Against, about("The other side.")]
    tolerance: Annotated[float, Field(gt=0, strict=True)] = 1e-3
    """Largest accepted residual and error of each ledger, in standard deviations of the output on the reference
    windows."""


class ComparedModel(Answer):
    """The model on the other side of a comparison."""

    times: NotRequired[Annotated[list[str], about("The times of its windows, if a series of its own has times.")]]
    series: NotRequired[Annotated[list[str], about("Their series, if these are its own and many.")]]


class DataPart(TypedDict):
    """The part of the difference that is due to the windows."""

    total: Annotated[float, about("The data part, in the target's unit.")]
    contributions: Contributions


class ModelPart(TypedDict):
    """The part of the difference that is due to the models."""

    total: Annotated[float, about("The model part, in the target's unit.")]
    contributions: Contributions
    baseline_shift: Annotated[float, about("Difference of the models at their common baseline: the rest of the total.")]


class ForecastComparison(TypedDict):
    """The difference of two forecasts: data + model = difference."""

    prediction: Annotated[float, about("The forecast.")]
    against_prediction: Annotated[float, about("The forecast that it is compared with.")]
    difference: Annotated[float, about("The first minus the second.")]
    data: DataPart
    model: ModelPart
    residual: Annotated[float, about("Largest gap between the contributions and the totals.")]
    error: Annotated[float, about("Largest estimated error of a contribution.")]
    tolerance: Annotated[float, about("Tolerance of residual and error of each ledger, in the target's unit.")]
    converged: Annotated[bool, about("Whether every ledger has converged.")]


class CompareResponse(WindowsAnswer):
    """Why the forecasts differ."""

    against: ComparedModel
    comparisons: Annotated[list[ForecastComparison], about("One per instance.")]


Share = Annotated[float, about("Share of all features' mean |contribution|.")]


class ComparisonQuery(OutputQuery):
    """Selects an output, and the model to compare with."""

    against_version: str | None = None
    """Version of the other model; absent: that of the request, or the highest of another model."""
    against_model: str | None = None
    """Name of another model with the same features and lookback; absent: the same model."""
    fidelity: Annotated[float, about("R2 of the topologies that are compared.", ge=0, le=1)] = 0.99


class FeatureChangeInfo(TypedDict):
    """Change of the importance of a feature."""

    name: Annotated[str, about("Name of the feature.")]
    share: Share
    against_share: Annotated[float, about("The same for the other model.")]
    change: Annotated[float, about("The first minus the second.")]
    interval: Annotated[Interval, about("Interval of the change, by resampling windows jointly.")]


class EdgeChangeInfo(TypedDict):
    """One edge, matched by its place in both networks; members of a missing edge are null."""

    stage: Annotated[str, about("`front` or `head`.")]
    layer: Annotated[int, about("Layer of the source node.")]
    i: Annotated[int, about("Index of the source node.")]
    j: Annotated[int, about("Index of the target sub-node, in the next layer.")]
    source: Annotated[str, about("Id of the source node.")]
    target: Annotated[str, about("Id of the target node.")]
    kept: Annotated[bool | None, about("Whether the topology of this model keeps it.")]
    against_kept: Annotated[bool | None, about("The same for the other.")]
    contribution: Annotated[float | None, about("Mean |contribution|, in the target's unit.")]
    against_contribution: Annotated[float | None, about("The same for the other model.")]
    change: Annotated[float | None, about("The first minus the second.")]
    interval: Annotated[Interval | None, about("Interval of the change.")]
    curve_difference: float | None
    """Largest difference of the two curves over the joint support, model units; null if the supports do not overlap,
    and after a layer norm."""


class ModelComparisonResponse(OnReference):
    """Comparison of this model with another one, on the reference windows of this one."""

    output: Annotated[str, about("Name of the output.")]
    unit: Annotated[str | None, about("Unit of its forecasts; null if unknown.")]
    against: ComparedModel
    fidelity: Annotated[float, about("R2 of the topologies.")]
    reference_windows: Annotated[int, about("Number of reference windows.")]
    confidence: Annotated[float, about("Confidence of the intervals.")]
    difference: Annotated[float, about("Root mean square difference of the forecasts, in the target's unit.")]
    mae: Annotated[float | None, about("Mean absolute error; null if targets are unknown.")]
    against_mae: Annotated[float | None, about("The same for the other model.")]
    features: Annotated[list[FeatureChangeInfo], about("Largest change first.")]
    edges: Annotated[list[EdgeChangeInfo], about("Edges of either network, by stage, layer, i and j.")]
