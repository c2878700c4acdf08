"""A hand-written alternative: FastAPI with the torch module, and Captum for explanations.

    python peer.py CHECKPOINT PORT

It follows good practice: validation by pydantic, responses by orjson, the model loaded once, one torch thread, no
gradients unless needed. Each operation exists as a coroutine and as a function that FastAPI runs in its threads; the
benchmark uses whichever is faster.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import uvicorn
from captum.attr import IntegratedGradients
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

from kanmodel.attribution.baseline import Baseline, baseline_windows
from kanmodel.checkpoint import load_checkpoint
from kanmodel.forecaster import Forecaster

STEPS = 50


class Request(BaseModel):
    instances: list[list[list[float]]]


def create_peer(model: Forecaster) -> FastAPI:
    """The app for the network as trained, with the units and responses of the service."""
    app = FastAPI()
    scaling, network = model.scaling, model.network
    mean = torch.from_numpy(scaling.feature_mean)
    scale = torch.from_numpy(scaling.feature_scale)
    start = model.to_model_units(baseline_windows(model, Baseline()))
    captum = IntegratedGradients(lambda x: network(x)[:, 0])

    def read(request: Request) -> torch.Tensor:
        windows = np.array(request.instances)
        if windows.ndim != 3 or windows.shape[1:] != model.config.window_shape or not np.isfinite(windows).all():
            raise HTTPException(422, f"instances must have shape (n, {model.config.window_shape}) and be finite")
        return ((torch.from_numpy(windows) - mean) / scale).float()

    def predict(request: Request) -> Response:
        with torch.inference_mode():
            outputs = network(read(request))
        return answer({"predictions": scaling.outputs_to_original(outputs).tolist()})

    def explain(request: Request) -> Response:
        windows = read(request)
        contributions = captum.attribute(windows, start, n_steps=STEPS, internal_batch_size=512).sum(dim=1)
        contributions = contributions.double().numpy() * scaling.output_scale[0]
        return answer({"contributions": contributions.tolist()})

    for name, operation in (("predict", predict), ("explain", explain)):
        app.post(f"/threads/{name}")(operation)
        app.post(f"/coroutine/{name}")(as_coroutine(operation))
    return app


def as_coroutine(operation: Callable[[Request], Response]) -> Callable[..., Any]:
    """The same operation as a coroutine on the event loop."""

    async def on_the_loop(request: Request) -> Response:
        return operation(request)

    return on_the_loop


def answer(document: dict[str, list[list[float]]]) -> Response:
    """A JSON response; refuses numbers that are not finite."""
    if not all(math.isfinite(value) for row in next(iter(document.values())) for value in row):
        raise HTTPException(500, "the answer is not finite")
    return Response(orjson.dumps(document), media_type="application/json")


if __name__ == "__main__":
    torch.set_num_threads(1)
    app = create_peer(load_checkpoint(Path(sys.argv[1])))

    @app.get("/empty")
    async def empty() -> Response:
        return Response(b"{}", media_type="application/json")

    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
