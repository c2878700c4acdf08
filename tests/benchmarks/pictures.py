"""The picture of a KAN [64, 16, 1], compared with pykan's plot()."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from time import perf_counter

import torch
from models import WIDTH, large_model
from table import Row, print_table

from kanmodel.show.network import draw_topology
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.topology import N_POINTS, build_topology

try:
    import kan as pykan
    import matplotlib as mpl
except ImportError:
    pykan = None


def rows() -> Iterator[Row]:
    """From the graph to the picture: all edges are sampled and drawn, also where the service would draw only links."""
    torch.set_num_threads(1)
    model = large_model()
    topology = build_topology(model, measure_importance(model, 0), PruningRule("contribution", 1.0))
    edges = topology.kan_edges

    def draw() -> bytes:
        return draw_topology(topology, curves=sample_edges(model, edges, N_POINTS), n_links=5000)

    draw()
    start = perf_counter()
    picture = draw()
    seconds = perf_counter() - start
    work = f"picture of a KAN {WIDTH}, {len(edges)} curves, {len(picture) / 1e3:.0f} kB"
    if pykan is None:
        yield Row(work, f"{seconds * 1e3:.0f} ms", "pykan is not installed")
        return
    peer_seconds = plot_with_pykan()
    yield Row(
        work, f"{seconds * 1e3:.0f} ms", f"pykan 0.2.8 plot(): {peer_seconds:.1f} s", f"{peer_seconds / seconds:.0f}x"
    )


def plot_with_pykan() -> float:
    """Seconds of one plot()."""
    warnings.filterwarnings("ignore", module="kan")
    mpl.use("Agg")
    peer = pykan.KAN(width=[*WIDTH], grid=5, k=3, auto_save=False, seed=0)
    peer(torch.rand(512, WIDTH[0]) * 2 - 1)
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        peer.plot(folder=folder)
        return perf_counter() - start


if __name__ == "__main__":
    print_table(rows())
