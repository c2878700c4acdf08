"""An InferenceService by KServe's own server and client.

    python kserve_service_program.py PREDICTOR EXPLAINER NAME KEY WINDOW.json

The server is its transformer, which passes on what it is asked to the hosts of predictor and explainer. Prints what the
client gets from all three.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from multiprocessing import get_context
from typing import Any

import numpy as np
from httpx import HTTPError
from kserve import InferenceRESTClient, InferInput, InferRequest, Model, ModelServer, PredictorConfig, RESTConfig


class Transformer(Model):
    """The server's default: `predict` asks the predictor, and `explain` the explainer."""

    use_ssl = False  # read by `explain`, and set nowhere in KServe 0.21

    def __init__(self, name: str, explainer: str) -> None:
        super().__init__(name)
        self.explainer_host = explainer
        self.ready = True


def serve(port: int, name: str, predictor: str, explainer: str) -> None:
    """Runs the transformer."""
    server = ModelServer(http_port=port, enable_grpc=False, predictor_config=PredictorConfig(predictor))
    server.start([Transformer(name, explainer)])


async def ask(transformer: str, predictor: str, explainer: str, name: str, key: str, body: Any) -> dict[str, Any]:
    """What each answers, and the statuses without a key."""
    v1, v2 = (InferenceRESTClient(RESTConfig(protocol=protocol, timeout=60)) for protocol in ("v1", "v2"))
    headers = {"Authorization": f"Bearer {key}"}
    for _ in range(600):
        try:
            if await v1.is_model_ready(transformer, name):
                break
        except HTTPError:
            await asyncio.sleep(0.1)
    instances = np.array(body["instances"])
    tensor = InferInput("instances", list(instances.shape), "FP64")
    tensor.set_data_from_numpy(instances, binary_data=False)
    inferred = await v2.infer(predictor, InferRequest(name, [tensor]), name, headers)
    refused = []
    for asking in (v1.infer(transformer, body, name), v1.explain(transformer, name, body)):
        try:
            await asking
        except HTTPError as error:
            refused.append(type(error).__name__)
    return {
        "predictor": await v1.infer(predictor, body, name, headers),
        "predictor v2": inferred.outputs[0].as_numpy().tolist(),
        "explainer": await v1.explain(explainer, name, body, headers),
        "transformer": await v1.infer(transformer, body, name, headers),
        "transformer's explanation": await v1.explain(transformer, name, body, headers),
        "without a key": refused,
    }


if __name__ == "__main__":
    predictor, explainer, name, key, file = sys.argv[1:]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(file, encoding="utf-8") as window:
        body = json.load(window)
    transformer = get_context("spawn").Process(target=serve, args=(port, name, predictor, explainer))
    transformer.start()
    try:
        urls = [f"http://{host}" for host in (f"127.0.0.1:{port}", predictor, explainer)]
        answers = asyncio.run(ask(*urls, name, key, body))
    finally:
        transformer.kill()
        transformer.join()
    print(json.dumps(answers))
