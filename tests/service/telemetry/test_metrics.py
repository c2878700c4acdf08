from __future__ import annotations

import re

import pytest
from factories import make_tensors, make_windows
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse
from readmes import EVERYTHING

from service.app import create_app
from service.settings import Settings
from service.telemetry.metrics import Metrics


def samples(text):
    """Values by name and sorted labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def of(known, name):
    """Values of one metric by its labels."""
    return {key[1:]: value for key, value in known.items() if key[0] == name}


@pytest.fixture
def metrics(folder):
    return Metrics()


def expose(metrics):
    return samples(metrics.expose("")[0].decode())


def test_requests_are_counted_by_route_and_status(serve, folder):
    """The label is the template of the route, also for HEAD, or `other`; durations likewise."""
    with serve(models=folder / "two.safetensors") as client:
        for path in ("/v1/models/two", "/v1/models/none", "/v1/models/other", "/no/such", "/nor/this", "/healthz"):
            client.get(path)
        client.delete("/v1/models/two")
        client.head("/healthz")
        client.head("/v1/models/two")
        known = samples(client.get("/metrics").text)
    requests = of(known, "kanscope_requests_total")
    model = ("route", "/v1/models/{model}")
    assert requests[model, ("status", "200")] == 2
    assert requests[model, ("status", "404")] == 2
    assert requests[model, ("status", "405")] == 1
    assert requests[("route", "other"), ("status", "404")] == 2
    assert requests[("route", "/healthz"), ("status", "200")] == 2
    assert known["kanscope_request_seconds_count", model] == 5
    assert known["kanscope_request_seconds_bucket", ("le", "+Inf"), model] == 5
    assert known[("kanscope_requests_in_flight",)] == 1


def test_a_failure_is_counted_as_500(serve_app, folder):
    """An unexpected exception counts as a 500."""
    app = create_app(Settings(models=folder / "two.safetensors", cached_results=4))

    async def fail() -> None:
        raise ZeroDivisionError

    app.add_api_route("/boom", fail)
    with serve_app(app) as client:
        assert client.get("/boom").status_code == 500
        assert (
            samples(client.get("/metrics").text)["kanscope_requests_total", ("route", "/boom"), ("status", "500")] == 1
        )


def test_windows_outside_the_training_range_are_counted_by_feature(serve, folder, service):
    """One per window and feature, however many warnings the response has."""
    windows = make_windows(service.models["two"], 3)
    low = [feature.min for feature in service.models["two"].config.features]
    windows[:] = low
    windows[1:, 2, 3] = 1e6
    with serve(models=folder / "two.safetensors") as client:
        client.post("/v1/models/two:predict", json={"instances": windows.tolist()})
        known = samples(client.get("/metrics").text)
        assert of(known, "kanscope_inputs_outside_range_total") == {(("feature", "f3"), ("model", "two")): 2}
        client.post("/v1/models/two:explain", json={"instances": windows.tolist(), "output": "a+1"})
        client.post("/v2/models/two/infer", json=make_tensors(windows.tolist()))
        known = samples(client.get("/metrics").text)
    assert of(known, "kanscope_inputs_outside_range_total") == {(("feature", "f3"), ("model", "two")): 6}


def test_models_are_counted_by_state(service):
    """Every state is present, with 0 for none."""
    known = samples(service.get("/metrics").text)
    counts = {state: known["kanscope_models", ("state", state)] for state in ("loading", "ready", "failed")}
    assert counts == {"loading": 0, "ready": 4, "failed": 1}


def test_work_on_models_is_observed(metrics):
    """Measurements of the executor and of explanations have their metrics."""
    metrics.watch(metrics.queue_depth.labels("predict"), lambda: 3)
    metrics.watch(metrics.pending_bytes.labels("predict"), lambda: 5)
    metrics.watch(metrics.unprepared, lambda: 2)
    metrics.batch_windows.observe(5)
    metrics.slice_seconds.observe(0.004)
    metrics.observe_explanation("two", 3e-4, converged=True)
    metrics.observe_explanation("two", 0.3, converged=False)
    known = expose(metrics)
    assert known["kanscope_queue_depth", ("priority", "predict")] == 3
    assert known["kanscope_pending_bytes", ("priority", "predict")] == 5
    assert known[("kanscope_unprepared_outputs",)] == 2
    assert known[("kanscope_batch_windows_sum",)] == 5
    assert known[("kanscope_slice_seconds_count",)] == 1
    assert known["kanscope_explanation_residual_bucket", ("le", "0.0005"), ("model", "two")] == 1
    assert known["kanscope_explanation_residual_count", ("model", "two")] == 2
    assert known["kanscope_explanations_unconverged_total", ("model", "two")] == 1


def test_two_apps_share_nothing(metrics, folder):
    """Each app has its own metrics, even in one process."""
    metrics.batch_windows.observe(5)
    assert expose(metrics)[("kanscope_batch_windows_count",)] == 1
    assert expose(Metrics())[("kanscope_batch_windows_count",)] == 0


def test_the_form_is_negotiated(service):
    """Prometheus's text by default, OpenMetrics on request."""
    assert service.get("/metrics").headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    answer = service.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert {family.name for family in parse_open_metrics(answer.text)} >= {"kanscope_requests", "kanscope_build"}


def test_every_metric_is_in_the_documents(metrics):
    """The documents' table lists exactly the metrics."""
    rows = set(re.findall(r"^\| `(kanscope_\w+)` \|", EVERYTHING, re.MULTILINE))
    families = parse_open_metrics(metrics.expose("application/openmetrics-text; version=1.0.0")[0].decode())
    suffixes = {"counter": "_total", "info": "_info"}
    names = {family.name + suffixes.get(family.type, "") for family in families}
    assert rows == {name for name in names if name.startswith("kanscope_")}


def rename(data, old, new):
    """A checkpoint with another text in place of an old one in its header, whose JSON may escape it twice."""
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(old, new)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def test_no_name_in_a_file_makes_the_service_fail(serve, folder, tmp_path, service):
    """Files with half a surrogate pair or a megabyte in a name fail to load; /metrics and /v1/models answer."""
    data = (folder / "two.safetensors").read_bytes()
    (tmp_path / "good.safetensors").write_bytes(data)
    for name, old, new in (
        ("pair", rb"\"f0\"", rb"\"f0\\ud800\""),
        ("long", rb"\"f0\"", rb"\"f0%s\"" % (b"n" * 1_000_000)),
        ("tensor", b'"reference.targets"', rb'"\ud800%s"' % (b"n" * 1_000_000)),
    ):
        assert rename(data, old, new) != data
        (tmp_path / f"{name}.safetensors").write_bytes(rename(data, old, new))
    windows = make_windows(service.models["two"], 1)
    windows[0, 0, 0] = 1e6
    with serve(models=tmp_path) as client:
        for name in ("good", "pair", "long", "tensor"):
            answer = client.post(f"/v1/models/{name}:predict", json={"instances": windows.tolist()})
            assert answer.status_code == (200 if name == "good" else 503)
        exposed, listed = client.get("/metrics"), client.get("/v1/models")
    assert exposed.status_code == listed.status_code == 200 and len(exposed.content) < 100_000
    reasons = {model["name"]: model["reason"] for model in listed.json()["details"] if model["state"] == "failed"}
    assert reasons.keys() == {"pair", "long", "tensor"}
    assert all(reason.isprintable() and len(reason) < 1000 for reason in reasons.values())
