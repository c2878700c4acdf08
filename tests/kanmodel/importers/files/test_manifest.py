import json
from pathlib import Path

import numpy as np
import pytest

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.documents import read_array
from kanmodel.importers.files.manifest import read_manifest

LEAST = "features: [a, {name: b, unit: K}]\ntargets: [y]\nlookback: 3\nreference: w.npy\n"
SCALING = {"mean": [1, 2], "std": [3, 0], "target_mean": [4], "target_std": [5]}


def parse(folder, text, name="m.yaml"):
    (folder / name).write_text(text)
    return read_manifest(folder / name)


def test_values(tmp_path):
    """Names, units, scaling and paths are those of the manifest; 1e-5 is a number, as in YAML 1.2."""
    manifest = parse(
        tmp_path,
        f"{LEAST}scaling: {json.dumps(SCALING)}\nspace: scaled\n"
        "check: {inputs: a.npy, outputs: b.npy, tolerance: 1e-6}\n"
        "head: ''\nlstm: null\nmult_arity: [[], [2, 3], []]\n"
        "groups: {both: [a, b]}\ninteger: [b]\nfixed: [a]\n",
    )
    assert manifest.groups == {"both": ["a", "b"]}
    assert [(f.integer, f.fixed) for f in manifest.features] == [(False, True), (True, False)]
    assert [(f.name, f.unit, f.mean, f.std) for f in manifest.features] == [("a", None, 1, 3), ("b", "K", 2, 0)]
    assert (manifest.targets[0].mean, manifest.targets[0].std) == (4, 5)
    assert manifest.check.tolerance == 1e-6 and manifest.horizon is None and manifest.folder == tmp_path
    assert manifest.prefixes == {"lstm": None, "head": ""} and manifest.mult_arity == ((), (2, 3), ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lookbak: 3\n", "has the unknown key 'lookbak'; there are name, library, lstm"),
        ("lookback: 4\n", "has the key 'lookback' more than once"),
        ("name: !!python/object/apply:os.makedirs [canary]\n", "holds the Python object os.makedirs, which needs code"),
        ("check: &a {inputs: a.npy}\nscaling:\n  <<: *a\n", "merges mappings in line 7"),
        ("readout: first\n", "readout must be one of last, mean, flatten, flatten_features, but is 'first'"),
        ("horizon: true\n", "horizon must be a whole number from 1 to 65536, but is True"),
        ("ahead: -1\n", "ahead must be a whole number from 0 to 65536, but is -1"),
        ("ahead: 1.0\n", "ahead must be a whole number from 0 to 65536, but is 1.0"),
        (
            "check: {inputs: a.npy, outputs: b.npy, tolerance: 0}\n",
            "check: tolerance must be a positive number, but is 0",
        ),
        (
            "scaling: s.joblib\nspace: scaled\n",
            "only .json and .yaml are read, since a pickle (.joblib, .pkl) can run any",
        ),
        ("activations: {fc.0: swish}\n", "activations.fc.0 must be one of none, identity, relu,"),
        ("output_function: argmax\n", "output_function must be one of none, softmax,"),
        (
            f"scaling: {json.dumps(SCALING | {'mean': [1]})}\nspace: scaled\n",
            "scaling.mean must be a list of 2 numbers",
        ),
        (
            f"scaling: {json.dumps(SCALING | {'feature_names': ['b', 'a']})}\nspace: scaled\n",
            "feature_names, in the same",
        ),
        ("mult_arity: [2, 3]\n", "mult_arity that is neither a number from 2 nor a list"),
        ("input_id: [0, -1]\n", "input_id[1] must be a whole number from 0"),
        ("groups: [a]\n", "groups must be"),
        ("integer: a\n", "integer must be a list of features"),
        ("fixed: [z]\n", "fixed has no feature 'z'; the features are a, b"),
        ("[", "is not yaml in line"),
    ],
)
def test_unknown_keys_and_values_are_refused(tmp_path, text, reason):
    """An unknown key or value is named, and no code runs."""
    with pytest.raises(CheckpointError) as refusal:
        parse(tmp_path, LEAST + text)
    assert reason in str(refusal.value) and str(refusal.value).startswith("m.yaml")
    assert not Path("canary").exists()


@pytest.mark.parametrize("key", ["features", "reference"])
def test_missing_keys_are_refused(tmp_path, key):
    """A required key is named in the error."""
    text = "".join(line + "\n" for line in LEAST.splitlines() if not line.startswith(f"{key}:"))
    with pytest.raises(CheckpointError, match=f"m.yaml: lacks {key}"):
        parse(tmp_path, text)


def test_arrays(tmp_path):
    """Every file type gives the same numbers."""
    values = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", values.astype(np.float32))
    np.savez_compressed(tmp_path / "a.npz", x=values)
    (tmp_path / "a.json").write_text(json.dumps({"a/b": [values.tolist()]}))
    for name in ("a.npy", "a.npz:x", "a.json:/a~1b/0"):
        np.testing.assert_array_equal(read_array(tmp_path, name, (), None), values)
    found = read_array(tmp_path, "a.csv", ("p", "q"), lambda path, columns: np.full((4, len(columns)), 7.0))
    assert found.shape == (4, 2)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("objects.npy", "is not a .npy array of numbers|holds values of type object"),
        ("huge.npy", r"claims the shape \[1000000000, 1000\], but has 0 bytes"),
        ("a.npz:y", "does not exist: a.npz has x"),
        ("nan.npz:x", r"nan.npz:x\[1\] must be finite"),
        ("a.json:/b", "does not exist: at 'b' there is a"),
        ("a.json:/a", "rows differ in length"),
        ("a.csv", "is a table, which only the command line reads"),
        ("a.pkl", "is not the name of an array"),
        ("none.npy", "is not there"),
    ],
)
def test_arrays_that_are_not_read(tmp_path, name, reason):
    """Object arrays, headers that claim too much, and missing paths are refused."""
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with (tmp_path / "huge.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 1000)}
        np.lib.format.write_array_header_1_0(file, header)
    np.savez(tmp_path / "a.npz", x=np.zeros(2))
    np.savez(tmp_path / "nan.npz", x=np.array([0, np.nan]))
    (tmp_path / "a.json").write_text('{"a": [[1], [1, 2]]}')
    with pytest.raises(CheckpointError, match=reason):
        read_array(tmp_path, name, (), None)
