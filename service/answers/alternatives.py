"""What would the forecast be, what would it need, why does it differ: requests and answers."""

from typing import Annotated

from pydantic import ConfigDict, Field, StrictFloat
from typing_extensions import TypedDict

from kanmodel.alternatives.counterfactual import Counterfactual
from kanmodel.alternatives.questions import CounterfactualQuestion
from kanmodel.alternatives.what_if import DEFAULT_POINTS, Curve
from kanmodel.attribution.comparison import Comparison
from kanmodel.attribution.ledger import MAX_TOLERANCE
from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.structure.pruning import Fidelity, PruningRule
from kanmodel.structure.questions import ComparisonQuestion
from service.answers.forms import Answered, join
from service.answers.members import Answer, Closed, ComparedModel, Features, Output, OutputQuery, Steps, Whole, about
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


class WhatIfResponse(WindowsAnswer):
    """Forecasts of changed windows."""

    curves: Annotated[list[list[Answered[Curve]]], about("By instance, then by feature in the order of the request.")]


class CounterfactualTarget(Closed):
    """The desired range of the forecast, in the target's unit: one of the three members."""

    at_least: Annotated[StrictFloat | None, about("Lower bound.")] = None
    at_most: Annotated[StrictFloat | None, about("Upper bound.")] = None
    between: Annotated[list[StrictFloat] | None, about("Lower and upper bound.", min_length=2, max_length=2)] = None


class CounterfactualRequest(WindowsRequest):
    """Windows, a target for their forecasts, and what may change."""

    asks = CounterfactualQuestion

    target: CounterfactualTarget
    features: Features = None
    steps: Steps = None
    max_features: Annotated[Whole, Field(ge=1, strict=True)] = CounterfactualQuestion.max_features
    within_training_range: Annotated[bool, Field(strict=True)] = True
    """Whether changed values must stay in the feature's training range. A feature shifts by at most 10 standard
    deviations in any case. One of 0 and 1 alone stays 0 or 1, so it changes only if the steps have one value."""


class CounterfactualResponse(WindowsAnswer):
    """The smallest changes that reach the target."""

    counterfactuals: Annotated[list[Answered[Counterfactual]], about("One per instance.")]


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

    asks = ComparisonQuestion

    against: Annotated[Against, about("The other side.")]
    tolerance: Annotated[float, Field(gt=0, le=MAX_TOLERANCE, strict=True)] = ComparisonQuestion.tolerance


class CompareResponse(WindowsAnswer):
    """Why the forecasts differ."""

    against: ComparedModel
    comparisons: Annotated[list[Answered[Comparison]], about("One per instance.")]


class ComparisonQuery(OutputQuery):
    """Selects an output, and the model to compare with."""

    against_version: str | None = None
    """Version of the other model; absent: that of the request, or the highest of another model."""
    against_model: str | None = None
    """Name of another model with the same features and lookback; absent: the same model."""
    fidelity: Annotated[float, about("R2 of the topologies that are compared.", ge=0, le=1)] = 0.99


ModelComparisonResponse = join("ModelComparisonResponse", OnReference, Answered[ModelComparison])
