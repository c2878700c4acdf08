"""The client of openapi-generator's python."""

from __future__ import annotations

import json
from collections.abc import Callable

from inputs import groups, halves, instances, stream, url
from kanscope import (
    ApiClient,
    ApiException,
    Baseline,
    BaselineKind,
    Configuration,
    EdgesApi,
    ErrorResponse,
    ExplainRequest,
    Explanation,
    ExplanationsApi,
    Metric,
    ModelsApi,
    PredictionsApi,
    PredictRequest,
    ReportApi,
    TopologyApi,
)

client = ApiClient(Configuration(host=url))
explain, predict = ExplanationsApi(client).explain, PredictionsApi(client).predict


def refusal(call: Callable[[], object]) -> tuple[int, ErrorResponse]:
    try:
        call()
    except ApiException as error:
        body = ErrorResponse.from_json(error.body or "")
        assert isinstance(error.status, int) and body is not None
        return error.status, body
    raise AssertionError("the request was not refused")


predicted = predict("nyc-weather", PredictRequest(instances=instances))
zero = explain(
    "nyc-weather", ExplainRequest(instances=instances, baseline=Baseline(kind=BaselineKind.BASELINE_KIND_ZERO))
)
baseline = Baseline(kind=BaselineKind.BASELINE_KIND_VALUES, values=halves(zero.explanations[0].contributions))
values = explain("nyc-weather", ExplainRequest(instances=instances, baseline=baseline))
grouped = explain("nyc-weather", ExplainRequest(instances=instances, groups=groups))
window = ModelsApi(client).get_reference_window("pair", 0)
both = explain("pair", ExplainRequest(instances=[window.instance], output=["load+1", "load+2"]))
lines = stream()
last = Explanation.from_dict(lines[-1])
assert last is not None

topology = TopologyApi(client).get_topology("nyc-weather", metric=Metric.METRIC_BACKWARD, fidelity=0.9)
first = next(edge for edge in topology.edges if edge.kind == "edge")
edge = EdgesApi(client).get_edge("nyc-weather", first.layer, first.i, first.j, points=11)
report = ReportApi(client).get_report("nyc-weather")

status, refused = refusal(lambda: predict("nyc-weather", PredictRequest(instances=[])))
unready, reason = refusal(lambda: predict("broken", PredictRequest(instances=instances)))
answers = {
    "forecast": predicted.predictions[0][0],
    "zero": zero.explanations[0].contributions,
    "values": values.explanations[0].contributions,
    "groups": grouped.explanations[0].contributions_by_group,
    "outputs": [(one.output, one.prediction) for one in both.explanations],
    "lines": [len(lines), last.prediction],
    "kept": topology.graph.edges.kept,
    "nodes": len(topology.nodes),
    "edge": [edge.shape, edge.y[0], edge.source, edge.target],
    "report": next(finding.answer for finding in report.findings if finding.id == "sparsity"),
    "error": [status, refused.code, refused.errors[0].path],
    "unready": [unready, reason.code],
}
print(json.dumps(answers))
