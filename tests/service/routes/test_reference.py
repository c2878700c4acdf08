from __future__ import annotations

import numpy as np
import pytest
from factories import make_model

from kanmodel.checkpoint import save_checkpoint


@pytest.fixture
def folder_of(tmp_path):
    """Writes a folder with one model of given options, named m."""

    def write(**options):
        save_checkpoint(make_model("head", **options), tmp_path / "m.safetensors")
        return tmp_path

    return write


@pytest.mark.parametrize("name", ["nyc-weather", "two", "front", "head"])
def test_a_reference_window_is_that_of_the_checkpoint(service, name):
    """It stands in original units, with what was to be forecast and when, and can be sent back to be forecast."""
    model = service.models[name]
    answer = service.get(f"/v1/models/{name}/reference/3").json()
    windows = model.scaling.features_to_original(model.reference.windows)
    np.testing.assert_allclose(answer["instance"], windows[3], rtol=1e-6)
    assert (answer["index"], answer["reference_windows"]) == (3, len(windows))
    if name != "front":  # whose targets are unknown
        assert answer["target"] == model.reference.targets[3].tolist()
        assert answer["time"] == model.reference.times[3]
    predicted = service.post(f"/v1/models/{name}:predict", {"instances": [answer["instance"]]}).json()
    expected = model.scaling.outputs_to_original(model.reference_outputs)[3]
    np.testing.assert_allclose(predicted["predictions"][0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", ["-1", "160", "1000000000000"])
def test_an_index_beyond_the_windows_is_404(service, index):
    """The error says which there are."""
    answer = service.get(f"/v1/models/head/reference/{index}")
    assert answer.status_code == 404
    assert answer.json()["error"] == f"index {index} does not exist: there are 0 to 159"


def test_an_index_that_is_no_number_is_422(service):
    """As any parameter of the wrong type is."""
    answer = service.get("/v1/models/head/reference/first")
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "index")


def test_windows_without_targets_and_times_have_null_there(serve, folder_of):
    """Nothing is made up where the checkpoint does not know."""
    with serve(models=folder_of(with_targets=False)) as client:
        answer = client.get("/v1/models/m/reference/0").json()
        assert (answer["target"], answer["time"]) == (None, None)


def test_a_setting_keeps_the_windows_back(serve, folder_of):
    """They are training data, so that whoever serves a model may not show them."""
    with serve(models=folder_of(), reference_windows=False) as client:
        answer = client.get("/v1/models/m/reference/0")
        assert answer.status_code == 403
        assert answer.json()["error"] == "reference windows are not shown here (reference_windows)"
