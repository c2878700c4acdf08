"""Models other than LSTM+KAN over HTTP."""

from dataclasses import replace

import numpy as np
import pytest
from factories import make_chain
from fastapi.testclient import TestClient
from waiting import poll

from kanmodel.checkpoint import save_checkpoint
from kanmodel.network.config import ModelConfig, plain_layers
from kanmodel.tables.columns import Feature, Target
from service.app import create_app
from service.settings import Settings

FLAT = ModelConfig(
    features=(Feature("a"), Feature("b")),
    targets=(Target("y"),),
    lookback=2,
    horizon=1,
    head=plain_layers([4, 1]),
    readout="flatten",
    dtype="float64",
)
CLASSES = replace(
    FLAT,
    targets=tuple(Target(name) for name in ("up", "same", "down")),
    head=plain_layers([4, 3]),
    output_function="softmax",
)
WINDOWS = np.random.default_rng(0).normal(size=(2, 2, 2)).tolist()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, config in (("flat", FLAT), ("classes", CLASSES)):
        save_checkpoint(make_chain(config, n_reference=130), folder / f"{name}.safetensors")
    with TestClient(create_app(Settings(models=folder, cached_results=4)), base_url="http://localhost:8000") as client:
        poll(lambda: client.get("/readyz").status_code == 200)
        yield client


def test_a_classifier_returns_logits(client):
    """Softmax probabilities sum to 1 and follow from the returned logits; other models have no logits."""
    answer = client.post("/v1/models/classes:predict", json={"instances": WINDOWS}).json()
    logits, probabilities = np.array(answer["logits"]), np.array(answer["predictions"])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), probabilities)
    assert "logits" not in client.post("/v1/models/flat:predict", json={"instances": WINDOWS}).json()


def test_a_flattened_window_is_explained_by_its_cells(client):
    """The ledger has the cells, which sum to the change of the forecast, and the architecture gives the reason."""
    body = {"instances": WINDOWS, "detail": "flow"}
    (one, _) = client.post("/v1/models/flat:explain", json=body).json()["explanations"]
    (cells,) = [layer["nodes"] for layer in one["layers"] if layer["stage"] == "cell"]
    np.testing.assert_allclose(cells, np.ravel(one["steps"]), atol=1e-9)
    architecture = client.get("/v1/models/flat").json()["architecture"]
    assert (architecture["lstm"], architecture["gru"], architecture["readout"]) == (None, None, "flatten")
