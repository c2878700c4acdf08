"""Time and memory by the size of the model: prints a table.  usage: python tests/benchmarks/scaling.py [--topology]

Each model runs in its own forked process, so that its peak memory is its own. Multiply-adds are
those of the weights, for one forecast of one window; an explanation needs about four times as many at each of its path
nodes, one forward and one backward pass, the latter with gradients of the weights that torch's kernel computes anyway.

With `--topology`, measures the picture of the largest model, with 16 reference windows.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from models import SPREAD
from table import machine

from kanmodel.attribution.ledger import explain_windows
from kanmodel.forecaster import Forecaster, Provenance, Reference
from kanmodel.network.config import ModelConfig, RecurrentConfig, plain_layers
from kanmodel.network.network import Network
from kanmodel.show.network import curved_edges, draw_topology
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.topology import N_POINTS, build_topology
from kanmodel.tables.columns import Feature, Target

N_REFERENCE = 16
SECONDS = 3.0  # for the repetitions of a measurement, the first of which is discarded


@dataclass(frozen=True)
class Shape:
    """An LSTM and a KAN with one hidden layer.

    Attributes:
        features: input features.
        steps: of a window.
        units: of the LSTM.
        hidden: nodes of the KAN's hidden layer.
        outputs: of the KAN.
    """

    features: int = 20
    steps: int = 48
    units: int = 64
    hidden: int = 16
    outputs: int = 1

    @property
    def edges(self) -> int:
        """Of the KAN."""
        return self.units * self.hidden + self.hidden * self.outputs

    @property
    def multiply_adds(self) -> int:
        """Per forecast; an edge is a polynomial of degree 3 and the base."""
        return self.steps * (self.features + self.units) * 4 * self.units + 5 * self.edges


BASE = Shape()
LARGEST = Shape(features=64, steps=168, units=512, hidden=64, outputs=8)
SHAPES: dict[str, Shape] = {
    "base": BASE,
    "features x 2": replace(BASE, features=40),
    "features x 4": replace(BASE, features=80),
    "steps x 2": replace(BASE, steps=96),
    "steps x 4": replace(BASE, steps=192),
    "units x 2": replace(BASE, units=128),
    "units x 4": replace(BASE, units=256),
    "edges x 2": replace(BASE, hidden=32),
    "edges x 4": replace(BASE, hidden=64),
    "largest": LARGEST,
}


def make_model(shape: Shape) -> Forecaster:
    """An untrained model of a shape, as curved as a trained one."""
    torch.manual_seed(0)
    config = ModelConfig(
        features=tuple(Feature(f"feature_{number}", None, 0.0, 1.0, -10.0, 10.0) for number in range(shape.features)),
        targets=tuple(Target(f"target_{number}", None, 0.0, 1.0) for number in range(shape.outputs)),
        lookback=shape.steps,
        horizon=1,
        head=plain_layers([shape.units, shape.hidden, shape.outputs]),
        recurrent=RecurrentConfig("lstm", shape.units),
        dtype="float32",
    )
    network = Network(config)
    with torch.no_grad():
        for layer in network.head:
            layer.coef.mul_(SPREAD)
    noise = torch.randn(N_REFERENCE, shape.steps, shape.features)
    windows = 0.5 * noise + torch.randn(N_REFERENCE, 1, shape.features)
    return Forecaster(network, Reference(windows, network.config), {}, Provenance.now("train", verified=True))


def measure(shape: Shape) -> tuple[float, float, float, float]:
    """Processor seconds per window of a forecast and of an explanation, nodes per path, and MiB at the peak."""
    before = resident_mib()
    model = make_model(shape)
    windows = model.reference.scaled
    nodes = explain_windows(model, windows, 0).path_nodes.mean()
    forecast = fastest(partial(model.frozen.forward, windows)) / len(windows)
    explanation = fastest(partial(explain_windows, model, windows, 0)) / len(windows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return forecast, explanation, float(nodes), peak - before


def measure_topology(shape: Shape) -> tuple[float, float, float]:
    """Processor seconds for the importance, then the topology, and its picture."""
    model = make_model(shape)
    start = process_time()
    importance = measure_importance(model, 0)
    measured = process_time()
    topology = build_topology(model, importance, PruningRule())
    built = process_time()
    kept = curved_edges(topology.upstream())
    draw_topology(topology, curves=sample_edges(model, kept, N_POINTS), n_links=5000)
    return measured - start, built - measured, process_time() - built


def fastest(call: Callable[[], object]) -> float:
    """Processor seconds of the fastest of at least two calls."""
    seconds, start = [], perf_counter()
    while len(seconds) < 2 or perf_counter() - start < SECONDS:
        before = process_time()
        call()
        seconds.append(process_time() - before)
    return min(seconds)


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def in_own_process(measure: Callable[[Shape], tuple[float, ...]], shape: Shape) -> tuple[float, ...]:
    """The result of a measurement in a new process."""
    here, there = multiprocessing.Pipe(duplex=False)

    def run(connection: Connection) -> None:
        torch.set_num_threads(1)
        connection.send(measure(shape))

    process = multiprocessing.get_context("fork").Process(target=run, args=(there,))
    process.start()
    there.close()  # so that receiving ends if the process fails
    found: tuple[float, ...] = here.recv()
    process.join()
    return found


def rows() -> Iterator[str]:
    """One row per shape."""
    base = None
    for name, shape in SHAPES.items():
        forecast, explanation, nodes, memory = in_own_process(measure, shape)
        base = base or (shape.multiply_adds, forecast, explanation)
        ratios = np.array([shape.multiply_adds, forecast, explanation]) / base
        gflops = shape.multiply_adds * nodes / explanation / 1e9
        yield (
            f"| {name}: {shape.features} features, {shape.steps} steps, {shape.units} units, {shape.edges} edges "
            f"| {shape.multiply_adds / 1e6:.1f} M ({ratios[0]:.1f}x) | {forecast * 1e3:.2f} ms ({ratios[1]:.1f}x) "
            f"| {explanation * 1e3:.2f} ms ({ratios[2]:.1f}x) | {nodes:.0f} | {gflops:.0f} G/s | {memory:.0f} MiB |"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"\n{machine()}, one torch thread, {N_REFERENCE} windows at once; processor time per window\n")
    if "--topology" in sys.argv[1:]:
        importance, topology, picture = in_own_process(measure_topology, LARGEST)
        print(f"importance {importance:.1f} s, topology {topology:.1f} s, picture {picture:.1f} s")
    else:
        print(
            "| model | multiply-adds | forecast | explanation | path nodes | nodes x multiply-adds | memory at peak |"
        )
        print("|---|---|---|---|---|---|---|")
        for row in rows():
            print(row, flush=True)
