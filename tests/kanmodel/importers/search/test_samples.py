"""The check of an import, and imports that are given the wrong arrays, which are refused with the likely mistake."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import FOLDER, load_arrays
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import CheckpointError
from kanmodel.importers.files.manifest import read_manifest
from kanmodel.importers.from_file import import_checkpoint
from kanmodel.importers.layers.known import INV_DENOMINATORS
from kanmodel.importers.search.samples import ROUNDING, Bounds

FILES = FOLDER / "import"
LAST_LAYER = {"fc_kan.layers.1.base_weight", "fc_kan.layers.1.spline_weight"}
MANIFEST = {  # of the models in these tests
    "features": [f"f{column}" for column in range(20)],
    "targets": ["y"],
    "lookback": 24,
    "readout": "last",
    "reference": "windows.npz:reference",
}
CHECK = {"inputs": "windows.npz:eval", "outputs": "windows.npz:predictions"}
FACTORS = st.floats(-3, 6).map(lambda exponent: 10**exponent)


def import_efficient(factor, error=0.0, offset=0.0, space="scaled", single=False, **changes):
    """Imports efficient-kan's head with targets and predictions scaled by `factor`.

    Args:
        factor: on the last layer's weights and the predictions, or on the scaler in original units.
        error: added to one prediction, in standard deviations.
        offset: of the targets in original units, in `factor`s.
        space: where the factor is: ``scaled``, in the weights, or ``original``, in the scaler.
        single: whether the check has one window.
        **changes: of the manifest.
    """
    arrays = load_arrays("import/expected")
    windows, predictions = arrays["efficient/eval"], arrays["efficient/predictions"].astype(float)
    predictions[3] += error * predictions.std()
    if single:
        windows, predictions = windows[:1], predictions[:1]
    state = torch.load(FILES / "efficient_head" / "state_dict.pt", weights_only=True)
    if space == "scaled":
        state = {key: tensor * factor if key in LAST_LAYER else tensor for key, tensor in state.items()}
    scaling = {"mean": [0] * 20, "std": [1] * 20, "target_mean": [offset * factor], "target_std": [factor]}
    document = MANIFEST | {
        "base_activation": "silu",
        "scaling": scaling if space == "original" else None,
        "space": space,
        "check": CHECK,
        **changes,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = arrays["efficient/reference"]
        np.savez(folder / "windows.npz", eval=windows, reference=reference, predictions=(predictions + offset) * factor)
        torch.save(state, folder / "forecaster.pt")
        (folder / "manifest.json").write_text(json.dumps(document))
        return import_checkpoint(folder / "forecaster.pt", read_manifest(folder / "manifest.json"))


@pytest.mark.thorough("imports twelve models")
@settings(max_examples=1)
@given(FACTORS, st.sampled_from(["scaled", "original"]))
@example(1e-3, "scaled")
@example(1e6, "original")
def test_the_unit_of_the_targets_does_not_change_the_verdict(factor, space):
    """A model is verified, and a near miss refused, for targets in thousandths and in millions."""
    imported = import_efficient(factor, space=space)
    assert imported.model.provenance.verified and imported.result.comparison.relative < 2e-6
    assert import_efficient(factor, 0.5e-5, space=space).model.provenance.verified
    with pytest.raises(CheckpointError, match="the largest difference is"):
        import_efficient(factor, 2e-5, space=space)
    with pytest.raises(CheckpointError, match=r"output y\+1 .* standard deviations of that output, and 1.\de-05 is al"):
        import_efficient(factor, space=space, base_activation="identity")


def test_both_differences_are_reported():
    """The absolute and the relative difference are in the result, provenance, file and refusal."""
    imported = import_efficient(2500.0, 0.5e-5)
    expected = load_arrays("import/expected")["efficient/predictions"]
    spread = 2500 * expected.std()
    comparison, provenance = imported.result.comparison, imported.model.provenance
    assert comparison.absolute == pytest.approx(0.5e-5 * spread, rel=0.2)
    assert comparison.relative == pytest.approx(comparison.absolute / spread, rel=1e-4)
    assert (provenance.difference, provenance.relative_difference) == (comparison.absolute, comparison.relative)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(imported.model, Path(folder) / "m.safetensors")
        assert load_checkpoint(Path(folder) / "m.safetensors").provenance == provenance
    with pytest.raises(CheckpointError) as refusal:
        import_efficient(2500.0, 0.1)
    absolute = f"{0.1 * spread:.3g}"
    assert f"is {absolute}, at window 3" in str(refusal.value) and "is 0.1 standard deviations" in str(refusal.value)


def test_a_check_without_spread():
    """A single window verifies a forecast only to five digits, whatever the tolerance."""
    imported = import_efficient(1000.0, single=True)
    assert imported.result.comparison.relative < 1e-5 and not imported.result.comparison.varies
    loose = {"inputs": "windows.npz:eval", "outputs": "windows.npz:predictions", "tolerance": 0.01}
    with pytest.raises(CheckpointError, match=r"of the magnitude of that output, and 1\.1e-05 is allowed"):
        import_efficient(1000.0, single=True, base_activation="identity", check=loose)


def test_a_check_that_proves_nothing():
    """A tolerance above 0.01 is refused, and so is a spread that float32 cannot resolve at its magnitude."""
    loose = {"inputs": "windows.npz:eval", "outputs": "windows.npz:predictions", "tolerance": 0.011}
    with pytest.raises(CheckpointError, match=r"check.tolerance is 0.011 standard deviations .* proves nothing"):
        import_efficient(1.0, check=loose)
    assert import_efficient(1.0, offset=1000.0, space="original").model.provenance.verified
    with pytest.raises(CheckpointError, match=r"y\+1 has a standard deviation of .* subtract its mean"):
        import_efficient(1.0, offset=1e5, space="original")


arrays = st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=2, max_size=6).map(
    np.array
)


@given(arrays, arrays, st.sampled_from([1e-150, 1e-3, 0.3, 1e6, 1e150]), st.floats(1e-7, 1e-2))
def test_bounds_scale_with_each_output(expected, errors, factor, tolerance):
    """Scaling one output scales its bound and no other; bounds never exceed the stated tolerance."""
    bounds = Bounds.of(expected, tolerance)
    scaled = Bounds.of(expected * [factor, 1, 1], tolerance)
    np.testing.assert_allclose(scaled.allowed, bounds.allowed * [factor, 1, 1], rtol=1e-9)
    magnitude = np.abs(expected).max(axis=0)
    assert (bounds.allowed <= (tolerance + ROUNDING) * 2 * magnitude).all()
    computed = expected + errors[: len(expected)][0] * 1e-6
    found = bounds.compare(expected, computed)
    within = (np.abs(computed - expected) <= bounds.allowed).all()
    assert found.matches == within
    assert bounds.compare(expected, expected).matches and bounds.compare(expected, expected).relative == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_not_finite_never_match(wrong):
    """A prediction that is not finite always exceeds the bound."""
    expected = np.array([[1.0, 0.0], [2.0, 0.0]])
    computed = expected.copy()
    computed[1, 1] = wrong
    found = Bounds.of(expected, 0.01).compare(expected, computed)
    assert not found.matches and (found.window, found.output, found.absolute) == (1, 1, np.inf)


def forward_fasterkan(tensors, x, reading):
    """The formulas of FasterKAN, its forks and cu_fasterkan in float64, with one loop over inputs."""
    for layer in range(2):
        place = f"fc_kan.layers.{layer}"
        found = {name: tensors[f"{place}.{name}"].double() for name in ("rbf.grid", "rbf.inv_denominator")}
        norm = [tensors[f"{place}.layernorm.{name}"].double() for name in ("weight", "bias")]
        weight = tensors[f"{place}.spline_linear.weight"].double()
        u = torch.nn.functional.layer_norm(x, x.shape[-1:], *norm)
        inverse = 1.0 if reading == "ignored" else found["rbf.inv_denominator"]
        n_in, n_centres = x.shape[1], len(found["rbf.grid"])
        x = torch.zeros(len(x), len(weight), dtype=torch.float64)
        for i in range(n_in):
            bumps = 1 - torch.tanh((u[:, i, None] - found["rbf.grid"]) * inverse) ** 2
            columns = [g * n_in + i if reading == "cuda" else i * n_centres + g for g in range(n_centres)]
            x = x + bumps @ weight[:, columns].T
    return x


def import_fasterkan(folder, reading, inverse=0.5, check=True, error=0.0):
    """Imports FasterKAN's file with predictions by one of the meanings of inv_denominator."""
    tensors = torch.load(FILES / "fast_head" / "fasterkan_state_dict.pt", weights_only=True)
    arrays = load_arrays("import/fast_head/windows")
    for layer in range(2):
        tensors[f"fc_kan.layers.{layer}.rbf.inv_denominator"] = torch.tensor(inverse)
    lstm = torch.nn.LSTM(20, 12, batch_first=True).double()
    lstm.load_state_dict({key[5:]: tensor.double() for key, tensor in tensors.items() if key.startswith("lstm.")})
    with torch.no_grad():
        hidden = lstm(torch.from_numpy(arrays["eval"]).double())[0][:, -1]
    predictions = forward_fasterkan(tensors, hidden, reading).numpy()
    predictions[0] += error
    np.savez(folder / "windows.npz", eval=arrays["eval"], reference=arrays["reference"], predictions=predictions)
    torch.save(tensors, folder / "forecaster.pt")
    document = MANIFEST | ({"check": CHECK} if check else {})
    (folder / "manifest.json").write_text(json.dumps(document))
    return import_checkpoint(folder / "forecaster.pt", read_manifest(folder / "manifest.json"))


@pytest.mark.parametrize("reading", INV_DENOMINATORS)
@pytest.mark.parametrize("inverse", [0.5, -0.5, 3.0])
def test_the_check_decides_what_inv_denominator_means(tmp_path, reading, inverse):
    """Files of FasterKAN, of its forks and of cu_fasterkan are all verified, each with its own meaning."""
    imported = import_fasterkan(tmp_path, reading, inverse)
    assert imported.result.found.describe() == INV_DENOMINATORS[reading] and imported.result.comparison.matches
    assert len(imported.result.matches) == 1 and INV_DENOMINATORS[reading] in imported.model.provenance.library


@pytest.mark.parametrize("inverse", [1.0, 1 + 1e-6])
def test_candidates_that_are_the_same(tmp_path, inverse):
    """At an inverse of 1, or near it, FasterKAN and its forks are the same function, and the library's is used."""
    imported = import_fasterkan(tmp_path, "used", inverse)
    assert imported.result.found.describe() == INV_DENOMINATORS["ignored"]
    assert not imported.result.undecided
    assert INV_DENOMINATORS["used"] in [candidate.describe() for candidate in imported.result.matches[0].same]


def test_an_inverse_of_zero_can_only_be_ignored(tmp_path):
    """An inverse of 0 would mean infinitely wide bumps, so only FasterKAN's own reading remains."""
    assert import_fasterkan(tmp_path, "ignored", 0.0).result.found.describe() == ""


def test_without_a_check_the_meaning_of_the_library_is_used(tmp_path):
    """Without predictions to compare with, inv_denominator is ignored, as in FasterKAN, with a note."""
    imported = import_fasterkan(tmp_path, "used", check=False)
    assert imported.result.found.describe() == INV_DENOMINATORS["ignored"] and not imported.model.provenance.verified
    assert [layer.basis.denominator for layer in imported.model.config.head] == [1.0, 1.0]


def test_no_reading_matches(tmp_path):
    """If the check fails for all readings, the error has the nearest one and their number."""
    with pytest.raises(
        CheckpointError, match="candidates tried, the nearest: inv_denominator used, as forks"
    ) as refusal:
        import_fasterkan(tmp_path, "used", error=0.01)
    assert "\n" not in str(refusal.value)


MEAN, STD = np.array([20.0, 1000.0]), np.array([5.0, 10.0])


@pytest.fixture
def import_arrays(tmp_path):
    """Imports a sigmoid of two Linear layers, with its arrays modified first."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1), nn.Sigmoid())
    torch.save(net.state_dict(), tmp_path / "m.pt")
    x = np.random.default_rng(0).normal(size=(200, 1, 2)).astype(np.float32)
    with torch.no_grad():
        y = net(torch.from_numpy(x[:, 0])).numpy()

    def call(integer=(), **changes):
        arrays = {"all": x, "x": x[:64], "y": y[:64]}
        np.savez(tmp_path / "w.npz", **{name: changes.get(name, lambda a: a)(array) for name, array in arrays.items()})
        document = {
            "features": ["a", "b"],
            "targets": ["p"],
            "scaling": {"mean": MEAN.tolist(), "std": STD.tolist()},
            "reference": "w.npz:all",
            "integer": list(integer),
            "check": {"inputs": "w.npz:x", "outputs": "w.npz:y"},
        }
        (tmp_path / "m.json").write_text(json.dumps(document))
        return import_checkpoint(tmp_path / "m.pt", read_manifest(tmp_path / "m.json"))

    return call


def to_original(windows):
    return windows * STD + MEAN


@pytest.mark.parametrize("mistaken", ["all", "x"])
def test_reference_and_check_in_different_units(import_arrays, mistaken):
    """Scaled reference windows with a check in original units, or the reverse, are refused; other pairs are not."""
    with pytest.raises(CheckpointError, match=r"w.npz:all seems to be .*: give both in the same units"):
        import_arrays(**{mistaken: to_original})
    scaled, original = import_arrays(), import_arrays(all=to_original, x=to_original)
    np.testing.assert_allclose(
        original.model.reference.scaled.numpy(), scaled.model.reference.scaled.numpy(), atol=1e-4
    )


def test_windows_with_fractions_of_an_integer_feature(import_arrays):
    """They are refused in original units; scaled windows are not checked, as they have fractions."""
    import_arrays(integer=["b"])
    with pytest.raises(
        CheckpointError, match=r"^w.npz:all must have whole numbers of b, but \[0\]\[0\]\[1\] is 99\d\.\d+$"
    ):
        import_arrays(integer=["b"], all=to_original, x=to_original)


def test_labels_in_place_of_probabilities(import_arrays):
    """Predictions of only 0 and 1 are reported as labels, whatever else might match."""
    with pytest.raises(CheckpointError, match=r"only 0 and 1, as labels do: give .* probabilities"):
        import_arrays(y=lambda y: (y > np.median(y)).astype(np.float32))
