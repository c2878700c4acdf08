"""Many concurrent clients: each gets the response to its own windows, and no work is left over."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
import pytest
from factories import make_windows
from sockets import connect, head, is_at_rest
from waiting import poll

from kanmodel import computing
from kanmodel.arrays import Array
from kanmodel.attribution import explanation as attribution
from kanmodel.attribution.ledger import explain_outputs, explain_windows
from kanmodel.computing import pause, pausing
from kanmodel.forecaster import Forecaster

pytestmark = pytest.mark.thorough("keeps both cores busy", alone=True)

N_CLIENTS = 64
N_ROUNDS = 4
SIZES = (1, 1, 2, 3, 5, 8, 13, 40)
NDJSON = "application/x-ndjson"


@dataclass(frozen=True)
class Asked:
    """A request, and the expected result of the model core.

    Attributes:
        name: of the model.
        output: the explained output.
        verb: `predict`, `explain`, or `stream` for an explanation line by line.
        windows: those of this request only.
        expected: forecasts, (n, n_outputs); for an explanation also the contributions, (n, n_features).
        slack: 1e-5 of the standard deviation of each output; batches round differently in float32.
    """

    name: str
    output: str
    verb: str
    windows: Array
    expected: tuple[Array, ...]
    slack: Array

    @property
    def request(self) -> dict[str, Any]:
        verb = "predict" if self.verb == "predict" else "explain"
        body: dict[str, Any] = {"instances": self.windows.tolist()}
        if verb == "explain":
            body["output"] = self.output
        accept = NDJSON if self.verb == "stream" else "application/json"
        return {"url": f"/v1/models/{self.name}:{verb}", "json": body, "headers": {"Accept": accept}}

    def check(self, answer: httpx2.Response) -> None:
        assert answer.status_code == 200, answer.text
        if self.verb == "stream":
            body, *lines = map(json.loads, answer.text.splitlines())
            body["explanations"] = lines
        else:
            body = answer.json()
        assert body["model_name"] == self.name
        forecasts, *contributions = self.expected
        assert (np.abs(np.array(body["predictions"]) - forecasts) <= self.slack).all()
        if contributions:
            found = [list(explanation["contributions"].values()) for explanation in body["explanations"]]
            np.testing.assert_allclose(found, contributions[0], rtol=0, atol=self.slack.max())


def choose(models: dict[str, Forecaster], client: int, turn: int) -> Asked:
    """The request of a client in a round; no two have the same windows."""
    number = client * N_ROUNDS + turn
    name = list(models)[(client // 4 + turn) % len(models)]
    model, verb = models[name], ("predict", "explain", "predict", "stream")[(client + turn) % 4]
    n = SIZES[number % len(SIZES)] if verb == "predict" else 1 + number % 2
    windows = make_windows(model, n, seed=number)
    expected: tuple[Array, ...] = (model.predict(windows),)
    if verb != "predict":
        last = len(model.config.outputs) - 1
        expected += (explain_windows(model, model.to_model_units(windows), last, detail="features").contributions,)
    return Asked(name, model.config.outputs[-1], verb, windows, expected, 1e-5 * model.output_std)


async def drop(url: httpx2.URL, asked: Asked, client: int) -> None:
    """Starts a request and disconnects: in its head, in its body, before the response, or during it."""
    request = httpx2.Request("POST", url.join(asked.request["url"]), json=asked.request["json"])
    headers = [f"{name}: {value}" for name, value in request.headers.items() if name != "host"]
    sent = head("POST", asked.request["url"], *headers, f"Accept: {asked.request['headers']['Accept']}")
    sent += request.content
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(sent[: (20, len(sent) // 2, len(sent), len(sent))[client % 4]])
    await writer.drain()
    if client % 4 == 3:
        await reader.read(30)
    writer.transport.abort()


def test_every_client_gets_the_answer_of_its_own_windows(serve, folder, service):
    """64 clients, four models, 1 to 40 windows, some explanations, and every eighth client disconnects."""
    asked = [[choose(service.models, client, turn) for turn in range(N_ROUNDS)] for client in range(N_CLIENTS)]
    begun = asyncio.Event()
    answers: list[tuple[Asked, httpx2.Response]] = []

    async def be_client(number: int, client: httpx2.AsyncClient) -> None:
        await begun.wait()
        for one in asked[number]:
            if number % 8 == 7:
                await drop(client.base_url, one, number // 8)
            else:
                answers.append((one, await client.post(**one.request)))

    async def ask_all(url: httpx2.URL) -> None:
        limits = httpx2.Limits(max_connections=N_CLIENTS)
        async with httpx2.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            clients = [asyncio.create_task(be_client(number, client)) for number in range(N_CLIENTS)]
            begun.set()
            await asyncio.gather(*clients)

    with serve(models=folder) as client:
        asyncio.run(ask_all(client.base_url))
        poll(lambda: is_at_rest(client))
    assert len(answers) == N_CLIENTS * 7 // 8 * N_ROUNDS
    for one, answer in answers:
        one.check(answer)


@pytest.mark.parametrize("accept", [NDJSON, "application/json"])
def test_a_disconnect_stops_the_work_within_one_slice(serve, folder, service, monkeypatch, accept):
    """After a disconnect no further slice is computed, and the request's places are free."""
    slices, inside, go_on = [], threading.Event(), threading.Event()

    def explain_slowly(*arguments):
        if not computing._hook.get():  # warms up the model
            return explain_outputs(*arguments)

        def begin_slice():
            slices.append(1)
            if len(slices) == 3:
                inside.set()
                assert go_on.wait(300)

        def pause_and_begin():
            pause()
            begin_slice()

        begin_slice()
        with pausing(pause_and_begin):
            return explain_outputs(*arguments)

    monkeypatch.setattr(attribution, "explain_outputs", explain_slowly)
    body = json.dumps({"instances": make_windows(service.models["two"], 500).tolist(), "output": "a+1"}).encode()
    sent = head(
        *("POST", "/v1/models/two:explain", "Content-Type: application/json", f"Accept: {accept}"),
        f"Content-Length: {len(body)}",
    )
    with serve(models=folder / "two.safetensors") as client:
        try:
            with connect(client) as connection:
                connection.sendall(sent + body)
                assert inside.wait(300)
            client.get("/healthz")  # by now the service has seen the disconnect
        finally:
            go_on.set()
        poll(lambda: is_at_rest(client))
    assert len(slices) <= 4
