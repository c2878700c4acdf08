"""Prepared results: prints the processor seconds from the start of the service to its first answers, with and without.

usage: python tests/benchmarks/prepared.py [--largest]

The model has 20 features over 24 steps, 64 units, a head [64, 16, 1] and 512 reference windows; with `--largest` it is
that of `scaling.py` with one output and 128 reference windows, which takes several minutes. The answers are
/attributions and /topology, after which the process is idle where nothing is computed in advance.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import scaling
from servers import our_server
from table import machine

import kanmodel
from kanmodel.checkpoint import save_checkpoint

HEAD, LARGEST = replace(scaling.BASE, steps=24), replace(scaling.LARGEST, outputs=1)
PATIENCE = "3600"  # seconds, the most that a request may wait
PATHS = ("attributions", "topology")


def main(shape: scaling.Shape, n_reference: int) -> None:
    """Prints the rows of one model."""
    scaling.N_REFERENCE = n_reference
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_checkpoint(scaling.make_model(shape), file)
        print(f"{machine()}\n{shape}, {n_reference} reference windows, {file.stat().st_size / 1e6:.1f} MB")
        print(f"without results: {measure(file):.1f} s until /attributions and /topology are answered")
        start = process_time()
        kanmodel.prepare(file)
        size = file.with_suffix(".results").stat().st_size / 1e6
        print(f"kanscope prepare: {process_time() - start:.1f} s, {size:.2f} MB")
        print(f"with results: {measure(file):.1f} s until /attributions and /topology are answered")


def measure(models: Path) -> float:
    """Processor seconds of a server from its start until it has answered."""
    longest = {f"KANSCOPE_{name}": PATIENCE for name in ("REQUEST_TIMEOUT", "MAX_REQUEST_TIMEOUT")}
    with our_server(models, **longest) as server:
        for path in PATHS:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=float(PATIENCE))
            connection.request("GET", f"/v1/models/model/{path}")
            status = connection.getresponse().status
            connection.close()
            if status != 200:
                raise RuntimeError(f"{path} answered {status}")
        return server.cpu_seconds()


if __name__ == "__main__":
    main(*((LARGEST, 128) if "--largest" in sys.argv else (HEAD, 512)))
