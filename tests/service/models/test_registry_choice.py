"""Versions that are chosen by a file: the default, canaries, shadows, and rollbacks under load."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from math import sqrt

import pytest
from factories import make_model, make_windows
from waiting import repeating

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.tables.table import SeriesColumn
from service.models.registry import Registry

BODY = {"instances": make_windows(make_model("head"), 3).tolist()}


def write(folder, *versions, kind="head"):
    """Writes versions of model m, each another checkpoint."""
    (folder / "m").mkdir(exist_ok=True)
    for version in versions:
        save_checkpoint(make_model(kind, seed=version), folder / "m" / f"{version}.safetensors")


def choose(folder, choice):
    """Writes the file, as text where it is given as that."""
    path = folder / "m" / "versions.json"
    new = path.with_name(".new")
    new.write_text(choice if isinstance(choice, str) else json.dumps(choice), encoding="utf-8")
    new.rename(path)


@pytest.fixture
def registry(tmp_path):
    write(tmp_path, 1, 2, 3)
    choose(tmp_path, {"default": "2", "canary": {"3": 0.25}})
    registry = Registry(tmp_path)
    registry.load()
    return registry


def state(registry):
    versions = registry.index()["m"]
    return versions.default.version, versions.choice and versions.choice.canary, versions.problem


def test_the_default_that_is_chosen_answers_from_the_first_request_on(tmp_path):
    """While models still load, a higher version that is ready does not answer in its place."""
    write(tmp_path, 1, 2, 3)
    choose(tmp_path, {"default": "2", "shadow": {"3": 1.0}})
    registry = Registry(tmp_path)
    assert registry.get("m").version == "2"
    registry.load(until_ready=True)
    assert [entry.version for entry in registry.entries if entry.state == "ready"] == ["2"]
    registry.load()
    assert state(registry) == ("2", {}, None)


def test_without_a_default_the_highest_that_is_not_tried_answers(tmp_path):
    """Neither canaries nor shadows become the default because of their number."""
    write(tmp_path, 1, 2, 3)
    choose(tmp_path, {"canary": {"3": 0.1}})
    registry = Registry(tmp_path)
    registry.load()
    assert state(registry) == ("2", {"3": 0.1}, None)


def test_a_version_that_comes_with_its_choice_is_no_problem(registry, tmp_path, caplog):
    """It is followed once two scans have seen its file, and until then nothing is said."""
    write(tmp_path, 4)
    choose(tmp_path, {"default": "4"})
    registry.poll()
    assert state(registry) == ("2", {"3": 0.25}, None)
    registry.poll()
    assert state(registry) == ("4", {}, None) and not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_rollback_is_followed_at_the_next_scan_and_clears_answers(registry, tmp_path):
    """One scan is enough, the index is another object, and the new default is given for its global results."""
    before = registry.index()
    assert registry.poll() == () and registry.index() is before
    choose(tmp_path, {"default": "1"})
    (new,) = registry.poll()
    assert (registry.get("m").version, registry.get("m").checkpoint) == ("1", new) and registry.index() is not before
    (tmp_path / "m" / "versions.json").unlink()
    registry.poll()
    assert state(registry) == ("3", None, None)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("", "not valid"),
        ('{"default": "1"', "not valid"),
        ('{"default": 1}', "default"),
        ('{"default": "01"}', "default"),
        ('{"default": "../1"}', "default"),
        ('{"default": "1\\n"}', "default"),
        ('{"defualt": "1"}', "defualt"),
        ("[" * 50_000, "not valid"),
        (" " * 70_000, "more than"),
        ('{"canary": {"1": 1.5}}', "canary.1"),
        ('{"canary": {"1": -0.1}}', "canary.1"),
        ('{"canary": {"1": NaN}}', "canary.1"),
        ('{"canary": {"1": 1e999}}', "canary.1"),
        ('{"canary": {"1": true}}', "canary.1"),
        ('{"canary": {"1": "0.5"}}', "canary.1"),
        ('{"canary": {"1": 0.6, "2": 0.6}}', "above 1"),
        ('{"default": "1", "shadow": {"1": 0.6}}', "named twice"),
        ('{"default": "9"}', "no version 9"),
        ('{"shadow": {"9": 1}}', "no version 9"),
        ("null", "not valid"),
    ],
)
def test_a_choice_that_is_not_valid_changes_nothing_and_is_said(registry, tmp_path, caplog, choice, said):
    """The last valid one stays; the log has the reason once, and the state until it is mended."""
    choose(tmp_path, choice)
    caplog.clear()
    for _ in range(3):
        registry.poll()
    default, canary, problem = state(registry)
    assert (default, canary) == ("2", {"3": 0.25}) and said in problem
    assert len(caplog.records) == 1 and problem in caplog.text
    choose(tmp_path, {"default": "1"})
    registry.poll()
    assert state(registry) == ("1", {}, None)


def test_files_that_are_no_files_are_refused(registry, tmp_path):
    """A pipe would never end, a link leads out of the folder, and a folder has no text."""
    path, outside = tmp_path / "m" / "versions.json", tmp_path.parent / f"{tmp_path.name}.json"
    outside.write_text('{"default": "1"}')
    for make, said in (
        (os.mkfifo, "regular"),
        (os.mkdir, "regular"),
        (lambda at: os.symlink(outside, at), "link that leaves"),
        (lambda at: at.write_bytes(b'{"default": "\xff"}'), "not valid"),
    ):
        path.rmdir() if path.is_dir() else path.unlink()
        make(path)
        registry.poll()
        assert state(registry)[0] == "2" and said in state(registry)[2]


def test_a_version_of_other_windows_or_that_cannot_be_loaded_is_not_followed(registry, tmp_path):
    """A canary would refuse requests that fit the default; a broken one is followed once its file is whole."""
    save_checkpoint(make_model("lstm", seed=7), tmp_path / "m" / "7.safetensors")
    (tmp_path / "m" / "8.safetensors").write_bytes(b"")
    for version, said in (("7", "other windows"), ("8", "failed")):
        choose(tmp_path, {"default": "2", "canary": {version: 0.5}})
        for _ in range(2):
            registry.poll()
        assert state(registry)[:2] == ("2", {"3": 0.25}) and said in state(registry)[2]
    write(tmp_path, 8)
    for _ in range(2):
        registry.poll()
    assert state(registry) == ("2", {"8": 0.5}, None)


def test_where_the_default_is_deleted_another_that_is_not_tried_answers(registry, tmp_path):
    """The state says that the file names what is not there."""
    (tmp_path / "m" / "2.safetensors").unlink()
    for _ in range(3):
        registry.poll()
    default, _, problem = state(registry)
    assert default == "1" and problem.startswith("there is no version 2")


def test_draws_are_within_chance_of_the_share(registry):
    """Six standard deviations of a binomial; the default has the rest."""
    n, share = 20_000, 0.25
    drawn = [registry.index()["m"].draw() for _ in range(n)]
    assert set(drawn) == {None, "3"}
    assert abs(drawn.count("3") - n * share) < 6 * sqrt(n * share * (1 - share))


def test_requests_are_answered_counted_and_cached_by_version(serve, tmp_path, wait_until):
    """A canary of all answers windows, GETs are of the default, and an outcome is of the version that answered."""
    write(tmp_path, 1, 2, 3)
    choose(tmp_path, {"default": "1", "canary": {"2": 1.0}, "shadow": {"3": 1.0}})
    with serve(models=tmp_path, poll_seconds=0.05) as client:
        wait_until(lambda: client.get("/v1/models/m").json()["chosen"].get("canary") == {"2": 1.0})
        name = load_checkpoint(tmp_path / "m" / "1.safetensors").config.outputs[0]
        answers = [client.post("/v1/models/m:predict", json={**BODY, "receipts": True})]
        answers += [client.post(f"/v1/models/m:{verb}", json=BODY) for verb in ("predict", "explain")]
        assert [answer.json()["version"] for answer in answers] == ["2"] * 3
        asked = client.post("/v1/models/m:predict", json=BODY, params={"version": "1"})
        assert asked.json()["version"] == "1"
        first = client.get("/v1/models/m/attributions")
        assert (first.json()["version"], client.get("/v1/models/m").json()["version"]) == ("1", "1")

        def counted(version, use, n):
            return (
                f'kanscope_forecasts_total{{model="m",use="{use}",version="{version}"}} {n}.0'
                in client.get("/metrics").text
            )

        wait_until(lambda: counted("3", "shadow", 9))
        assert counted("2", "answer", 9) and counted("1", "answer", 3)
        outcomes = {"outcomes": [{"receipt": answers[0].json()["receipts"][0], "values": {name: 1.0}}]}
        assert client.post("/v1/models/m:outcomes", json=outcomes).json()["matched"] == 1
        known = [line for line in client.get("/metrics").text.splitlines() if line.startswith("kanscope_watched_known")]
        assert sorted(line.split('version="')[1][0] for line in known if "_total" in line) == ["2"]

        choose(tmp_path, {"default": "2"})
        wait_until(lambda: client.get("/v1/models/m").json()["version"] == "2")
        headers = {"If-None-Match": first.headers["etag"]}
        again = client.get("/v1/models/m/attributions", headers=headers)
        assert (again.status_code, again.json()["version"]) == (200, "2")


def test_rollbacks_under_load_fail_no_request(serve, tmp_path, wait_until):
    """Clients ask without a pause while the default goes to and fro: each answer is that of the version it states."""
    write(tmp_path, 1, 2, 3)
    choose(tmp_path, {"default": "3"})
    expected = {
        v: load_checkpoint(tmp_path / "m" / f"{v}.safetensors").predict(make_windows(make_model("head"), 3))
        for v in "123"
    }
    with (
        serve(models=tmp_path, poll_seconds=0.02, model_bytes=1) as client,
        repeating(lambda: client.post("/v1/models/m:predict", json=BODY)) as answers,
    ):
        for choice in ({"default": "1"}, "{", {"default": "2", "canary": {"3": 0.5}}, {"default": "1"}) * 2:
            n = len(answers)
            choose(tmp_path, choice)
            if choice != "{":
                wait_until(lambda choice=choice: client.get("/v1/models/m").json()["version"] == choice["default"])
            wait_until(lambda n=n: len(answers) >= n + 20)
    assert {answer.status_code for answer in answers} == {200}
    found = [answer.json() for answer in answers]
    assert {one["version"] for one in found} == {"1", "2", "3"}
    # Requests are batched, and a sum over another number of windows is rounded otherwise.
    assert all(one["predictions"] == pytest.approx(expected[one["version"]], rel=1e-12) for one in found)


def test_a_version_that_takes_a_column_of_series_is_no_canary_of_one_that_does_not(tmp_path):
    """Since a request to one of them would be refused by the other."""
    write(tmp_path, 1)
    model = make_model("head", seed=2)
    shops = replace(model.config, series=SeriesColumn("shop", ("a", "b")))
    save_checkpoint(model.with_config(shops), tmp_path / "m" / "2.safetensors")
    choose(tmp_path, {"default": "1", "canary": {"2": 0.5}})
    registry = Registry(tmp_path)
    registry.load()
    assert state(registry)[2] == "version 2 takes other windows than version 1"
