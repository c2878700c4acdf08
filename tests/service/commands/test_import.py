import json

import numpy as np
import pytest
import torch
from goldens import FOLDER, load_case

from kanmodel.checkpoint import load_checkpoint

WEIGHTS = FOLDER / "import" / "pykan_head" / "state_dict_dataparallel.pt"
SCALER = FOLDER / "import" / "pykan_head" / "scaler.json"


@pytest.fixture
def manifest(tmp_path):
    """Writes a manifest for the pykan head, in scaled units, with changes."""
    case = load_case("pykan_head", "float32")
    arrays = {"reference": case.arrays["reference"], "eval": case.arrays["eval"]}
    np.savez(tmp_path / "windows.npz", predictions=case.expected("predictions"), **arrays)

    def write(**changes):
        document = {
            "scaling": str(SCALER),
            "lookback": 24,
            "readout": "last",
            "base_activation": "silu",
            "reference": "windows.npz:reference",
            "check": {"inputs": "windows.npz:eval", "outputs": "windows.npz:predictions"},
            "space": "scaled",
        } | changes
        (tmp_path / "manifest.json").write_text(json.dumps(document))
        return tmp_path / "manifest.json"

    return write


def test_a_state_dict_becomes_a_checkpoint(tmp_path, run, manifest):
    """The command writes a verified checkpoint with the scaler's names and units, and prints the result."""
    output = tmp_path / "weather.safetensors"
    code, out, _ = run("import", WEIGHTS, "--manifest", manifest(name="weather"), "-o", output)
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
    found = load_checkpoint(tmp_path / "m.safetensors").reference.windows
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
    found = load_checkpoint(tmp_path / "m.safetensors").reference.windows
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
