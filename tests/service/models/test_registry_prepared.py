"""A model with results beside its checkpoint answers as one without, byte by byte, and has nothing to compute first."""

from __future__ import annotations

import gc
import logging
import shutil
from dataclasses import replace
from urllib.parse import quote

import pytest
from factories import make_model, with_intervals
from thorough import few_of
from waiting import poll
from wired import read

import kanmodel
from kanmodel.checkpoint import save_checkpoint
from kanmodel.structure import questions as structure
from service.models import registry as registries
from service.models.registry import Registry

SMALL = {"n_features": 3, "lookback": 3, "n_reference": 130}
PAIRS = {"pair": ("f0", "f2")}
QUESTIONS = ("attributions", "topology", "topology?format=svg", "topology?fidelity=0.9", "topology/fidelity", "edges")
QUESTIONS += ("report", "reference?contributions=true")
SLOW = few_of(("formula", "attributions?baselines=true"), (), "they take most of the time, and read no file")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Several outputs in groups, classes, intervals and a graph, without results, and with them in a second folder."""
    plain, kept = (tmp_path_factory.mktemp(name) for name in ("plain", "kept"))
    several = make_model("lstm", product=True, targets=("a", "b"), **SMALL)
    classes = make_model("head", seed=1, targets=("a", "b"), **SMALL)
    classes.network.config = replace(classes.config, output_function="softmax")
    made = {
        "several": several.with_config(replace(several.config, groups=PAIRS)),
        "classes": classes,
        "intervals": with_intervals(make_model("front", n_features=2, lookback=2, n_reference=20), "constant"),
        "graph": read("SkipAroundHead"),
    }
    for name, model in made.items():
        save_checkpoint(model, plain / f"{name}.safetensors")
        shutil.copy(plain / f"{name}.safetensors", kept)
        kanmodel.prepare(kept / f"{name}.safetensors")
    return plain, kept


@pytest.fixture
def file(models, tmp_path):
    """A checkpoint in a folder of the test's own."""
    return shutil.copy(models[0] / "classes.safetensors", tmp_path / "m.safetensors")


def test_answers_are_the_same_bytes_with_and_without(serve, models):
    """The last output of every kind of model, with and without the rule that is kept."""
    plain, kept = (ask_all(serve, folder, QUESTIONS) for folder in models)
    assert {answer[0] for answer in plain.values()} == {200}
    assert kept == plain


@pytest.mark.parametrize("question", SLOW)
def test_slow_answers_are_the_same_too(serve, models, question):
    """The same of what is computed from the results, or without them."""
    plain, kept = (ask_all(serve, folder, [question]) for folder in models)
    assert kept == plain


def ask_all(serve, folder, questions):
    """Status, body or error, and ETag of the answers about the last output of each model of a folder."""
    answers = {}
    with serve(models=folder) as client:
        for listed in client.get("/v1/models").json()["details"]:
            assert listed["prepared"] == (folder.name.startswith("kept"))
            output = quote(client.get(f"/v1/models/{listed['name']}").json()["outputs"][-1])
            for question in questions:
                path = f"/v1/models/{listed['name']}/{question}{'&' if '?' in question else '?'}output={output}"
                answer = client.get(path)
                body = answer.content if answer.status_code == 200 else answer.json()["error"]
                answers[path] = answer.status_code, body, answer.headers.get("etag")
    return answers


def test_nothing_is_computed_before_the_first_answer(serve, models, monkeypatch):
    """No result is computed in advance, and attributions and topology need neither ledger nor search."""
    monkeypatch.setattr(structure, "measure_importance", None)
    monkeypatch.setattr(structure.pruning, "prune_by_rule", None)
    with serve(models=models[1], cached_results=64) as client:
        unprepared = [line for line in client.get("/metrics").text.splitlines() if "unprepared" in line]
        assert [line.split()[-1] for line in unprepared if not line.startswith("#")] == ["0.0"]
        for name, output in (("several", "b+1"), ("intervals", "y+1")):
            for question in ("attributions", "topology", "edges"):
                assert client.get(f"/v1/models/{name}/{question}?output={quote(output)}").status_code == 200


def test_what_is_used_is_logged_once_and_listed(serve, models, tmp_path, caplog):
    """Missing, wrong and read results: each in one line of the log and in the list of models."""
    caplog.set_level(logging.INFO)
    for name in ("several", "classes", "graph"):
        shutil.copy(models[1] / f"{name}.safetensors", tmp_path)
    shutil.copy(models[1] / "several.results", tmp_path)
    shutil.copy(models[1] / "several.results", tmp_path / "graph.results")
    with serve(models=tmp_path, poll_seconds=0.05) as client:
        listed = {one["name"]: one for one in client.get("/v1/models").json()["details"]}
        assert (listed["several"]["prepared"], listed["several"].get("unprepared")) == (True, None)
        reasons = {"classes": "there is no classes.results", "graph": "graph.results is of another checkpoint"}
        for name, reason in reasons.items():
            assert (listed[name]["prepared"], listed[name]["unprepared"]) == (False, reason)
            assert listed[name]["versions"][0]["unprepared"] == reason
            said = f"the global results of model {name}, version 1 are computed: {reason}"
            said += "; `kanscope prepare` writes the file anew" if name == "graph" else ""
            assert [record.getMessage() for record in caplog.records].count(said) == 1
        texts = {record.getMessage(): record.levelname for record in caplog.records}
        levels = {text.split(",")[0].split()[-1]: level for text, level in texts.items() if "global" in text}
        assert levels == {"several": "INFO", "classes": "INFO", "graph": "WARNING"}


def test_results_that_come_later_are_adopted(file, models):
    """After two scans that see them; those of another model change nothing but what is said."""
    registry = Registry(file.parent)
    registry.load()
    before = registry.get("m")
    assert registry.poll() == registry.poll() == () and registry.get("m") is before
    shutil.copy(models[1] / "several.results", file.with_suffix(".results"))
    assert registry.poll() == () and registry.get("m") is before
    registry.poll()
    assert registry.entries[0].unprepared == "m.results is of another checkpoint"
    shutil.copy(models[1] / "classes.results", file.with_suffix(".results"))
    registry.poll()
    assert registry.poll() == ()
    assert registry.entries[0].prepared and registry.entries[0].unprepared is None
    assert registry.get("m").checkpoint == before.checkpoint and registry.get("m").model.prepared is not None


def test_results_are_no_model(models):
    """A folder lists checkpoints alone."""
    registry = Registry(models[1])
    assert sorted(registry.index()) == ["classes", "graph", "intervals", "several"]
    (models[1] / ".m.results.x.tmp").touch()
    assert sorted(Registry(models[1]).index()) == ["classes", "graph", "intervals", "several"]


def test_a_model_that_is_held_keeps_its_results(models):
    """They stay with a model that memory was wanted from while a request uses it, and count in its memory."""
    registry = Registry(models[1] / "several.safetensors")
    registry.load()
    (entry,) = registry.entries
    held, n_bytes = entry.served.model, entry.n_bytes
    prepared = entry.served.model.prepared
    assert n_bytes > prepared.n_bytes > 10_000
    assert not registries._release(entry)
    assert entry.served.model.prepared is prepared and entry.n_bytes == n_bytes
    del held, prepared
    gc.collect()
    assert registries._release(entry)


def test_a_scan_sees_results_while_the_service_answers(serve, file, models):
    """The model answers throughout, and then says that it has them."""
    with serve(models=file.parent, poll_seconds=0.05) as client:
        path = "/v1/models/m/attributions?output=a%2B1"
        before = client.get(path).content
        shutil.copy(models[1] / "classes.results", file.with_suffix(".results"))

        def is_prepared():
            assert client.get("/v1/models/m").status_code == 200
            return client.get("/v1/models").json()["details"][0]["prepared"]

        poll(is_prepared)
        assert client.get(path).content == before
        file.with_suffix(".results").write_bytes(b"?")
        poll(lambda: not is_prepared())
        assert "not a safetensors file" in client.get("/v1/models").json()["details"][0]["unprepared"]
