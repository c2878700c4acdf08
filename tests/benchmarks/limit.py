"""A minimal server for :predict, as a lower bound: the time of a request for parsing, network and HTTP server alone.

    python limit.py CHECKPOINT PORT

It has no routes, validation, limits, ids, logs or metrics; requests that arrive in one turn of the event loop are
forecast as one batch. It is not a peer, because it could not be used in practice.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import simdjson
import torch
import uvicorn

from kanmodel.checkpoint import load_checkpoint
from kanmodel.forecaster import Forecaster


def create_app(model: Forecaster) -> Callable[..., Any]:
    """The app for a model."""
    parser = simdjson.Parser()
    waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []

    def compute() -> None:
        batch = waiting[:]
        waiting.clear()
        outputs = model.predict(np.concatenate([windows for windows, _ in batch]))
        end = 0
        for windows, answer in batch:
            start, end = end, end + len(windows)
            answer.set_result(outputs[start:end])

    async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[dict[str, Any]], Any]) -> None:
        if scope["type"] != "http":
            return
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message["body"])
            more = message["more_body"]
        body = b"{}"
        if scope["method"] == "POST":
            document: Any = parser.parse(b"".join(parts))
            numbers = np.frombuffer(document["instances"].as_buffer(of_type="d"))
            del document
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[np.ndarray] = loop.create_future()
            if not waiting:
                loop.call_soon(compute)
            waiting.append((numbers.reshape(-1, *model.config.window_shape), answer))
            body = orjson.dumps({"predictions": (await answer).tolist()})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


if __name__ == "__main__":
    torch.set_num_threads(1)
    app = create_app(load_checkpoint(Path(sys.argv[1])))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=False, lifespan="off", log_level="warning")
