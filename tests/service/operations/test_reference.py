from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize("name", ["nyc-weather", "two", "front", "head"])
def test_a_reference_window_is_that_of_the_checkpoint(service, name):
    """The window is in original units with target and time, and can be sent back to :predict."""
    model = service.models[name]
    answer = service.get(f"/v1/models/{name}/reference/3").json()
    windows = model.scaling.features_to_original(model.reference.scaled)
    np.testing.assert_allclose(answer["instance"], windows[3], rtol=1e-6)
    assert (answer["index"], answer["reference_windows"]) == (3, len(windows))
    if name != "front":  # targets are unknown
        assert answer["target"] == model.reference.targets[3].tolist()
        assert answer["time"] == model.reference.times[3]
    predicted = service.post(f"/v1/models/{name}:predict", {"instances": [answer["instance"]]}).json()
    expected = model.scaling.outputs_to_original(model.reference_outputs)[3]
    np.testing.assert_allclose(predicted["predictions"][0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["nyc-weather", "two", "front", "head"])
def test_the_list_has_time_target_and_forecast(service, name):
    """Time, target and forecast equal those of each single window, in order of time."""
    model = service.models[name]
    answer = service.get(f"/v1/models/{name}/reference").json()
    count = len(model.reference.windows)
    assert (answer["reference_windows"], answer["offset"]) == (count, 0)
    assert [row["index"] for row in answer["windows"]] == list(range(count))
    assert not any({"contributions", "newest"} & set(row) for row in answer["windows"])
    for index in (0, 3, count - 1):
        row = answer["windows"][index]
        alone = service.get(f"/v1/models/{name}/reference/{index}").json()
        assert (row["time"], row["target"]) == (alone["time"], alone["target"])
        predicted = service.post(f"/v1/models/{name}:predict", {"instances": [alone["instance"]]}).json()
        np.testing.assert_allclose(row["prediction"], predicted["predictions"][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("offset", "limit"), [(0, 1), (10, 7), (128, 7), (130, 5), (10**12, 1)])
def test_the_list_is_read_in_pages(service, offset, limit):
    """Pages are slices of the whole list; a page beyond the end is empty."""
    whole = service.get("/v1/models/head/reference").json()["windows"]
    answer = service.get("/v1/models/head/reference", params={"offset": offset, "limit": limit}).json()
    assert answer["windows"] == whole[offset : offset + limit]
    assert (answer["offset"], answer["reference_windows"]) == (offset, 130)


@pytest.mark.parametrize("name", ["two", "front", "head"])
def test_the_list_has_the_contributions_that_explain_gives(service, name):
    """Each window has its newest values, and its contributions sum to its forecast minus the baseline's."""
    model = service.models[name]
    output = model.config.outputs[-1]
    query = {"contributions": True, "output": output, "offset": 5, "limit": 3}
    rows = service.get(f"/v1/models/{name}/reference", params=query).json()["windows"]
    windows = model.scaling.features_to_original(model.reference.scaled)[5:8]
    explained = service.post(
        f"/v1/models/{name}:explain", {"instances": windows.tolist(), "output": output, "tolerance": 1e-4}
    ).json()["explanations"]
    for row, window, one in zip(rows, windows, explained, strict=True):
        np.testing.assert_allclose(row["newest"], window[-1], rtol=1e-6)
        wanted = list(one["contributions"].values())
        within = 11 * one["tolerance"]  # the tolerance of the list is ten times as wide
        np.testing.assert_allclose(row["contributions"], wanted, rtol=0, atol=within)
        total = row["prediction"][-1] - one["baseline_prediction"]
        assert sum(row["contributions"]) == pytest.approx(total, abs=within)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"offset": -1}, "offset"),
        ({"contributions": True}, "output"),
        ({"output": "c+1"}, "output"),
        ({"page": 2}, "page"),
    ],
)
def test_an_invalid_list_is_refused(service, query, path):
    """Invalid, unknown and missing parameters are named."""
    answer = service.get("/v1/models/two/reference", params=query)
    assert answer.status_code in (404, 422)
    assert path in answer.json()["error"]


BEYOND = "index {} does not exist: there are 0 to 129"


@pytest.mark.parametrize(
    ("index", "status", "error"),
    [(-1, 404, BEYOND), (130, 404, BEYOND), (10**12, 404, BEYOND), ("first", 422, "index")],
)
def test_an_index_that_is_none_of_the_windows_is_refused(service, index, status, error):
    """404 with the valid range, or 422 as for any parameter of the wrong type."""
    answer = service.get(f"/v1/models/head/reference/{index}")
    assert answer.status_code == status and answer.json()["error"].startswith(error.format(index))


def test_windows_without_targets_and_times_have_null_there(service):
    """Fields without data in the checkpoint are null."""
    answer = service.get("/v1/models/front/reference/0").json()
    assert (answer["target"], answer["time"]) == (None, None)
    row = service.get("/v1/models/front/reference", params={"limit": 1}).json()["windows"][0]
    assert (row["target"], row["time"]) == (None, None) and len(row["prediction"]) == 1


def test_a_setting_hides_the_windows(serve, folder):
    """Reference windows are training data, so a setting disables access to them."""
    with serve(models=folder / "head.safetensors", reference_windows=False) as client:
        assert client.get("/v1/models/head/reference").status_code == 403
        answer = client.get("/v1/models/head/reference/0")
        assert answer.status_code == 403
        assert answer.json()["error"] == "reference windows are not shown here (reference_windows)"


FORMULAS = pytest.mark.thorough("computes formulas: 5 s")
GLOBAL = ("attributions", "topology", "edges", "edges/0/0/0", "report", "topology/fidelity", "comparison")


@pytest.mark.parametrize("path", [*GLOBAL, pytest.param("formula?complexity=3", marks=FORMULAS)])
def test_global_answers_state_the_reference_windows(service, path):
    """Each global answer has the span of the reference windows, and warns where they are unlike the training rows."""
    for name in ("nyc-weather", "head"):
        model = service.models[name]
        answer = service.get(f"/v1/models/{name}/{path}").json()
        answer = answer.get("graph", answer)
        span = {"windows": len(model.reference.windows), "first": model.reference.times[0]}
        assert span | {"last": model.reference.times[-1]} == {key: answer["reference"][key] for key in (*span, "last")}
        unlike = [each.feature for each in model.reference.coverage if each.differences]
        assert [warning["features"] for warning in answer["warnings"]] == ([unlike] if unlike else [])
    (warning,) = service.get("/v1/models/nyc-weather/attributions").json()["warnings"]
    assert warning["code"] == "reference_unlike_training" and len(warning["features"]) == 7
    assert "temp_c (74% of its range)" in warning["message"] and "and 4 more" in warning["message"]
