"""Clients cannot take other clients' places, block the event loop, or exhaust memory."""

from __future__ import annotations

import json
import select
import threading
import tracemalloc
from contextlib import ExitStack
from dataclasses import replace

import httpx2
import pytest
import torch
from factories import make_model, make_windows, with_intervals
from sockets import connect, head, is_at_rest, read_answer
from waiting import poll

from kanmodel import Model, computing
from kanmodel.attribution import explanation as attribution
from kanmodel.attribution.ledger import explain_windows
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.computing import pause
from kanmodel.forecaster import Provenance, Reference
from kanmodel.network.config import RecurrentConfig, plain_layers
from kanmodel.network.network import Network
from kanmodel.show.network import draw_topology
from kanmodel.structure import questions as structure
from kanmodel.structure.curves import sample_edges
from service.models.registry import Served
from service.operations import explanations
from service.operations.edges import describe_edges
from service.operations.explanations import estimate_explanations, explain_all
from service.operations.predict import describe_intervals
from service.operations.topology import N_LINKS, describe_topology
from service.wire.json import answer_json, encode_json
from service.work.forecasts import WithBounds
from service.work.jobs import estimate_curves, estimate_describing, estimate_graph

NDJSON = {"Accept": "application/x-ndjson"}
FLOW = {"output": ["a+1", "a+2", "b+1", "b+2"], "detail": "flow", "tolerance": 1.0}


JSON_OF_1000 = ("Content-Type: application/json", "Content-Length: 1000")
KEYS = {name: {"Authorization": f"Bearer {name * 16}"} for name in ("a", "b", "c", "d")}
KEY_LINES = ";".join(f"{name} explain {name * 16}" for name in KEYS)


def body_of(model, n, **members):
    return {"instances": make_windows(model, n).tolist(), **members}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model with a [64, 16, 1] head."""
    small = make_model("lstm", hidden_size=64, n_reference=24, with_targets=False)
    torch.manual_seed(0)
    config = replace(
        small.config, head=plain_layers([64, 16, 1]), recurrent=RecurrentConfig("lstm", 64), dtype="float32"
    )
    reference = Reference(small.reference.scaled.to(torch.float32), config)
    folder = tmp_path_factory.mktemp("wide")
    model = replace(
        small, network=Network(config), reference=reference, provenance=Provenance.now("train", verified=True)
    )
    save_checkpoint(model, folder / "wide.safetensors")
    return folder


def test_curves_that_take_more_memory_than_there_is_are_refused(serve, wide):
    """Curves of all edges of a [64, 16, 1] head at 2001 points are refused in one sentence before sampling."""
    with serve(models=wide) as client:
        refused = client.get("/v1/models/wide/edges?points=2001&fidelity=1")
        assert refused.status_code == 422
        assert refused.json()["error"].startswith("request would take ")
        assert refused.json()["error"].endswith(" MB of memory, of at most 151 MB (max_work_bytes)")
        assert client.get("/v1/models/wide/edges?points=21&fidelity=1").status_code == 200
        poll(lambda: is_at_rest(client))


@pytest.mark.thorough("computes until its deadline")
def test_curves_have_a_deadline_and_a_place(serve, folder, monkeypatch):
    """Sampling is subject to the deadline, takes an explanation's place, and releases it."""
    begun, go_on = threading.Event(), threading.Event()

    def sample_slowly(*arguments):
        begun.set()
        assert go_on.wait(300)
        return sample_edges(*arguments)

    monkeypatch.setattr(structure, "sample_edges", sample_slowly)
    url = "/v1/models/nyc-weather/edges?points=2001&fidelity=1"
    with serve(models=folder / "nyc-weather.safetensors", max_explanations=1, cached_results=64) as client:
        assert client.get("/v1/models/nyc-weather/report").status_code == 200
        poll(lambda: is_at_rest(client))
        try:
            assert client.get(url, headers={"X-Request-Timeout": "0.5"}).status_code == 503
            assert begun.is_set()
            refused = client.get("/v1/models/nyc-weather/topology?fidelity=0.5")
            assert refused.json()["error"] == "1 explanations are waiting already (max_explanations); retry later"
        finally:
            go_on.set()
        poll(lambda: is_at_rest(client))
        assert client.get(url).status_code == 200


def test_an_answer_that_takes_too_much_memory_is_refused_or_streamed(serve, folder, service):
    """A large response as one JSON object is refused before any computation; as NDJSON it is streamed."""
    body = body_of(service.models["two"], 400, **FLOW)
    with serve(models=folder / "two.safetensors", max_work_bytes=12 << 20) as client:
        refused = client.post("/v1/models/two:explain", json=body)
        assert refused.status_code == 422 and "(max_work_bytes)" in refused.json()["error"]
        lines = client.post("/v1/models/two:explain", json=body, headers=NDJSON).text.splitlines()
        assert [json.loads(line)["instance"] for line in lines[1:]] == [number // 4 for number in range(1600)]
        poll(lambda: is_at_rest(client))


DAY = make_model(horizon=24, n_features=2, n_reference=130)
QUANTILES = make_model(horizon=12, n_features=2, n_reference=130, targets=("y", "y@0.1", "y@0.9"))
BOUNDED = {
    "nodes": with_intervals(DAY),
    "constant": with_intervals(DAY, "constant"),
    "quantiles": with_intervals(QUANTILES, "quantiles", (0.8,)),
}


@pytest.mark.parametrize("name", ["two", "front", "head", "nyc-weather", *BOUNDED])
@pytest.mark.parametrize("detail", ["features", "steps", "flow"])
def test_explanations_take_no_more_bytes_than_estimated(service, name, detail):
    """The JSON and the objects of one part stay within the estimate, also of bounds and widths."""
    from service.operations.explain import read_question
    from service.settings import Settings

    model = service.models[name] if name in service.models else BOUNDED[name]
    outputs = [*model.config.outputs[:4], *Model.of(model).bounds[2::3][:8]]
    members = {"output": outputs, "detail": detail, "baseline": {"reference": 2}}
    body = json.dumps(body_of(model, 2, **members)).encode()
    question = read_question(body, Served(name, Model.of(model)), Settings())
    explain_all(question)  # what is made once
    tracemalloc.start()
    try:
        described = explain_all(question)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    lines = sum(len(encode_json(one)) for one in described)
    assert 2 * lines <= estimate_explanations(question, "json") - estimate_explanations(question, "lines")
    assert held <= estimate_explanations(question, "lines") + 200_000  # of what is cached
    assert lines * 20 >= explanations._estimate_json(question) * question.total  # not much above the real size


@pytest.mark.parametrize("name", BOUNDED)
def test_intervals_take_no_more_bytes_than_estimated(name):
    """The estimate covers their arrays and lists, up to the encoded response; of 24 outputs with 2 levels, say."""
    bounding = WithBounds(Model.of(BOUNDED[name]))
    windows = make_windows(BOUNDED[name], 200)
    values = bounding.predict(windows)
    tracemalloc.start()
    try:
        predictions, *bounds = bounding.split(values.copy())
        described = describe_intervals(bounding.model, bounding.model.levels, *bounds)
        body = encode_json({"predictions": predictions.tolist(), "intervals": described})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= estimate_describing(windows, bounding.n_values).n_bytes <= 12 * len(body)


def test_curves_take_no_more_bytes_than_estimated(service):
    """The estimate covers sampling up to the encoded response."""
    model = Model.of(service.models["two"])
    topology = model.topology(fidelity=1.0)
    edges = topology.kan_edges
    model.curves(edges, 11)
    tracemalloc.start()
    try:
        answer = answer_json(describe_edges(Served("two", model), topology, model.curves(edges, 2001)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= estimate_curves(len(edges), 2001).n_bytes <= 10 * len(answer.body)


@pytest.fixture(scope="module")
def dense():
    """The topology of a model with 1230 edges, all of them kept."""
    return Model.of(make_model("head", n_features=40, n_hidden=30, n_reference=24, with_targets=False)).topology(
        fidelity=1.0
    )


@pytest.mark.parametrize("drawn", [False, True])
def test_graphs_take_no_more_bytes_than_estimated(dense, drawn):
    """The estimate covers graphs without curves, up to the encoded response."""
    model, topology = Model.of(make_model("head")), dense
    tracemalloc.start()
    try:
        if drawn:
            body = draw_topology(topology, curves=[], n_links=N_LINKS)
        else:
            body = answer_json(describe_topology(Served("m", model), topology, topology, False)).body
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    estimate = estimate_graph(len(topology.nodes) + len(topology.edges), 0, 0, drawn).n_bytes
    assert len(topology.kan_edges) > 1000
    assert peak <= estimate <= 20 * len(body)


def test_explanations_leave_forecasts_their_places(serve, folder, service, monkeypatch):
    """Forecasts are answered while explanations exceed their places."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    def explain_slowly(*arguments):
        if computing._hook.get():  # warms up the model
            begun.release()
            assert go_on.wait(300)
        return explain_windows(*arguments)

    monkeypatch.setattr(attribution, "explain_windows", explain_slowly)
    body = body_of(service.models["two"], 1)
    statuses = []
    with serve(models=folder / "two.safetensors", max_queue=3, max_explanations=3) as client:

        def explain():
            with httpx2.Client(base_url=client.base_url, timeout=300) as one:
                statuses.append(one.post("/v1/models/two:explain", json={**body, "output": "a+1"}).status_code)

        threads = [threading.Thread(target=explain) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            assert begun.acquire(timeout=300)
            poll(lambda: len(statuses) == 5)
            assert {client.post("/v1/models/two:predict", json=body).status_code for _ in range(20)} == {200}
        finally:
            go_on.set()
        for thread in threads:
            thread.join()
        poll(lambda: is_at_rest(client))
    assert sorted(statuses) == [200] * 3 + [503] * 5


def test_a_disconnect_ends_a_computation_that_nobody_else_awaits(serve, folder, monkeypatch):
    """After a disconnect a global result that nobody else awaits ends at its next pause."""
    begun, ended = threading.Event(), threading.Event()

    def never_end(*_):
        begun.set()
        try:
            while True:
                pause()
        finally:
            ended.set()

    monkeypatch.setattr(structure.pruning, "trace_fidelity", never_end)
    with serve(models=folder / "head.safetensors") as client:
        with connect(client) as connection:
            connection.sendall(head("GET", "/v1/models/head/topology/fidelity"))
            assert begun.wait(300)
            assert not ended.is_set()
        assert ended.wait(300)
        poll(lambda: is_at_rest(client))


def test_background_computation_continues_past_deadlines(serve, tmp_path, monkeypatch):
    """Requests get 503 with Retry-After until the result is ready, and it is computed once."""
    begun, may_end, measured = threading.Event(), threading.Event(), []
    measure = structure.measure_importance
    save_checkpoint(make_model("head", seed=405), tmp_path / "head.safetensors")
    own = load_checkpoint(tmp_path / "head.safetensors").sha256

    def take_long(model, output):
        if model.sha256 != own:  # of an app that tests share
            return measure(model, output)
        measured.append(output)
        begun.set()
        while not may_end.wait(0.01):
            pause()
        return measure(model, output)

    monkeypatch.setattr(structure, "measure_importance", take_long)
    with serve(models=tmp_path, request_timeout=0.2, cached_results=64) as client:
        assert begun.wait(300)
        for _ in range(3):
            late = client.get("/v1/models/head/topology")
            assert (late.status_code, late.json()["code"]) == (503, "deadline_exceeded")
            assert int(late.headers["Retry-After"]) >= 1
        assert "kanscope_unprepared_outputs 1.0" in client.get("/metrics").text
        may_end.set()
        poll(lambda: "kanscope_unprepared_outputs 0.0" in client.get("/metrics").text)
        assert client.get("/v1/models/head/topology", headers={"X-Request-Timeout": "60"}).status_code == 200
    assert measured == [0]


def test_large_bodies_leave_small_requests_their_room(serve, folder, service):
    """Large bodies take only the memory reserved for them; small requests are still served."""
    model = service.models["two"]
    start = head(
        "POST", "/v1/models/two:predict", "Content-Type: application/json", f"Content-Length: {4 << 20}"
    ) + b" " * (1 << 20)
    body = body_of(model, 1)
    with serve(models=folder / "two.safetensors", max_work_bytes=4 << 20) as client:
        slow = [connect(client) for _ in range(4)]
        try:
            for connection in slow:
                connection.sendall(start)
            poll(lambda: len(select.select(slow, [], [], 0)[0]) == 3)  # one client takes three quarters
            refused, _, _ = select.select(slow, [], [], 0)
            assert [connection.recv(12) for connection in refused] == [b"HTTP/1.1 503"] * 3
            assert {client.post("/v1/models/two:predict", json=body).status_code for _ in range(20)} == {200}
        finally:
            for connection in slow:
                connection.close()
        poll(lambda: is_at_rest(client))


def lines_of(headers):
    return [f"{name}: {value}" for name, value in headers.items()]


def test_long_computations_of_one_key_leave_the_others_their_places(serve, folder, monkeypatch):
    """While 64 endless comparisons of one key fill its share, another is answered as if they were not there."""
    begun, may_end = threading.Event(), threading.Event()
    prune = structure.pruning.prune_by_rule

    def take_long(loaded, measured, rule):
        if 0.9 <= rule.fidelity < 0.91:
            begun.set()
            while not may_end.wait(0.01):
                pause()
        return prune(loaded, measured, rule)

    monkeypatch.setattr(structure.pruning, "prune_by_rule", take_long)
    body, path = {"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}, "/v1/models/two/comparison?output=a%2B1&fidelity=0.9"
    with serve(models=folder / "two.safetensors", keys=KEY_LINES, max_explanations=64) as client:
        greedy = {**KEYS["a"], "X-Request-Timeout": "3600"}
        connections = [connect(client) for _ in range(64)]
        try:
            for number, connection in enumerate(connections):
                connection.sendall(head("GET", f"{path}{number:04}", *lines_of(greedy)))
            poll(lambda: len(select.select(connections, [], [], 0)[0]) == 24)  # of the 64 places one key has 40
            assert begun.wait(300)
            for asked in (
                client.post("/v1/models/two:predict", json=body, headers=KEYS["b"]),
                client.post("/v1/models/two:explain", json={**body, "output": "a+1"}, headers=KEYS["b"]),
                client.get("/v1/models/two/topology?output=a%2B1&fidelity=0.5", headers=KEYS["b"]),
                client.get("/v1/models/two/topology/fidelity?output=a%2B1&metric=backward", headers=KEYS["b"]),
            ):
                assert asked.status_code == 200, asked.text
            refused = client.get(f"{path}5", headers=greedy)
            assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
            assert "40 of them of this client, which is its share" in refused.json()["error"]
            assert len(select.select(connections, [], [], 0)[0]) == 24
        finally:
            may_end.set()
            for connection in connections:
                connection.close()
        poll(lambda: is_at_rest(client, KEYS["b"]))


@pytest.mark.parametrize("keys", [KEY_LINES, None])
def test_slow_bodies_of_one_client_leave_the_others_their_places(serve, folder, keys):
    """While slow bodies of a key, or without keys of an address, fill its share, everyone else is answered."""
    a, b = (KEYS["a"], KEYS["b"]) if keys else ({}, {})
    start = head("POST", "/v1/models/two:predict", *JSON_OF_1000, *lines_of(a))
    body = {"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}
    with serve(models=folder / "two.safetensors", keys=keys, max_concurrent=32) as client:
        poll(lambda: is_at_rest(client, a))
        other = httpx2.HTTPTransport(local_address="127.0.0.2")  # another client, where there are no keys
        slow = [connect(client) for _ in range(32)]
        with httpx2.Client(base_url=client.base_url, timeout=300, headers=b, transport=other) as honest:
            try:
                for connection in slow:
                    connection.sendall(start)
                poll(lambda: len(select.select(slow, [], [], 0)[0]) == 12)  # refused: of 32 places one client has 20
                refused = client.get("/v1/models", headers=a)
                assert (refused.status_code, refused.json()["code"]) == (503, "busy")
                assert "20 of them of this client, which is its share" in refused.json()["error"]
                for path in ("/healthz", "/readyz", "/v2/health/live", "/metrics"):
                    assert client.get(path, headers=a).status_code == 200
                    assert honest.get(path).status_code == 200
                assert {honest.post("/v1/models/two:predict", json=body).status_code for _ in range(5)} == {200}
            finally:
                for connection in slow:
                    connection.close()
        poll(lambda: is_at_rest(client, a))


def count_answered(connections):
    """How many have received something; `select.select` takes no more than a thousand files."""
    arrived = select.poll()
    for connection in connections:
        arrived.register(connection, select.POLLIN)
    return len(arrived.poll(0))


@pytest.mark.parametrize(
    "others",
    [[("a", 512, 320)], [("a", 512, 320), ("c", 96, 64), ("d", 96, 64)], [(None, 512, 0)]],
    ids=["of one", "of three", "without a key"],
)
def test_64_requests_of_one_key_get_through_slow_bodies_of_others(serve, folder, others):
    """Slow bodies of one other key, of three one after another, or without a key, leave a key 64 places at once."""
    body = json.dumps({"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}).encode()
    length = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    with serve(models=folder / "two.safetensors", keys=KEY_LINES) as client, ExitStack() as opened:

        def send(start, n):
            connections = [opened.enter_context(connect(client)) for _ in range(n)]
            for connection in connections:
                connection.sendall(start)
            return connections

        for key, n, held in others:
            slow = send(head("POST", "/v1/models/two:predict", *JSON_OF_1000, *lines_of(KEYS.get(key, {}))), n)
            poll(lambda: count_answered(slow) == n - held)  # noqa: B023
        honest = send(head("POST", "/v1/models/two:predict", *length, *lines_of(KEYS["b"])) + body[:-1], 64)
        in_flight = f"kanscope_requests_in_flight {sum(held for *_, held in others) + 64 + 1:.1f}\n"
        poll(lambda: in_flight in client.get("/metrics", headers=KEYS["b"]).text)
        for connection in honest:
            connection.sendall(body[-1:])
        assert {read_answer(connection)[0].status for connection in honest} == {200}
