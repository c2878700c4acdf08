"""What a user writes against the generated client: python program.py URL MODEL WINDOW.json."""

from __future__ import annotations

import json
import sys

from kanscope_client import Client
from kanscope_client.api.explanations import explain
from kanscope_client.api.predictions import predict
from kanscope_client.api.topology import get_topology
from kanscope_client.models import (
    BaselineName,
    Detail,
    ErrorCode,
    ErrorResponse,
    ExplainRequest,
    ExplainResponse,
    Metric,
    PredictRequest,
    PredictResponse,
    TopologyResponse,
)
from kanscope_client.types import Unset

url, model, file = sys.argv[1:]
with open(file, encoding="utf-8") as window:
    instances: list[list[list[float]]] = json.load(window)["instances"]
client = Client(base_url=url)

predicted = predict.sync(model, client=client, body=PredictRequest(instances=instances), version="1")
assert isinstance(predicted, PredictResponse)
forecast: float = predicted.predictions[0][0]

request = ExplainRequest(instances=instances, detail=Detail.STEPS, baseline=BaselineName.ZERO, tolerance=0.001)
explained = explain.sync(model, client=client, body=request)
assert isinstance(explained, ExplainResponse)
contributions: dict[str, float] = explained.explanations[0].contributions.to_dict()

request = ExplainRequest.from_dict({**request.to_dict(), "groups": {"hour": ["hour_sin", "hour_cos"]}})
grouped = explain.sync(model, client=client, body=request)
assert isinstance(grouped, ExplainResponse)
by_group = grouped.explanations[0].contributions_by_group
assert not isinstance(by_group, Unset)
hour = by_group["hour"]

drawn = get_topology.sync(model, client=client, metric=Metric.BACKWARD, fidelity=0.9)
assert isinstance(drawn, TopologyResponse)
kept: int = drawn.graph.edges.kept

refused = predict.sync_detailed(model, client=client, body=PredictRequest(instances=[]))
assert isinstance(refused.parsed, ErrorResponse)
status, code, place = int(refused.status_code), refused.parsed.code, refused.parsed.errors[0].path
assert code is ErrorCode.INVALID_VALUE

answers = {
    "forecast": forecast,
    "version": predicted.version,
    "contributions": contributions,
    "hour": hour,
    "kept": kept,
}
print(json.dumps({**answers, "status": status, "code": code, "place": place}))
