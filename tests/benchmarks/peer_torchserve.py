"""The model in TorchServe, as a custom handler following its documentation.

    python peer_torchserve.py CHECKPOINT PORT WORKERS

With one torch thread per worker, and batching with the wait of a millisecond that is best for 64 connections;
without its metrics and its access log. It runs on Java.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

import ts

MAX_BATCH, BATCH_MILLISECONDS = 64, 1
STEPS = 50  # of Captum
HANDLER = '''
import sys

import numpy as np
import torch

sys.path.insert(0, {path!r})
from captum.attr import IntegratedGradients
from kanmodel.checkpoint import load_checkpoint
from kanmodel.attribution.baseline import Baseline, baseline_windows
from pathlib import Path

torch.set_num_threads(1)


class Forecaster:
    """The network as it trains, in the units and with the answers of the service, and Captum for explanations."""

    def initialize(self, context):
        model = load_checkpoint(Path({checkpoint!r}))
        self._network, self._scaling, self._shape = model.network, model.scaling, model.config.window_shape
        self._mean, self._scale = map(torch.from_numpy, (model.scaling.feature_mean, model.scaling.feature_scale))
        self._start = model.to_model_units(baseline_windows(model, Baseline()))
        self._captum = IntegratedGradients(lambda x: self._network(x)[:, 0])

    def handle(self, requests, context):
        bodies = [request.get("body") or request.get("data") for request in requests]
        parts = [np.array(body["instances"]) for body in bodies]
        for windows in parts:
            if windows.ndim != 3 or windows.shape[1:] != self._shape or not np.isfinite(windows).all():
                raise ValueError(f"windows must have shape (n, {{self._shape}}) and be finite")
        windows = ((torch.from_numpy(np.concatenate(parts)) - self._mean) / self._scale).float()
        if bodies[0]["explain"]:  # a batch is of one kind here
            found = self._captum.attribute(windows, self._start, n_steps={steps}, internal_batch_size=512).sum(dim=1)
            name, answers = "contributions", found.double().numpy() * self._scaling.output_scale[0]
        else:
            with torch.inference_mode():
                name, answers = "predictions", self._scaling.outputs_to_original(self._network(windows))
        ends = np.cumsum([len(windows) for windows in parts])[:-1]
        return [{{name: part.tolist()}} for part in np.split(answers, ends)]
'''


def write_archive(folder: Path, checkpoint: Path) -> None:
    """The handler and its manifest in the archiver's format."""
    model = {"modelName": checkpoint.stem, "handler": "handler.py", "modelVersion": "1.0"}
    manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    with ZipFile(folder / f"{checkpoint.stem}.mar", "w") as archive:
        archive.writestr("handler.py", HANDLER.format(path=os.getcwd(), checkpoint=str(checkpoint), steps=STEPS))
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))


def write_config(folder: Path, name: str, port: int, workers: int) -> Path:
    """The settings of a server for this model."""
    one = {
        "defaultVersion": True,
        "marName": f"{name}.mar",
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": MAX_BATCH,
        "maxBatchDelay": BATCH_MILLISECONDS,
        "responseTimeout": 120,
    }
    addresses = zip(("inference", "management", "metrics"), range(port, port + 3), strict=True)
    lines = [
        *(f"{kind}_address=http://127.0.0.1:{number}" for kind, number in addresses),
        *(f"grpc_{kind}_port={number}" for kind, number in (("inference", port + 3), ("management", port + 4))),
        "disable_token_authorization=true",
        "disable_system_metrics=true",
        "enable_envvars_config=false",
        "job_queue_size=1000",
        f"model_store={folder}",
        f"load_models={name}.mar",
        "models=" + json.dumps({name: {"1.0": one}}),
    ]
    path = folder / "config.properties"
    path.write_text("\n".join(lines))
    return path


def serve(checkpoint: Path, port: int, workers: int) -> None:
    """Replaces this process by the server."""
    folder = Path(tempfile.mkdtemp(prefix="torchserve"))
    write_archive(folder, checkpoint)
    home = Path(ts.__file__).parents[1]
    quiet = folder / "log4j2.xml"
    quiet.write_text('<Configuration><Loggers><Root level="off"/></Loggers></Configuration>')
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    command = ["java", f"-Dmodel_server_home={home}", f"-Dlog4j.configurationFile=file://{quiet}"]
    command += ["-cp", f".:{home}/ts/frontend/*", "org.pytorch.serve.ModelServer", "--python", sys.executable]
    command += ["-f", str(write_config(folder, checkpoint.stem, port, workers)), "-s", str(folder), "-ncs"]
    os.execvp("java", command)


if __name__ == "__main__":
    serve(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))
