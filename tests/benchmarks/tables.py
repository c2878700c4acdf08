"""Whole tables, compared with hand-written loops: over HTTP, and with Captum."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import polars as pl
import torch
from captum.attr import IntegratedGradients
from explanations import STEPS
from models import SPREAD, original_windows
from servers import finish_background, free_server, peak_memory
from table import Row, print_table

from kanmodel import Model
from kanmodel.attribution.baseline import Baseline, baseline_windows
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.forecaster import Forecaster, Provenance, Reference
from kanmodel.network.config import ModelConfig, RecurrentConfig, plain_layers
from kanmodel.network.network import Network
from kanmodel.tables.columns import Feature, Target
from service.batch import PART_WINDOWS
from service.batch.chunks import Plan
from service.batch.run import explain_table, use_ray, use_threads
from service.models.repository import BUNDLED

NAME = "nyc-weather"
TOGETHER, CALLS, ROUNDS = 32, 40, 3  # windows per call, calls per loop, rounds in turn
FEW, MANY = 10_000, 200_000  # windows
RAY_PART, COPIES = 512, 3  # windows per part, and copies of the table


def rows() -> Iterator[Row]:
    """The bundled model on its data, on all cores; memory on a tiny model; one and two Ray workers."""
    model = load_checkpoint(BUNDLED / f"{NAME}.safetensors")
    yield from _rates(model)
    yield from _memory()
    yield from _workers(model)


def _rates(model: Forecaster) -> Iterator[Row]:
    with free_server(BUNDLED, 1) as server:
        finish_background(server.port, NAME)
        loops: dict[str, Callable[[], float]] = {
            f"loop of :explain, {TOGETHER} windows": _http_loop(model, server.port)
        }
        for threads in sorted({1, os.cpu_count() or 1}):
            for size in (None, 512):
                batch = f"internal_batch_size {size}" if size else "one batch"
                name = f"loop of Captum, {STEPS} steps, {TOGETHER} windows, {batch}, threads: {threads}"
                loops[name] = partial(_captum_loop, model, threads, size)
        ours = partial(_table_rate, model)
        rates: dict[str, list[float]] = {name: [] for name in ("ours", *loops)}
        for _ in range(ROUNDS):
            for name, measure in [("ours", ours), *loops.items()]:
                rates[name].append(measure())
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    http, *captum = loops
    for name in (http, max(captum, key=medians.__getitem__)):
        yield Row(
            f"kanscope explain of a table in process, {os.cpu_count()} threads",
            f"{medians['ours']:.0f} windows/s",
            f"{name}: {medians[name]:.0f} windows/s",
            f"{medians['ours'] / medians[name]:.1f}x",
        )


def _table_rate(model: Forecaster) -> float:
    """Windows per second, from the first row read to the last file written."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plan = _plan(model, _copies(folder), PART_WINDOWS)
        start = perf_counter()
        *_, (total, _) = explain_table(plan, folder / "out", use_threads, None)
        return total.windows / (perf_counter() - start)


def _copies(folder: Path) -> Path:
    """Several copies of the bundled table."""
    table = folder / "table"
    table.mkdir()
    for number in range(COPIES):
        shutil.copy(BUNDLED / f"{NAME}.csv.gz", table / f"{number}.csv.gz")
    return table


def _http_loop(model: Forecaster, port: int) -> Callable[[], float]:
    original = original_windows(model)
    bodies = [
        json.dumps({"instances": original[first : first + TOGETHER].tolist()}).encode()
        for first in range(0, len(original), TOGETHER)
    ]

    def measure() -> float:
        connection = HTTPConnection("127.0.0.1", port)  # a new connection, as the server closes idle ones
        start = perf_counter()
        for body in islice(cycle(bodies), CALLS):
            connection.request("POST", f"/v1/models/{NAME}:explain", body, {"Content-Type": "application/json"})
            assert len(json.loads(connection.getresponse().read())["explanations"]) == TOGETHER
        connection.close()
        return CALLS * TOGETHER / (perf_counter() - start)

    return measure


def _captum_loop(model: Forecaster, threads: int, size: int | None) -> float:
    torch.set_num_threads(threads)
    start_window = model.to_model_units(baseline_windows(model, Baseline()))
    captum = IntegratedGradients(lambda x: model.network(x)[:, 0])
    batches = torch.split(model.reference.scaled, TOGETHER)
    start = perf_counter()
    for windows in islice(cycle(batches), CALLS):
        captum.attribute(windows, start_window, n_steps=STEPS, internal_batch_size=size)
    return CALLS * TOGETHER / (perf_counter() - start)


def _memory() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = _tiny_model()
        save_checkpoint(model, folder / "tiny.safetensors")
        for ending in ("csv", "parquet"):
            few, many = (_peak(folder, ending, n) for n in (FEW, MANY))
            yield Row(
                f"peak memory of kanscope explain of a table, {ending}, {MANY:,} windows",
                f"{many:.0f} MB",
                f"{FEW:,} windows: {few:.0f} MB",
                f"{many / few:.2f}",
            )


def _tiny_model() -> Forecaster:
    torch.manual_seed(0)
    config = ModelConfig(
        features=tuple(Feature(f"feature_{number}", None, 0.0, 1.0, -10.0, 10.0) for number in range(4)),
        targets=(Target("target", None, 0.0, 1.0),),
        lookback=4,
        horizon=1,
        head=plain_layers([2, 1]),
        recurrent=RecurrentConfig("lstm", 2),
        dtype="float32",
    )
    network = Network(config)
    with torch.no_grad():
        network.head[0].coef.mul_(SPREAD)
    return Forecaster(
        network, Reference(torch.randn(128, 4, 4), network.config), {}, Provenance.now("train", verified=True)
    )


def _peak(folder: Path, ending: str, n: int) -> float:
    """Peak resident memory of the command, MB."""
    values = np.random.default_rng(0).normal(size=(n + 3, 4))
    frame = pl.DataFrame({f"feature_{number}": values[:, number] for number in range(4)})
    table = folder / f"rows-{n}.{ending}"
    (frame.write_csv if ending == "csv" else frame.write_parquet)(table)
    words = ["-m", "service.cli", "explain", folder / "tiny.safetensors", table, "-o", folder / f"out-{ending}-{n}"]
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0.0  # not that of wait4, which includes the memory of this process
    while process.poll() is None:
        peak = max(peak, peak_memory(process.pid))
        sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"{words} failed")
    return peak


def _workers(model: Forecaster) -> Iterator[Row]:
    rates = {workers: [] for workers in (1, 2)}
    for _ in range(ROUNDS):
        for workers, measured in rates.items():
            measured.append(_steady_rate(model, workers))
    one, two = (float(np.median(measured)) for measured in rates.values())
    yield Row(
        "kanscope explain of a table, 2 Ray workers, once they run",
        f"{two:.0f} windows/s",
        f"1 Ray worker: {one:.0f} windows/s",
        f"{two / one:.1f}x",
    )


def _steady_rate(model: Forecaster, workers: int) -> float:
    """Windows per second between the first part and the last, once Ray has started its workers."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        counts = explain_table(_plan(model, _copies(folder), RAY_PART), folder / "out", use_ray, workers)
        stamps = [(perf_counter(), total.windows) for total, _ in counts]
    (start, before), (end, after) = stamps[1], stamps[-1]
    return (after - before) / (end - start)


def _plan(model: Forecaster, table: Path, part_windows: int) -> Plan:
    return Plan(Model.of(model), table, model.config.outputs[0], part_windows=part_windows)


if __name__ == "__main__":
    print_table(rows())
