"""What stands between the socket and the answer of a forecast, in microseconds of the processor, in process.

python tests/benchmarks/path.py

Each part is timed without the parts within it. The server, its sockets and the parser of HTTP come on top.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import wraps
from inspect import iscoroutinefunction
from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time
from typing import Any

import numpy as np
from models import NAME, large_model, original_windows, save_large_model
from table import Row, print_table

from service.app import create_app
from service.operations import predict, route
from service.settings import Settings
from service.telemetry.observation import Observation
from service.wire import bodies
from service.wire.headers import IS_WHOLE
from service.wire.security import Access
from service.work.forecasts import Forecasts, Plain

N, ROUNDS = 500, 9
PARTS: dict[str, tuple[Any, str]] = {
    "request id, access log, counters of requests": (Observation, "__call__"),
    "host, key, client": (Access, "__call__"),
    "a place, and the operation": (route.Dispatch, "__call__"),
    "query, model, media type": (route.OperationRoute, "answer"),
    "the handler": (predict.predict, "handler"),
    "reading the body": (route, "read_body"),
    "parsing": (predict, "parse_windows"),
    "comparing with the training range": (predict, "check_values"),
    "batching": (Forecasts, "predict"),
    "the network": (Plain, "predict"),
    "encoding": (predict, "answer_json"),
    "after the answer: counters by version, the monitor": (route.Call, "count_forecasts"),
}


class Timer:
    """Times parts without the parts within them."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._within = [0.0]

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as a part."""
        if iscoroutinefunction(function):

            @wraps(function)
            async def call(*arguments: Any, **named: Any) -> Any:
                start = self._begin()
                try:
                    return await function(*arguments, **named)
                finally:
                    self._end(name, start)

            return call

        @wraps(function)
        def call_now(*arguments: Any, **named: Any) -> Any:
            start = self._begin()
            try:
                return function(*arguments, **named)
            finally:
                self._end(name, start)

        return call_now

    def _begin(self) -> float:
        self._within.append(0.0)
        return thread_time()

    def _end(self, name: str, start: float) -> None:
        seconds = thread_time() - start
        self.seconds[name] += seconds - self._within.pop()
        self._within[-1] += seconds


def rows() -> Iterator[Row]:
    """Forecasts of one window, one after the other, without and with timers; the medians of several rounds."""
    with TemporaryDirectory() as folder:
        save_large_model(Path(folder))
        body = json.dumps({"instances": original_windows(large_model())[:1].tolist()}).encode()
        whole, parts = asyncio.run(_measure(Path(folder), body))
    for name in PARTS:
        yield Row(f"forecast of one window: {name}", f"{np.median([one[name] for one in parts]) / N * 1e6:.0f} µs")
    yield Row("forecast of one window: all of these", f"{np.median(whole) / N * 1e6:.0f} µs")


async def _measure(folder: Path, body: bytes) -> tuple[list[float], list[dict[str, float]]]:
    app = create_app(Settings(models=folder, cached_results=4))
    async with app.router.lifespan_context(app):
        while not app.state.parts.registry.ready:
            await asyncio.sleep(0.1)
        for _ in range(N):
            assert await _ask(app, body) == 200
        whole = [await _time(app, body) for _ in range(ROUNDS)]
        timer = Timer()
        for name, (holder, attribute) in PARTS.items():
            setattr(holder, attribute, timer.wrap(name, getattr(holder, attribute)))
        parts = []
        for _ in range(ROUNDS):
            timer.seconds.clear()
            await _time(app, body)
            parts.append(dict(timer.seconds))
    return whole, parts


async def _time(app: Any, body: bytes) -> float:
    start = thread_time()
    for _ in range(N):
        await _ask(app, body)
        await asyncio.sleep(0)
    return thread_time() - start


async def _ask(app: Any, body: bytes) -> int:
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    path, length = f"/v1/models/{NAME}:predict", str(len(body)).encode()
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", length)]
    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "method": "POST", "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers, "scheme": "http"}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {IS_WHOLE: True}}
    assert len(body) < bodies.LARGE
    await app(scope, receive, send)
    return statuses[0]


if __name__ == "__main__":
    print_table(rows())
