"""What the monitor and the record add to a forecast: servers with and without them take turns on one core.

python tests/benchmarks/overhead.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import numpy as np
from load import post_windows
from models import NAME, large_model, original_windows, save_large_model
from servers import CLIENT_CORE, Measured, Server, measure, our_server, pin
from table import Row, print_table

ROUNDS = 9
CONNECTIONS = 64
N_BODIES = 64


def rows() -> Iterator[Row]:
    """Forecasts of one window over 64 connections: processor time of the server, and ratios of the same round."""
    pin(0, CLIENT_CORE)
    try:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            models = Path(folder) / "models"
            models.mkdir()
            save_large_model(models)
            record = {"KANSCOPE_RECORD": str(Path(folder) / "record"), "KANSCOPE_RECORD_BYTES": str(256 << 20)}
            kinds = {
                "neither": {"KANSCOPE_MONITOR": "off"},
                "the monitor, without samples": {"KANSCOPE_MONITOR_SHARE": "0"},
                "the monitor": {},
                "the record": {"KANSCOPE_MONITOR": "off", **record},
            }
            nothing_else = {"KANSCOPE_CACHED_RESULTS": "4"}  # too few for results that are computed in advance
            servers = {
                kind: stack.enter_context(our_server(models, **settings, **nothing_else))
                for kind, settings in kinds.items()
            }
            windows = original_windows(large_model())
            requests = post_windows(f"/v1/models/{NAME}:predict", windows, 1, N_BODIES)
            measured: dict[str, list[Measured]] = {kind: [] for kind in servers}
            for kind, server in servers.items():
                while "samples" not in kind and "the monitor" in kind and not _has_reference(server):
                    measure(server, requests, CONNECTIONS, warm_up=0)
            for number in range(ROUNDS + 1):
                for kind, server in servers.items():
                    found = measure(server, requests, CONNECTIONS, warm_up=0)
                    measured[kind] += [found] if number else []  # the first is to warm up
    finally:
        pin(0, None)
    for kind, each in measured.items():
        rate, cpu = np.array([(one.load.rate, one.cpu) for one in each]).T
        told = f"{median(cpu) * 1e6:.1f} µs of the processor, {median(rate):.0f}/s"
        base_rate, base_cpu = np.array([(one.load.rate, one.cpu) for one in measured["neither"]]).T
        ratio = f"{median(base_cpu / cpu):.3f}x, wall {median(rate / base_rate):.3f}x"
        yield Row(f":predict of 1 window, {CONNECTIONS} connections, with {kind}", told, "neither", ratio)


def _has_reference(server: Server) -> bool:
    """Whether it has explained its reference windows, which it does once."""
    with urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        return b"kanscope_watched_reference_contribution{" in answer.read()


if __name__ == "__main__":
    print_table(rows())
