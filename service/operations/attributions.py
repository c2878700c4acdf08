"""GET /v1/models/{model}/attributions: the importance of each feature over the reference windows."""

from collections.abc import Sequence
from typing import Any

from fastapi import Response

from kanmodel.model import Model
from kanmodel.report.faithfulness import Agreement
from kanmodel.structure.importance import Importance
from kanmodel.tables.statistics.bootstrap import CONFIDENCE, SEED
from service.answers.attributions import AttributionsQuery, AttributionsResponse, StepImportance
from service.answers.forms import describe, describe_all, describe_one
from service.models.registry import Served
from service.operations.reference import describe_span
from service.operations.route import Call, result
from service.wire.json import JSON, SVG, answer_json, answer_svg
from service.wire.windows import parse_groups, read_groups


def describe_attributions(
    served: Served, importance: Importance, agreements: Sequence[Agreement] | None = None
) -> AttributionsResponse:
    """The table for one output, with the agreement of the baselines if requested."""
    head, of_steps = describe_span(served), importance.steps
    given: dict[str, Any] = {**head, "reference": {**head["reference"], "seed": SEED, "confidence": CONFIDENCE}}
    values = enumerate(of_steps.value.tolist())
    steps = [StepImportance(mean_abs_contribution=value, interval=list(of_steps.bounds(n))) for n, value in values]
    given["groups"] = [describe_one(group, members=list(group.members)) for group in importance.groups]
    baselines = None if agreements is None else describe_all(agreements)
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
