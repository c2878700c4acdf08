"""Many checkpoints and memory for a few of them: models are loaded when they are needed, and dropped when unused."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from dataclasses import replace
from functools import partial

import httpx2
import numpy as np
import pytest
from factories import make_model, make_windows
from sockets import is_at_rest, sum_samples
from thorough import examples
from waiting import poll

import kanmodel
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import UnknownNameError
from service.models.registry import Entry, Registry
from service.models.repository import list_checkpoints
from service.wire.errors import NotReadyError

N_MODELS, N_FIT = examples(60), 5
LAST = max(f"m{number}" for number in range(N_MODELS))  # of the list, which is sorted by name
WINDOWS = make_windows(make_model("head"), 2)


def write(path, seed):
    save_checkpoint(make_model("head", seed=seed, n_reference=20), path)
    return path


def budget_for(n, folder):
    """Memory for n models of a folder."""
    sizes = sorted(Entry(file).n_bytes for file in list_checkpoints(folder).values())
    return n * sizes[-1]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Checkpoints and their forecasts."""
    folder = tmp_path_factory.mktemp("many")
    files = [write(folder / f"m{number}.safetensors", number) for number in range(N_MODELS)]
    return folder, {file.stem: load_checkpoint(file).predict(WINDOWS) for file in files}


@pytest.fixture
def few(tmp_path):
    """Three checkpoints, and a registry with memory for two."""
    for number in range(3):
        write(tmp_path / f"m{number}.safetensors", number)
    registry = Registry(tmp_path, budget_for(2, tmp_path))
    registry.load()
    return registry


def in_memory(registry):
    return {entry.name for entry in registry.entries if entry.served is not None}


def predict(client, name, verb="predict"):
    answer = client.post(f"/v1/models/{name}:{verb}", json={"instances": WINDOWS.tolist()})
    return answer.status_code, answer.json()


def test_the_first_answer_does_not_wait_for_the_other_files(serve, many, monkeypatch):
    """With all other files blocked, the service is ready, answers for what is loaded, and loads what is asked for."""
    folder, expected = many
    go_on, asked = threading.Event(), {"m0", LAST}  # m0 is the first of the list

    def load_slowly(path):
        assert path.stem in asked or go_on.wait(300)
        return kanmodel.load(path)

    monkeypatch.setattr("service.models.registry.load", load_slowly)
    try:
        with serve(wait=False, models=folder) as client:
            poll(lambda: client.get("/readyz").status_code == 200)
            for name in sorted(asked):
                status, body = predict(client, name)
                assert status == 200 and np.allclose(body["predictions"], expected[name])
            states = {one["name"]: one["state"] for one in client.get("/readyz").json()["models"]}
            assert {name for name, state in states.items() if state == "ready"} == asked
            assert client.get("/v1/models/m3/ready").json()["error"] == "model 'm3' is loading"
            timeout = {"X-Request-Timeout": "0.05"}
            answer = client.get("/v1/models/m3", headers=timeout)
            assert (answer.status_code, answer.json()["code"]) == (503, "deadline_exceeded")
            go_on.set()
            poll(lambda: "loading" not in client.get("/readyz").text)
    finally:
        go_on.set()


def test_a_model_that_is_asked_for_again_is_loaded_once_for_all(serve, many, monkeypatch):
    """Requests that arrive while a model is loaded wait for that one load, and the event loop does not."""
    folder, expected = many
    inside, go_on, loads = threading.Event(), threading.Event(), []

    def load_slowly(path):
        if path.stem == LAST:
            loads.append(path.stem)
            inside.set()
            assert go_on.wait(300)
        return kanmodel.load(path)

    monkeypatch.setattr("service.models.registry.load", load_slowly)
    with serve(models=folder, model_bytes=budget_for(N_FIT, folder)) as client:
        assert loads == []
        answers = []
        asking = [threading.Thread(target=lambda: answers.append(predict(client, LAST))) for _ in range(8)]
        try:
            for thread in asking:
                thread.start()
            assert inside.wait(300)
            assert predict(client, "m0")[0] == client.get("/healthz").status_code == 200
            assert answers == []
        finally:
            go_on.set()
            for thread in asking:
                thread.join()
        assert loads == [LAST]
        assert [status for status, _ in answers] == [200] * 8
        assert all(np.allclose(body["predictions"], expected[LAST]) for _, body in answers)


def test_the_least_recently_used_model_makes_room(few):
    """A model that was asked for since stays."""
    assert in_memory(few) == {"m0", "m1"}
    few.get("m0")
    few.get("m2")
    assert in_memory(few) == {"m0", "m2"}
    few.get("m1")
    assert in_memory(few) == {"m1", "m2"}


def test_a_model_in_use_is_not_dropped(few):
    """It is not loaded twice either: all who ask for it share one network, and its memory counts."""
    used = few.get("m0").model
    few.get("m1")
    few.get("m2")
    assert in_memory(few) == {"m0", "m2"}
    assert few.get("m0").model is used
    others = [few.get("m1"), few.get("m2")]
    assert in_memory(few) == {"m0", "m1", "m2"}
    assert few.n_bytes == sum(entry.n_bytes for entry in few.entries)
    del used, others
    few.unload_model("m2")
    few.load_model("m2")
    assert len(in_memory(few)) == 2 and "m2" in in_memory(few)


def test_a_dropped_model_is_freed_at_once(few):
    """Without a garbage collection, even after every kind of question to it."""
    model = few.get("m0").model
    model.predict(WINDOWS)
    model.explain(WINDOWS, baseline="reference", effects=True)
    model.report()
    assert len(model.reference.windows) == len(model.reference)
    loaded = weakref.ref(model)
    gc.disable()
    try:
        del model
        few.get("m1")
        few.get("m2")
        assert loaded() is None
    finally:
        gc.enable()


@pytest.mark.thorough("computes the global results of two models")
def test_models_whose_results_are_cached_are_dropped_too(serve, many):
    """Global results and cached answers stay, equal after the model is loaded again, and do not keep it in memory.

    No garbage collection is needed: a request and what it waited for do not refer to each other once it is answered.
    """
    folder, _ = many
    paths = (
        "attributions",
        "topology",
        "report",
        "formula",
        "topology/fidelity",
        "comparison?against_model=m2",
        "edges",
    )
    with serve(models=folder, model_bytes=budget_for(2, folder), cached_answers=0) as client:

        def ask_all():
            return [client.get(f"/v1/models/m1/{path}").content for path in paths]

        def find_loaded():
            return {one["name"] for one in client.get("/v1/models").json()["details"] if one["loaded"]}

        gc.disable()
        try:
            before = ask_all()
            predict(client, "m1", "explain")
            for name in ("m3", "m4", "m5"):
                predict(client, name)
            poll(lambda: len(find_loaded()) <= 2)  # the monitor has the last for a moment, until it is counted
            assert "m1" not in find_loaded()
        finally:
            gc.enable()
        assert ask_all() == before


def test_a_file_that_changes_while_its_model_is_not_in_memory_waits_for_two_scans(few, tmp_path):
    """Until then requests for it are 503; the old contents are gone, and the new ones may be half written."""
    file = write(tmp_path / "m2.safetensors", 10)
    with pytest.raises(NotReadyError, match=r"version 1 of model 'm2' cannot be loaded: .* changed while it was read"):
        few.get("m2")
    few.poll()
    few.poll()
    assert few.get("m2").checkpoint == f"sha256:{load_checkpoint(file).sha256}"
    file.unlink()
    assert few.get("m2")  # in memory
    few.get("m0")
    few.get("m1")
    with pytest.raises(NotReadyError, match="No such file"):
        few.get("m2")
    few.poll()
    few.poll()
    with pytest.raises(UnknownNameError):
        few.get("m2")


def test_the_last_copy_of_a_model_is_not_dropped(few, tmp_path):
    """A model whose file was replaced by one that cannot be loaded stays in memory, as it cannot be loaded again."""
    before = few.get("m0").checkpoint
    (tmp_path / "m0.safetensors").write_bytes(b"no checkpoint")
    few.poll()
    few.poll()
    for name in ("m1", "m2", "m1"):
        few.get(name)
    assert few.get("m0").checkpoint == before
    write(tmp_path / "m0.safetensors", 10)
    few.poll()
    few.poll()
    assert few.get("m0").checkpoint != before
    few.get("m1")
    few.get("m2")
    assert in_memory(few) == {"m1", "m2"}


def test_a_file_that_only_loading_finds_bad_fails_when_it_is_needed(few, tmp_path, caplog):
    """Its header is good, so that it is ready until the first request for it, which gets the reason."""
    model = make_model("head", dtype="float32")
    for tensor in (model.network.head[-1].subnode_bias, model.network.head[-1].node_scale):
        tensor.fill_(1e30)
    save_checkpoint(replace(model, reference=replace(model.reference, targets=None)), tmp_path / "bad.safetensors")
    few.poll()
    few.poll()
    assert few.choose("bad").state == "ready"
    for _ in range(2):
        with pytest.raises(NotReadyError, match=r"model 'bad' failed: .* no answer for its own reference window"):
            few.get("bad")
    assert few.poll() == ()
    assert caplog.text.count("no answer for its own") == 1
    assert few.get("m0") and few.get("m1")


@pytest.mark.thorough("asks with four threads while files change")
def test_files_are_replaced_and_deleted_under_load(serve, tmp_path):
    """While 12 models are asked for at random with memory for 3, every answer is that of a file with its hash."""
    known = {}  # forecasts by hash

    def write_version(name, seed):
        model = make_model("head", seed=seed, n_reference=20)
        path = tmp_path / f"{name}.safetensors"
        known[f"sha256:{save_checkpoint(model, path.with_name('.new'))}"] = model.predict(WINDOWS)
        path.with_name(".new").replace(path)

    names = [f"m{number}" for number in range(12)]
    for seed, name in enumerate(names):
        write_version(name, seed)
    stop, wrong, statuses = threading.Event(), [], set()

    def be_client(url, seed):
        chosen = random.Random(seed)
        with httpx2.Client(base_url=url, timeout=300) as client:
            while not stop.is_set():
                status, body = predict(client, chosen.choice(names), chosen.choice(("predict", "explain")))
                statuses.add((status, body.get("code")))
                if status == 200 and not np.allclose(body["predictions"], known[body["checkpoint"]], atol=1e-4):
                    wrong.append(body)

    budget = budget_for(3, tmp_path)
    with serve(models=tmp_path, model_bytes=budget, poll_seconds=0.05) as client:
        threads = [threading.Thread(target=be_client, args=(client.base_url, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        try:
            for seed in range(100, 106):
                name = names[seed % 6]
                write_version(name, seed)
                new = list(known)[-1]
                poll(lambda name=name, new=new: predict(client, name)[1].get("checkpoint") == new)
            for name in names[6:]:
                (tmp_path / f"{name}.safetensors").unlink()
                poll(lambda name=name: predict(client, name)[0] == 404)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        poll(lambda: is_at_rest(client))
        # what was in use has gone by the next scan
        poll(lambda: 0 < sum_samples(client.get("/metrics").text, "model_bytes") <= budget)
        details = client.get("/v1/models").json()["details"]
        assert 1 <= sum(one["loaded"] for one in details) <= 3 and len(details) == 6
        assert {one["checkpoint"] for one in details} <= known.keys()
    assert wrong == []
    assert statuses - {(200, None), (404, "model_not_found"), (503, "not_ready")} == set()


def test_threads_that_race_for_models_account_for_each_once(tmp_path):
    """After 8 threads have loaded, held and released 6 models at random, memory is that of the models in memory."""
    for number in range(6):
        write(tmp_path / f"m{number}.safetensors", number)
    registry = Registry(tmp_path, budget_for(2, tmp_path))
    loading = threading.Thread(target=registry.load)

    def ask(seed):
        chosen = random.Random(seed)
        for _ in range(12):
            name = f"m{chosen.randrange(6)}"
            assert registry.get(name).name == name

    failures = []
    threads = [threading.Thread(target=partial(_record, failures, ask, seed)) for seed in range(8)]
    for thread in (loading, *threads):
        thread.start()
    for thread in (loading, *threads):
        thread.join()
    assert failures == []
    assert all(entry.state == "ready" for entry in registry.entries)
    assert registry.n_bytes == sum(entry.n_bytes for entry in registry.entries if entry.served is not None)


def _record(failures, function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        failures.append(error)
