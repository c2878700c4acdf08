"""Every operation, over HTTP and by command, for one tiny model of each chain."""

import json
from dataclasses import replace

import numpy as np
import pytest
from factories import make_chain, make_tensors, make_windows, write_table
from thorough import few_of

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.network.bases import Line
from kanmodel.network.config import ModelConfig, RecurrentConfig, Transform, plain_layers
from kanmodel.tables.columns import Feature, Target

GRU = ModelConfig(
    features=(Feature("a"), Feature("b")),
    targets=(Target("y"),),
    lookback=3,
    horizon=1,
    head=plain_layers([3, 2, 1]),
    recurrent=RecurrentConfig("gru", 3),
    dtype="float64",
)
LINES = plain_layers([3, 4, 1], Line(), base="zero")
CONFIGS = {
    "gru": GRU,
    "flat": replace(GRU, recurrent=None, readout="flatten", head=plain_layers([6, 2, 1])),
    "mlp": replace(
        GRU, recurrent=RecurrentConfig("lstm", 3), head=(LINES[0], replace(LINES[1], before=(Transform("relu"),)))
    ),
    "sigmoid": replace(GRU, output_function="sigmoid"),
    "softmax": replace(
        GRU,
        targets=tuple(Target(name) for name in ("up", "same", "down")),
        head=plain_layers([3, 2, 3]),
        output_function="softmax",
    ),
}


@pytest.fixture(scope="module")
def served(serve, tmp_path_factory):
    """A client of a server of all models, the models, and their folder."""
    folder = tmp_path_factory.mktemp("models")
    models = {name: make_chain(config, n_reference=130) for name, config in CONFIGS.items()}
    for name, model in models.items():
        save_checkpoint(model, folder / f"{name}.safetensors")
    with serve(models=folder) as client:
        yield client, models, folder


@pytest.mark.parametrize("name", few_of(CONFIGS, ("mlp", "softmax"), "the same of other chains"))
@pytest.mark.parametrize(
    "path",
    ["", "/topology", "/topology/fidelity", "/topology?format=svg", "/edges", "/attributions", "/report", "/ready"],
)
def test_resources_of_a_model(served, name, path):
    """Each resource of the last output answers, and all numbers are finite."""
    client, models, _ = served
    output = models[name].config.outputs[-1]
    answer = client.get(f"/v1/models/{name}{path}", params={"output": output} if path not in ("", "/ready") else None)
    if "svg" in path:
        answer = client.get(f"/v1/models/{name}/topology", params={"output": output, "format": "svg"})
        assert answer.status_code == 200 and answer.text.startswith("<svg")
        return
    assert answer.status_code == 200, answer.text
    json.loads(answer.text, parse_constant=pytest.fail)  # NaN, Infinity


@pytest.mark.parametrize("name", CONFIGS)
def test_forecasts_and_explanations(served, name, tmp_path, run):
    """V1, V2 and the core agree on forecasts, explanations are complete, and receipts repeat."""
    client, models, folder = served
    model = models[name]
    windows = make_windows(model, 3)
    expected = model.predict(windows)
    one = client.post(f"/v1/models/{name}:predict", json={"instances": windows.tolist()}).json()
    np.testing.assert_allclose(one["predictions"], expected, rtol=1e-6, atol=1e-9)
    two = client.post(f"/v2/models/{name}/infer", json=make_tensors(windows.tolist())).json()
    found = next(tensor for tensor in two["outputs"] if tensor["name"] == "predictions")
    np.testing.assert_allclose(np.reshape(found["data"], found["shape"]), expected, rtol=1e-6, atol=1e-9)
    body = json.dumps({"instances": windows.tolist(), "output": model.config.outputs[-1], "receipt": True}).encode()
    answer = client.post(f"/v1/models/{name}:explain", content=body, headers={"content-type": "application/json"})
    for explanation in answer.json()["explanations"]:
        change = explanation["prediction"] - explanation["baseline_prediction"]
        total = sum(explanation["contributions"].values())
        assert explanation["converged"] and abs(total - change) <= explanation["residual"] + 1e-9
    (tmp_path / "answer.json").write_bytes(answer.content)
    (tmp_path / "body.json").write_bytes(body)
    checkpoint = folder / f"{name}.safetensors"
    arguments = ("--receipt", tmp_path / "answer.json", "--input", tmp_path / "body.json", checkpoint)
    code, out, err = run("explain", *arguments)
    assert code == 0, out + err


@pytest.mark.parametrize("name", few_of(CONFIGS, ("flat",), "the same commands for other chains: 1 to 2 s each"))
def test_commands(served, name, tmp_path, run):
    """Each command runs: explain, inspect, prune and, for models that can be trained, train."""
    _, models, folder = served
    config = models[name].config
    checkpoint, output = folder / f"{name}.safetensors", ("--output-name", config.outputs[-1])
    table = write_table(tmp_path / "t.csv", n_rows=60)
    for arguments in (
        ("explain", checkpoint, table, "-o", tmp_path / "explained"),
        ("explain", checkpoint, *output),
        ("inspect", checkpoint, *output),
        ("inspect", checkpoint, "--json", *output),
        ("report", checkpoint, *output),
        ("prune", checkpoint, "-o", tmp_path / "pruned.safetensors"),
    ):
        code, out, err = run(*arguments)
        assert code == 0, f"{arguments}: {out}{err}"
    pruned = load_checkpoint(tmp_path / "pruned.safetensors")
    assert np.isfinite(pruned.predict(make_windows(pruned, 2))).all()
    code, out, err = run("formula", checkpoint, *output)
    if config.output_function == "softmax":
        assert code == 2 and "softmax mixes them" in err
    else:
        assert code == 0 and "complexity" in out, err


@pytest.mark.parametrize("name", ["gru", "flat", "mlp"])
def test_a_chain_is_trained_on(served, name, tmp_path, run):
    """Fine-tuning works for every cell, and without one, and keeps the architecture."""
    _, models, folder = served
    table, checkpoint = write_table(tmp_path / "t.csv"), tmp_path / "on.safetensors"
    code, out, err = run("train", table, "--from", folder / f"{name}.safetensors", "--epochs", 2, "-o", checkpoint)
    assert code == 0, out + err
    config, before = load_checkpoint(checkpoint).config, models[name].config
    assert (config.recurrent, config.readout) == (before.recurrent, before.readout)
    assert [(layer.n_in, layer.n_out, layer.basis) for layer in config.head] == [
        (layer.n_in, layer.n_out, layer.basis) for layer in before.head
    ]


def test_a_classifier_returns_logits(served):
    """Softmax probabilities sum to 1 and follow from the returned logits; other models have no logits."""
    client, models, _ = served
    windows = {"instances": make_windows(models["softmax"], 2).tolist()}
    answer = client.post("/v1/models/softmax:predict", json=windows).json()
    logits, probabilities = np.array(answer["logits"]), np.array(answer["predictions"])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), probabilities)
    assert "logits" not in client.post("/v1/models/flat:predict", json=windows).json()


def test_a_flattened_window_is_explained_by_its_cells(served):
    """The ledger has the cells, which sum to the change of the forecast, and the architecture gives the reason."""
    client, models, _ = served
    body = {"instances": make_windows(models["flat"], 2).tolist(), "detail": "flow"}
    (one, _) = client.post("/v1/models/flat:explain", json=body).json()["explanations"]
    (cells,) = [layer["nodes"] for layer in one["layers"] if layer["stage"] == "cell"]
    np.testing.assert_allclose(cells, np.ravel(one["steps"]), atol=1e-9)
    architecture = client.get("/v1/models/flat").json()["architecture"]
    assert (architecture["lstm"], architecture["gru"], architecture["readout"]) == (None, None, "flatten")
