"""The client of openapi-python-client."""

from __future__ import annotations

import json

from inputs import groups, halves, instances, stream, url
from kanscope_client import Client
from kanscope_client.api.alternatives import ablate, compare, counterfactual, get_comparison, what_if
from kanscope_client.api.edges import get_edge
from kanscope_client.api.explanations import explain
from kanscope_client.api.formula import get_formula
from kanscope_client.api.models import get_reference_window
from kanscope_client.api.predictions import predict
from kanscope_client.api.report import get_report
from kanscope_client.api.topology import get_topology
from kanscope_client.models import (
    AblateRequest,
    AblateResponse,
    Against,
    Baseline,
    BaselineKind,
    BaselineValuesType0,
    CompareRequest,
    CompareResponse,
    CounterfactualRequest,
    CounterfactualResponse,
    CounterfactualTarget,
    EdgeResponse,
    ErrorResponse,
    ExplainRequest,
    ExplainRequestGroupsType0,
    ExplainResponse,
    Explanation,
    FormulaResponse,
    Gaps,
    GraphEdgeKind,
    Metric,
    ModelComparisonResponse,
    PredictRequest,
    PredictRequestSeriesType0,
    PredictResponse,
    ReferenceWindow,
    ReportResponse,
    Shift,
    TopologyResponse,
    WhatIfRequest,
    WhatIfResponse,
)
from kanscope_client.types import Unset

client = Client(base_url=url)


def explained(model: str, request: ExplainRequest) -> list[Explanation]:
    answer = explain.sync(model, client=client, body=request)
    assert isinstance(answer, ExplainResponse)
    return answer.explanations


predicted = predict.sync("nyc-weather", client=client, body=PredictRequest(instances=instances))
assert isinstance(predicted, PredictResponse)
(zero,) = explained(
    "nyc-weather", ExplainRequest(instances=instances, baseline=Baseline(kind=BaselineKind.BASELINE_KIND_ZERO))
)
given = BaselineValuesType0.from_dict(halves(zero.contributions.additional_keys))
baseline = Baseline(kind=BaselineKind.BASELINE_KIND_VALUES, values=given)
(values,) = explained("nyc-weather", ExplainRequest(instances=instances, baseline=baseline))
hour = ExplainRequestGroupsType0.from_dict(groups)
(grouped,) = explained("nyc-weather", ExplainRequest(instances=instances, groups=hour))
assert not isinstance(grouped.contributions_by_group, Unset)
window = get_reference_window.sync("pair", 0, client=client)
assert isinstance(window, ReferenceWindow)
both = explained("pair", ExplainRequest(instances=[window.instance], output=["load+1", "load+2"]))
lines = stream()
last = Explanation.from_dict(lines[-1])

topology = get_topology.sync("nyc-weather", client=client, metric=Metric.METRIC_BACKWARD, fidelity=0.9)
assert isinstance(topology, TopologyResponse)
first = next(edge for edge in topology.edges if edge.kind is GraphEdgeKind.EDGE)
edge = get_edge.sync("nyc-weather", first.layer, first.i, first.j, client=client, points=11)
assert isinstance(edge, EdgeResponse)
report = get_report.sync("nyc-weather", client=client)
assert isinstance(report, ReportResponse)

refused = predict.sync_detailed("nyc-weather", client=client, body=PredictRequest(instances=[]))
assert isinstance(refused.parsed, ErrorResponse)
unready = predict.sync_detailed("broken", client=client, body=PredictRequest(instances=instances))
assert isinstance(unready.parsed, ErrorResponse)

# What other operations answer.
rows = {name: [step[number] for step in instances[0]] for number, name in enumerate(zero.contributions.additional_keys)}
time = [f"2013-06-12T{hour:02d}:00Z" for hour in range(len(instances[0]))]
series = PredictRequestSeriesType0.from_dict({"time": time, **rows})
table = PredictRequest(series=series, last=1, gaps=Gaps.SKIP)
of_rows = predict.sync("nyc-weather", client=client, body=table)
assert isinstance(of_rows, PredictResponse)
assert of_rows.predictions == predicted.predictions and of_rows.times == time[-1:]

forecast = predicted.predictions[0][0]
shift = Shift(from_=-1.0, to=1.0, points=3)
moved = WhatIfRequest(instances=instances, features=["temp_c"], steps=[-5, 0], shift=shift)
shifted = what_if.sync("nyc-weather", client=client, body=moved)
assert isinstance(shifted, WhatIfResponse)
assert shifted.curves[0][0].predictions[1] == forecast

wanted = CounterfactualRequest(instances=instances, target=CounterfactualTarget(at_most=forecast + 1))
found = counterfactual.sync("nyc-weather", client=client, body=wanted)
assert isinstance(found, CounterfactualResponse)
assert found.counterfactuals[0].reached and not found.counterfactuals[0].changes

masked = AblateRequest(instances=instances, fidelity=1.0, without=["head:0:7:3"])
removed = ablate.sync("nyc-weather", client=client, body=masked)
assert isinstance(removed, AblateResponse)
assert removed.ablations[0].prediction == forecast != removed.ablations[0].ablated_prediction
assert removed.edges.kept < removed.edges.total

same = CompareRequest(instances=instances, against=Against(version="1"))
compared = compare.sync("nyc-weather", client=client, body=same)
assert isinstance(compared, CompareResponse) and compared.comparisons[0].difference == 0
changed = get_comparison.sync("nyc-weather", client=client, against_version="1")
assert isinstance(changed, ModelComparisonResponse) and changed.difference == 0

written = get_formula.sync("nyc-weather", client=client, complexity=8, x_request_timeout=120)
assert isinstance(written, FormulaResponse) and written.formulas[0].complexity <= 8

without = predict.sync("nyc-weather", client=client, body=PredictRequest(instances=instances, intervals=[0.8]))
assert isinstance(without, ErrorResponse) and without.errors[0].path == "intervals"

answers = {
    "forecast": forecast,
    "zero": zero.contributions.to_dict(),
    "values": values.contributions.to_dict(),
    "groups": grouped.contributions_by_group.to_dict(),
    "outputs": [(one.output, one.prediction) for one in both],
    "lines": [len(lines), last.prediction],
    "kept": topology.graph.edges.kept,
    "nodes": len(topology.nodes),
    "edge": [edge.shape, edge.y[0], edge.source, edge.target],
    "report": next(finding.answer for finding in report.findings if finding.id == "sparsity"),
    "error": [refused.status_code, refused.parsed.code, refused.parsed.errors[0].path],
    "unready": [unready.status_code, unready.parsed.code],
}
print(json.dumps(answers))
