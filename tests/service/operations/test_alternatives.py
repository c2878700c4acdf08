from __future__ import annotations

import json

import numpy as np
import pytest
from factories import make_model, make_windows
from thorough import few_of

from kanmodel import Model, load
from kanmodel.checkpoint import save_checkpoint

NAMES = ("nyc-weather", "two", "front", "head")
FEW = few_of(NAMES, ("two", "head"), "the same of two models that take longer")


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A folder with two versions of a model, a model with other features, and one with a layer norm."""
    folder = tmp_path_factory.mktemp("versions")
    (folder / "m").mkdir()
    for number, seed in ((1, 0), (2, 5)):
        save_checkpoint(make_model(seed=seed), folder / "m" / f"{number}.safetensors")
    save_checkpoint(make_model(n_features=3), folder / "other.safetensors")
    return folder


@pytest.fixture(scope="module")
def client(serve, versions):
    with serve(models=versions, max_points=30, max_path_nodes=60_000) as client:
        yield client


def window_of(service, name, seed=1):
    return make_windows(service.models[name], 1, seed)


def ask(service, name, question, windows, **members):
    output = service.models[name].config.outputs[-1]
    body = {"instances": windows.tolist(), "output": output, **members}
    answer = service.post(f"/v1/models/{name}:{question}", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def predict(service, name, windows):
    answer = service.post(f"/v1/models/{name}:predict", {"instances": np.asarray(windows).tolist()})
    return np.array(answer.json()["predictions"])[:, -1]


def refuse(client, question, members, name="m", status=422):
    """The error response to a question about one window."""
    windows = make_windows(make_model(), 1).tolist()
    answer = client.post(f"/v1/models/{name}:{question}", json={"instances": windows, **members})
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("steps", [None, [-1, 0], [-2, -1]])
def test_every_number_of_a_curve_is_that_of_predict(service, name, steps):
    """:predict returns a curve's predictions for the windows of that curve, built by hand."""
    config, windows = service.models[name].config, window_of(service, name)
    steps = steps and [max(step, 1 - config.lookback) for step in steps]
    shift = {"from": -1.5, "to": 2, "points": 5}
    plain = [one.name for one in service.models[name].inputs if one.kind == "number"]
    chosen = [plain[-1], plain[0]]
    answer = ask(service, name, "whatif", windows, features=chosen, steps=steps, shift=shift)
    (curves,) = answer["curves"]
    assert [curve["feature"] for curve in curves] == chosen
    first, last = (1 - config.lookback, 0) if steps is None else steps
    oldest = config.lookback - 1
    for curve in curves:
        feature = config.features[config.feature_names.index(curve["feature"])]
        assert curve["values"] == pytest.approx(np.linspace(-1.5, 2, 5)) and curve["kind"] == "shift"
        changed = np.repeat(windows, 5, axis=0)
        place = slice(oldest + first, oldest + last + 1)
        changed[:, place, config.feature_names.index(feature.name)] += np.array(curve["values"])[:, None]
        scale = service.models[name].output_std[-1]
        assert curve["predictions"] == pytest.approx(predict(service, name, changed), abs=1e-5 * scale)
        taken = changed[:, place, config.feature_names.index(feature.name)]
        outside = ((taken < feature.min) | (taken > feature.max)).any(axis=1)
        assert curve["outside_training_range"] == outside.tolist()


def test_without_a_shift_a_feature_takes_the_values_of_its_training(service):
    """Numbers run from the feature's training minimum to its maximum, and cycles through the values that they have."""
    model = service.models["nyc-weather"]
    curves = ask(service, "nyc-weather", "whatif", window_of(service, "nyc-weather"))["curves"][0]
    features = {feature.name: feature for feature in model.config.features}
    for one, curve in zip(model.inputs, curves, strict=True):
        ends = (curve["values"][0], curve["values"][-1])
        if one.kind == "number":
            assert (curve["kind"], *ends) == ("value", features[one.name].min, features[one.name].max)
        else:
            assert (curve["kind"], *ends) == ("level", one.values[0], one.values[-1])
        assert not any(curve["outside_training_range"])


@pytest.mark.parametrize("name", NAMES)
def test_a_counterfactual_agrees_with_predict(service, name):
    """:predict returns the new prediction for the changed window; only the named steps are shifted."""
    model, windows = service.models[name], window_of(service, name)
    before, std = predict(service, name, windows)[0], model.output_std[-1]
    target = {"at_least": float(before + 0.2 * std)}
    steps = [max(-1, 1 - model.config.lookback), 0]
    answer = ask(service, name, "counterfactual", windows, target=target, steps=steps, within_training_range=False)
    (found,) = answer["counterfactuals"]
    assert found["prediction"] == pytest.approx(before, abs=1e-5 * std)
    after = predict(service, name, [found["instance"]])[0]
    assert found["new_prediction"] == pytest.approx(after, abs=1e-5 * std)
    assert found["reached"] == (found["new_prediction"] >= target["at_least"])
    changed, config = windows[0].copy(), model.config
    for change in found["changes"]:
        assert change["steps"] == steps
        number = config.feature_names.index(change["feature"])
        changed[-2:, number] += change["shift"]
        assert change["shift"] == pytest.approx(change["shift_in_std"] * model.scaling.feature_scale[number])
    assert np.array(found["instance"]) == pytest.approx(changed)
    assert found["distance"] == pytest.approx(sum(abs(change["shift_in_std"]) for change in found["changes"]))
    nearest = found["nearest_reference"]
    reference = model.scaling.features_to_original(model.reference.scaled.double())
    apart = (np.array(found["instance"]) - reference) / model.scaling.feature_scale
    distances = np.sqrt((apart**2).mean(axis=(1, 2)))
    assert nearest["index"] == distances.argmin() and nearest["distance"] == pytest.approx(distances.min(), rel=1e-5)


def test_a_target_out_of_reach_is_not_reached(service):
    """The response says that the target is not reached, with the closest result, and null per single feature."""
    windows = window_of(service, "two")
    answer = ask(service, "two", "counterfactual", windows, target={"between": [1e6, 2e6]})
    (found,) = answer["counterfactuals"]
    assert not found["reached"]
    assert found["new_prediction"] >= found["prediction"]
    assert all(single["shift"] is None for single in found["single_features"])


def test_a_comparison_sums_and_changes_its_sign(client):
    """The parts sum to the difference, swapping the sides flips every sign, and a self-comparison is all 0."""
    one, other = (make_windows(make_model(), 1, seed).tolist() for seed in (1, 2))

    def compare(version, mine, against_version, theirs):
        body = {"instances": mine, "against": {"version": against_version, "instances": theirs}}
        answer = client.post(f"/v1/models/m:compare?version={version}", json=body).json()
        assert answer["against"]["version"] == against_version
        return answer["comparisons"][0]

    there, back = compare("2", one, "1", other), compare("1", other, "2", one)
    assert there["difference"] == there["prediction"] - there["against_prediction"] == -back["difference"] != 0
    assert there["data"]["total"] + there["model"]["total"] == pytest.approx(there["difference"])
    itself = compare("2", one, "2", one)
    assert itself["difference"] == 0
    for part in ("data", "model"):
        assert there[part]["total"] == -back[part]["total"] and itself[part]["total"] == 0
        for name, value in there[part]["contributions"].items():
            assert value == -back[part]["contributions"][name] and itself[part]["contributions"][name] == 0
    assert client.post("/v1/models/m:compare", json={"instances": one, "against": {}}).json()["comparisons"] == [itself]


THRESHOLDS = {"edge_threshold": 0.05, "node_threshold": 0, "metric": "backward", "fill": "zero"}


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    "rule", [{"fidelity": 0.9, "without": ["head:0:1:0"]}, {**THRESHOLDS, "without": ["head:0:0:1"] * 2}]
)
def test_an_ablation_is_that_of_the_model_core(service, name, rule):
    """Both forecasts, the rule, its cost and its edges agree with the model core and the topology."""
    loaded, windows = service.models[name], make_windows(service.models[name], 3)
    answer = ask(service, name, "ablate", windows, **rule)
    limits = {part: rule[f"{part}_threshold"] for part in ("node", "edge") if f"{part}_threshold" in rule}
    core = {key: value for key, value in rule.items() if not key.endswith("threshold")}
    found = Model.of(loaded).ablate(windows, loaded.config.outputs[-1], thresholds=limits or None, **core)
    assert [one["prediction"] for one in answer["ablations"]] == pytest.approx(predict(service, name, windows))
    ablated = [one["ablated_prediction"] for one in answer["ablations"]]
    assert ablated == pytest.approx(found.ablated_predictions, abs=1e-6 * loaded.output_std[-1])
    query = {**rule, "output": loaded.config.outputs[-1]}
    graph = service.get(f"/v1/models/{name}/topology", params=query).json()["graph"]
    assert all(answer[key] == graph[key] for key in ("rule", "fidelity", "edges"))
    assert answer["rule"]["without"] == rule["without"][:1]
    assert "without" not in ask(service, name, "ablate", windows, fidelity=0.9)["rule"]


def test_an_ablation_that_removes_nothing_is_predict(service):
    """If the rule keeps all live edges, both forecasts are the same number."""
    windows = make_windows(service.models["nyc-weather"], 2)
    rule = {"node_threshold": 0, "edge_threshold": 0, "input_threshold": 0, "metric": "contribution"}
    answer = ask(service, "nyc-weather", "ablate", windows, **rule)
    assert answer["edges"]["kept"] == answer["edges"]["total"]
    assert all(one["prediction"] == one["ablated_prediction"] for one in answer["ablations"])


@pytest.mark.parametrize(
    ("question", "members", "place"),
    [
        ("whatif", {"features": ["f9"]}, "features[0]"),
        ("whatif", {"features": ["f0", "f0"]}, "features[1]"),
        ("whatif", {"steps": [-99, 0]}, "steps"),
        ("whatif", {"steps": [0, -1]}, "steps"),
        ("whatif", {"steps": [0]}, "steps"),
        ("whatif", {"shift": {"from": 0}}, "shift.to"),
        ("whatif", {"shift": {"from": 0, "to": 1, "points": 1}}, "shift.points"),
        ("whatif", {"shift": {"from": 0, "to": 1, "points": 31}}, "shift.points"),
        ("whatif", {"shift": {"from": 0, "to": 1e308}}, "shift.to"),
        ("whatif", {"shift": {"from": 0, "to": 1, "points": 2.5}}, "shift.points"),
        ("whatif", {"more": 1}, "more"),
        ("ablate", {"without": ["head:0:0:9"]}, "without[0]"),
        ("ablate", {"without": ["head:0:0:0", "lstm:0"]}, "without[1]"),
        ("ablate", {"without": "head:0:0:0"}, "without"),
        ("ablate", {"without": ["head:0:0:0"] * 501}, "without"),
        ("ablate", {"fidelity": 0.9, "edge_threshold": 0.1}, "fidelity"),
        ("ablate", {"fidelity": "0.9"}, "fidelity"),
        ("ablate", {"fidelity": 2}, "fidelity"),
        ("ablate", {"fill": "median"}, "fill"),
        ("ablate", {"pruned": True}, "pruned"),
        ("counterfactual", {}, "target"),
        ("counterfactual", {"target": {}}, "target"),
        ("counterfactual", {"target": {"at_least": 1, "between": [1, 2]}}, "target"),
        ("counterfactual", {"target": {"between": [2, 1]}}, "target.between"),
        ("counterfactual", {"target": {"between": [1]}}, "target.between"),
        ("counterfactual", {"target": {"at_most": "1"}}, "target.at_most"),
        ("counterfactual", {"target": {"at_most": 1}, "max_features": 0}, "max_features"),
        ("counterfactual", {"target": {"at_most": 1}, "features": ["x"]}, "features[0]"),
        ("compare", {}, "against"),
        ("compare", {"against": {"instances": [[[1]]]}}, "against.instances[0]"),
        ("compare", {"against": {"model": "other"}}, "against"),
        ("compare", {"against": {"windows": 1}}, "against.windows"),
    ],
)
def test_an_invalid_question_is_refused_by_its_path(client, question, members, place):
    """422 with the path of the invalid member."""
    error = refuse(client, question, members)
    assert error["errors"][0]["path"].startswith(place), error


@pytest.mark.parametrize(
    ("members", "code"),
    [({"model": "none"}, "model_not_found"), ({"version": "9"}, "version_not_found")],
)
def test_the_model_compared_with_must_exist(client, members, code):
    """404 for the model to compare with, as for the model itself."""
    assert refuse(client, "compare", {"against": members}, status=404)["code"] == code
    query = {f"against_{name}": value for name, value in members.items()}
    answer = client.get("/v1/models/m/comparison", params=query)
    assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_the_cost_is_known_before_the_work(client):
    """A request above max_path_nodes is refused at once, with the number that it needs."""
    windows = make_windows(make_model(), 12).tolist()
    for question, members in (
        ("whatif", {"shift": {"from": 0, "to": 1, "points": 30}}),
        ("counterfactual", {"target": {"at_least": 1}}),
    ):
        answer = client.post(f"/v1/models/m:{question}", json={"instances": windows * 50, **members})
        assert answer.status_code == 422, answer.text
        assert answer.json()["code"] == "limit_exceeded" and "(max_path_nodes)" in answer.json()["error"]


def test_the_deadline_ends_a_search(client):
    """After the deadline the response is 503; the search ends at its next pause, and forecasts are answered."""
    windows = make_windows(make_model(), 2).tolist()
    body = {"instances": windows, "target": {"at_least": 1e3}}
    answer = client.post("/v1/models/m:counterfactual", json=body, headers={"X-Request-Timeout": "0.001"})
    assert (answer.status_code, answer.json()["code"]) == (503, "deadline_exceeded")
    assert client.post("/v1/models/m:predict", json={"instances": windows}).status_code == 200


@pytest.mark.thorough("compares two models as wholes")
def test_the_comparison_of_versions_is_that_of_the_library(client, versions):
    """Every number is that of `Model.compare`, cached with its ETag, and 0 for a model with itself."""
    new, old = (Model.of(make_model(seed=seed)) for seed in (5, 0))
    answer = client.get("/v1/models/m/comparison?against_version=1")
    document = answer.json()
    found = new.compare(old)
    assert document["difference"] == pytest.approx(found.difference)
    for told, feature in zip(document["features"], found.features, strict=True):
        assert told["name"] == feature.name
        assert told["change"] == pytest.approx(feature.change)
        assert told["interval"] == pytest.approx(feature.interval)
    for told, edge in zip(document["edges"], found.edges, strict=True):
        assert (told["source"], told["kept"], told["against_kept"]) == (edge.source, edge.kept, edge.against_kept)
        assert told["curve_difference"] == pytest.approx(edge.curve_difference)
    unchanged = client.get(
        "/v1/models/m/comparison?against_version=1", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert unchanged.status_code == 304
    itself = client.get("/v1/models/m/comparison?against_version=2").json()
    assert itself["difference"] == 0 and not any(feature["change"] for feature in itself["features"])


@pytest.mark.thorough("compares models four times")
def test_compare_prints_the_differences(run, versions):
    """`kanscope compare NEW OLD` has the direction of `Model.compare` and names the files, in each of its forms."""
    old, new = versions / "m" / "1.safetensors", versions / "m" / "2.safetensors"
    title = f"{old} -> {new}, y+1"
    code, out, _ = run("compare", new, old)
    assert code == 0 and out.replace("\n", "").startswith(title)
    code, markdown, _ = run("compare", new, old, "--markdown")
    assert code == 0 and markdown.startswith(f"## {title}")
    document = json.loads(run("compare", new, old, "--json")[1])
    assert document["against"]["model_name"] == str(old)
    assert document["difference"] == load(new).compare(load(old)).difference
    assert run("compare", new, old, "--json", "--markdown")[0] == 2
    assert run("compare", old, versions / "other.safetensors")[0] == 2
