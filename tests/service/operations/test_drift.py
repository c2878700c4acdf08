"""Drift over HTTP is that of the library between the reference windows and what was forecast since."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from socket import gethostname

import numpy as np
import pytest
from factories import make_model, make_windows
from waiting import poll

import kanmodel
from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import DataError
from service.operations.drift import read_since

PATH = "/v1/models/load"
ALL_EXPLAINED = {"monitor_share": 1, "monitor_cpu": 1, "monitor_seconds": 0.05}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with targets of the reference windows, and groups."""
    path = tmp_path_factory.mktemp("drift") / "load.safetensors"
    save_checkpoint(make_model("lstm", n_reference=200), path)
    return path


def test_the_answer_is_that_of_the_library(serve, model):
    """Inputs, shares, effects, nDCG and errors, of every forecast, as all are explained."""
    loaded = kanmodel.load(model)
    windows = make_windows(loaded, 30) + loaded.scaling.feature_scale
    actual = np.linspace(-1, 1, 30)
    with serve(models=model, **ALL_EXPLAINED) as client:
        receipts = []
        for at in range(0, 30, 10):
            body = {"instances": windows[at : at + 10].tolist(), "receipts": True}
            receipts += client.post(f"{PATH}:predict", json=body).json()["receipts"]
        outcomes = [{"receipt": one, "values": {"y+1": value}} for one, value in zip(receipts, actual, strict=True)]
        assert client.post(f"{PATH}:outcomes", json={"outcomes": outcomes}).json()["matched"] == 30
        poll(lambda: client.get(f"{PATH}/drift").json()["explained"] == 30)
        found = client.get(f"{PATH}/drift").json()
    expected = loaded.drift(loaded.reference.windows, windows)
    assert (found["output"], found["forecasts"], found["explained"]) == ("y+1", 30, 30)
    since, counted = (datetime.fromisoformat(found[name]) for name in ("since", "counted_since"))
    assert found["host"] == gethostname() and since < counted <= datetime.now(UTC)
    for mine, theirs in zip(found["inputs"], expected.inputs, strict=True):
        assert (mine["feature"], mine["unit"]) == (theirs.name, theirs.unit)
        told = [mine[name] for name in ("psi", "shift", "distance", "mean", "mean_reference")]
        of_library = [theirs.psi, theirs.shift, theirs.distance, theirs.mean.now, theirs.mean.reference]
        assert told == pytest.approx(of_library, rel=1e-6)
    for mine, theirs in zip(found["use"], expected.use, strict=True):
        told = [mine[name] for name in ("share", "share_reference", "effect")]
        assert mine["name"] == theirs.name
        assert told == pytest.approx([theirs.share.now, theirs.share.reference, theirs.effect], rel=1e-2)
    effect = found["effect"]
    assert effect["total"] == pytest.approx(sum(effect["data"].values()))
    assert effect["total"] == pytest.approx(effect["forecast"] - effect["forecast_reference"], rel=1e-2)
    assert found["ndcg"] == pytest.approx(expected.ndcg, rel=1e-3)
    errors = loaded.predict(windows)[:, 0] - actual
    assert found["errors"]["mae"] == pytest.approx(np.abs(errors).mean())
    assert found["errors"]["bias"] == pytest.approx(errors.mean()) and found["errors"]["known"] == 30
    of_reference = np.abs(loaded.reference_predictions - loaded.reference.targets).mean()
    assert found["errors"]["mae_reference"] == pytest.approx(of_reference)
    verdicts = {one["question"]: one for one in found["verdicts"]}
    assert [*verdicts] == ["inputs", "use", "errors"] and all(one["spans"] > 4 for one in verdicts.values())
    assert verdicts["errors"]["alarm"]


def test_windows_of_the_reference_are_no_drift(serve, model):
    """However many of them: PSI depends on their number, and is compared at that of the reference's spans."""
    loaded = kanmodel.load(model)
    with serve(models=model) as client:
        nothing = client.get(f"{PATH}/drift").json()
        assert nothing["counted_since"] is None
        assert nothing["forecasts"] == 0 and nothing["errors"] is None and nothing["effect"]["total"] is None
        assert all(one["alarm"] is None and one["missing"] for one in nothing["verdicts"])
        for at in range(0, 200, 40):
            body = {"instances": loaded.reference.windows[at : at + 40].tolist()}
            client.post(f"{PATH}:predict", json=body)
        found = client.get(f"{PATH}/drift?since=2h").json()
        assert all(each["psi"] < 1e-9 and abs(each["shift"]) < 1e-6 for each in found["inputs"])
        assert found["verdicts"][0]["alarm"] is False and found["unused"] == []
        assert "explained" in found["verdicts"][1]["missing"]
        for since in ("soon", "0h", "", "-1h", "2090-01-01"):
            answer = client.get(f"{PATH}/drift", params={"since": since})
            assert answer.status_code == 422 and answer.json()["errors"][0]["path"] == "since", since
        assert client.get(f"{PATH}/drift?false_alarms=1").status_code == 422
        assert client.get("/v1/models/none/drift").status_code == 404


def test_since_is_a_duration_or_a_time():
    """Whole hours count: of a duration as many as it has, with the one that runs; of a time from its own."""
    now = datetime(2026, 3, 5, 10, 20, tzinfo=UTC)

    def first(given):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=read_since(given, now.timestamp()))

    assert first("24h") == datetime(2026, 3, 4, 11, tzinfo=UTC)
    assert first("30min") == datetime(2026, 3, 5, 10, tzinfo=UTC) == first("1h")
    assert first("7d") == datetime(2026, 2, 26, 11, tzinfo=UTC)
    assert first("2026-03-05T09:59Z") == datetime(2026, 3, 5, 9, tzinfo=UTC)
    assert first("2026-03-05T09:59+02:00") == datetime(2026, 3, 5, 7, tzinfo=UTC)
    for long in ("9999999999999w", "9" * 400 + "h", "0002-01-01"):
        assert first(long) == datetime(1970, 1, 1, tzinfo=UTC)
    for wrong in ("7", "1e400d", "NaT", "2026-03-05T10:21Z"):
        with pytest.raises(DataError, match="since must be"):
            read_since(wrong, now.timestamp())
