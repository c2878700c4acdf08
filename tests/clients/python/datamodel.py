"""The models of datamodel-code-generator, with httpx."""

from __future__ import annotations

import json
from typing import TypeVar

import httpx
from inputs import groups, halves, instances, stream, url
from kanscope import (
    Baseline,
    BaselineKind,
    EdgeResponse,
    ErrorResponse,
    ExplainRequest,
    ExplainResponse,
    Explanation,
    FindingId,
    PredictRequest,
    PredictResponse,
    ReferenceWindow,
    ReportResponse,
    TopologyResponse,
)
from pydantic import BaseModel

Answer = TypeVar("Answer", bound=BaseModel)

client = httpx.Client(base_url=f"{url}/v1/models", timeout=60)


def get(answer: type[Answer], path: str, **query: str | float) -> Answer:
    return answer.model_validate_json(client.get(f"/{path}", params=query).raise_for_status().content)


def post(path: str, request: BaseModel) -> httpx.Response:
    return client.post(
        f"/{path}", json=request.model_dump(mode="json", by_alias=True)
    )  # with null for all that is absent


def explain(model: str, request: ExplainRequest) -> list[Explanation]:
    response = post(f"{model}:explain", request).raise_for_status()
    return ExplainResponse.model_validate_json(response.content).explanations


response = post("nyc-weather:predict", PredictRequest(instances=instances)).raise_for_status()
predicted = PredictResponse.model_validate_json(response.content)
(zero,) = explain(
    "nyc-weather", ExplainRequest(instances=instances, baseline=Baseline(kind=BaselineKind.BASELINE_KIND_ZERO))
)
baseline = Baseline(kind=BaselineKind.BASELINE_KIND_VALUES, values=halves(zero.contributions))
(values,) = explain("nyc-weather", ExplainRequest(instances=instances, baseline=baseline))
(grouped,) = explain("nyc-weather", ExplainRequest(instances=instances, groups=groups))
window = get(ReferenceWindow, "pair/reference/0")
both = explain("pair", ExplainRequest(instances=[window.instance], output=["load+1", "load+2"]))
lines = stream()
last = Explanation.model_validate(lines[-1])

topology = get(TopologyResponse, "nyc-weather/topology", metric="backward", fidelity=0.9)
first = next(edge for edge in topology.edges if edge.kind.value == "edge")
edge = get(EdgeResponse, f"nyc-weather/edges/{first.layer}/{first.i}/{first.j}", points=11)
report = get(ReportResponse, "nyc-weather/report")

refused = post("nyc-weather:predict", PredictRequest(instances=[]))
error = ErrorResponse.model_validate_json(refused.content)
unready = post("broken:predict", PredictRequest(instances=instances))
reason = ErrorResponse.model_validate_json(unready.content)
answers = {
    "forecast": predicted.predictions[0][0],
    "zero": zero.contributions,
    "values": values.contributions,
    "groups": grouped.contributions_by_group,
    "outputs": [(one.output, one.prediction) for one in both],
    "lines": [len(lines), last.prediction],
    "kept": topology.graph.edges.kept,
    "nodes": len(topology.nodes),
    "edge": [edge.shape.value, edge.y[0], edge.source, edge.target],
    "report": next(finding.answer for finding in report.findings if finding.id is FindingId.FINDING_ID_SPARSITY),
    "error": [refused.status_code, error.code.value, error.errors[0].path],
    "unready": [unready.status_code, reason.code.value],
}
print(json.dumps(answers))
