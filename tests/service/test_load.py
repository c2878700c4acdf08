"""A separate process under load: right answers, memory, shutdown, and restart after a kill."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
import pytest
from factories import make_windows
from sockets import converse, head, is_at_rest
from waiting import poll

from kanmodel.arrays import Array
from kanmodel.attribution.ledger import LedgerOptions, explain_windows
from kanmodel.forecaster import Forecaster

pytestmark = pytest.mark.thorough("keeps both cores busy, and measures memory", alone=True)

N_CLIENTS = 64
N_ASKED = 64  # different requests; every sixteenth is an explanation


@dataclass(frozen=True)
class Asked:
    """A request as sent, and the numbers of its response: forecasts or contributions."""

    sent: bytes
    expected: Array
    slack: float  # 1e-5 of the standard deviation of an output; batches round differently in float32

    def check(self, status: int, body: Any) -> None:
        assert status == 200, body
        found = body["predictions"]
        if "explanations" in body:
            found = [list(explanation["contributions"].values()) for explanation in body["explanations"]]
        np.testing.assert_allclose(found, self.expected, rtol=0, atol=self.slack)


def choose(models: dict[str, Forecaster], number: int) -> Asked:
    """A request to one of the models; no two have the same windows."""
    name = list(models)[(number + number // 16) % len(models)]
    model = models[name]
    windows = make_windows(model, 1 if number % 16 == 0 else 1 + number % 5, seed=number)
    body: dict[str, Any] = {"instances": windows.tolist()}
    if number % 16:
        verb, expected = "predict", model.predict(windows)
    else:
        verb, options = "explain", LedgerOptions(tolerance=1.0)  # evaluated in one pass, as there are many
        expected = explain_windows(
            model, model.to_model_units(windows), 0, options=options, detail="features"
        ).contributions
        body |= {"output": model.config.outputs[0], "tolerance": options.tolerance}
    content = json.dumps(body).encode()
    headers = ("Content-Type: application/json", f"Content-Length: {len(content)}")
    sent = head("POST", f"/v1/models/{name}:{verb}", *headers) + content
    return Asked(sent, expected, 1e-5 * float(model.output_std.max()))


@pytest.fixture(scope="module")
def asked(service) -> list[Asked]:
    return [choose(service.models, number) for number in range(N_ASKED)]


async def keep_asking(
    client: httpx2.Client,
    asked: list[Asked],
    number: int,
    goes_on: Callable[[], bool],
    said: Callable[[], None],
    may_end: bool = False,
) -> None:
    """A client that sends requests one after the other, every second one on a new connection.

    A response that ends before its length is an error unless it `may_end`, as by kill -9, which the client can tell.
    """
    streams = None
    while goes_on():
        try:
            if streams is None or number % 2:
                streams = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        except ConnectionError:
            return
        one = asked[number % len(asked)]
        try:
            answer = await converse(*streams, one.sent)
        except asyncio.IncompleteReadError:
            assert may_end
            answer = None
        if number % 2 or answer is None:
            streams[1].close()
        if answer is None:
            return
        one.check(answer[0], answer[2])
        said()
        number += 2
        if answer[1].get("connection") == "close":
            streams[1].close()
            return
    if streams is not None:
        streams[1].close()


async def ask_many(client: httpx2.Client, asked: list[Asked], n_turns: int) -> None:
    """Each client sends some requests, and as many further clients disconnect before the response."""

    async def take_turns(number: int) -> None:
        turns = iter(range(n_turns))
        answered: list[int] = []
        await keep_asking(client, asked, number, lambda: next(turns, None) is not None, lambda: answered.append(1))
        assert len(answered) == n_turns

    async def go_away(number: int) -> None:
        """Disconnects in the head, in the body, before the response, or during it."""
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        sent = asked[number % len(asked)].sent
        writer.write(sent[: (20, len(sent) // 2, len(sent), len(sent))[number % 4]])
        await writer.drain()
        if number % 4 == 3:
            await reader.read(30)
        writer.transport.abort()

    await asyncio.gather(*(act(number) for number in range(N_CLIENTS) for act in (take_turns, go_away)))


def resident_bytes(client: httpx2.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("process_resident_memory_bytes"))


def test_load_leaves_nothing_behind(launch, folder, asked):
    """64 clients and 64 that disconnect, four times: each has its own answers, and neither queue nor memory grows."""
    with launch(folder) as process:
        resident = []
        for _ in range(4):
            asyncio.run(ask_many(process.client, asked, n_turns=8))
            poll(lambda: is_at_rest(process.client))
            resident.append(resident_bytes(process.client))
        assert resident[3] <= 1.05 * resident[1], resident
        assert not [line for line in process.lines() if line["level"] == "error" or line.get("status") == 500]


async def ask_until(client: httpx2.Client, asked: list[Asked], end: Callable[[], None], may_end: bool = False) -> int:
    """How many responses clients get until the server stops, which `end` makes it do after some of them."""
    answers: list[int] = []

    def count() -> None:
        answers.append(1)
        if len(answers) == 100:
            end()

    clients = (keep_asking(client, asked, number, lambda: True, count, may_end) for number in range(16))
    await asyncio.gather(*clients)
    return len(answers)


@pytest.mark.parametrize(("arguments", "code"), [((), -signal.SIGTERM), (("--workers", "2"), 0)])
def test_sigterm_under_load_loses_no_answer(launch, folder, asked, arguments, code):
    """Every response that the processes have logged reaches its client in full before they exit."""
    with launch(folder, *arguments, KANSCOPE_LOG_FORMAT="json") as process:
        n_answers = asyncio.run(
            ask_until(process.client, asked, lambda: process.popen.send_signal(signal.SIGTERM)),
        )
        process.client.close()
        assert process.popen.wait(300) == code
        statuses = [
            line["status"] for line in process.lines() if line.get("route", "").startswith("/v1/models/{model}:")
        ]
    assert n_answers >= 100
    assert statuses == [200] * n_answers


def test_a_killed_process_can_be_restarted(launch, tmp_path, folder, asked):
    """kill -9 under load damages no checkpoint, and no response looks whole that is not; the next process answers."""
    models = shutil.copytree(folder, tmp_path / "models")
    before = {file.name: file.read_bytes() for file in models.iterdir()}
    with launch(models) as process:
        assert asyncio.run(ask_until(process.client, asked, process.popen.kill, may_end=True)) >= 100
        assert process.popen.wait(300) == -signal.SIGKILL
    assert {file.name: file.read_bytes() for file in models.iterdir()} == before
    with launch(models) as process:
        asyncio.run(ask_many(process.client, asked, n_turns=1))
        poll(lambda: is_at_rest(process.client))
