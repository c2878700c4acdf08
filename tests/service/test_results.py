from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import pytest
from factories import make_model

from kanmodel.errors import NonFiniteError
from kanmodel.explain.pruning import PruningRule, Thresholds
from service.models.registry import Served
from service.work import results
from service.work.results import GlobalResults, ResultCache


def test_a_result_is_computed_once_however_many_ask():
    """Callers that ask at the same time, and later ones, share one computation in another thread."""
    threads = []

    def compute():
        threads.append(threading.get_ident())
        time.sleep(0.05)
        return object()

    async def ask():
        cache = ResultCache(4)
        together = await asyncio.gather(*(cache.get("key", compute) for _ in range(8)))
        return [*together, await cache.get("key", compute)]

    results = asyncio.run(ask())
    assert len(set(map(id, results))) == 1
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_a_failure_is_told_to_all_who_wait_and_not_kept():
    """Everyone who waits gets the error, and the next who asks a new computation."""
    calls = []

    def compute():
        calls.append(1)
        time.sleep(0.02)
        if len(calls) == 1:
            raise ValueError("once")
        return "result"

    async def ask():
        cache = ResultCache(4)
        first = await asyncio.gather(*(cache.get("key", compute) for _ in range(3)), return_exceptions=True)
        return first, await cache.get("key", compute)

    first, second = asyncio.run(ask())
    assert [str(error) for error in first] == ["once"] * 3
    assert second == "result"
    assert len(calls) == 2


def test_a_caller_that_leaves_does_not_take_the_result_with_it():
    """The computation goes on for the others."""
    go_on = threading.Event()

    def compute():
        assert go_on.wait(10)
        return "result"

    async def ask():
        cache = ResultCache(4)
        leaving = asyncio.create_task(cache.get("key", compute))
        staying = asyncio.create_task(cache.get("key", compute))
        await asyncio.sleep(0.01)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        go_on.set()
        return await staying

    assert asyncio.run(ask()) == "result"


def test_what_is_unused_for_longest_goes_first():
    """The cache is bounded, and a result that is asked for again stays."""
    calls = []

    async def ask():
        cache = ResultCache(2)
        for key in ("a", "b", "a", "c", "a", "b"):
            await cache.get(key, lambda key=key: calls.append(key))

    asyncio.run(ask())
    assert calls == ["a", "b", "c", "b"]


FUNCTIONS = ("measure_importance", "attribute_features", "prune_by_rule", "lay_out", "write_report")


@pytest.fixture
def computed(monkeypatch):
    """The names of what global results are computed by, in the order of the calls."""
    calls = []

    def record(name):
        function = getattr(results, name)

        def call(*arguments):
            calls.append(name)
            return function(*arguments)

        monkeypatch.setattr(results, name, call)

    for name in FUNCTIONS:
        record(name)
    return calls


def serve_model(name, seed=0, **options):
    """A model of a checkpoint of its own."""
    return Served(name, replace(make_model("head", seed, **options), sha256=name))


def prepare(models, size=64):
    """Computes what is computed before anybody asks; gives the results back."""

    async def run():
        kept = GlobalResults(size)
        await kept.prepare(models)
        for served in models:
            await kept.report(served, 0)
        return await kept.importance(models[0], 0)

    return asyncio.run(run())


def test_what_most_ask_for_is_computed_before_anybody_does(computed):
    """Of each output the importance, the table, the graph and the report, one after the other, and each once."""
    prepare([serve_model("two", targets=("a", "b")), serve_model("one", seed=1)])
    assert computed == [*FUNCTIONS] * 3


def test_what_is_still_to_be_computed_is_counted(monkeypatch):
    """The number of outputs without results falls by one with each report, to none."""
    two, kept, left = serve_model("two", targets=("a", "b")), GlobalResults(64), []
    write = results.write_report

    def write_and_look(*arguments):
        left.append(kept.unprepared)
        return write(*arguments)

    monkeypatch.setattr(results, "write_report", write_and_look)
    asyncio.run(kept.prepare([two]))
    assert [*left, kept.unprepared] == [2, 1, 0]


def test_no_more_is_prepared_than_is_kept(computed):
    """A cache of room for one output is filled with the first, and not turned over."""
    prepare([serve_model("two", targets=("a", "b"))], size=7)
    assert computed == [*FUNCTIONS]


def test_equal_checkpoints_share_their_results(computed):
    """Results are known by the hash of the checkpoint, whatever the model is called."""
    one = serve_model("one")
    prepare([one, replace(one, name="same")])
    assert computed == [*FUNCTIONS]


def test_rules_that_keep_the_same_share_their_graph(computed):
    """Each threshold is tried once, and the graph made once for what they keep; the rule is the one asked for."""
    served = serve_model("one")
    rules = [PruningRule("contribution", None, Thresholds(node=-1, edge=low, input=-1)) for low in (1e-9, 2e-9, 3e-9)]

    async def run():
        kept = GlobalResults(64)
        return [await kept.topology(served, 0, rule) for rule in [*rules, *rules]]

    topologies = asyncio.run(run())
    assert [topology.rule for topology in topologies] == [*rules, *rules]
    assert computed == ["measure_importance", "prune_by_rule", "lay_out", "prune_by_rule", "prune_by_rule"]
    assert all(topology.nodes is topologies[0].nodes for topology in topologies)


def test_a_model_whose_results_fail_does_not_keep_the_others_back(computed, monkeypatch, caplog):
    """The log says which output fails, and the next is prepared."""
    bad, good = serve_model("bad"), serve_model("good", seed=1)
    measure = results.measure_importance

    def fail_for_bad(model, output):
        if model is bad.model:
            raise NonFiniteError("outputs[0] must be finite")
        return measure(model, output)

    monkeypatch.setattr(results, "measure_importance", fail_for_bad)
    kept = GlobalResults(64)
    asyncio.run(kept.prepare([bad, good]))
    assert computed == [*FUNCTIONS]
    assert "the results of model bad, output y+1, fail" in caplog.text


def test_a_server_prepares_its_models_once_they_are_loaded(serve, folder, computed):
    """Without a request all results are computed, and requests find them."""
    with serve(models=folder / "head.safetensors") as client:
        deadline = time.monotonic() + 30
        while len(computed) < len(FUNCTIONS):
            assert time.monotonic() < deadline, computed
            time.sleep(0.01)
        for path in ("attributions", "topology", "report"):
            assert client.get(f"/v1/models/head/{path}").status_code == 200
    assert computed == [*FUNCTIONS]
