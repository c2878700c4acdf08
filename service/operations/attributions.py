"""GET /v1/models/{model}/attributions: the importance of each feature over the reference windows."""

from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from fastapi import Response
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.model import Model
from kanmodel.report import faithfulness
from kanmodel.report.faithfulness import Agreement
from kanmodel.structure import importance
from kanmodel.structure.importance import Importance
from kanmodel.tables.statistics.bootstrap import CONFIDENCE, SEED
from service.models.registry import Served
from service.operations.members import Answer, FormatParameter, Interval, OutputQuery, ThemeParameter, about, describe
from service.operations.reference import ReferenceSpan, ReferenceWarnings, describe_span
from service.operations.route import Call, result
from service.wire.json import JSON, SVG, answer_json, answer_svg
from service.wire.windows import parse_groups, read_groups

Verdict = TypeAliasType("Verdict", importance.Verdict)
ComparedBaseline = TypeAliasType("ComparedBaseline", faithfulness.ComparedBaseline)
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


class RedundantFeature(TypedDict):
    """A feature that is strongly correlated on the reference windows."""

    name: Annotated[str, about("Name of the feature.")]
    correlation: Annotated[float, about("Pearson correlation over all windows and steps.")]


class FeatureAttribution(TypedDict):
    """One feature; contributions and errors in the target's unit."""

    name: Annotated[str, about("Name of the feature.")]
    rank: Annotated[int, about("1 for the largest mean |contribution|.")]
    verdict: Verdict
    """The first that holds, where the even share is 1 / n_features: `disconnected`, no path of live edges and nonzero
    weights leads to the output, and its contribution is exactly 0; `unseen`, it has one value in all reference windows,
    such as a holiday that none of them has, so they do not show what it does; `important`, the lower bound of its share
    is at least 0.5 even shares, and that of its permutation effect above 0 where targets are known; `negligible`, the
    upper bound of its share is below 0.2 even shares, and the interval of its permutation effect includes 0 where
    targets are known; else `weak`."""
    connected: Annotated[bool, about("Whether a path of live edges and nonzero weights leads to the output.")]
    mean_abs_contribution: float
    """Mean magnitude of its contribution, summed over steps; baseline `mean`."""
    interval: Annotated[Interval, about("95 % interval of that mean.")]
    mean_contribution: Annotated[float, about("Signed mean of its contribution.")]
    share: Annotated[float, about("Share of all features' mean |contribution|; the shares sum to 1.")]
    share_interval: Annotated[Interval, about("95 % interval of the share.")]
    permutation_mae_increase: float | None
    """Growth of the mean absolute error when its series are permuted between windows: three times between all reference
    windows, or, of a large model, fewer times and between fewer, taken evenly; null without targets."""
    permutation_interval: Annotated[Interval | None, about("95 % interval of the growth; null without targets.")]
    pykan_feature_score: float | None
    """pykan's `feature_score`, model units; null after an LSTM, where it would be about units, and with too few
    reference windows."""
    redundant_with: list[RedundantFeature]
    """Features with |correlation| >= 0.9, which the model may use in place of this one."""


class GroupedAttribution(FeatureAttribution):
    """One group of features, or a feature that is in none: the group's contribution is the sum of its features'.

    Its series are permuted together, and the even share is 1 / number of names that no group holds, of which the shares
    sum to 1. `pykan_feature_score` is null and `redundant_with` empty.
    """

    members: Annotated[list[str], about("Names of the features in it, at any depth.")]


class StepImportance(TypedDict):
    """One step of the windows, in the target's unit."""

    mean_abs_contribution: Annotated[float, about("Mean magnitude of its contribution, summed over features.")]
    interval: Annotated[Interval, about("95 % interval of that mean.")]


class BaselineAgreement(TypedDict):
    """Agreement of two baselines on the importance of features."""

    baselines: Annotated[list[ComparedBaseline], about(_BASELINES, min_length=2, max_length=2)]
    rank_correlation: Annotated[float, about("Spearman correlation of the features' mean |contribution|.")]
    share_difference: Annotated[float, about("Largest difference between the shares of a feature.")]
    feature: Annotated[str, about("Name of the feature with that difference.")]


class AttributionsResponse(Answer):
    """The features and steps of a model, by their contribution to one output."""

    output: Annotated[str, about("Name of the output.")]
    unit: Annotated[str | None, about("Unit of the target; null if unknown.")]
    reference: ReferenceInfo
    warnings: ReferenceWarnings
    features: Annotated[list[FeatureAttribution], about("Most important first.")]
    groups: list[GroupedAttribution]
    """The groups, of the request or the checkpoint, and the features that are in none, most important first; empty
    where there are no groups."""
    steps: Annotated[list[StepImportance], about("Oldest first.")]
    baselines: NotRequired[list[BaselineAgreement]]
    """One entry per pair of baselines; only if requested."""


def describe_attributions(
    served: Served, importance: Importance, agreements: Sequence[Agreement] | None = None
) -> AttributionsResponse:
    """The table for one output, with the agreement of the baselines if requested."""
    head, of_steps = describe_span(served), importance.steps
    given: dict[str, Any] = {**head, "reference": {**head["reference"], "seed": SEED, "confidence": CONFIDENCE}}
    values = enumerate(of_steps.value.tolist())
    steps = [StepImportance(mean_abs_contribution=value, interval=list(of_steps.bounds(n))) for n, value in values]
    baselines = None if agreements is None else [describe(BaselineAgreement, one) for one in agreements]
    return describe(AttributionsResponse, importance, **given, steps=steps, baselines=baselines)


@result("attributions", "attributions", AttributionsResponse, AttributionsQuery, media_types=(JSON, SVG))
async def get_attributions(call: Call) -> Response:
    """Ranks the features, and groups of them, by their mean contribution over the reference windows.

    Each has intervals and a verdict.

    A small share means that this model does not use a feature, not that it is independent of others or useless.
    With `Accept: image/svg+xml` or `?format=svg` as a picture, without `baselines`.
    """
    served, query = call.served, call.query
    parsed = parse_groups({"groups": query.groups}, call.limits)
    groups, _ = read_groups(parsed, served.model)
    importance = await call.find(Model.importance, groups=groups)
    if call.media_type == SVG:
        return await call.make(lambda: answer_svg(importance.svg(theme=query.theme).encode()))
    agreements = await call.find(Model.agreement) if query.baselines else None
    return await call.make(lambda: answer_json(describe_attributions(served, importance, agreements)))
