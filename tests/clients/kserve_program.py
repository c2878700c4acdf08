"""A program with KServe's client: python kserve_program.py URL MODEL WINDOW.json."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from httpx import HTTPStatusError
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, model, file = sys.argv[1:]
with open(file, encoding="utf-8") as window:
    body = json.load(window)
instances = np.array(body["instances"])
v1, v2 = (InferenceRESTClient(RESTConfig(protocol=protocol)) for protocol in ("v1", "v2"))


async def infer(binary: bool) -> dict[str, Any]:
    tensor = InferInput("instances", list(instances.shape), "FP64")
    tensor.set_data_from_numpy(instances, binary_data=binary)
    names = ("predictions", "contributions")
    outputs = [RequestedOutput(name, {"binary_data": binary}) for name in names]
    request = InferRequest(model, [tensor], parameters={"explain": True}, request_outputs=outputs)
    answer = await v2.infer(url, request, model)
    return {output.name: output.as_numpy().tolist() for output in answer.outputs}


async def refusal() -> str:
    tensor = InferInput("instances", [1, 1, 20], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1, 20), np.float32), binary_data=True)
    try:
        await v2.infer(url, InferRequest(model, [tensor]), model)
    except HTTPStatusError as error:
        return str(error)
    raise AssertionError("a window of one step was not refused")


async def main() -> None:
    ready = [
        await v2.is_server_live(url),
        await v2.is_server_ready(url),
        await v2.is_model_ready(url, model),
        await v1.is_model_ready(url, model),
    ]
    answers = {"json": await infer(binary=False), "binary": await infer(binary=True), "error": await refusal()}
    predicted = await v1.infer(url, body, model)
    explained = await v1.explain(url, model, body)
    rest = {"predicted": predicted["predictions"], "explained": explained["predictions"]}
    print(json.dumps({**answers, "ready": ready, "rest": rest}))


asyncio.run(main())
