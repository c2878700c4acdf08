"""`kanscope import`: its checkpoints, what the service answers from them, and the README of the importers."""

import json
import re
import shlex
import sys
from pathlib import Path

import glue_layers
import numpy as np
import pytest
import torch
import typer
from glue import CASES, FEATURES, GLUE, load_glue
from goldens import FOLDER, load_case
from thorough import few_of

import kanmodel
import kanmodel.importers
from kanmodel.checkpoint import load_checkpoint
from kanmodel.importers.files.manifest import KEYS
from service.cli import app
from service.commands.import_ import import_

WEIGHTS = FOLDER / "import" / "pykan_head" / "state_dict_dataparallel.pt"
SCALER = FOLDER / "import" / "pykan_head" / "scaler.json"
MANIFEST = {
    "scaling": str(SCALER),
    "lookback": 24,
    "readout": "last",
    "base_activation": "silu",
    "reference": "windows.npz:reference",
}
README = (Path(kanmodel.importers.__file__).parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def manifest(tmp_path):
    """Writes a manifest for the pykan head, in scaled units, with changes."""
    case = load_case("pykan_head", "float32")
    arrays = {"reference": case.arrays["reference"], "eval": case.arrays["eval"]}
    np.savez(tmp_path / "windows.npz", predictions=case.expected("predictions"), **arrays)

    def write(**changes):
        document = (
            MANIFEST
            | {
                "check": {"inputs": "windows.npz:eval", "outputs": "windows.npz:predictions"},
                "space": "scaled",
            }
            | changes
        )
        (tmp_path / "manifest.json").write_text(json.dumps(document))
        return tmp_path / "manifest.json"

    return write


def test_a_state_dict_becomes_a_checkpoint(tmp_path, run, manifest):
    """The command writes a verified checkpoint with the scaler's names and units, and prints the result."""
    output = tmp_path / "weather.safetensors"
    code, out, _ = run("import", WEIGHTS, "--manifest", manifest(name="weather"), "-o", output, "--prepare")
    assert kanmodel.load(output).prepared is not None and f"{tmp_path / 'weather.results'} (0." in out
    assert code == 0 and "weather: wrote" in out and "verified: the largest difference from the check is" in out
    assert "standard deviations of that output" in out
    model = load_checkpoint(output)
    scaler = json.loads(SCALER.read_text())
    assert list(model.config.feature_names) == scaler["feature_names"] and model.provenance.verified
    windows = load_case("pykan_head").arrays["eval"][:2] * scaler["std"] + scaler["mean"]
    expected = load_case("pykan_head").expected("predictions")[:2] * scaler["target_std"][0] + scaler["target_mean"][0]
    np.testing.assert_allclose(model.predict(windows), expected, rtol=1e-5)


def test_original_units(tmp_path, run, manifest):
    """Reference and check in original units give the same checkpoint as in scaled ones."""
    scaler, case = json.loads(SCALER.read_text()), load_case("pykan_head")
    arrays = {name: case.arrays[name] * scaler["std"] + np.array(scaler["mean"]) for name in ("reference", "eval")}
    predictions = case.expected("predictions") * scaler["target_std"][0] + scaler["target_mean"][0]
    file = manifest(space="original")
    np.savez(tmp_path / "windows.npz", predictions=predictions, **arrays)
    code, _, error = run("import", WEIGHTS, "--manifest", file, "-o", tmp_path / "m.safetensors")
    assert code == 0, error
    found = load_checkpoint(tmp_path / "m.safetensors").reference.scaled
    torch.testing.assert_close(found, case.windows("reference").float(), rtol=1e-5, atol=1e-5)


def test_a_table_of_rows(tmp_path, run, manifest):
    """A CSV file is read as windows of consecutive rows, with columns by name."""
    names = json.loads(SCALER.read_text())["feature_names"]
    rows = load_case("pykan_head").arrays["reference"][:2].reshape(48, 20)
    lines = [",".join([*reversed(names), "other"]), *(",".join([*map(str, row[::-1]), "x"]) for row in rows.tolist())]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    code, out, error = run(
        "import", WEIGHTS, "--manifest", manifest(reference="rows.csv"), "-o", tmp_path / "m.safetensors", "--json"
    )
    assert code == 0, error
    assert json.loads(out)["reference_windows"] == 25
    found = load_checkpoint(tmp_path / "m.safetensors").reference.scaled
    np.testing.assert_allclose(found[24], rows[24:], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base_activation": "identity"}, "does not compute windows.npz:predictions: the largest difference is"),
        (
            {"check": {"inputs": "windows.npz:eval", "outputs": "windows.npz:predictions", "tolerance": 1}},
            "proves nothing",
        ),
        ({"lookback": 23}, "must have the shape"),
        ({"reference_targets": "windows.npz:predictions"}, "must have the shape (256, 1)"),
    ],
)
def test_a_failed_import_writes_nothing(tmp_path, run, manifest, changes, reason):
    """A file that does not match its manifest gives one sentence, and no file is written."""
    file = manifest(**changes)
    before = sorted(tmp_path.iterdir())
    code, _, error = run("import", WEIGHTS, "--manifest", file, "-o", tmp_path / "m.safetensors")
    assert code == 2 and reason in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_folder_is_refused_before_the_work(tmp_path, run, manifest):
    """A checkpoint path that cannot be written is refused before the file is read."""
    output = tmp_path / "none" / "m.safetensors"
    code, _, error = run("import", tmp_path / "missing.pt", "--manifest", manifest(), "-o", output)
    assert code == 2 and f"cannot write {output}: there is no folder {output.parent}" in error


def test_without_check(tmp_path, run, manifest):
    """Without a check, the checkpoint records that it is not verified."""
    code, out, _ = run("import", WEIGHTS, "--manifest", manifest(check=None), "-o", tmp_path / "m.safetensors")
    assert code == 0 and "not verified" in out
    assert not load_checkpoint(tmp_path / "m.safetensors").provenance.verified


def test_how_far_ahead_the_forecasts_are_is_stated_by_an_option_or_the_manifest(tmp_path, run, manifest):
    """Outputs are named by it, of both the manifest's counts, and a number below 0 is refused."""
    file, (target,) = tmp_path / "m.safetensors", json.loads(SCALER.read_text())["target_names"]
    for options, stated, ahead in ((("--ahead", 6), {}, 6), ((), {"ahead": 2}, 2), (("--ahead", 6), {"ahead": 2}, 2)):
        code, _, error = run("import", WEIGHTS, "--manifest", manifest(**stated), *options, "-o", file)
        assert code == 0, error
        config = load_checkpoint(file).config
        assert (config.ahead, config.outputs) == (ahead, (f"{target}+{ahead}",))
    for wrong in (-1, 1.5):
        code, _, error = run("import", WEIGHTS, "--manifest", manifest(), "--ahead", wrong, "-o", file)
        assert code == 2 and "--ahead" in error


def test_description(run):
    """The contents of a file are printed with a manifest, as tables or as JSON."""
    code, out, _ = run("import", WEIGHTS, "--describe")
    assert code == 0
    for found in ("'fc_kan': nodes [12, 5, 1], grid 5, 5, spline order 3", "20 inputs, 12 units, 1 layer", "lookback:"):
        assert found in out
    document = json.loads(run("import", WEIGHTS, "--describe", "--json")[1])
    assert document["prefix"] == "module." and [part["library"] for part in document["parts"]] == ["LSTM", "pykan"]
    assert document["unknown"] == [] and "readout" in " ".join(document["missing"])


def test_both_differences_are_reported(tmp_path, run, serve, manifest):
    """JSON, `inspect` and HTTP report the absolute and the relative difference of the check."""
    file = tmp_path / "models" / "m.safetensors"
    file.parent.mkdir()
    document = json.loads(run("import", WEIGHTS, "--manifest", manifest(), "-o", file, "--json")[1])
    absolute, relative = document["largest_difference"], document["relative_difference"]
    spread = float(load_case("pykan_head", "float32").expected("predictions").double().std(correction=0))
    assert relative == pytest.approx(absolute / spread) and 0 < relative < 1e-5
    assert (document["reading"], document["also_matching"]) == (None, [])
    assert f"{absolute:.2g}" in run("inspect", file)[1]
    with serve(models=file.parent) as client:
        provenance = client.get("/v1/models/m").json()["provenance"]
    assert (provenance["difference"], provenance["relative_difference"]) == (absolute, relative)


@pytest.fixture(scope="module")
def head(serve, tmp_path_factory):
    """A client of a server of the imported pykan head."""
    folder = tmp_path_factory.mktemp("imported")
    case = load_case("pykan_head", "float32")
    np.savez(folder / "windows.npz", reference=case.arrays["reference"])
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | {"space": "scaled"}))
    import_(WEIGHTS, manifest=folder / "manifest.json", output=folder / "head.safetensors")
    with serve(models=folder) as client:
        yield client


@pytest.mark.thorough("prunes golden models again, as the tests of the core do")
def test_the_topology_at_pykans_thresholds_is_pykans(head):
    """With pykan's thresholds and a fill of zero, the kept edges are those of pykan's masks."""
    prunings = [pruning for pruning in load_case("pykan_head").prunings() if pruning.call != "prune_input"]
    assert {pruning.call for pruning in prunings} == {"prune_node", "prune_edge", "prune"}
    for pruning in prunings:
        query = {"fill": "zero", "metric": "backward", "pruned": "true"}
        query |= {f"{part}_threshold": pruning.thresholds.get(part, 0) for part in ("node", "edge", "input")}
        topology = head.get("/v1/models/head/topology", params=query).json()
        kept = {(e["layer"], e["i"], e["j"]) for e in topology["edges"] if e["kind"] == "edge"}
        expected = {
            (layer, pruning.kept_nodes[layer][i], pruning.kept_nodes[layer + 1][j])
            for layer, mask in enumerate(pruning.masks)
            for j, i in np.argwhere(mask != 0).tolist()
        }
        assert kept == expected


def test_an_edge_is_pykans_function(head):
    """A sampled edge passes through pykan's samples within its grid."""
    case = load_case("pykan_head")
    for number, edge in enumerate(case.document["curves"]):
        x, total = (case.arrays[f"curves/{number}/{name}"] for name in ("x", "total"))
        path = f"/v1/models/head/edges/{edge['layer']}/{edge['i']}/{edge['j']}"
        curve = head.get(path, params={"points": 2001, "range": "grid"}).json()
        inside = (x >= curve["x"][0]) & (x <= curve["x"][-1])
        assert inside.any()
        np.testing.assert_allclose(np.interp(x[inside], curve["x"], curve["y"]), total[inside], atol=1e-5)


def test_the_scores_of_an_lstm_model_are_about_its_units(head):
    """Downstream of an LSTM, features have no pykan score; the LSTM's units have them."""
    attributions = head.get("/v1/models/head/attributions").json()
    nodes = head.get("/v1/models/head/topology", params={"pruned": "false"}).json()["nodes"]
    assert all(feature["pykan_feature_score"] is None for feature in attributions["features"])
    assert all("scores" not in node for node in nodes if node["kind"] == "feature")
    scores = [node["scores"]["backward"] for node in nodes if node["kind"] == "lstm"]
    expected = load_case("pykan_head").expected("nodes/0")
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("name", few_of(CASES, CASES[:1], "imports and serves each forecaster: 1 s"))
def test_an_import_is_served_and_explained(serve, tmp_path, name):
    """A forecaster is imported from windows and names; the service predicts the same, and explains it completely."""
    case, file = load_glue(name), tmp_path / f"{name}.safetensors"
    scaled = "target_mean" in case.scaling
    arrays = {"eval": case.windows, "predictions": case.predictions, "targets": case.targets}
    np.savez(tmp_path / "windows.npz", **arrays)
    (tmp_path / "names.txt").write_text("\n".join(FEATURES))
    (tmp_path / "scaler.json").write_text(json.dumps(case.scaling | {"target_names": ["y"]}))
    given = {"windows": tmp_path / "windows.npz", "features": tmp_path / "names.txt", "output": file}
    import_(GLUE / name / "state_dict.pt", scaling=tmp_path / "scaler.json" if scaled else None, **given)
    windows = case.original if scaled else case.windows.astype(float)
    wanted = case.in_original_units(case.predictions) if scaled else case.predictions
    body = {"instances": windows[:2].tolist(), "output": load_checkpoint(file).config.outputs[0]}
    with serve(models=file) as client:
        answer = client.post(f"/v1/models/{name}:explain", json=body)
    assert answer.status_code == 200, answer.text
    explanations = answer.json()["explanations"]
    for explanation in explanations:
        change = explanation["prediction"] - explanation["baseline_prediction"]
        assert explanation["converged"]
        assert abs(sum(explanation["contributions"].values()) - change) <= explanation["tolerance"]
    spread = wanted.std(axis=0).max()
    np.testing.assert_allclose([e["prediction"] for e in explanations], wanted[:2, 0], rtol=1e-4, atol=1e-4 * spread)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The script's variables after a run with a few training steps."""
    monkeypatch.setitem(sys.modules, "efficient_kan", glue_layers)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(PYTHON[0].replace("range(300)", "range(20)"), names)
    (tmp_path / "names.txt").write_text("temp, °C\nwind, m/s\nnoise\n")
    return names


def test_the_script_and_the_commands(trained, run):
    """After the script, each command succeeds as written and reports what the README shows."""
    folder = re.search(r"^mkdir -p (\w+)$", README, re.MULTILINE)[1]
    Path(folder).mkdir()
    commands = re.findall(r"^kanscope (.+)$", README, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["import", "explain"]
    code, out, error = run(*shlex.split(commands[0]))
    assert code == 0, error
    said = re.search(r"^found: .*$", README, re.MULTILINE)[0]
    assert said in out and "verified: the largest difference" in out
    code, out, error = run(*shlex.split(commands[1]))
    assert code == 0 and "temp" in out and "°C" in out, error


def test_the_three_lines(trained):
    """The notebook's lines run after the script and give each feature's contribution."""
    lines = PYTHON[1].strip().splitlines()
    exec("\n".join(lines[:-1]), trained)
    features = eval(lines[-1], trained)
    assert len([line for line in lines if line]) == 3 and features.shape == (1, 3)


def test_every_key_of_the_manifest_is_in_the_readme():
    """The table lists exactly the keys that a manifest may have."""
    section = README.partition("## The manifest")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    assert sorted(key for row in rows for key in re.findall(r"`(\w+)`", row)) == sorted(KEYS)


def test_every_option_of_the_readme_exists():
    """The README names only options that the command has."""
    group = typer.main.get_command(app)
    command = group.get_command(typer.Context(group), "import")
    options = {option for parameter in command.params for option in parameter.opts}

    assert set(re.findall(r"`(--[a-z]+)`", README)) <= options
