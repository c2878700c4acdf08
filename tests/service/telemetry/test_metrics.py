from __future__ import annotations

import re
import shutil
from collections import Counter

import pytest
from factories import make_model, make_tensors, make_windows
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse
from readmes import EVERYTHING
from waiting import poll

from kanmodel.checkpoint import save_checkpoint
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


def test_requests_are_counted_by_route_status_and_code(serve, folder):
    """The route is its template, also for HEAD, or `other`; the code is that of the error. Durations have the route."""
    with serve(models=folder / "two.safetensors") as client:
        for path in ("/v1/models/two", "/v1/models/none", "/v1/models/other", "/no/such", "/nor/this", "/healthz"):
            client.get(path)
        client.delete("/v1/models/two")
        client.head("/healthz")
        client.head("/v1/models/two")
        known = samples(client.get("/metrics").text)
    requests = of(known, "kanscope_requests_total")
    model = ("route", "/v1/models/{model}")
    assert requests[("code", ""), model, ("status", "200")] == 2
    assert requests[("code", "model_not_found"), model, ("status", "404")] == 2
    assert requests[("code", "method_not_allowed"), model, ("status", "405")] == 1
    assert requests[("code", "path_not_found"), ("route", "other"), ("status", "404")] == 2
    assert requests[("code", ""), ("route", "/healthz"), ("status", "200")] == 2
    assert known["kanscope_request_seconds_count", model] == 5
    assert known["kanscope_request_seconds_bucket", ("le", "+Inf"), model] == 5
    assert known[("kanscope_requests_in_flight",)] == 1


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
    """Measurements of computations and of explanations have their metrics."""
    metrics.watch(metrics.queue_depth.labels("predict"), lambda: 3)
    metrics.watch(metrics.pending_bytes, lambda: 5)
    metrics.watch(metrics.unprepared, lambda: 2)
    metrics.batch_windows.observe(5)
    metrics.slice_seconds.observe(0.004)
    metrics.observe_explanation("two", 3e-4, converged=True)
    metrics.observe_explanation("two", 0.3, converged=False)
    known = expose(metrics)
    assert known["kanscope_queue_depth", ("priority", "predict")] == 3
    assert known[("kanscope_pending_bytes",)] == 5
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


def follow(serve, models):
    """A server that follows a folder, and counts all that it can."""
    return serve(models=models, monitor_share=1, monitor_cpu=1, monitor_seconds=0.05, poll_seconds=0.1)


def write_version(models, name, version):
    """Writes the only version of a model, in place of the one before."""
    (models / name).mkdir(exist_ok=True)
    path = models / name / f"{version}.safetensors"
    save_checkpoint(make_model("lstm", seed=int(version), n_reference=130), path)
    for other in {*path.parent.iterdir()} - {path}:
        other.unlink()


def use(client, name, version):
    """Asks a model, once it has a version, for all that is counted of it."""
    poll(lambda: client.get(f"/v1/models/{name}").json().get("version") == version)
    windows = make_windows(make_model("lstm"), 3)
    windows[:, 0, 0] = 1e6  # outside the training range
    body, (output, *_) = {"instances": windows.tolist()}, client.get(f"/v1/models/{name}").json()["outputs"]
    answer = client.post(f"/v1/models/{name}:predict", json={**body, "receipts": True}).json()
    outcomes = {"outcomes": [{"receipt": answer["receipts"][0], "values": {output: 1.0}}]}
    for operation, asked in (("explain", body), ("outcomes", outcomes)):
        assert client.post(f"/v1/models/{name}:{operation}", json=asked).status_code == 200


def count_series(client):
    """The numbers of series by model and version, None where the model is the only label of both."""
    labels = [dict(key[1:]) for key in samples(client.get("/metrics").text)]
    return Counter((of["model"], of.get("version")) for of in labels if "model" in of)


def test_series_go_with_their_version_and_model(serve, tmp_path):
    """Versions that replace each other leave nothing behind; one that comes back has all its series again."""
    for name in ("old", "new"):
        write_version(tmp_path, name, "1")
    with follow(serve, tmp_path) as client:
        for name in ("old", "new"):
            use(client, name, "1")
        poll(lambda: count_series(client)["new", "1"] == count_series(client)["old", "1"] > 140)  # with contributions
        n_series = count_series(client)["new", "1"]
        for version in ("2", "3", "2", "1"):
            write_version(tmp_path, "new", version)
            use(client, "new", version)
            poll(lambda version=version: count_series(client)["new", version] == n_series)
            poll(lambda version=version: {of for name, of in count_series(client) if name == "new"} == {version, None})
        shutil.rmtree(tmp_path / "old")
        poll(lambda: {name for name, _ in count_series(client)} == {"new"})


@pytest.mark.thorough("starts two processes")
def test_several_processes_leave_series_out(launch, tmp_path):
    """What their files keep of versions that are gone is not in the answer."""
    write_version(tmp_path, "new", "1")
    with launch(tmp_path, "--workers", "2", KANSCOPE_POLL_SECONDS="0.1") as process:
        for version in ("1", "2", "3"):
            write_version(tmp_path, "new", version)
            for _ in range(20):  # of either process
                with type(process.client)(base_url=process.client.base_url, timeout=300) as client:
                    use(client, "new", version)
            poll(lambda version=version: {of for _, of in count_series(process.client)} == {version, None})


def test_every_metric_with_a_model_is_removed():
    """By version where it has one, from the client library too."""
    metrics = Metrics(list_served=lambda: {("a", "1"), ("a", "")})
    labelled = [one for one in vars(metrics).values() if "model" in getattr(one, "_labelnames", ())]
    for one in labelled:
        for model, version in (("a", "1"), ("a", "2"), ("b", "1")):
            given = {name: "x" for name in one._labelnames} | {"model": model}
            one.labels(**given | ({"version": version} if "version" in one._labelnames else {}))
    assert len(labelled) == 14
    expose(metrics)
    for one in labelled:
        kept = {key[:2] if "version" in one._labelnames else key[:1] for key in one._metrics}
        assert kept == ({("a", "1")} if "version" in one._labelnames else {("a",)})


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


def test_a_folder_that_is_gone_and_the_bundled_model_are_stated(serve, folder, tmp_path):
    """1 while the folder is missing, 0 when it is back; the bundled model is what is served where none is named."""

    def stated(client):
        known = samples(client.get("/metrics").text)
        return known[("kanscope_models_missing",)], known[("kanscope_bundled_model",)]

    (tmp_path / "models").mkdir()
    shutil.copy(folder / "two.safetensors", tmp_path / "models")
    with serve(models=tmp_path / "models", poll_seconds=0.1) as client:
        assert stated(client) == (0, 0)
        (tmp_path / "models").rename(tmp_path / "elsewhere")
        poll(lambda: stated(client) == (1, 0))
        (tmp_path / "elsewhere").rename(tmp_path / "models")
        poll(lambda: stated(client) == (0, 0))
    with serve() as client:
        assert stated(client) == (0, 1)
