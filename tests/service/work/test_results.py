from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from factories import make_model
from waiting import poll

from kanmodel import Model, NonFiniteError
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.report import questions as report
from kanmodel.structure import questions as structure
from kanmodel.structure.pruning import PruningRule, Thresholds
from service.compute import Compute
from service.models.registry import Served
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.work.results import GlobalResults

FUNCTIONS = ("measure_importance", "add_groups", "prune_by_rule", "of", "write_report")


@pytest.fixture
def computed(folder, monkeypatch):
    """The names of the functions that compute global results, in the order of the calls.

    Models that tests share are excluded, as another app may compute their results meanwhile.
    """
    calls = []
    shared = {load_checkpoint(path).sha256 for path in folder.glob("*.safetensors") if path.stem != "broken"}

    def record(name):
        homes = {"prune_by_rule": structure.pruning, "write_report": report, "of": structure.Topology}
        home = homes.get(name, structure)
        function = getattr(home, name)

        def call(model, *arguments):
            if model.sha256 not in shared:
                calls.append(name)
            return function(model, *arguments)

        monkeypatch.setattr(home, name, call)

    for name in FUNCTIONS:
        record(name)
    return calls


def serve_model(name, seed=0, **options):
    """A model with a checkpoint of its own."""
    return Served(name, Model.of(replace(make_model("head", seed, **options), sha256=name)))


def run(scenario, size=64, served=()):
    """The result of a scenario, a coroutine that takes results."""

    async def start():
        compute = Compute(Settings(), Metrics())
        compute.start()
        try:
            return await scenario(GlobalResults(size, compute, lambda: {one.checkpoint: one for one in served}))
        finally:
            await compute.close()

    return asyncio.run(start())


def prepare(models, size=64):
    """Computes the background results and returns them."""

    async def scenario(kept):
        await kept.prepare([served.checkpoint for served in models])
        for served in models:
            await kept.find(served, served.model.outputs[0], Model.report)
        return await kept.find(models[0], models[0].model.outputs[0], Model.importance)

    return run(scenario, size, models)


def test_global_results_are_computed_in_advance(computed):
    """For each output importance, table, graph and report are computed in this order, each once."""
    prepare([serve_model("two", targets=("a", "b")), serve_model("one", seed=1)])
    assert computed == [*FUNCTIONS] * 3


def test_remaining_results_are_counted(monkeypatch):
    """The number of outputs without results decreases with each report, to 0."""
    two, left = serve_model("two", targets=("a", "b")), []
    write = report.write_report

    async def scenario(kept):
        def write_and_look(*arguments):
            left.append(kept.unprepared)
            return write(*arguments)

        monkeypatch.setattr(report, "write_report", write_and_look)
        await kept.prepare([two.checkpoint])
        return kept.unprepared

    assert [*left, run(scenario, served=[two])] == [0]
    assert left == [2, 1]


def test_no_more_is_computed_than_the_cache_holds(computed):
    """If the cache has room for one output, only the first is computed, and nothing is evicted."""
    prepare([serve_model("two", targets=("a", "b"))], size=7)
    assert computed == [*FUNCTIONS]


def test_equal_checkpoints_share_their_results(computed):
    """Results are cached by the hash of the checkpoint, not by the name of the model."""
    one = serve_model("one")
    prepare([one, replace(one, name="same")])
    assert computed == [*FUNCTIONS]


def test_rules_that_keep_the_same_share_their_graph(computed):
    """The graph is built once for equal kept edges; each response has its own rule."""
    served = serve_model("one")
    rules = [PruningRule("contribution", None, Thresholds(node=0, edge=low, input=0)) for low in (1e-9, 2e-9, 3e-9)]

    async def scenario(kept):
        return [await kept.find(served, "y+1", Model.topology, **vars(rule)) for rule in [*rules, *rules]]

    topologies = run(scenario)
    assert [topology.rule for topology in topologies] == [*rules, *rules]
    assert computed == [*FUNCTIONS[:4], "prune_by_rule", "prune_by_rule"]
    assert all(topology.nodes is topologies[0].nodes for topology in topologies)


def test_a_model_whose_results_fail_does_not_block_the_others(computed, monkeypatch, caplog):
    """The log names the failing output, and the next one is computed."""
    bad, good = serve_model("bad"), serve_model("good", seed=1)
    measure = structure.measure_importance

    def fail_for_bad(model, *rest):
        if model.checkpoint == bad.checkpoint:
            raise NonFiniteError("outputs[0] must be finite")
        return measure(model, *rest)

    monkeypatch.setattr(structure, "measure_importance", fail_for_bad)
    run(lambda kept: kept.prepare([bad.checkpoint, good.checkpoint]), served=[bad, good])
    assert computed == [*FUNCTIONS]
    assert "the results of model bad, output y+1, fail: outputs[0] must be finite; replace " in caplog.text
    assert "Traceback" not in caplog.text


def test_a_server_prepares_its_models_once_they_are_loaded(serve, tmp_path, computed):
    """All results are computed without a request, and requests find them in the cache."""
    save_checkpoint(make_model("head", seed=404), tmp_path / "head.safetensors")
    with serve(models=tmp_path, cached_results=64) as client:
        poll(lambda: len(computed) >= len(FUNCTIONS))
        for path in ("attributions", "topology", "report"):
            assert client.get(f"/v1/models/head/{path}").status_code == 200
    assert computed == [*FUNCTIONS]


def test_background_results_stay_while_their_model_is_served(computed):
    """Background results are evicted only after their model is gone."""
    prepared, other, served = serve_model("one"), serve_model("other", seed=1), []
    rules = [PruningRule("contribution", None, Thresholds(node=0, edge=low, input=0)) for low in np.arange(9) / 1e9]

    async def scenario(kept):
        served.append(prepared)
        await kept.prepare([prepared.checkpoint])
        await kept.prepare([])  # as where another model is loaded that has no room
        for rule in rules:
            await kept.find(other, "y+1", Model.topology, **vars(rule))
        computed.clear()
        await kept.find(prepared, "y+1", Model.report)
        await kept.find(prepared, "y+1", Model.importance)
        assert computed == []
        served[:] = [other]
        await kept.prepare([other.checkpoint])
        for rule in rules:
            await kept.find(other, "y+1", Model.topology, **vars(rule))
        computed.clear()
        await kept.find(prepared, "y+1", Model.importance)
        assert computed == ["measure_importance", "add_groups"]

    run(scenario, size=8, served=served)
