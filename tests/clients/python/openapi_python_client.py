"""The client of openapi-python-client."""

from __future__ import annotations

import json

from inputs import groups, halves, instances, stream, url
from kanscope_client import Client
from kanscope_client.api.edges import get_edge
from kanscope_client.api.explanations import explain
from kanscope_client.api.models import get_reference_window
from kanscope_client.api.predictions import predict
from kanscope_client.api.report import get_report
from kanscope_client.api.topology import get_topology
from kanscope_client.models import (
    Baseline,
    BaselineKind,
    BaselineValuesType0,
    EdgeResponse,
    ErrorResponse,
    ExplainRequest,
    ExplainRequestGroupsType0,
    ExplainResponse,
    Explanation,
    GraphEdgeKind,
    Metric,
    PredictRequest,
    PredictResponse,
    ReferenceWindow,
    ReportResponse,
    TopologyResponse,
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
answers = {
    "forecast": predicted.predictions[0][0],
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
