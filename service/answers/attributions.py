"""GET /v1/models/{model}/attributions: the importance of each feature over the reference windows."""

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from kanmodel.report import faithfulness
from kanmodel.report.faithfulness import Agreement
from kanmodel.structure.importance import Attribution
from service.answers.forms import Answered
from service.answers.members import Answer, FormatParameter, Interval, OutputQuery, ThemeParameter, about
from service.answers.reference import ReferenceSpan, ReferenceWarnings

_BASELINES = f"The two baselines; `reference` averages over {faithfulness.N_BASELINES} reference windows."


class AttributionsQuery(OutputQuery):
    """The output, and optional parts of the table."""

    baselines: bool = False
    """Whether to include the agreement of the baselines `mean`, `zero` and `reference`; it takes longer."""
    groups: str | None = None
    """`groups` of `ExplainRequest` as a string of JSON, such as `{"hour": ["hour_sin", "hour_cos"]}` or `null`; by
    default those of the checkpoint."""
    format: FormatParameter = None
    theme: ThemeParameter = "auto"


class ReferenceInfo(ReferenceSpan):
    """The data and seeds behind the table."""

    seed: Annotated[int, about("Seed of the bootstrap and of the permutations.")]
    confidence: float
    """Confidence of the intervals (circular block bootstrap, block lengths chosen from the data)."""


class StepImportance(TypedDict):
    """One step of the windows, in the target's unit."""

    mean_abs_contribution: Annotated[float, about("Mean magnitude of its contribution, summed over features.")]
    interval: Annotated[Interval, about("95 % interval of that mean.")]


class AttributionsResponse(Answer):
    """The features and steps of a model, by their contribution to one output."""

    output: Annotated[str, about("Name of the output.")]
    unit: Annotated[str | None, about("Unit of the target; null if unknown.")]
    reference: ReferenceInfo
    warnings: ReferenceWarnings
    features: Annotated[list[Answered[Attribution]], about("Most important first.")]
    groups: list[Answered[Attribution]]
    """The groups, of the request or the checkpoint, and the features that are in none, most important first; empty
    where there are no groups."""
    steps: Annotated[list[StepImportance], about("Oldest first.")]
    baselines: NotRequired[list[Answered[Agreement]]]
    """One entry per pair of baselines; only if requested."""
