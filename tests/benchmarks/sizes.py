"""The service with forty models, and with a very large one, each on its own core. Not part of `make bench`.

usage: python tests/benchmarks/sizes.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter
from urllib.parse import quote

import torch
from load import drive, post
from models import make_model
from scaling import LARGEST
from scaling import make_model as make_shape
from servers import CLIENT_CORE, Server, our_server, pin
from table import Row, print_table

from kanmodel.checkpoint import save_checkpoint
from kanmodel.forecaster import Forecaster

N_MODELS = 40
N_FEATURES, LOOKBACK, WIDTH = 8, 24, [12, 5, 1]  # the bundled model's
DURATION = 4.0  # seconds
DEADLINE = 600  # seconds before the client gives up
N_EXPLAINED = 8


def rows() -> Iterator[Row]:
    """Forty models of the bundled one's size, then the largest."""
    pin(0, CLIENT_CORE)
    try:
        yield from many_rows()
        yield from largest_rows()
    finally:
        pin(0, None)


def many_rows() -> Iterator[Row]:
    """Requests to all models in turn, beside as many to one of them."""
    models = {f"model-{number:02d}": make_model(N_FEATURES, LOOKBACK, WIDTH, number) for number in range(N_MODELS)}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            save_checkpoint(model, Path(folder) / f"{name}.safetensors")
        with our_server(Path(folder)) as server:
            what = f"{N_MODELS} models: LSTM {N_FEATURES} to {WIDTH[0]} over {LOOKBACK} steps, KAN {WIDTH}"
            yield Row(f"{what}: start until ready", f"{server.start:.1f} s")
            begun = perf_counter()
            for name in models:
                ask(server, "GET", f"/v1/models/{name}/report")
            seconds = perf_counter() - begun
            yield Row("global results of all of them, from then", f"{seconds:.0f} s, PSS {server.memory():.0f} MB")
            body = json.dumps({"instances": windows_of(models["model-00"])[:1]}).encode()
            for operation, connections in (("predict", 64), ("explain", 8)):
                in_turn = [post(f"/v1/models/{name}:{operation}", body) for name in models]
                both = [drive(server.port, requests, connections, DURATION) for requests in (in_turn, in_turn[:1])]
                yield Row(
                    f":{operation} of 1 window, {connections} connections, the models in turn",
                    str(both[0]),
                    f"one of them: {both[1]}",
                    f"{both[0].rate / both[1].rate:.2f}x",
                )


def largest_rows() -> Iterator[Row]:
    """One response of each kind, while the global results of all outputs are computed in the background."""
    model = make_shape(LARGEST)
    windows, first = windows_of(model), model.config.outputs[0]
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(model, Path(folder) / "largest.safetensors")
        with our_server(Path(folder)) as server:
            path = "/v1/models/largest"
            width = [LARGEST.units, LARGEST.hidden, LARGEST.outputs]
            what = f"LSTM {LARGEST.features} to {LARGEST.units} over {LARGEST.steps} steps, KAN {width}"
            yield Row(f"{what}: start until ready", f"{server.start:.1f} s")
            seconds = ask(server, "GET", f"{path}/topology?output={quote(first)}")
            yield Row(f"its topology of one output, {len(windows)} reference windows, from then", f"{seconds:.1f} s")
            for n, operation in ((1, "predict"), (32, "predict"), (1, "explain"), (N_EXPLAINED, "explain")):
                asked = {"instances": (windows * 2)[:n], **({"output": first} if operation == "explain" else {})}
                body = json.dumps(asked).encode()
                seconds = min(ask(server, "POST", f"{path}:{operation}", body) for _ in range(3))
                yield Row(f"its :{operation} of {n} window{'s' if n > 1 else ''}", f"{seconds * 1e3:.0f} ms")
            for fidelity in (0.5, 0.9):
                picture = f"{path}/topology?output={quote(first)}&format=svg&fidelity={fidelity}"
                yield Row(f"its picture at an R2 of {fidelity}", f"{ask(server, 'GET', picture):.1f} s")
            yield Row("its memory (PSS) after that", f"{server.memory():.0f} MB")


def windows_of(model: Forecaster) -> list[list[list[float]]]:
    """The reference windows in original units."""
    windows: list[list[list[float]]] = model.scaling.features_to_original(model.reference.scaled).round(4).tolist()
    return windows


def ask(server: Server, method: str, path: str, body: bytes | None = None) -> float:
    """Seconds until a successful response."""
    headers = {"Content-Type": "application/json", "X-Request-Timeout": str(DEADLINE)}
    connection = HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    begun = perf_counter()
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    told = answer.read()
    seconds = perf_counter() - begun
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path} was answered with {answer.status}: {told[:300]!r}")
    return seconds


if __name__ == "__main__":
    torch.set_num_threads(1)
    print_table(rows())
