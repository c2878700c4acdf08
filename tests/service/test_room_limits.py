"""Clients cannot take other clients' places, block the event loop, or exhaust memory."""

from __future__ import annotations

import json
import select
import socket
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPResponse

import httpx2
import pytest
import torch
from factories import make_model, make_windows, with_intervals
from sockets import connect, head, is_at_rest, pending_bytes, read_answer, sum_samples
from waiting import poll

import kanmodel
from kanmodel import Model, computing
from kanmodel.attribution import explanation as attribution
from kanmodel.attribution.ledger import explain_outputs
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.computing import pause
from kanmodel.forecaster import Provenance, Reference
from kanmodel.network.config import RecurrentConfig, plain_layers
from kanmodel.network.network import Network
from kanmodel.show.network import draw_topology
from kanmodel.structure import questions as structure
from kanmodel.structure.curves import sample_edges
from service.answers.forms import describe_all
from service.models.registry import Served
from service.operations import explanations
from service.operations.explain import read_question
from service.operations.explanations import PART_WINDOWS, estimate_part, explain_part
from service.operations.predict import describe_intervals
from service.operations.topology import N_LINKS, describe_topology, estimate_curves, estimate_graph
from service.settings import Settings
from service.wire.json import HELD_NUMBER_BYTES, answer_json, encode_json
from service.work.forecasts import WithBounds

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
        assert refused.json()["error"].endswith(" MB of memory, of at most 403 MB (max_work_bytes)")
        assert client.get("/v1/models/wide/edges?points=21&fidelity=1").status_code == 200
        poll(lambda: is_at_rest(client))


def test_curves_have_a_deadline_and_are_sampled_once(serve, folder, monkeypatch):
    """Who waits for them until its deadline is told to retry; sampling goes on, and all who ask get its answer."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    def sample_slowly(*arguments):
        begun.release()
        assert go_on.wait(300)
        return sample_edges(*arguments)

    monkeypatch.setattr("kanmodel.model.sample_edges", sample_slowly)
    url = "/v1/models/head/edges?points=201&fidelity=1"
    with serve(models=folder / "head.safetensors") as client, ThreadPoolExecutor(1) as pool:
        try:
            first = pool.submit(client.get, url)
            assert begun.acquire(timeout=300)
            late = client.get(url, headers={"X-Request-Timeout": "0.05"})
            assert (late.status_code, late.json()["code"]) == (503, "deadline_exceeded")
            assert late.json()["error"].endswith("and goes on being computed; retry later")
            assert int(late.headers["Retry-After"]) >= 1
        finally:
            go_on.set()
        assert first.result().status_code == client.get(url).status_code == 200
        assert first.result().headers["etag"] == client.get(url).headers["etag"]
        assert not begun.acquire(blocking=False)


def test_an_answer_that_takes_too_much_memory_is_refused_or_streamed(serve, folder, monkeypatch):
    """A large response as one JSON object is refused after its first part; as NDJSON it is streamed."""
    model, parts = load_checkpoint(folder / "two.safetensors"), []
    body = body_of(model, 800, **FLOW)

    def explain(question, first, *more):
        parts.append(first)
        return explain_part(question, first, *more)

    monkeypatch.setattr(explanations, "explain_part", explain)
    with serve(models=folder / "two.safetensors", max_work_bytes=12 << 20) as client:
        refused = client.post("/v1/models/two:explain", json=body)
        assert refused.status_code == 422 and "(max_work_bytes)" in refused.json()["error"]
        assert refused.json()["error"].endswith("send fewer windows, or Accept: application/x-ndjson")
        assert parts == [0]
        lines = client.post("/v1/models/two:explain", json=body, headers=NDJSON).text.splitlines()
        assert [json.loads(line)["instance"] for line in lines[1:]] == [number // 4 for number in range(3200)]
        few = client.post("/v1/models/two:explain", json=body_of(model, PART_WINDOWS + 1, **FLOW))
        assert few.status_code == 200
        poll(lambda: is_at_rest(client) and pending_bytes(client) == 0)


DAY = make_model(horizon=24, n_features=2, n_reference=130)
QUANTILES = make_model(horizon=12, n_features=2, n_reference=130, targets=("y", "y@0.1", "y@0.9"))
BOUNDED = {
    "nodes": with_intervals(DAY),
    "constant": with_intervals(DAY, "constant"),
    "quantiles": with_intervals(QUANTILES, "quantiles", (0.8,)),
}


@pytest.mark.parametrize("name", ["two", "front", "head", "nyc-weather", *BOUNDED])
@pytest.mark.parametrize("detail", ["features", "steps", "flow"])
@pytest.mark.parametrize("more", [{}, {"effects": True, "method": "shapley", "orders": 8}], ids=["plain", "effects"])
def test_explanations_take_no_more_bytes_than_estimated(folder, name, detail, more):
    """The JSON and the objects of one part stay within the estimate, also of bounds and widths."""
    model = BOUNDED.get(name) or load_checkpoint(folder / f"{name}.safetensors")
    outputs = [*model.config.outputs[:4], *Model.of(model).bounds[2::3][:8]]
    members = {"output": outputs, "detail": detail, "baseline": {"reference": 2}, **more}
    body = json.dumps(body_of(model, 2, **members)).encode()
    question = read_question(body, Served(name, Model.of(model)), Settings())
    explain_part(question)  # what is made once
    tracemalloc.start()
    try:
        found = explain_part(question, encoded=True)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held <= estimate_part(question) + 300_000  # of what is cached, and of the arrays behind the answer
    assert sum(map(len, found.encoded)) * 40 >= estimate_part(question)  # not much above the real size


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
    assert peak <= len(windows) * bounding.n_values * HELD_NUMBER_BYTES <= 12 * len(body)


def test_curves_take_no_more_bytes_than_estimated(folder):
    """The estimate covers sampling up to the encoded response."""
    model = Model.of(load_checkpoint(folder / "two.safetensors"))
    edges = model.topology(fidelity=1.0).kan_edges
    model.curves(edges, 11)
    tracemalloc.start()
    try:
        answer = answer_json(describe_all(model.curves(edges, 2001)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= estimate_curves(len(edges), 2001) <= 10 * len(answer.body)


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
    estimate = estimate_graph(len(topology.nodes) + len(topology.edges), 0, drawn)
    assert len(topology.kan_edges) > 1000
    assert peak <= estimate <= 20 * len(body)


def test_explanations_leave_forecasts_their_places(serve, folder, monkeypatch):
    """Where explanations of a client have all places, its forecasts take that of one which has not begun."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    def explain_slowly(*arguments):
        if computing._hook.get():  # warms up the model
            begun.release()
            assert go_on.wait(300)
        return explain_outputs(*arguments)

    monkeypatch.setattr(attribution, "explain_outputs", explain_slowly)
    body = body_of(load_checkpoint(folder / "two.safetensors"), 1)
    statuses = []
    with serve(models=folder / "two.safetensors", max_concurrent=3) as client:

        def explain():
            with httpx2.Client(base_url=client.base_url, timeout=300) as one:
                statuses.append(one.post("/v1/models/two:explain", json={**body, "output": "a+1"}).status_code)

        threads = [threading.Thread(target=explain) for _ in range(8)]
        threads[0].start()
        try:
            assert begun.acquire(timeout=300)
            for thread in threads[1:]:
                thread.start()
            poll(lambda: len(statuses) == 5)
            assert {client.post("/v1/models/two:predict", json=body).status_code for _ in range(20)} == {200}
            poll(lambda: len(statuses) == 6)
        finally:
            go_on.set()
        for thread in threads:
            thread.join()
        poll(lambda: is_at_rest(client))
    assert sorted(statuses) == [200] * 2 + [503] * 6


def test_a_disconnect_ends_a_computation_that_is_not_kept(serve, folder, monkeypatch):
    """What is computed for one request ends at its next pause once its client has gone."""
    begun, ended = threading.Event(), threading.Event()

    def never_end(*arguments, **options):
        begun.set()
        try:
            while True:
                pause()
        finally:
            ended.set()

    monkeypatch.setattr(Model, "backtest", never_end)
    columns = (*load_checkpoint(folder / "two.safetensors").config.table.encoding.names, "a")
    body = json.dumps({"series": {name: [0.5] * 20 for name in columns}, "target": "a"}).encode()
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    with serve(models=folder / "two.safetensors") as client:
        with connect(client) as connection:
            connection.sendall(head("POST", "/v1/models/two:backtest", *headers) + body)
            assert begun.wait(300)
            assert not ended.is_set()
        assert ended.wait(300)
        poll(lambda: is_at_rest(client))


def test_large_bodies_wait_for_memory_and_small_requests_do_not(serve, folder):
    """Bodies that do not fit are read later, once those before them are answered; none is refused."""
    small = body_of(load_checkpoint(folder / "two.safetensors"), 1)
    body = json.dumps(small).encode().ljust(450_000)
    start = head("POST", "/v1/models/two:predict", "Content-Type: application/json", f"Content-Length: {len(body)}")
    with serve(models=folder / "two.safetensors", max_work_bytes=8 << 20) as client, ExitStack() as opened:
        slow = [opened.enter_context(connect(client)) for _ in range(24)]
        for connection in slow:
            connection.sendall(start + body[:1000])
        n_fit = (8 << 20) // len(body)
        poll(lambda: pending_bytes(client) == n_fit * len(body))
        assert {client.post("/v1/models/two:predict", json=small).status_code for _ in range(20)} == {200}
        assert count_answered(slow) == 0
        with ThreadPoolExecutor(len(slow)) as pool:  # each is sent as far as it is read
            list(pool.map(lambda connection: connection.sendall(body[1000:]), slow))
        assert {read_answer(connection)[0].status for connection in slow} == {200}
        poll(lambda: is_at_rest(client) and pending_bytes(client) == 0)


def lines_of(headers):
    return [f"{name}: {value}" for name, value in headers.items()]


def test_long_computations_of_one_key_leave_the_others_their_places(serve, folder, monkeypatch):
    """While hundreds of endless comparisons of one key have all places, another is answered as if they were not there.

    Its own requests are refused.
    """
    begun, may_end = threading.Event(), threading.Event()
    prune = structure.pruning.prune_by_rule

    def take_long(loaded, measured, rule):
        if 0.9 <= rule.fidelity < 0.91:
            begun.set()
            while not may_end.wait(0.001):
                pause()
        return prune(loaded, measured, rule)

    monkeypatch.setattr(structure.pruning, "prune_by_rule", take_long)
    body, path = {"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}, "/v1/models/two/comparison?output=a%2B1&fidelity=0.9"
    with (
        serve(models=folder / "two.safetensors", keys=KEY_LINES, max_concurrent=400) as client,
        ExitStack() as opened,
    ):
        opened.callback(may_end.set)
        greedy = {**KEYS["a"], "X-Request-Timeout": "3600"}
        connections = [opened.enter_context(connect(client)) for _ in range(400)]
        for number, connection in enumerate(connections):
            connection.sendall(head("GET", f"{path}{number:04}", *lines_of(greedy)))
        poll(lambda: sum_samples(client.get("/metrics", headers=KEYS["b"]).text, "requests_in_flight") == 401)
        assert begun.wait(300)
        refused = client.get(f"{path}5", headers=greedy)
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert count_answered(connections) == 0
        for asked in (
            client.post("/v1/models/two:predict", json=body, headers=KEYS["b"]),
            client.post("/v1/models/two:explain", json={**body, "output": "a+1"}, headers=KEYS["b"]),
            client.get("/v1/models/two/topology?output=a%2B1&fidelity=0.5", headers=KEYS["b"]),
            client.get("/v1/models/two/topology/fidelity?output=a%2B1&metric=backward", headers=KEYS["b"]),
        ):
            assert asked.status_code == 200, asked.text
        assert count_answered(connections) == 1  # whose place they took


@pytest.mark.parametrize("keys", [KEY_LINES, None])
def test_slow_bodies_of_one_client_leave_the_others_their_places(serve, folder, keys):
    """While slow bodies of a key, or without keys of an address, have all places, everyone else is answered."""
    a, b = (KEYS["a"], KEYS["b"]) if keys else ({}, {})
    start = head("POST", "/v1/models/two:predict", *JSON_OF_1000, *lines_of(a))
    body = {"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}
    with (
        serve(models=folder / "two.safetensors", keys=keys, max_concurrent=32, body_timeout=300) as client,
        ExitStack() as opened,
    ):
        poll(lambda: is_at_rest(client, a))
        other = httpx2.HTTPTransport(local_address="127.0.0.2")  # another client, where there are no keys
        honest = opened.enter_context(httpx2.Client(base_url=client.base_url, timeout=300, headers=b, transport=other))
        slow = [opened.enter_context(connect(client)) for _ in range(32)]
        for connection in slow:
            connection.sendall(start)
        poll(lambda: client.get("/v1/models", headers=a).status_code == 503)
        assert client.get("/v1/models", headers=a).json()["code"] == "queue_full"
        for path in ("/healthz", "/readyz", "/v2/health/live", "/metrics"):
            assert client.get(path, headers=a).status_code == 200
            assert honest.get(path).status_code == 200
        assert count_answered(slow) == 0
        assert {honest.post("/v1/models/two:predict", json=body).status_code for _ in range(5)} == {200}
        poll(lambda: count_answered(slow) == 1)
        (given_way,) = (connection for connection in slow if select.select([connection], [], [], 0)[0])
        answer, error = read_answer(given_way)
        assert (answer.status, error["code"], answer.headers["Retry-After"].isdecimal()) == (503, "queue_full", True)


def count_answered(connections):
    """How many have received something; `select.select` takes no more than a thousand files."""
    arrived = select.poll()
    for connection in connections:
        arrived.register(connection, select.POLLIN)
    return len(arrived.poll(0))


@pytest.mark.parametrize(
    ("others", "n_of_a"),
    [([("a", 512)], 448), ([("a", 512), ("c", 96), ("d", 96)], 256), ([(None, 512)], 0)],
    ids=["of one", "of three", "without a key"],
)
def test_64_requests_of_one_key_get_through_slow_bodies_of_others(serve, folder, others, n_of_a):
    """Slow bodies of one key that has all places, or of three, give way to those of whoever has fewer, and only they.

    Those without a key have no place at all.
    """
    body = json.dumps({"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}).encode()
    length = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    with (
        serve(models=folder / "two.safetensors", keys=KEY_LINES, body_timeout=300) as client,
        ExitStack() as opened,
    ):
        slow = {}

        def send(start, n):
            connections = [opened.enter_context(connect(client)) for _ in range(n)]
            for connection in connections:
                connection.sendall(start)
            return connections

        def in_flight(n):
            return sum_samples(client.get("/metrics", headers=KEYS["b"]).text, "requests_in_flight") == n + 1

        def held(n_of_a):
            """Whether those of `a` that have not given way are so many, and all of the others that have a key."""
            expected = {key: n if key in ("c", "d") else n_of_a for key, n in others}
            return expected == {key: len(each) - count_answered(each) for key, each in slow.items()}

        for key, n in others:
            slow[key] = send(head("POST", "/v1/models/two:predict", *JSON_OF_1000, *lines_of(KEYS.get(key, {}))), n)
            poll(lambda: in_flight(512 if key else 0))  # noqa: B023
        poll(lambda: held(n_of_a + 64 if n_of_a else 0))  # who came after `b` would take the places that it frees
        honest = send(head("POST", "/v1/models/two:predict", *length, *lines_of(KEYS["b"])) + body[:-1], 64)
        poll(lambda: in_flight(512 if n_of_a else 64) and held(n_of_a))
        for connection in honest:
            connection.sendall(body[-1:])
        assert {read_answer(connection)[0].status for connection in honest} == {200}
        assert client.get("/healthz").status_code == 200
        assert held(n_of_a)


def test_64_clients_that_explain_32_windows_at_once_are_all_answered(serve, folder):
    """A burst waits for its turn: nobody is refused."""
    windows = make_windows(load_checkpoint(folder / "nyc-weather.safetensors"), 32)
    body = {"instances": windows.tolist()}
    with serve(models=folder / "nyc-weather.safetensors") as client, ThreadPoolExecutor(64) as pool:

        def explain(_):
            with httpx2.Client(base_url=client.base_url, timeout=300) as one:
                return one.post("/v1/models/nyc-weather:explain", json=body).status_code

        assert [*pool.map(explain, range(64))] == [200] * 64
        poll(lambda: is_at_rest(client) and pending_bytes(client) == 0)


def test_loading_models_delays_no_explanation(serve, tmp_path, monkeypatch):
    """While requests wait for three models that are being read, another client's explanation is computed."""
    go_on = threading.Event()
    for seed, name in enumerate(("quick", "slow1", "slow2", "slow3")):
        save_checkpoint(make_model("head", seed=seed, n_reference=130), tmp_path / f"{name}.safetensors")

    def read(path):
        assert path.stem == "quick" or go_on.wait(300)
        return kanmodel.load(path)

    monkeypatch.setattr("service.models.registry.load", read)
    body = {"instances": make_windows(make_model("head"), 1).tolist()}
    other = httpx2.HTTPTransport(local_address="127.0.0.2")
    with serve(wait=False, models=tmp_path) as client, ExitStack() as opened:
        opened.callback(go_on.set)
        assert client.get("/v1/models/quick").status_code == 200
        pool = opened.enter_context(ThreadPoolExecutor(3))
        opened.callback(go_on.set)
        loading = [pool.submit(client.get, f"/v1/models/slow{number}") for number in (1, 2, 3)]
        poll(lambda: sum_samples(client.get("/metrics").text, "queue_depth", priority="load") == 3)
        honest = opened.enter_context(httpx2.Client(base_url=client.base_url, timeout=300, transport=other))
        assert honest.post("/v1/models/quick:explain", json=body).status_code == 200
        assert not any(one.done() for one in loading)
        go_on.set()
        assert {one.result().status_code for one in loading} == {200}


def test_a_body_that_arrives_counts_its_own_size(serve, folder):
    """One of 0.29 MB counts as much while it arrives, and nothing after its answer."""
    body = json.dumps({"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}).encode().ljust(290_000)
    start = head("POST", "/v1/models/two:predict", "Content-Type: application/json", f"Content-Length: {len(body)}")
    with serve(models=folder / "two.safetensors") as client, connect(client) as connection:
        connection.sendall(start + body[:100_000])
        poll(lambda: pending_bytes(client) > 0)
        assert pending_bytes(client) == len(body)
        connection.sendall(body[100_000:])
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        poll(lambda: pending_bytes(client) == 0)


def test_answers_are_counted_until_they_are_read(serve, folder):
    """Ten answers that wait for their clients to read them hold their bytes; once read, nothing."""
    path = "/v1/models/nyc-weather/edges?points=2001&fidelity=1"
    with serve(models=folder / "nyc-weather.safetensors", send_timeout=300) as client, ExitStack() as opened:
        expected = client.get(path, headers={"Accept-Encoding": "identity"}).content
        assert len(expected) > 1 << 20
        poll(lambda: pending_bytes(client) == 0)
        unread = []
        for _ in range(10):
            connection = opened.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(300)
            connection.connect((client.base_url.host, client.base_url.port))
            connection.sendall(head("GET", path))
            unread.append(connection)
        poll(lambda: pending_bytes(client) == 10 * len(expected))
        for number, connection in enumerate(unread):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            answer = HTTPResponse(connection)
            answer.begin()
            assert answer.read() == expected
            poll(lambda: pending_bytes(client) == (9 - number) * len(expected))  # noqa: B023
