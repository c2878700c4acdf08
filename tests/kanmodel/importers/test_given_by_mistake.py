"""Imports given the wrong arrays are refused with the likely mistake."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from kanmodel.errors import CheckpointError
from kanmodel.importers.importing import import_checkpoint

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
        return import_checkpoint(tmp_path / "m.pt", tmp_path / "m.json")

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
        original.model.reference.windows.numpy(), scaled.model.reference.windows.numpy(), atol=1e-4
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
