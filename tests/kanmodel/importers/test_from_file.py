import gzip
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from goldens import FOLDER, load_arrays, load_case
from scipy.interpolate import BSpline
from thorough import few_of

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import CheckpointError
from kanmodel.importers.files.exported import open_file
from kanmodel.importers.files.manifest import read_manifest
from kanmodel.importers.from_file import describe_file, from_file, import_checkpoint
from kanmodel.network.bases import BSpline as SplineBasis
from kanmodel.network.layer import pass_layers
from kanmodel.structure.scores import score_layers

FILES = FOLDER / "import"
CANARY = "lstmkan_pickle_canary_shared"
EDGES = ("mask", "scale_base", "scale_sp")
AFFINE = ("subnode_scale", "subnode_bias", "node_scale", "node_bias")
SCORES = ("forward_n", "forward_u", "backward", "nodes")


@dataclass(frozen=True)
class File:
    """A file, its manifest, and the location of the library's results.

    Attributes:
        path: under ``tests/golden/import``.
        windows: the golden case whose windows it reads; ``symbolic`` and ``efficient`` are in ``expected.npz``.
        numbers: the golden case, or the part of ``expected.npz``, with predictions and scores; None for those of
            `windows`.
        manifest: differences from the common one.
        scored: whether the scores are the library's too.
        tolerance: of predictions, absolute; larger if the library's float32 differs that much from its float64.
    """

    path: str
    windows: str = "pykan_head"
    numbers: str | None = None
    manifest: dict = field(default_factory=dict)
    scored: bool = True
    tolerance: float = 1e-6


def variant(name, **manifest):
    return File(f"pykan_head/variants/{name}.pt", numbers=f"variant_{name}", manifest=manifest)


def plain(name, file="state_dict.pt", tolerance=1e-6, **manifest):
    config = {} if "base_activation" in manifest else {"pykan_config": "ckpt_config.yml", "base_activation": None}
    return File(
        f"pykan_plain/{name}/{file}", name, name, {"lookback": 1, "readout": None} | config | manifest, True, tolerance
    )


def pruned(name, *kept, tolerance=1e-6, **manifest):
    manifest = {"lookback": 1, "readout": None, "input_id": list(kept)} | manifest
    return File(f"pykan_plain/{name}/ckpt_prune_input_state", name, f"{name}_pruned", manifest, False, tolerance)


READ = {
    "nonzip": File("pykan_head/state_dict_legacy_nonzip.pt"),
    "dataparallel": File("pykan_head/state_dict_dataparallel.pt"),
    "dataparallel_named": File(
        "pykan_head/state_dict_dataparallel.pt", manifest={"lstm": "module.lstm", "head": "fc_kan"}
    ),
    "lightning": File("pykan_head/lightning_like.ckpt"),
    "with_workspace": File("pykan_head/state_dict.pt.gz"),
    "float16": File("pykan_head/state_dict_float16.pt", numbers="float16", scored=False),
    "pruned_nodes": File("pykan_head/state_dict_pruned_nodes.pt", numbers="pruned_nodes", scored=False),
    "pruned_nodes_edges": File(
        "pykan_head/state_dict_pruned_nodes_edges.pt", numbers="pruned_nodes_edges", scored=False
    ),
    "pruned_inputs": File(
        "pykan_head/state_dict_pruned_inputs.pt",
        numbers="pruned_inputs",
        manifest={"input_id": [0, 2, 3, 4, 6, 8, 9, 10]},
        scored=False,
    ),
    "pykan_0_0_5": File("pykan_head/legacy_pykan_0.0.5_state_dict.pt", numbers="legacy", scored=False),
    "renamed": File("pykan_head/variants/renamed_attributes.pt", numbers="renamed"),
    "float64": File("pykan_head/variants/two_layer_float64.pt", numbers="variant_two_layer"),
    **{
        name: variant(name)
        for name in (
            *("two_layer", "bidirectional", "lstm_without_bias", "no_hidden_layer", "deep", "grid10_k2"),
            *("grid_per_layer", "sparse_init"),
        )
    },
    "multi_output": variant("multi_output", targets=["a", "b", "c"]),
    "mult_nodes": variant("mult_nodes", mult_arity=2),
    "affine_trained": variant("affine_trained", mult_arity=[[], [2], []]),
    "base_fun_identity": variant("base_fun_identity", base_activation="identity"),
    **{f"plain_{name}": plain(name) for name in ("interp4", "mult", "mult_arity_lists", "symbolic", "constant_input")},
    "plain_proxy20": plain("proxy20", tolerance=2e-6),
    "plain_mult_arity3": plain("mult_arity3", tolerance=2e-6),
    "plain_mult_without_config": plain("mult", mult_arity=2, base_activation="silu"),
    "plain_arity3_found": plain("mult_arity3", tolerance=2e-6, base_activation="silu"),
    "plain_arity3_without_config": plain("mult_arity3", tolerance=2e-6, mult_arity=3, base_activation="silu"),
    "saveckpt_symbolic": plain("symbolic", "ckpt_state.gz"),
    "saveckpt_constant_input": plain("constant_input", "ckpt_state.gz"),
    "pruned_interp4": pruned("interp4", 0, 1),
    "pruned_proxy20": pruned("proxy20", 1, 9, tolerance=2e-5),
    "pruned_mult": pruned("mult", 0, 1, mult_arity=2),
    "pruned_arity3": pruned("mult_arity3", 1, 3, mult_arity=3),
    "pruned_arity_lists": pruned("mult_arity_lists", 0, 1, 3, tolerance=3e-5, mult_arity=[[], [2, 3], [2], []]),
    "pruned_constant_input": pruned("constant_input", 0, 1),
    "tiny": File("lstm_ig/tiny_state_dict.pt", "tiny", "tiny", {"lookback": 5}, scored=False),
    "synthetic_gt": File("synthetic_gt/state_dict.pt", "synthetic_gt", "synthetic_gt", {"lookback": 10}, False, 2e-6),
    "efficient": File("efficient_head/state_dict.pt", "efficient"),
    "efficient_training": File("efficient_head/training_checkpoint.pt", "efficient"),
    "efficient_whole_module": File("efficient_head/whole_module.pt", "efficient"),
    "efficient_bare": File(
        "efficient_head/bare_kanlinear_state_dict.pt", "efficient", "efficient_bare", {"targets": ["a", "b"]}
    ),
}

MORE = ("plain_", "pruned_", "grid", "deep", "two_layer", "sparse_init", "dataparallel_", "efficient_t", "saveckpt_c")

REFUSED = {
    "malicious_state_dict": (File("pykan_head/malicious_state_dict.pt"), "needs code to be run, os.makedirs,"),
    "malicious_plain": (File("pykan_head/malicious_plain.pkl"), "is a pickle, which can run any code"),
    "joblib": (File("pykan_head/scaler.joblib"), "is a pickle, which can run any code"),
    "cache_data": (File("pykan_head/fc_kan_cache_data"), "holds one tensor and no state_dict"),
    "projection": (variant("lstm_projection"), "has an LSTM with a projection (lstm.weight_hr_l0: proj_size 6)"),
    "pruned_inputs": (File("pykan_head/state_dict_pruned_inputs.pt"), "give input_id, the kept ones"),
    "other_base": (variant("base_fun_identity"), "the largest difference is 0.877, at window 15, output y+1"),
    "arity_unknown": (plain("mult_arity3", base_activation="silu", check=None), "give mult_arity"),
    "arity_wrong": (plain("mult_arity3", base_activation="silu", mult_arity=2), "does not compute"),
    "symbolic_without_names": (plain("symbolic", base_activation="silu"), "has a symbolic function in symbolic_fun.0"),
    "config_with_objects": (
        plain("symbolic", "ckpt_prune_input_state", pykan_config="ckpt_prune_input_config.yml"),
        "holds the Python object torch.nn.modules.activation.SiLU, which needs code",
    ),
    "config_of_another": (
        plain("mult", pykan_config="../mult_arity3/ckpt_config.yml", base_activation="silu"),
        "has the width [4, [6, 1], 1], but ckpt_config.yml says [4, [2, 1], 1]",
    ),
    "other_library": (File("pykan_head/lightning_like.ckpt", manifest={"library": "efficient_kan"}), "fit pykan, not"),
    "no_reference": (File("pykan_head/lightning_like.ckpt", manifest={"reference": None}), "lacks reference"),
    "no_readout": (
        File("pykan_head/lightning_like.ckpt", manifest={"readout": None, "check": None}),
        "give readout: what the head reads",
    ),
    "no_base": (
        File("pykan_head/lightning_like.ckpt", manifest={"base_activation": None, "check": None}),
        "give base_act",
    ),
    "other_outputs": (
        variant("multi_output"),
        "24 steps to 1 outputs: lstm (LSTM) from 20 to 8, fc_kan (pykan) from 8 to 3",
    ),
    "no_lstm": (
        File("pykan_head/lightning_like.ckpt", manifest={"lstm": None, "lookback": 1}),
        "must have the shape (n, lookback, n_features) or (n, n_features), here (n, 1, 20), but has (256, 24, 20)",
    ),
    "other_prefix": (File("pykan_head/lightning_like.ckpt", manifest={"head": "kan"}), "no KAN at 'kan', but 'fc_kan'"),
}


@cache
def expected_arrays():
    return MappingProxyType(load_arrays("import/expected"))


def numbers_of(file):
    """The library's results, float32, by name."""
    name = file.numbers or file.windows
    if (FOLDER / f"{name}.npz").exists():
        arrays = load_case(name).arrays
        dtype = "float64" if "float32/predictions" not in arrays or "float64" in file.path else "float32"
        return {key.removeprefix(f"{dtype}/"): array for key, array in arrays.items() if key.startswith(f"{dtype}/")}
    return {key.removeprefix(f"{name}/"): a for key, a in expected_arrays().items() if key.startswith(f"{name}/")}


def windows_of(file, part):
    if (FOLDER / f"{file.windows}.npz").exists():
        name = file.numbers if file.numbers and file.numbers.startswith("variant_") else file.windows
        found = load_case(name if (FOLDER / f"{name}.npz").exists() else file.windows).arrays[part]
    else:
        found = expected_arrays()[f"{file.windows}/{part}"]
    if file.numbers == "renamed":  # made with the windows of the variants
        found = found[: {"eval": 16, "reference": 128}[part]]
    return found if found.ndim == 3 else found[:, None]


def write_case(folder, file, numbers=None):
    """Writes the file and its manifest into a new folder."""
    source = FILES / file.path
    weights = folder / source.name.removesuffix(".gz")
    weights.write_bytes(gzip.decompress(source.read_bytes()) if source.suffix == ".gz" else source.read_bytes())
    evaluation, reference = windows_of(file, "eval"), windows_of(file, "reference")
    predictions = (numbers or {}).get("predictions", np.zeros((len(evaluation), 1)))
    np.savez(folder / "windows.npz", eval=evaluation[: len(predictions)], reference=reference, predictions=predictions)
    spread = float(predictions.std(axis=0).max())
    manifest = {
        "features": [f"f{column}" for column in range(reference.shape[-1])],
        "targets": ["y"],
        "lookback": 24,
        "readout": "last",
        "base_activation": "silu",
        "reference": "windows.npz:reference",
        "check": {
            "inputs": "windows.npz:eval",
            "outputs": "windows.npz:predictions",
            "tolerance": file.tolerance / (spread or 1),
        },
    } | file.manifest
    if manifest.get("pykan_config"):
        manifest["pykan_config"] = str(source.parent / manifest["pykan_config"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return weights, folder / "manifest.json"


@pytest.mark.parametrize(
    "name", few_of(READ, [name for name in READ if not name.startswith(MORE)], "further files of the same libraries")
)
def test_every_file_computes_what_its_library_computes(name, tmp_path):
    """Predictions equal the library's to 1e-6 and scores to 1e-5, before and after saving the checkpoint."""
    file = READ[name]
    numbers = numbers_of(file)
    weights, manifest = write_case(tmp_path, file, numbers)
    imported = import_checkpoint(weights, read_manifest(manifest))
    save_checkpoint(imported.model, tmp_path / "model.safetensors")
    model = load_checkpoint(tmp_path / "model.safetensors")
    assert model.provenance.source == "import" and model.provenance.verified
    windows = torch.from_numpy(windows_of(file, "eval")[: len(numbers["predictions"])]).to(model.scaling.dtype)
    found = model.network(windows)
    np.testing.assert_allclose(found, numbers["predictions"], rtol=0, atol=file.tolerance)
    if not file.scored:
        return
    scores = score_layers(model.network.stages["head"], model.network.encode(model.reference.scaled))
    compared = 0
    for score in SCORES:
        for layer, values in enumerate(getattr(scores, score)):
            if f"{score}/{layer}" in numbers:
                np.testing.assert_allclose(values, numbers[f"{score}/{layer}"], rtol=0, atol=1e-5)
                compared += 1
    assert compared >= 3 * len(model.config.head)


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_file_is_refused_with_its_reason(name, tmp_path, monkeypatch):
    """Files that need code, are not supported or lack information give one sentence, and no code runs."""
    monkeypatch.chdir(tmp_path)
    file, reason = REFUSED[name]
    wanted = numbers_of(file) if file.numbers and name in ("other_base", "arity_wrong") else None
    with pytest.raises(CheckpointError) as refusal:
        weights, manifest = write_case(tmp_path, file, wanted)
        import_checkpoint(weights, read_manifest(manifest))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.rglob(CANARY)) and not Path(CANARY).exists()


def test_training_dictionary_and_saveckpt_hold_the_same(tmp_path):
    """A training dictionary's state_dict, and the head alone as saved by pykan, give the same weights."""
    file = READ["with_workspace"]
    weights, manifest = write_case(tmp_path, file, numbers_of(file))
    network = import_checkpoint(weights, read_manifest(manifest)).model.network
    state = torch.load(weights, weights_only=True)
    torch.save({"epoch": 17, "model_state_dict": state, "optimizer_state_dict": {"state": {}}, "loss": 0.1}, weights)
    nested = import_checkpoint(weights, read_manifest(manifest)).model.network
    assert_same_tensors(nested, network)
    hidden = network.encode(torch.from_numpy(windows_of(file, "eval"))).detach()
    np.savez(tmp_path / "windows.npz", reference=hidden, eval=hidden, predictions=pass_layers(network.head, hidden))
    torch.save({key.removeprefix("fc_kan."): t for key, t in state.items() if key.startswith("fc_kan.")}, weights)
    document = json.loads(manifest.read_text()) | {"head": "", "lookback": 1}
    config = str(FILES / "pykan_head" / "fc_kan_config.yml")
    document |= {"features": [f"h{unit}" for unit in range(12)], "pykan_config": config}
    manifest.write_text(json.dumps(document))
    assert_same_tensors(import_checkpoint(weights, read_manifest(manifest)).model.network.head, network.head)


def assert_same_tensors(found, expected):
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=0)


def square_layers(seed=0):
    """A pykan KAN with two layers from 3 to 3 nodes, as many as features, without symmetries."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for layer in range(2):
        state |= {
            f"act_fun.{layer}.grid": torch.linspace(-2, 2, 10).expand(3, -1).clone(),
            f"act_fun.{layer}.coef": torch.randn(3, 3, 7, generator=generator),
            **{f"act_fun.{layer}.{name}": torch.rand(3, 3, generator=generator) for name in ("scale_base", "scale_sp")},
            f"act_fun.{layer}.mask": (torch.rand(3, 3, generator=generator) > 0.3).float(),
            f"symbolic_fun.{layer}.mask": torch.zeros(3, 3),
            f"symbolic_fun.{layer}.affine": torch.zeros(3, 3, 4),
            **{f"{kind}_scale_{layer}": torch.rand(3, generator=generator) + 0.5 for kind in ("node", "subnode")},
            **{f"{kind}_bias_{layer}": torch.randn(3, generator=generator) for kind in ("node", "subnode")},
        }
    return state


def evaluate_pykan(state, x):
    """pykan's formulas for `square_layers`, edge by edge, with scipy's splines in pykan's (in, out) order."""
    for layer in range(2):
        act = {name: state[f"act_fun.{layer}.{name}"].double().numpy() for name in ("grid", "coef", *EDGES)}
        sums = np.zeros((len(x), 3))
        for i in range(3):
            for j in range(3):
                bumps = [BSpline.basis_element(act["grid"][i, c : c + 4], extrapolate=False)(x[:, i]) for c in range(7)]
                spline = np.nan_to_num(bumps).T @ act["coef"][i, j]
                base = x[:, i] / (1 + np.exp(-x[:, i]))
                edge = act["scale_base"][i, j] * base + act["scale_sp"][i, j] * spline
                sums[:, j] += act["mask"][i, j] * edge
        affine = {name: state[f"{name}_{layer}"].double().numpy() for name in AFFINE}
        nodes = affine["subnode_scale"] * sums + affine["subnode_bias"]
        x = affine["node_scale"] * nodes + affine["node_bias"]
    return x


def test_square_layers_and_their_order_are_read_right(tmp_path):
    """Square layers allow a transpose, and 10 knots allow a wrong order: neither is chosen."""
    state = square_layers()
    torch.save(state, tmp_path / "kan.pt")
    x = np.random.default_rng(0).uniform(-1.9, 1.9, (20, 3)).astype(np.float32).astype(np.float64)
    np.savez(tmp_path / "windows.npz", x=x, y=evaluate_pykan(state, x))
    manifest = {
        "features": ["a", "b", "c"],
        "targets": ["d", "e", "f"],
        "lookback": 1,
        "base_activation": "silu",
        "reference": "windows.npz:x",
        "check": {"inputs": "windows.npz:x", "outputs": "windows.npz:y"},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    imported = import_checkpoint(tmp_path / "kan.pt", read_manifest(tmp_path / "manifest.json"))
    config = imported.model.config.head
    assert [layer.basis for layer in config] == [SplineBasis(5, 2)] * 2
    state["act_fun.0.coef"] = state["act_fun.0.coef"].transpose(0, 1)
    torch.save(state, tmp_path / "kan.pt")
    with pytest.raises(CheckpointError, match="the largest difference is"):
        import_checkpoint(tmp_path / "kan.pt", read_manifest(tmp_path / "manifest.json"))


def test_not_finite(tmp_path):
    """The error names the weight that is not a number."""
    state = square_layers()
    state["act_fun.1.scale_base"][1, 2] = torch.nan
    torch.save(state, tmp_path / "kan.pt")
    with pytest.raises(CheckpointError, match=r"kan.pt has a value that is not finite in tensor act_fun.1.scale_base"):
        open_file(tmp_path / "kan.pt")


def test_two_libraries(tmp_path):
    """Keys that fit both fast-kan and FasterKAN are refused as ambiguous."""
    file = File("fast_head/state_dict_no_base.pt", manifest={"check": None})
    with pytest.raises(CheckpointError, match="give library: the keys fit fast-kan and FasterKAN"):
        weights, manifest = write_case(tmp_path, file)
        import_checkpoint(weights, read_manifest(manifest))


@pytest.mark.parametrize("name", ["lightning", "mult_nodes", "renamed", "efficient_bare", "saveckpt_symbolic"])
def test_description_has_a_manifest_to_fill_in(name, tmp_path):
    """--describe prints a manifest; with its blanks filled in, the file is imported and verified."""
    file = READ[name]
    weights, manifest = write_case(tmp_path, file, numbers_of(file))
    described = yaml.safe_load(describe_file(weights).manifest)
    filled = {key: value for key, value in json.loads(manifest.read_text()).items() if value is not None}
    blanks = {key for key, value in described.items() if value in (None, [])}
    assert blanks <= {"readout", "features", "targets", "lookback", "base_activation", "mult_arity", "pykan_config"}
    document = described | filled | {"scaling": None, "space": None}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(document))
    assert import_checkpoint(weights, read_manifest(tmp_path / "manifest.yaml")).model.provenance.verified


DECIDABLE = ("readout", "base_activation", "library", "lstm", "head", "mult_arity", "lookback", "targets")


@pytest.mark.parametrize(
    "name",
    few_of(
        [name for name in READ if "pruned_" not in name and name != "float16"],
        ("mult_nodes", "efficient"),
        "the same search for the options of further files",
    ),
)
def test_the_check_replaces_options(name, tmp_path):
    """Without readout, base, library, prefixes, arity and names, each file gives the same network."""
    file = READ[name]
    weights, manifest = write_case(tmp_path, file, numbers_of(file))
    said = import_checkpoint(weights, read_manifest(manifest))
    document = json.loads(manifest.read_text())
    known = {"mult_arity"} if isinstance(document.get("mult_arity"), list) else set()
    left = {key: value for key, value in document.items() if key not in set(DECIDABLE) - known}
    (tmp_path / "less.json").write_text(json.dumps(left | {"check": document["check"] | {"tolerance": 1e-4}}))
    found = import_checkpoint(weights, read_manifest(tmp_path / "less.json"))
    assert found.model.config.head == said.model.config.head and found.model.provenance.verified
    assert found.model.config.readout == said.model.config.readout
    assert_same_tensors(found.model.network, said.model.network)


def test_columns_of_frames_are_taken_by_name(tmp_path):
    """As by `from_torch`: windows, predictions and targets may have their columns in any order."""
    rows, module = np.random.default_rng(0).normal([50, 5], [3, 1], size=(60, 2)), torch.nn.Linear(2, 2)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    with torch.no_grad():
        forecasts = module(torch.from_numpy(rows).float()).numpy()
    frame = pd.DataFrame(rows[:, ::-1], columns=["b", "a"])
    predictions, targets = (pd.DataFrame(of[:, ::-1], columns=["v", "u"]) for of in (forecasts, rows))
    given = {"windows": frame, "predictions": predictions, "targets": targets}
    model = from_file(tmp_path / "m.pt", features=["a", "b"], outputs=["u", "v"], **given)
    np.testing.assert_allclose(model.predict(rows[:, None]), forecasts, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.reference.targets, rows)
