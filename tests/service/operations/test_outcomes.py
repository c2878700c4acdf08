"""An outcome with the receipt of a real forecast is counted by any service with the key; nothing else is."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import httpx2
import numpy as np
import orjson
import pytest
from factories import make_model, make_windows, with_intervals
from prometheus_client.parser import text_string_to_metric_families as parse

from kanmodel.checkpoint import save_checkpoint
from kanmodel.model import Model
from service.telemetry import receipts as module
from service.telemetry.history import HOUR
from service.telemetry.receipts import Receipts

PATH = "/v1/models/load"
KEY = "of all replicas, of 32 characters"


@pytest.fixture(scope="module")
def model() -> Model:
    plain = make_model("lstm", n_reference=40)
    return Model.of(with_intervals(plain.with_config(replace(plain.config, ahead=1))))


@pytest.fixture(scope="module")
def models(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outcomes")
    save_checkpoint(model, folder / "load.safetensors")
    save_checkpoint(model, folder / "other.safetensors")
    return folder


@pytest.fixture(scope="module")
def client(serve, models):
    with serve(models=models, max_windows=50, max_body_bytes=100_000, receipt_key=KEY) as client:
        yield client


def ask(client: httpx2.Client, windows: np.ndarray, path: str = PATH, **members: Any) -> dict[str, Any]:
    """An answer of `:predict` with receipts."""
    answer = client.post(f"{path}:predict", json={"instances": windows.tolist(), "receipts": True, **members})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert len(found["receipts"]) == len(windows)
    return found


def send(client: httpx2.Client, receipts: list[str], values: Any = 1.0, path: str = PATH) -> httpx2.Response:
    every = np.broadcast_to(values, len(receipts)).tolist()
    outcomes = [{"receipt": one, "values": {"y+1": value}} for one, value in zip(receipts, every, strict=True)]
    name, _, query = path.partition("?")
    return client.post(f"{name}:outcomes?{query}", json={"outcomes": outcomes})


def counts(answer: httpx2.Response) -> tuple[int, int, int]:
    """Outcomes that were matched, unknown, and repeated."""
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found["matched"], found["unknown"], found["repeated"]


def samples(client: httpx2.Client, name: str) -> dict[tuple[str, ...], float]:
    """Values of one metric by its labels, without 0."""
    found = [sample for family in parse(client.get("/metrics").text) for sample in family.samples]
    return {tuple(one.labels.values()): one.value for one in found if one.name == f"kanscope_{name}" and one.value}


def test_a_forecast_of_one_replica_has_its_outcome_in_another(serve, models, model):
    """With the same key, which is all that they share: errors and coverage are those of what the client was given."""
    windows = make_windows(model, 4)
    with serve(models=models, receipt_key=KEY) as one, serve(models=models, receipt_key=KEY) as other:
        answer = ask(one, windows)
        assert "intervals" not in answer  # they are signed, though nobody asked for them
        middle = np.array(answer["predictions"])[:, 0]
        actual = [*middle[:3], middle[3] + 1e6]
        assert counts(send(other, answer["receipts"], actual)) == (4, 0, 0)
        assert samples(other, "watched_known_total") == {("load", "1"): 4}
        assert samples(one, "watched_known_total") == {}
        drifts = [client.get(f"{PATH}/drift").json() for client in (one, other)]
    told = [(found["forecasts"], found["errors"] and found["errors"]["known"]) for found in drifts]
    assert told == [(4, None), (0, 4)]
    found = drifts[1]
    assert found["errors"]["mae"] == pytest.approx(250_000) and found["errors"]["bias"] == pytest.approx(-250_000)
    assert [(one["level"], one["covered"]) for one in found["coverage"]] == [(0.8, 0.75), (0.95, 0.75)]


@pytest.mark.parametrize("keys", [{"receipt_key": "another, which also has 32 characters"}, {}])
def test_another_key_makes_receipts_unknown(serve, client, models, model, keys):
    """Also one that is made at the start, where the setting is missing."""
    with serve(models=models, **keys) as other:
        receipts = ask(other, make_windows(model, 2))["receipts"]
        assert counts(send(client, receipts)) == (0, 2, 0)
        assert counts(send(other, receipts)) == (2, 0, 0)
        assert counts(send(other, ask(client, make_windows(model, 2))["receipts"])) == (0, 2, 0)
        assert samples(other, "outcomes_total") == {("load", "matched"): 2, ("load", "unknown"): 2}


def test_intervals_are_signed_as_the_model_has_them(client, model):
    """Of all levels, whichever the answer lists; with an adaptation of the client's own none is."""
    windows = make_windows(model, 3)
    rng = np.random.default_rng(0)
    series = {name: rng.normal(size=60).tolist() for name in (*model.config.feature_names, "y")}
    adapting = client.post(f"{PATH}:backtest", json={"series": series, "adapt": True})
    assert adapting.status_code == 200, adapting.text
    expected = model.predict(windows, intervals="all")
    for members, n_levels in (
        ({}, 2),
        ({"intervals": [0.8]}, 2),
        ({"intervals": "all"}, 2),
        ({"intervals": "all", "adaptation": adapting.json()["adaptation"]}, 0),
    ):
        answer = ask(client, windows, **members)
        found = [Receipts(KEY).verify(text) for text in answer["receipts"]]
        assert [one.forecast for one in found] == np.array(answer["predictions"])[:, 0].tolist()
        assert [one.instance for one in found] == [0, 1, 2]
        for at, one in enumerate(found):
            bounds = np.stack([expected.lower[:n_levels, at, 0], expected.upper[:n_levels, at, 0]], axis=-1)
            np.testing.assert_allclose(np.reshape(one.intervals, (n_levels, 2)), bounds, rtol=1e-5)
    assert "receipts" not in client.post(f"{PATH}:predict", json={"instances": windows.tolist()}).json()


def test_what_was_edited_forged_or_is_of_another_model_is_unknown(client, model):
    """Nothing of it is counted, whatever its values."""
    (receipt,) = ask(client, make_windows(model, 1))["receipts"]
    (of_other,) = ask(client, make_windows(model, 1), "/v1/models/other")["receipts"]
    data = bytearray(module.urlsafe_b64decode(receipt + "=" * (-len(receipt) % 4)))
    edited = bytearray(data)
    edited[edited.index(b"load")] ^= 1
    forged = [module._encode(bytes(edited)), module._encode(bytes(data[:-32]) + bytes(32)), "A" * 80, of_other]
    before = samples(client, "watched_known_total")
    assert counts(send(client, forged, 1e99)) == (0, 4, 0)
    assert counts(send(client, [receipt], path=f"{PATH}?version=1")) == (1, 0, 0)
    assert counts(send(client, [of_other], path="/v1/models/other")) == (1, 0, 0)
    after = samples(client, "watched_known_total")
    assert {key: n - before.get(key, 0) for key, n in after.items()} == {("load", "1"): 1, ("other", "1"): 1}


def test_a_receipt_counts_once_in_a_process(client, model):
    """A second outcome of it is repeated, in one request or later, and changes nothing."""
    receipts = ask(client, make_windows(model, 3))["receipts"]
    assert counts(send(client, [*receipts, receipts[1]])) == (3, 0, 1)
    before = samples(client, "watched_errors_total")
    assert counts(send(client, receipts, 1e9)) == (0, 0, 3)
    assert samples(client, "watched_errors_total") == before


def test_a_receipt_lasts_as_long_as_the_hours_that_are_kept(serve, models, model, monkeypatch):
    """After that it is unknown, so that no outcome is counted in an hour that nobody sees."""
    with serve(models=models, monitor_hours=3) as client:
        receipts = []
        for hours in (3, 2):
            now = module.time()
            with monkeypatch.context() as patch:
                patch.setattr(module, "time", lambda past=now - hours * HOUR: past)
                receipts += ask(client, make_windows(model, 1))["receipts"]
        assert counts(send(client, receipts)) == (1, 1, 0)
        assert client.get(f"{PATH}/drift?since=3h").json()["errors"]["known"] == 1


RECEIPT, VALUE = "must be one of the receipts", {"values": {"y+1": 1}}


@pytest.mark.parametrize(
    ("outcome", "place", "reason"),
    [
        (VALUE, "receipt", "is missing"),
        ({"receipt": "", **VALUE}, "receipt", f"{RECEIPT} of an answer"),
        ({"receipt": "A" * 40, **VALUE}, "receipt", RECEIPT),
        ({"receipt": "é" * 80, **VALUE}, "receipt", RECEIPT),
        ({"receipt": 7, **VALUE}, "receipt", "must be a"),
        ({}, "values", "is missing"),
        ({"values": {}}, "values", "must have what came for y+1"),
        ({"values": {"y": 1}}, "values", "must have what came for y+1"),
        ({"values": {"y+1": 1, "y": 1}}, "values", "and nothing else"),
        *(({"values": {"y+1": value}}, "values.y+1", "must be a") for value in ("1", None, True)),
        ({"values": {"y+1": 1e101}}, "values.y+1", "must be less than"),
        ({"values": {"y+1": -1e101}}, "values.y+1", "must be greater than"),
        ({**VALUE, "id": "x"}, "id", "is unknown"),
    ],
)
def test_a_wrong_outcome_is_refused_with_its_place(client, model, outcome, place, reason):
    """Nothing of the request is taken then."""
    first, second = ask(client, make_windows(model, 2))["receipts"]
    if outcome is not VALUE:
        outcome = {"receipt": first, **outcome}
    body = {"outcomes": [outcome, {"receipt": second, **VALUE}]}
    answer = client.post(f"{PATH}:outcomes", json=body)
    (error, *_) = answer.json()["errors"]
    assert answer.status_code == 422 and error["path"] == f"outcomes[0].{place}" and reason in error["message"], error
    assert counts(send(client, [first, second])) == (2, 0, 0)


def test_too_many_outcomes_are_refused(client):
    """As many as a request may have windows, in bodies that would hold far more too."""
    for n, status in ((50, 200), (51, 422), (600, 422)):
        assert send(client, ["A" * 80] * n).status_code == status
    assert send(client, []).json()["errors"][0]["path"] == "outcomes"
    longest = client.post(f"{PATH}:outcomes", json={"outcomes": [{"receipt": "A" * 90_000, "values": {"y+1": 1.0}}]})
    assert counts(longest) == (0, 1, 0)


def test_the_largest_outcomes_leave_drift_finite(serve, models, model):
    """Sums and squares of them do not overflow."""
    with serve(models=models) as client:
        receipts = ask(client, make_windows(model, 40))["receipts"]
        assert counts(send(client, receipts, 1e100)) == (40, 0, 0)
        answer = client.get(f"{PATH}/drift")
        assert answer.status_code == 200 and answer.json()["errors"]["mae"] == pytest.approx(1e100)


def test_a_forecast_of_a_version_that_is_gone_has_its_outcome(serve, tmp_path):
    """After a restart too, which keeps the hours; where the query names a version, receipts of others are unknown."""
    (tmp_path / "load").mkdir()
    first = make_model("lstm", n_reference=40)
    save_checkpoint(first, tmp_path / "load" / "1.safetensors")
    settings = {"models": tmp_path, "monitor": tmp_path / "monitor", "receipt_key": KEY}
    with serve(**settings) as client:
        receipts = ask(client, make_windows(first, 3))["receipts"]
        assert counts(send(client, receipts[:1])) == (1, 0, 0)
    with serve(**settings) as client:
        assert counts(send(client, receipts[1:2])) == (1, 0, 0)
        found = client.get(f"{PATH}/drift").json()
        assert (found["forecasts"], found["errors"]["known"]) == (3, 2)
    (tmp_path / "load" / "1.safetensors").unlink()
    save_checkpoint(make_model("head", n_reference=40, seed=1), tmp_path / "load" / "2.safetensors")
    with serve(**settings) as client:
        assert counts(send(client, receipts[2:], path=f"{PATH}?version=2")) == (0, 1, 0)
        assert counts(send(client, receipts[2:])) == (1, 0, 0)
        assert samples(client, "outcomes_total") == {("load", "matched"): 1, ("load", "unknown"): 1}


@pytest.mark.thorough("forecasts 100,000 windows")
def test_nothing_grows_with_the_number_of_forecasts(serve, models, model, tmp_path):
    """The file is as large after 100,000 forecasts as after 1,000 of them."""
    body = orjson.dumps({"instances": make_windows(model, 1000).tolist(), "receipts": True})
    with serve(models=models, monitor=tmp_path / "monitor") as client:
        sizes = []
        for _ in range(100):
            answer = client.post(f"{PATH}:predict", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 200, answer.text
            client.get(f"{PATH}/drift")  # writes what waits
            sizes.append((tmp_path / "monitor").stat().st_size)
        assert client.get(f"{PATH}/drift").json()["forecasts"] == 100_000
    assert (tmp_path / "monitor").stat().st_size <= max(sizes[:10]) + 65_536 < 1 << 20


def test_without_the_monitor_there_are_no_outcomes(serve, models, model):
    """The answer says which setting turns it off."""
    with serve(models=models, monitor="off") as client:
        receipts = ask(client, make_windows(model, 1))["receipts"]
        for answer in (send(client, receipts), client.get(f"{PATH}/drift")):
            assert answer.status_code == 403 and answer.json()["code"] == "disabled"
            assert "monitor" in answer.json()["error"]


def test_a_file_that_is_locked_is_a_clear_answer(serve, models, model, tmp_path, monkeypatch):
    """The client may try again, and the outcome counts then; forecasts go on."""
    monkeypatch.setattr("service.telemetry.history.BUSY_SECONDS", 0.1)
    with serve(models=models, monitor=tmp_path / "file") as client:
        locking = sqlite3.connect(tmp_path / "file", isolation_level=None)
        locking.execute("BEGIN IMMEDIATE")
        receipts = ask(client, make_windows(model, 1))["receipts"]
        answer = send(client, receipts)
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "60" and "locked" in answer.text
        locking.execute("ROLLBACK")
        locking.close()
        assert counts(send(client, receipts)) == (1, 0, 0)
