"""An imported model served over HTTP has the results of pykan."""

import json

import numpy as np
import pytest
from glue import CASES, FEATURES, GLUE, load_glue
from goldens import FOLDER, load_case

from service.commands.import_ import import_

FILES = FOLDER / "import" / "pykan_head"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with the imported pykan head."""
    folder = tmp_path_factory.mktemp("imported")
    case = load_case("pykan_head", "float32")
    np.savez(folder / "windows.npz", reference=case.arrays["reference"])
    manifest = {
        "scaling": str(FILES / "scaler.json"),
        "lookback": 24,
        "readout": "last",
        "base_activation": "silu",
        "reference": "windows.npz:reference",
        "space": "scaled",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    import_(FILES / "state_dict_dataparallel.pt", manifest=folder / "manifest.json", output=folder / "head.safetensors")
    return folder


@pytest.mark.parametrize("call", ["prune_node", "prune_edge", "prune"])
def test_the_topology_at_pykans_thresholds_is_pykans(serve, models, call):
    """With pykan's thresholds and a fill of zero, the kept edges are those of pykan's masks."""
    case = load_case("pykan_head")
    with serve(models=models) as client:
        for pruning in (pruning for pruning in case.prunings() if pruning.call == call):
            query = {"fill": "zero", "metric": "backward", "pruned": "true"}
            query |= {f"{part}_threshold": pruning.thresholds.get(part, 0) for part in ("node", "edge", "input")}
            topology = client.get("/v1/models/head/topology", params=query).json()
            kept = {(e["layer"], e["i"], e["j"]) for e in topology["edges"] if e["kind"] == "edge"}
            expected = {
                (layer, pruning.kept_nodes[layer][i], pruning.kept_nodes[layer + 1][j])
                for layer, mask in enumerate(pruning.masks)
                for j, i in np.argwhere(mask != 0).tolist()
            }
            assert kept == expected


def test_an_edge_is_pykans_function(serve, models):
    """A sampled edge passes through pykan's samples within its grid."""
    case = load_case("pykan_head")
    with serve(models=models) as client:
        for number, edge in enumerate(case.document["curves"]):
            x, total = (case.arrays[f"curves/{number}/{name}"] for name in ("x", "total"))
            path = f"/v1/models/head/edges/{edge['layer']}/{edge['i']}/{edge['j']}"
            curve = client.get(path, params={"points": 2001, "range": "grid"}).json()
            inside = (x >= curve["x"][0]) & (x <= curve["x"][-1])
            assert inside.any()
            np.testing.assert_allclose(np.interp(x[inside], curve["x"], curve["y"]), total[inside], atol=1e-5)


def test_the_scores_of_an_lstm_model_are_about_its_units(serve, models):
    """Downstream of an LSTM, features have no pykan score; the LSTM's units have them."""
    with serve(models=models) as client:
        attributions = client.get("/v1/models/head/attributions").json()
        nodes = client.get("/v1/models/head/topology", params={"pruned": "false"}).json()["nodes"]
    assert all(feature["pykan_feature_score"] is None for feature in attributions["features"])
    assert all("scores" not in node for node in nodes if node["kind"] == "feature")
    scores = [node["scores"]["backward"] for node in nodes if node["kind"] == "lstm"]
    expected = load_case("pykan_head").expected("nodes/0")
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """Every forecaster of `golden/import/glue`, imported by the command from windows and names."""
    folder = tmp_path_factory.mktemp("glue")
    for name in CASES:
        case = load_glue(name)
        arrays = {"eval": case.windows, "predictions": case.predictions, "targets": case.targets}
        np.savez(folder / "windows.npz", **arrays)
        (folder / "names.txt").write_text("\n".join(FEATURES))
        (folder / "scaler.json").write_text(json.dumps(case.scaling | {"target_names": ["y"]}))
        scaling = folder / "scaler.json" if "target_mean" in case.scaling else None
        import_(
            GLUE / name / "state_dict.pt",
            windows=folder / "windows.npz",
            features=folder / "names.txt",
            scaling=scaling,
            output=folder / f"{name}.safetensors",
        )
    return folder


def test_every_import_is_served_and_explained(serve, glue):
    """The service predicts what the module predicts, and explanations are complete."""
    with serve(models=glue) as client:
        for name in CASES:
            case = load_glue(name)
            scaled = "target_mean" in case.scaling
            windows = case.original if scaled else case.windows.astype(float)
            wanted = case.in_original_units(case.predictions) if scaled else case.predictions
            body = {"instances": windows[:2].tolist()}
            if wanted.shape[1] > 1:
                body["output"] = client.get(f"/v1/models/{name}").json()["outputs"][0]
            answer = client.post(f"/v1/models/{name}:explain", json=body)
            assert answer.status_code == 200, answer.text
            for explanation in answer.json()["explanations"]:
                assert explanation["converged"]
                change = explanation["prediction"] - explanation["baseline_prediction"]
                total = sum(explanation["contributions"].values())
                assert abs(total - change) <= explanation["tolerance"]
            first = [e["prediction"] for e in answer.json()["explanations"]]
            spread = wanted.std(axis=0).max()
            np.testing.assert_allclose(first, wanted[:2, 0], rtol=1e-4, atol=1e-4 * spread)
