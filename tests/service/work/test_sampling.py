"""Drawn forecasts are explained in the background, within the budget, and metrics state the reference beside them."""

from __future__ import annotations

import pytest
from factories import make_model, make_windows
from prometheus_client.parser import text_string_to_metric_families as parse
from waiting import poll

import kanmodel
from kanmodel.checkpoint import save_checkpoint

PATH = "/v1/models/load"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("sampling") / "load.safetensors"
    save_checkpoint(make_model("lstm", n_reference=130), path)
    return path


def samples(client, name):
    """Values of one metric by its labels besides model and version."""
    found = {}
    for family in parse(client.get("/metrics").text):
        for one in family.samples:
            if one.name == f"kanscope_{name}":
                found[tuple(value for key, value in sorted(one.labels.items()) if key in ("name", "sign"))] = one.value
    return found


def test_contributions_are_those_of_the_forecasts(serve, model):
    """By name and sign, with the reference's mean beside them, also of forecasts that were asked for in one request."""
    loaded = kanmodel.load(model)
    windows = make_windows(loaded, 20)
    settings = {"monitor_share": 1, "monitor_cpu": 1, "monitor_seconds": 0.05}
    with serve(models=model, **settings) as client:
        for part in (windows[:1], windows[1:]):
            assert client.post(f"{PATH}:predict", json={"instances": part.tolist()}).status_code == 200
        poll(lambda: samples(client, "watched_explained_total") == {(): 20})
        poll(lambda: samples(client, "watched_reference_contribution"))
        found = samples(client, "watched_contributions_total")
        reference, errors = (
            samples(client, "watched_reference_contribution"),
            samples(client, "watched_reference_error"),
        )
    for given, sums, divisor in (
        (windows, found, 1),
        (loaded.reference.windows, reference, len(loaded.reference)),
    ):
        expected = loaded.explain(given).contributions
        for number, name in enumerate(loaded.config.feature_names):
            for sign, factor in (("positive", 1), ("negative", -1)):
                part = (factor * expected[:, number]).clip(0).sum() / divisor
                assert sums[name, sign] == pytest.approx(part, rel=1e-3, abs=1e-6)
    of_reference = loaded.reference_predictions - loaded.reference.targets
    assert errors["positive",] - errors["negative",] == pytest.approx(of_reference.mean())


def test_explanations_keep_to_the_budget(serve, model):
    """What is drawn beyond it is not explained: a few batches, after which the budget is used up for long."""
    loaded = kanmodel.load(model)
    body = {"instances": make_windows(loaded, 40).tolist()}
    with serve(models=model, monitor_share=1, monitor_cpu=0.001, monitor_seconds=0.02) as client:
        poll(lambda: client.post(f"{PATH}:predict", json=body) and samples(client, "watched_explained_total"))
        for _ in range(30):
            client.post(f"{PATH}:predict", json=body)
        (explained,) = samples(client, "watched_explained_total").values()
        assert explained % 32 == 0 and explained <= 64


def test_a_share_of_0_explains_nothing(serve, model):
    """And states no reference, since nothing is compared with it."""
    loaded = kanmodel.load(model)
    with serve(models=model, monitor_seconds=0.02) as client:
        client.post(f"{PATH}:predict", json={"instances": make_windows(loaded, 40).tolist()})
        poll(lambda: sum(samples(client, "watched_values_total").values()))
        assert samples(client, "watched_explained_total") == samples(client, "watched_reference_contribution") == {}
