"""Checkpoints of forecasting libraries' models, which answer without the library."""

import sys
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from goldens import FOLDER
from thorough import few_of

import kanmodel
from kanmodel import CheckpointError

LIBRARIES = FOLDER / "libraries"
EXPECTED = np.load(LIBRARIES / "expected.npz")
FEW = ("kan", "darts_rnn", "pytorch_forecasting_nhits")


@pytest.mark.parametrize("name", few_of(EXPECTED.files, FEW, "further models of the same libraries"))
def test_a_checkpoint_forecasts_what_the_library_did_and_explains_it(name):
    """Without the library: its forecasts to 1e-5 of their spread, converged, and complete at every cut."""
    model, expected = kanmodel.load(LIBRARIES / f"{name}.safetensors"), EXPECTED[name]
    windows = model.scaling.features_to_original(model.reference.scaled)
    np.testing.assert_allclose(model.predict(windows), expected, atol=1e-5 * expected.std())
    explanation = model.explain(windows[:2])
    assert explanation.converged.all()
    change = explanation.predictions - explanation.baseline_prediction
    slack = np.abs(explanation.residual) + 1e-6 * np.abs(change)
    assert (np.abs(explanation.contributions.sum(axis=1) - change) <= slack).all()
    for layer in explanation.layers:
        around = 0 if layer.around is None else layer.around.sum(axis=1)
        assert (np.abs(layer.nodes.sum(axis=1) + around - change) <= slack).all()


def test_a_folder_and_a_wrong_object_are_refused_with_what_to_do(tmp_path):
    """Without neuralforecast its folder is refused by naming it; from_file says how a folder is read."""
    (tmp_path / "configuration.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"neuralforecast must be installed .*: pip install neuralforecast"):
        kanmodel.from_neuralforecast(tmp_path)
    line = rf"is a folder; kanmodel\.from_neuralforecast\('{tmp_path}'\) reads one that NeuralForecast\.save wrote"
    with pytest.raises(CheckpointError, match=line):
        kanmodel.from_file(tmp_path, windows=np.zeros((1, 1, 1)), predictions=[0.0], features=["x"])
    with pytest.raises(CheckpointError, match="nf must be a fitted NeuralForecast, but is SimpleNamespace"):
        kanmodel.from_neuralforecast(SimpleNamespace())


@pytest.mark.parametrize("package", ["darts", "pytorch-forecasting"])
def test_a_library_that_is_not_installed_is_named(package):
    """With the command that installs it."""
    name = package.replace("-", "_")
    with (
        patch.dict(sys.modules, {name: None}),
        pytest.raises(CheckpointError, match=f"{package} must be installed .*: pip install {package}"),
    ):
        getattr(kanmodel, f"from_{name}")(*[None] * (1 if package == "darts" else 2))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("input_chunk_length", "output_chunk_length"), r"; with darts, kanmodel\.from_darts\('m\.pt'\) may read it"),
        (
            ("output_transformer", "dataset_parameters"),
            r"from_pytorch_forecasting\(<class>\.load_from_checkpoint\('m\.pt\.ckpt', ",
        ),
    ],
)
@pytest.mark.parametrize("key", ["stacks.0.odd", "stacks.0.weight"])
def test_a_refused_checkpoint_of_a_library_names_the_line_that_reads_it(key, arguments, line, tmp_path):
    """Whether its keys are not understood, or its parts do not follow each other."""
    weights = {key: torch.ones(3, 5), "stacks.1.weight": torch.ones(2, 7)}
    torch.save({"state_dict": weights, "hyper_parameters": dict.fromkeys(arguments, 1)}, tmp_path / "m.pt.ckpt")
    given = {"windows": np.random.default_rng(0).normal(size=(40, 4, 1)), "features": ["x"]}
    with pytest.raises(CheckpointError, match=line):
        kanmodel.from_file(tmp_path / "m.pt.ckpt", predictions=np.arange(40.0), **given)
