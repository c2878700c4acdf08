"""A program with Triton's client: python tritonclient_program.py URL MODEL WINDOW.json."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

url, model, file = sys.argv[1:]
with open(file, encoding="utf-8") as window:
    instances = np.array(json.load(window)["instances"])
client = InferenceServerClient(url.removeprefix("http://").rstrip("/"))


def infer(binary: bool) -> dict[str, Any]:
    tensor = InferInput("instances", instances.shape, "FP64").set_data_from_numpy(instances, binary_data=binary)
    names = ("predictions", "contributions")
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in names]
    answer = client.infer(model, [tensor], outputs=outputs, parameters={"explain": True})
    return {name: answer.as_numpy(name).tolist() for name in names}


def refusal() -> str:
    tensor = InferInput("instances", [1, 1, 20], "FP32").set_data_from_numpy(np.zeros((1, 1, 20), np.float32))
    try:
        client.infer(model, [tensor], model_version="1")
    except InferenceServerException as error:
        return str(error)
    raise AssertionError("a window of one step was not refused")


ready = [client.is_server_live(), client.is_server_ready(), client.is_model_ready(model, "1")]
metadata = client.get_model_metadata(model)
answers = {"json": infer(binary=False), "binary": infer(binary=True), "error": refusal()}
client.unload_model(model)
unloaded = client.get_model_repository_index()
ready.append(not client.is_model_ready(model))
client.load_model(model)
rest = {
    "server": client.get_server_metadata()["name"],
    "input": [metadata["inputs"][0][name] for name in ("name", "shape", "datatype")],
    "unloaded": [entry["state"] for entry in unloaded],
    "loaded": [entry["state"] for entry in client.get_model_repository_index()],
}
print(json.dumps({**answers, "ready": ready, "rest": rest}))
