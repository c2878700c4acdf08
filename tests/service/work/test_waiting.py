"""What waits: many requests at once, long results, loading, bodies that arrive, answers that are not read."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPResponse
from types import SimpleNamespace

import httpx2
import numpy as np
from factories import make_model, make_windows
from sockets import connect, head, is_at_rest, pending_bytes
from virtual import VirtualWorker, run_virtually
from waiting import poll

import kanmodel
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from service.compute import Compute
from service.models.repository import Choice
from service.room import HOLD
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.wire.security import OWNER
from service.work.shadows import Shadows


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
        poll(lambda: 'kanscope_queue_depth{priority="load"} 3.0\n' in client.get("/metrics").text)
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


def test_shadows_are_charged_to_no_client():
    """The turn of a shadow's forecast is that of the service, whosever request it copies, and it holds no place."""
    model = SimpleNamespace(predict=lambda windows: windows[:, 0])
    versions = SimpleNamespace(choice=Choice(default="1", shadow={"2": 1.0}))
    registry = SimpleNamespace(
        index=lambda: {"m": versions}, get=lambda *_: SimpleNamespace(name="m", version="2", model=model)
    )
    watched = []

    async def scenario():
        compute = Compute(Settings(), Metrics())
        shadows = Shadows(registry, compute, Metrics(), SimpleNamespace(watch=lambda *them: watched.append(them)))
        OWNER.set("client")
        compute._loop = asyncio.get_running_loop()
        with compute.room.enter("client") as hold:
            HOLD.set(hold)
            shadows.offer(SimpleNamespace(name="m", version="1"), np.ones((3, 2, 1)))
            await asyncio.sleep(0)
            (job,) = compute._waiting
            (waiter,) = job.waiters
            assert (job.owner, waiter.owner, waiter.hold, hold.give_way) == ("", "", None, None)
        compute.start(VirtualWorker)
        await asyncio.sleep(100)

    run_virtually(scenario())
    assert len(watched) == 1
