"""Prediction intervals over HTTP are the library's, and their bounds and widths are outputs of every operation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from factories import make_model, make_tensors, make_windows, with_intervals
from thorough import few_of

from kanmodel import load
from kanmodel.checkpoint import save_checkpoint
from service.commands.repeat import repeat

QUANTILES = ("y", "y@0.1", "y@0.9", "y@0.025", "y@0.975")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of models with intervals of each kind, and of one without."""
    folder = tmp_path_factory.mktemp("models")
    single = make_model()
    made = {
        "nodes": with_intervals(make_model(targets=("a", "b"), horizon=2, n_reference=130)),
        "quantiles": with_intervals(make_model(targets=QUANTILES, seed=1), "quantiles"),
        "constant": with_intervals(make_model("head", n_reference=130), "constant"),
        "day": with_intervals(make_model(n_features=2, lookback=3, horizon=24)),
        "single": with_intervals(single.with_config(replace(single.config, ahead=1))),
        "plain": make_model(),
    }
    for name, model in made.items():
        save_checkpoint(model, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def client(serve, models):
    """A client of a real server of these models."""
    with serve(models=models, max_windows=4000) as client:
        yield client


@pytest.fixture(scope="module")
def known(models):
    """The models as the library loads them."""
    return {path.stem: load(path).accelerate() for path in models.glob("*.safetensors")}


def ask(client, name, verb, windows, **members):
    answer = client.post(f"/v1/models/{name}:{verb}", json={"instances": windows.tolist(), **members})
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_intervals(found, forecasts, atol=0.0):
    """Intervals of an answer are those of the library."""
    assert [one["level"] for one in found] == [*forecasts.levels]
    for k, one in enumerate(found):
        assert one["outputs"] == [*forecasts.outputs]
        np.testing.assert_allclose(one["lower"], forecasts.lower[k], atol=atol, rtol=1e-12)
        np.testing.assert_allclose(one["upper"], forecasts.upper[k], atol=atol, rtol=1e-12)


@pytest.mark.parametrize("name", ["nodes", "quantiles", "constant"])
def test_predict_gives_the_librarys_intervals(client, known, name):
    """Of each form of windows and of levels; forecasts are the same with and without them."""
    model, windows = known[name], make_windows(known[name], 3)
    forecasts, alone = model.predict(windows, intervals="all"), ask(client, name, "predict", windows)
    assert "intervals" not in alone and "intervals" not in ask(client, name, "predict", windows, intervals=None)
    for levels, chosen in (("all", (0.8, 0.95)), ([0.95, 0.8], (0.8, 0.95)), ([0.8], (0.8,))):
        answer = ask(client, name, "predict", windows, intervals=levels)
        assert answer["predictions"] == alone["predictions"]
        assert_intervals(answer["intervals"], model.predict(windows, intervals=chosen))
    columns = {feature: windows[..., f].tolist() for f, feature in enumerate(model.config.feature_names)}
    answer = client.post(f"/v1/models/{name}:predict", json={"columns": columns, "intervals": "all"}).json()
    assert_intervals(answer["intervals"], forecasts)
    escaped = json.dumps({"instances": windows.tolist()})[:-1] + r', "\u0069ntervals": "all"}'
    answer = client.post(f"/v1/models/{name}:predict", content=escaped, headers=JSON).json()
    assert_intervals(answer["intervals"], forecasts)


def test_a_series_has_intervals_for_each_of_its_windows(client, known):
    """As the windows that are cut from it."""
    model = known["nodes"]
    rows = make_windows(model, 1)[0]
    rows = np.concatenate([rows, rows[::-1]])
    series = {name: rows[:, f].tolist() for f, name in enumerate(model.config.feature_names)}
    answer = client.post("/v1/models/nodes:predict", json={"series": series, "intervals": [0.8]}).json()
    cut = np.stack([rows[end - model.lookback : end] for end in range(model.lookback, len(rows) + 1)])
    assert_intervals(answer["intervals"], model.predict(cut, intervals=(0.8,)))


def test_hundreds_of_windows_are_bounded_in_parts(client, known):
    """A request larger than a batch of forecasts."""
    model = known["day"]
    windows = make_windows(model, 600)
    answer = ask(client, "day", "predict", windows, intervals="all")
    assert_intervals(answer["intervals"], model.predict(windows, intervals="all"), atol=1e-9)


@pytest.mark.parametrize("name", ["nodes", "quantiles", "constant"])
def test_tensors_of_bounds_are_the_librarys(client, known, name):
    """By the parameter, beside the forecasts, or by name alone, in JSON and in binary."""
    model, windows = known[name], make_windows(known[name], 3)
    forecasts = model.predict(windows, intervals="all")
    expected = {"predictions": model.predict(windows)}
    for k, level in enumerate((0.8, 0.95)):
        expected |= {f"{bound}@{level:g}": getattr(forecasts, bound)[k] for bound in ("lower", "upper")}
    for parameters, names in (("all", [*expected]), ("[0.95]", ["predictions", "lower@0.95", "upper@0.95"])):
        body = make_tensors(windows.tolist(), intervals=parameters)
        outputs = client.post(f"/v2/models/{name}/infer", json=body).json()["outputs"]
        assert [one["name"] for one in outputs] == names
        for one in outputs:
            assert one["shape"] == [*expected[one["name"]].shape]
            np.testing.assert_allclose(one["data"], expected[one["name"]].ravel(), rtol=1e-12)
    body = make_tensors(windows.tolist(), intervals="all", explain=True)
    explained = client.post(f"/v2/models/{name}/infer", json=body).json()["outputs"]
    shapes = {one["name"]: one["shape"] for one in explained}
    assert shapes["residual"] == shapes["predictions"] == [*expected["predictions"].shape]
    assert shapes["upper@0.8"] == [*expected["upper@0.8"].shape]
    assert shapes["contributions"] == [*shapes["predictions"], len(model.features)]
    body = make_tensors(windows.tolist()) | {"outputs": [{"name": "upper@0.8", "parameters": {"binary_data": True}}]}
    answer = client.post(f"/v2/models/{name}/infer", json=body)
    data = answer.content[int(answer.headers["Inference-Header-Content-Length"]) :]
    np.testing.assert_allclose(np.frombuffer(data), expected["upper@0.8"].ravel(), rtol=1e-12)
    metadata = client.get(f"/v2/models/{name}").json()["parameters"]
    assert metadata["levels"] == [0.8, 0.95] and metadata["bounded_outputs"] == [*forecasts.outputs]


def test_models_state_their_intervals(client):
    """Levels, kind, calibration, and which outputs have some."""
    found = client.get("/v1/models/quantiles").json()["intervals"]
    calibration = {"windows": 100, "first": None, "last": None}
    assert found == {"levels": [0.8, 0.95], "kind": "quantiles", "outputs": ["y+1"], "calibration": calibration}
    assert client.get("/v1/models/nodes").json()["intervals"]["outputs"] == ["a+1", "b+1", "a+2", "b+2"]
    assert "intervals" not in client.get("/v1/models/plain").json()


def _v1(levels):
    return "v1", {"intervals": levels}


def _v2(levels):
    return "v2", {"parameters": {"intervals": levels}}


def _named(name):
    return "v2", {"outputs": [{"name": name}]}


@pytest.mark.parametrize(
    ("name", "asked", "error"),
    [
        ("plain", _v1([0.8]), "intervals must not be given, as the model has none"),
        ("plain", _v1("all"), "intervals must not be given, as the model has none"),
        ("nodes", _v1([0.8, 0.9]), "intervals[1] must be one of 0.8, 0.95, the levels of the model, but is 0.9"),
        ("nodes", _v1("most"), "intervals must be a list of levels, but is a string"),
        ("nodes", _v1(["0.8"]), "intervals[0] must be a number, but is a string"),
        ("nodes", _v1(0.8), "intervals must be a list of levels, but is a number"),
        ("plain", _v2("all"), "parameters.intervals must not be given, as the model has none"),
        ("nodes", _v2("[0.9]"), "parameters.intervals[0] must be one of 0.8, 0.95"),
        ("nodes", _v2("most"), "parameters.intervals must be a string of JSON"),
        ("nodes", _named("lower@0.9"), "outputs[0].name lower@0.9 does not exist; the bounds are low"),
        ("nodes", _named("lower@0.80"), "outputs[0].name lower@0.80 does not exist"),
        ("plain", _named("lower@0.8"), "outputs[0].name lower@0.8 does not exist; the model has no"),
    ],
)
def test_other_levels_are_refused(client, known, name, asked, error):
    """One sentence that names the place and what there is; of tensors with 400, as the protocol wants."""
    (version, members), windows = asked, make_windows(known[name], 1).tolist()
    path, body = f"/v1/models/{name}:predict", {"instances": windows}
    if version == "v2":
        path, body = f"/v2/models/{name}/infer", make_tensors(windows)
    answer = client.post(path, json=body | members)
    assert (answer.status_code, answer.json()["code"]) == (422 if version == "v1" else 400, "invalid_value")
    assert answer.json()["error"].startswith(error)


def test_a_bound_that_does_not_exist_is_refused(client, known):
    """With the outputs and the bounds that each has."""
    for name, output, there in (
        ("nodes", "a+1:width@0.9", "a+1, b+1, a+2, b+2, each also with :lower@0.8, :upper@0.8, :width@0.8, :lower@"),
        ("plain", "y+1:width@0.8", "y+1"),
    ):
        windows = make_windows(known[name], 1).tolist()
        for answer in (
            client.post(f"/v1/models/{name}:explain", json={"instances": windows, "output": output}),
            client.get(f"/v1/models/{name}/attributions", params={"output": output}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "output_not_found")
            assert f"does not exist: '{output}'; the outputs are {there}" in answer.json()["error"]


@pytest.mark.parametrize("name", ["nodes", "quantiles", "constant"])
def test_contributions_sum_to_the_width_within_the_tolerance(client, known, name):
    """And to the bounds; outputs and bounds may stand in one list, and forecasts are the model's own."""
    model, windows = known[name], make_windows(known[name], 3)
    output = model.bounded_outputs[-1]
    names = [output, *(f"{output}:{bound}@0.95" for bound in ("lower", "upper", "width"))]
    answer = ask(client, name, "explain", windows, output=names, detail="flow")
    assert answer["predictions"] == model.predict(windows).tolist() and answer["output"] == names
    assert answer["unit"] == [model.unit_of(output)] * 4
    bounds = model.predict(windows, intervals="all")
    for one in answer["explanations"]:
        ends = [(bounds.lower[k, one["instance"], -1], bounds.upper[k, one["instance"], -1]) for k in range(2)]
        found = [(interval["lower"], interval["upper"]) for interval in one.get("intervals", ())]
        np.testing.assert_allclose(found, ends if one["output"] == output else [], rtol=1e-12)
        assert ("usual_width" in one) is one["output"].endswith("width@0.95")
        of, number = model.find_output(one["output"])
        window = windows[one["instance"]][None]
        change = of.predict(window)[0, number] - of.predict(of.baseline())[0, number]
        assert one["converged"] and one["tolerance"] > 0
        assert sum(one["contributions"].values()) == pytest.approx(change, abs=2 * one["tolerance"])
        for layer in one["layers"]:
            if "nodes" in layer:
                assert sum(layer["nodes"]) == pytest.approx(change, abs=2 * one["tolerance"])
    if name == "quantiles":
        forecasts = model.predict(windows, intervals=(0.95,))
        found = [one["prediction"] for one in answer["explanations"] if one["output"] == names[-1]]
        np.testing.assert_allclose(found, forecasts.width[0, :, 0], rtol=1e-9)


def test_a_width_of_a_single_output_comes_beside_its_forecast(client, known):
    """Also line by line; the answer's `predictions` are of the model's outputs."""
    windows, width = make_windows(known["constant"], 3), "y+1:width@0.8"
    body = {"instances": windows.tolist(), "output": width}
    whole = ask(client, "constant", "explain", windows, output=width)
    assert whole["predictions"] == ask(client, "constant", "predict", windows)["predictions"]
    lines = client.post("/v1/models/constant:explain", json=body, headers={"Accept": "application/x-ndjson"}).text
    head, *rest = map(json.loads, lines.splitlines())
    np.testing.assert_allclose(head["predictions"], whole["predictions"], rtol=1e-9)
    assert rest == whole["explanations"]
    assert all(one["prediction"] > 0 and not any(one["contributions"].values()) for one in rest)


def test_a_receipt_of_a_width_is_repeated(client, known, models, tmp_path, capsys):
    """From the saved answer, the request and the checkpoint, which is the model's."""
    request = {
        "instances": make_windows(known["nodes"], 3).tolist(),
        "output": ["a+1", "a+1:width@0.8"],
        "receipt": True,
    }
    answer = client.post("/v1/models/nodes:explain", json=request)
    assert answer.json()["checkpoint"] == known["nodes"].checkpoint
    (tmp_path / "answer.json").write_bytes(answer.content)
    (tmp_path / "request.json").write_text(json.dumps(request))
    repeat(tmp_path / "answer.json", tmp_path / "request.json", models, as_json=False)
    assert "agrees" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path",
    [
        "attributions",
        "topology",
        "topology?format=svg",
        "topology?without=head:0:0:0",
        "topology/fidelity",
        "edges?points=5",
        "edges/0/0/0?points=5",
        "edges/0/0/0?points=5&format=svg",
        "edges/0/0/0?points=5&formulas=true",
        pytest.param("formula", marks=pytest.mark.thorough("searches formulas for seconds")),
        "report",
        "report?format=html",
        "comparison",
        "reference?contributions=true",
    ],
)
@pytest.mark.parametrize("name", few_of(("nodes", "constant"), ("nodes",), "the same without a network of its own"))
def test_questions_about_the_model_take_a_width(client, known, name, path):
    """Each answers about it as about an output, with the checkpoint of the model."""
    width = f"{known[name].outputs[-1]}:width@0.95"
    answer = client.get(f"/v1/models/{name}/{path}", params={"output": width})
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] != "application/json":
        assert width.split("+")[1] in answer.text
        return
    document = answer.json()
    document |= document.get("graph", {})
    assert document["checkpoint"] == known[name].checkpoint
    if not path.startswith("reference"):
        assert document["output"] == width


@pytest.mark.parametrize(
    ("verb", "members"),
    [
        ("whatif", {"features": ["f0"], "shift": {"from": -1, "to": 1, "points": 3}}),
        ("counterfactual", {"target": {"at_most": 0.0}, "max_features": 1}),
        ("ablate", {"fidelity": 0.9}),
        ("ablate", {"without": ["head:1:0:0"]}),
        ("compare", {"against": {"version": "1"}}),
    ],
)
def test_questions_about_forecasts_take_a_width(client, known, verb, members):
    """The width as it stands is what `:predict` gives; another one is the network's for the changed window."""
    model, windows, width = known["nodes"], make_windows(known["nodes"], 2), "b+2:width@0.8"
    answer = ask(client, "nodes", verb, windows, output=width, **members)
    assert answer["output"] == width and answer["unit"] == model.unit_of("b+2")
    usual = model.predict(windows, intervals=(0.8,)).width[0, :, 3]
    if verb == "whatif":
        found = [curve["predictions"][1] for (curve,) in answer["curves"]]
    else:
        name = {"counterfactual": "counterfactuals", "ablate": "ablations", "compare": "comparisons"}[verb]
        found = [one["prediction"] for one in answer[name]]
    np.testing.assert_allclose(found, usual, rtol=1e-6)


def test_models_of_which_one_lacks_the_bound_are_not_compared(client, known):
    """Neither on windows nor on the reference windows; the error says what the other has."""
    windows, width = make_windows(known["plain"], 1).tolist(), "y+1:width@0.8"
    body = {"instances": windows, "output": width, "against": {"model": "plain"}}
    for answer in (
        client.post("/v1/models/single:compare", json=body),
        client.get("/v1/models/single/comparison", params={"output": width, "against_model": "plain"}),
    ):
        assert answer.status_code == 422
        assert answer.json()["error"] == f"against has no output '{width}'; its outputs are y+1"


def test_a_table_of_widths_is_explained(run, known, models, tmp_path: Path):
    """Row by row as the library does; the command prints one of a reference window too."""
    model, width = known["nodes"], "a+2:width@0.8"
    rows = make_windows(model, 2).reshape(-1, len(model.features))
    pl.DataFrame(rows, schema=[*model.config.feature_names]).write_csv(tmp_path / "rows.csv")
    file, out = models / "nodes.safetensors", tmp_path / "out"
    code, _, err = run("explain", file, tmp_path / "rows.csv", "-o", out, "--output-name", width)
    assert code == 0, err
    frame = pl.read_parquet(out / "part-*.parquet")
    windows = np.stack([rows[end - model.lookback : end] for end in range(model.lookback, len(rows) + 1)])
    explained = model.explain(windows, width, detail="features")
    np.testing.assert_allclose(frame["prediction"], explained.predictions, rtol=1e-9)
    np.testing.assert_allclose(frame["contribution_f0"], explained.contributions[:, 0], rtol=1e-6, atol=1e-9)
    code, out, err = run("explain", file, "--output-name", width, "--json")
    assert (code, json.loads(out)["output"], json.loads(out)["target"]) == (0, width, None)
    code, out, _ = run("explain", file, "--output-name", width)
    assert code == 0 and "the width for the mean" in out and "the usual" in " ".join(out.split())
    assert "0.8, 0.95 (nodes), calibrated on 100 windows" in run("inspect", file)[1]
    code, out, _ = run("explain", file, "--output-name", "a+2")
    assert code == 0 and "lower bound at 0.95" in out
    code, out, err = run("explain", file, "--output-name", "a+2:width@0.9")
    assert code == 2 and "a+2:width@0.9" in err


def test_reference_windows_are_listed_with_intervals(client, known):
    """They are those that `:predict` has of the windows; an output without any has none, nor has an answer unasked."""
    for name, output in (("nodes", "b+2"), ("quantiles", "y+1"), ("constant", "y+1"), ("plain", "y+1")):
        query = {"output": output, "intervals": True, "offset": 4, "limit": 3}
        rows = client.get(f"/v1/models/{name}/reference", params=query).json()["windows"]
        if name == "plain":
            assert not any("intervals" in row for row in rows)
            continue
        model = known[name]
        forecasts = model.predict(model.reference.windows[4:7], intervals=model.levels)
        column = forecasts.outputs.index(output)
        for number, row in enumerate(rows):
            bounds = [[forecasts.lower[k][number, column], forecasts.upper[k][number, column]] for k in (0, 1)]
            assert [one["level"] for one in row["intervals"]] == [*model.levels]
            found = [[one["lower"], one["upper"]] for one in row["intervals"]]
            np.testing.assert_allclose(found, bounds, rtol=1e-4, atol=1e-5)
        query.pop("intervals")
        assert "intervals" not in client.get(f"/v1/models/{name}/reference", params=query).json()["windows"][0]
