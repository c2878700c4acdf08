"""A program with the generated client: python program.py URL MODEL WINDOW.json."""

from __future__ import annotations

import json
import sys

from kanscope_client import Client
from kanscope_client.api.alternatives import ablate, compare, counterfactual, get_comparison, what_if
from kanscope_client.api.explanations import explain
from kanscope_client.api.formula import get_formula
from kanscope_client.api.predictions import predict
from kanscope_client.api.topology import get_topology
from kanscope_client.models import (
    AblateRequest,
    AblateResponse,
    Against,
    BaselineName,
    CompareRequest,
    CompareResponse,
    CounterfactualRequest,
    CounterfactualResponse,
    CounterfactualTarget,
    Detail,
    ErrorCode,
    ErrorResponse,
    ExplainRequest,
    ExplainResponse,
    FormulaResponse,
    Gaps,
    Metric,
    ModelComparisonResponse,
    PredictRequest,
    PredictRequestSeries,
    PredictResponse,
    Shift,
    TopologyResponse,
    WhatIfRequest,
    WhatIfResponse,
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

rows = {name: [step[number] for step in instances[0]] for number, name in enumerate(contributions)}
time = [f"2013-06-12T{hour:02d}:00Z" for hour in range(len(instances[0]))]
series = PredictRequest(series=PredictRequestSeries.from_dict({"time": time, **rows}), last=1, gaps=Gaps.SKIP)
of_rows = predict.sync(model, client=client, body=series)
assert isinstance(of_rows, PredictResponse)
assert of_rows.predictions == predicted.predictions and of_rows.times == time[-1:]

request = ExplainRequest.from_dict({**request.to_dict(), "groups": {"hour": ["hour_sin", "hour_cos"]}})
grouped = explain.sync(model, client=client, body=request)
assert isinstance(grouped, ExplainResponse)
by_group = grouped.explanations[0].contributions_by_group
assert not isinstance(by_group, Unset)
hour = by_group["hour"]

drawn = get_topology.sync(model, client=client, metric=Metric.BACKWARD, fidelity=0.9)
assert isinstance(drawn, TopologyResponse)
kept: int = drawn.graph.edges.kept

shift = WhatIfRequest(
    instances=instances, features=["temp_c"], steps=[-5, 0], shift=Shift(from_=-1.0, to=1.0, points=3)
)
shifted = what_if.sync(model, client=client, body=shift)
assert isinstance(shifted, WhatIfResponse)
assert shifted.curves[0][0].predictions[1] == forecast

wanted = CounterfactualRequest(instances=instances, target=CounterfactualTarget(at_most=forecast + 1))
found = counterfactual.sync(model, client=client, body=wanted)
assert isinstance(found, CounterfactualResponse)
assert found.counterfactuals[0].reached and not found.counterfactuals[0].changes

removed = ablate.sync(
    model, client=client, body=AblateRequest(instances=instances, fidelity=1.0, without=["head:0:7:3"])
)
assert isinstance(removed, AblateResponse)
assert removed.ablations[0].prediction == forecast != removed.ablations[0].ablated_prediction
assert removed.edges.kept < removed.edges.total

compared = compare.sync(model, client=client, body=CompareRequest(instances=instances, against=Against(version="1")))
assert isinstance(compared, CompareResponse)
assert compared.comparisons[0].difference == 0

changed = get_comparison.sync(model, client=client, against_version="1")
assert isinstance(changed, ModelComparisonResponse)
assert changed.difference == 0

written = get_formula.sync(model, client=client, complexity=8, x_request_timeout=120)
assert isinstance(written, FormulaResponse)
assert written.formulas[0].complexity <= 8

refused = predict.sync_detailed(model, client=client, body=PredictRequest(instances=[]))
assert isinstance(refused.parsed, ErrorResponse)
status, code, place = int(refused.status_code), refused.parsed.code, refused.parsed.errors[0].path
assert code is ErrorCode.INVALID_VALUE

asked = PredictRequest(instances=instances, intervals=[0.8])
without = predict.sync(model, client=client, body=asked)  # a model without intervals
assert isinstance(without, ErrorResponse) and without.errors[0].path == "intervals"

answers = {
    "forecast": forecast,
    "version": predicted.version,
    "contributions": contributions,
    "hour": hour,
    "kept": kept,
}
print(json.dumps({**answers, "status": status, "code": code, "place": place}))
