"""Missing values over HTTP: null where the model has a mask, in instances, columns and series."""

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from torch import nn
from waiting import poll

import kanmodel
from service.app import create_app
from service.settings import Settings

LOOKBACK = 4


class Masked(nn.Module):
    """Reads a load, 0 where it is missing, and whether it was there."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2 * LOOKBACK, 1)

    def forward(self, x):
        return torch.tanh(self.head(x.flatten(1)))


@pytest.fixture(scope="module")
def client(serve, tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("masked"), np.random.default_rng(0)
    seen = random.uniform(size=(40, LOOKBACK)) > 0.2
    windows = np.stack([random.normal(size=seen.shape) * seen, seen], axis=2)
    torch.manual_seed(0)
    for name, masks in (("masked", {"load": "seen"}), ("plain", None)):
        kanmodel.from_torch(
            Masked(), windows=windows, features=["load", "seen"], outputs=["y"], masks=masks, ahead=1
        ).save(folder / f"{name}.safetensors")
    with serve(models=folder) as client:
        yield client


FILLED = {"instances": [[[0.5, 1], [0, 0], [0.25, 1], [-1, 1]]]}
FORMS = {
    "instances": {"instances": [[[0.5, 1], [None, 1], [0.25, None], [-1, 1]]]},
    "columns": {"columns": {"load": [[0.5, None, 0.25, -1]], "seen": [[1, 1, 1, 1]]}},
    "series": {"series": {"load": [0.5, None, 0.25, -1], "seen": [1, 1, 1, 1]}},
    "series without the mask": {"series": {"load": [0.5, None, 0.25, -1]}},
}


@pytest.mark.parametrize("form", FORMS)
def test_null_is_a_missing_value(client, form):
    """It forecasts and explains what the filled values do; a model without a mask says that it has none."""
    for operation in ("predict", "explain"):
        expected, found = (client.post(f"/v1/models/masked:{operation}", json=body) for body in (FILLED, FORMS[form]))
        assert found.status_code == 200, found.text
        name = "predictions" if operation == "predict" else "explanations"
        for one, other in zip(expected.json()[name], found.json()[name], strict=True):
            if operation == "explain":
                one, other = one["contributions"], other["contributions"]
            assert one == other
    refused = client.post("/v1/models/plain:predict", json=FORMS[form])
    assert refused.status_code == 422 and refused.json()["code"] == "invalid_value"
