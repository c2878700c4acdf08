from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from factories import make_model, make_windows

from kanmodel import Model
from kanmodel.attribution import explanation as attribution
from kanmodel.attribution.baseline import Baseline, ReferenceBaselines, baseline_windows
from kanmodel.attribution.ledger import LedgerOptions, explain_outputs, explain_windows
from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import NonFiniteError
from service.models.registry import Served
from service.operations import explanations
from service.operations.explain import read_question
from service.settings import Settings

NDJSON = {"Accept": "application/x-ndjson"}


def ask(service, name, n=2, **members):
    body = {"instances": make_windows(service.models[name], n).tolist(), **members}
    answer = service.post(f"/v1/models/{name}:explain", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_sums(explanation):
    """Features, steps, and the nodes and edges of each layer sum to the change within the residual."""
    change = explanation["prediction"] - explanation["baseline_prediction"]
    sums = [sum(explanation["contributions"].values()), np.sum(explanation["steps"])]
    for layer in explanation["layers"]:
        sums += [sum(layer["nodes"])] if "nodes" in layer else []
        sums += [sum(edge["contribution"] for edge in layer["edges"])] if "edges" in layer else []
    np.testing.assert_allclose(sums, change, rtol=0, atol=explanation["residual"] + 1e-6 * abs(change))


@pytest.mark.parametrize("name", ["nyc-weather", "two", "front", "head"])
def test_every_layer_sums_to_the_change_of_the_forecast(service, name):
    """With detail=flow, nodes and edges of each layer sum to prediction - baseline within the residual."""
    for explanation in ask(service, name, output=service.models[name].config.outputs[0], detail="flow")["explanations"]:
        assert_sums(explanation)
        assert explanation["residual"] <= explanation["error"]
        assert explanation["converged"] == (explanation["error"] <= explanation["tolerance"])


def test_the_answer_is_the_ledger(service):
    """Every number is that of the model core, with the names of features, layers, nodes and edges."""
    model = service.models["front"]
    windows = make_windows(model, 2)
    answer = ask(service, "front", detail="flow")
    ledger = explain_windows(model, model.to_model_units(windows), 0)
    assert answer["predictions"] == [[prediction] for prediction in ledger.predictions]
    assert np.allclose(answer["predictions"], model.predict(windows), rtol=1e-12, atol=0)
    for number, explanation in enumerate(answer["explanations"]):
        assert explanation["instance"] == number
        assert explanation["prediction"] == ledger.predictions[number]
        assert list(explanation["contributions"]) == list(model.config.feature_names)
        assert list(explanation["contributions"].values()) == ledger.contributions[number].tolist()
        assert explanation["steps"] == ledger.steps[number].tolist()
        assert explanation["path_nodes"] == ledger.path_nodes[number]
        assert [(layer["stage"], layer["layer"]) for layer in explanation["layers"]] == [
            (layer.stage, layer.layer) for layer in ledger.layers
        ]
        for described, layer in zip(explanation["layers"], ledger.layers, strict=True):
            assert ("nodes" in described, "edges" in described) == (layer.nodes is not None, layer.edges is not None)
            for edge in described.get("edges", []):
                assert edge["contribution"] == layer.edges[number, edge["j"], edge["i"]]


@pytest.mark.parametrize("detail", ["features", "steps", "flow"])
def test_effects_are_those_of_the_library(service, detail):
    """Per feature, and with steps per cell, `removed` and `alone` are the model's; absent by default."""
    model = Model.of(service.models["two"])
    answer = ask(service, "two", output=["a+1", "b+2"], detail=detail, effects=True)
    windows = make_windows(service.models["two"], 2)
    for explanation in answer["explanations"]:
        found = model.explain(windows, explanation["output"], effects="steps")[explanation["instance"]]
        assert list(explanation["effects"]) == list(found.features)
        for name in ("removed", "alone"):
            effects = [effect[name] for effect in explanation["effects"].values()]
            np.testing.assert_allclose(effects, getattr(found.effects, name)[0], atol=1e-9)
        assert ("steps" in explanation, "layers" in explanation) == (detail != "features", detail == "flow")
        assert ("step_effects" in explanation) == (detail != "features")
        for name, values in explanation.get("step_effects", {}).items():
            np.testing.assert_allclose(values, getattr(found.step_effects, name)[0], atol=1e-9)
    assert not {"effects", "step_effects"} & set(ask(service, "two", output="a+1", detail=detail)["explanations"][0])


@pytest.mark.parametrize("segments", [None, {"new": [-1, 0]}])
def test_effects_of_groups_are_those_of_the_library(service, segments):
    """`effects_by_group` has the form of `contributions_by_group`, and the numbers of the library."""
    groups = {"pair": ["f0", "f3"]}
    answer = ask(service, "front", effects=True, groups=groups, segments=segments)
    windows = make_windows(service.models["front"], 2)
    found = Model.of(service.models["front"]).explain(windows, groups=groups, segments=segments, effects=True)
    for window, explanation in enumerate(answer["explanations"]):
        by_group = explanation["effects_by_group"]
        assert list(by_group) == list(explanation["contributions_by_group"]) == list(found.group_names)
        for number, name in enumerate(found.group_names):
            segment, place = ("all steps", ()) if segments is None else ("new", (0,))
            effect = by_group[name][segment]
            assert effect["removed"] == pytest.approx(found.effects_by_group.removed[window, number, *place], abs=1e-9)
            assert effect["alone"] == pytest.approx(found.effects_by_group.alone[window, number, *place], abs=1e-9)


@pytest.mark.parametrize("segments", [None, {"new": [-1, 0]}, {str(step): [step, step] for step in range(-3, 1)}])
def test_shapley_values_are_those_of_the_library(service, segments):
    """Of groups and single features, in each segment; of more than 12 parts by the orders of the seed."""
    asked = {"groups": {"pair": ["f0", "f3"]}, "segments": segments, "method": "shapley", "orders": 6, "seed": 2}
    answer = ask(service, "front", **asked, receipt=True)
    windows = make_windows(service.models["front"], 2)
    found = Model.of(service.models["front"]).explain(windows, **asked)
    for window, explanation in enumerate(answer["explanations"]):
        for name, values in found.shapley._asdict().items():
            given = explanation["shapley" if name == "values" else "shapley_standard_error"]
            assert list(given) == list(found.parts)
            parts = [[*part.values()] if segments else part["all steps"] for part in given.values()]
            np.testing.assert_allclose(parts, values[window], atol=1e-9)
    assert answer["receipt"]["shapley"] == {"count": 6, "seed": 2}
    plain = ask(service, "front", receipt=True)
    assert "shapley" not in plain["receipt"] and "shapley" not in plain["explanations"][0]


def test_tolerance_is_given_back_in_the_unit_of_the_target(service):
    """A tolerance in standard deviations is returned in the unit of the output."""
    model = service.models["two"]
    values = model.scaling.outputs_to_original(model.reference_outputs)[:, 1]
    explanation = ask(service, "two", output="b+1", tolerance=0.01)["explanations"][0]
    assert explanation["tolerance"] == pytest.approx(0.01 * values.std(ddof=1))


def test_one_output_or_a_list_of_them(service):
    """The response has lists, also of one output; one explanation per instance and output, instances first."""
    one = ask(service, "two", output="b+1")
    assert (one["output"], one["unit"]) == (["b+1"], ["K"])
    assert ask(service, "two", output=["b+1"]) == one
    assert ask(service, "two", output=["all"]) == ask(service, "two", output="all")
    several = ask(service, "two", output=["b+1", "a+2"])
    assert (several["output"], several["unit"]) == (["b+1", "a+2"], ["K", "K"])
    order = [(e["instance"], e["output"]) for e in several["explanations"]]
    assert order == [(0, "b+1"), (0, "a+2"), (1, "b+1"), (1, "a+2")]
    assert several["explanations"][::2] == one["explanations"]
    assert several["explanations"][1]["prediction"] == pytest.approx(several["predictions"][0][2])


@pytest.mark.parametrize("kind", ["mean", "zero", "values", "steps", "instance"])
def test_the_baseline_is_used_and_echoed(service, kind):
    """Each kind of baseline gives its ledger, and is returned in original units; one alone has no standard error."""
    model = service.models["front"]
    names = model.config.feature_names
    other = make_windows(model, 1, seed=7)[0]
    numbers = {name: float(value) for name, value in zip(names, other[0], strict=True)}
    lists = {**numbers, "f2": other[:, 2].tolist()}
    by_step = {"values": {name: numbers[name] for name in names if name != "f2"}, "values_by_step": {"f2": lists["f2"]}}
    asked, baseline, echoed = {
        "mean": ("mean", Baseline("mean"), None),
        "zero": (
            "zero",
            Baseline("zero"),
            {"values": {feature.name: feature.mean for feature in model.config.features}},
        ),
        "values": ({"values": numbers}, Baseline("values", numbers), {"values": numbers}),
        "steps": (by_step, Baseline("values", lists), by_step),
        "instance": ({"instance": other.tolist()}, Baseline("instance", instance=other), {"instance": other.tolist()}),
    }[kind]
    answer = ask(service, "front", baseline=asked)
    ledger = explain_windows(model, model.to_model_units(make_windows(model, 2)), 0, baseline, detail="features")
    first = answer["explanations"][0]
    assert first["contributions"]["f1"] == ledger.contributions[0, 1] and first["standard_error"] is None
    assert first["baseline_prediction"] == ledger.baseline_prediction
    echoed = echoed or {"values": dict(zip(names, ledger.baseline[0].tolist(), strict=True))}
    assert answer["baseline"] == {"kind": "values" if kind == "steps" else kind, **echoed}


@pytest.mark.parametrize(
    ("asked", "count", "seed"), [("reference", 16, 0), ({"reference": 3}, 3, 0), ({"reference": 5, "seed": 2}, 5, 2)]
)
def test_contributions_are_averaged_over_reference_windows(service, asked, count, seed):
    """Contributions from several baselines sum to the change from their mean forecast, with standard errors."""
    model = service.models["front"]
    windows = make_windows(model, 3)
    answer = ask(service, "front", n=3, baseline=asked, tolerance=0.01, detail="flow")
    means = baseline_windows(model, ReferenceBaselines(count, seed)).mean(axis=(0, 1)).tolist()
    values = dict(zip(model.config.feature_names, means, strict=True))
    assert answer["baseline"] == {"kind": "reference", "reference": count, "seed": seed, "values": values}
    options = LedgerOptions(tolerance=0.01)
    ledger = explain_windows(model, model.to_model_units(windows), 0, ReferenceBaselines(count, seed), options)
    for window, explanation in enumerate(answer["explanations"]):
        assert list(explanation["contributions"].values()) == ledger.contributions[window].tolist()
        assert list(explanation["standard_error"].values()) == ledger.standard_error[window].tolist()
        assert list(explanation["standard_error"]) == list(model.config.feature_names)
        assert_sums(explanation)
    baselines = model.predict(baseline_windows(model, ReferenceBaselines(count, seed)))
    assert explanation["baseline_prediction"] == pytest.approx(baselines.mean())


def test_few_reference_windows_are_all_baselines(serve, tmp_path):
    """With fewer than 16 reference windows all are baselines, and the response has their number."""
    save_checkpoint(make_model("head", n_reference=5), tmp_path / "few.safetensors")
    with serve(models=tmp_path) as client:
        answer = client.post("/v1/models/few:explain", json={"instances": [[[0.0] * 4]], "baseline": "reference"})
        assert answer.json()["baseline"]["reference"] == 5


@pytest.mark.parametrize("baseline", ["mean", {"reference": 3}])
@pytest.mark.parametrize("output", ["a+1", ["b+2", "a+1"]])
def test_ndjson_lines_are_the_plain_answer(service, output, baseline):
    """The first line has what all share, each further line one explanation, also over several slices."""
    n = explanations.PART_WINDOWS + 3
    plain = ask(service, "two", n=n, output=output, baseline=baseline)
    body = {"instances": make_windows(service.models["two"], n).tolist(), "output": output, "baseline": baseline}
    answer = service.post("/v1/models/two:explain", body, headers=NDJSON)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    header, *lines = [json.loads(line) for line in answer.text.splitlines()]
    assert {**header, "explanations": lines} == plain


def test_ndjson_lines_are_sent_as_soon_as_they_are_ready(service, monkeypatch):
    """Lines of a slice are sent while the next one is computed."""
    go_on = threading.Event()
    calls = []

    def explain_slowly(*arguments):
        calls.append(arguments)
        assert len(calls) == 1 or go_on.wait(300)
        return explain_outputs(*arguments)

    monkeypatch.setattr(attribution, "explain_outputs", explain_slowly)
    n = explanations.PART_WINDOWS + 1
    body = {"instances": make_windows(service.models["two"], n).tolist(), "output": "a+1"}
    try:
        with service.client.stream("POST", "/v1/models/two:explain", json=body, headers=NDJSON) as answer:
            lines = answer.iter_lines()
            early = [next(lines) for _ in range(1 + explanations.PART_WINDOWS)]
            go_on.set()
            assert len([*early, *lines]) == 1 + n
    finally:
        go_on.set()


def test_an_error_in_a_stream_is_its_last_line(serve, folder, service, monkeypatch, capfd):
    """An error after the first lines is sent as the last line of the stream; the log and the metrics have its code."""
    calls = []

    def explain_once(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise NonFiniteError("outputs[0][0] must be finite")
        return explain_outputs(*arguments)

    windows = make_windows(service.models["two"], explanations.PART_WINDOWS + 1)
    body = {"instances": windows.tolist(), "output": "a+1"}
    with serve(models=folder / "two.safetensors") as client:
        monkeypatch.setattr(attribution, "explain_outputs", explain_once)
        answer = client.post("/v1/models/two:explain", json=body, headers=NDJSON)
        counted = client.get("/metrics").text
    *lines, last = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == 1 + explanations.PART_WINDOWS
    assert (last["status"], last["error"]) == (422, "outputs[0][0] must be finite")
    assert last["request_id"] == answer.headers["x-request-id"]
    (line,) = (line for line in capfd.readouterr().err.splitlines() if f'"id":"{last["request_id"]}"' in line)
    assert (json.loads(line)["status"], json.loads(line)["code"]) == (200, "result_not_finite")
    labels = 'code="result_not_finite",route="/v1/models/{model}:explain",status="200"'
    assert f"kanscope_requests_total{{{labels}}} 1.0" in counted


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_an_explanation_far_from_complete_is_an_error(service, accept):
    """A far outlier gives a warning; if its residual exceeds the change itself, the request is refused."""
    windows = make_windows(service.models["nyc-weather"], 2)
    answers = {}
    for value in (526.0, 1e12, 1e30):
        windows[1, 20, 0] = value
        body = {"instances": windows.tolist()}
        answers[value] = service.post("/v1/models/nyc-weather:explain", body, headers={"Accept": accept})
    warned = answers[526.0].json() if accept == "application/json" else json.loads(answers[526.0].text.split("\n")[0])
    (warning,) = (one for one in warned["warnings"] if one["feature"] == "temp_c" and one["instance"] == 1)
    assert (warning["value"], warning["step"]) == (526.0, -3)
    for value in (1e12, 1e30):
        error = json.loads(answers[value].text.strip().split("\n")[-1])
        assert (error["status"], error["code"]) == (422, "explanation_incomplete")
        assert error["error"].startswith("instances[1] has values too far out to be explained")
        assert error["errors"][0]["path"] == "instances[1]"


@pytest.mark.parametrize("output", ["a+1", ["b+2", "a+1"]])
def test_batched_requests_have_the_results_they_have_alone(service, output):
    """Requests with several windows each, numbered from 0, have their own results if they share a pass."""
    model = service.models["two"]
    windows, std = make_windows(model, 9), model.output_std.max()
    served = Served("two", Model.of(model))
    questions = [
        read_question(
            json.dumps({"instances": part.tolist(), "output": output, "detail": "flow"}).encode(), served, Settings()
        )
        for part in np.split(windows, [1, 4, 6])
    ]
    (key,) = {question.batch_key for question in questions}
    assert key is not None
    together = explanations._explain_together(False, questions)
    for question, progress in zip(questions, together, strict=True):
        alone = explanations.explain_all(question)
        assert [one["instance"] for one in progress.explanations] == [one["instance"] for one in alone]
        for one, other in zip(progress.explanations, alone, strict=True):
            assert one["output"] == other["output"]
            np.testing.assert_allclose(one["steps"], other["steps"], rtol=0, atol=1e-6 * std)
            assert one["prediction"] == pytest.approx(other["prediction"], rel=0, abs=1e-6 * std)
