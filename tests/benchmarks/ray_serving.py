"""Replicas on Ray, on one node and on two simulated ones, beside a single process; on all cores, the client's too.

A rate tells what this machine does with a client, proxies and replicas on its cores. What a request costs each of them
in processor time tells how many cores a rate takes elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from load import get, keep_busy, post
from servers import free_port, free_server, get_status, processor_seconds
from table import Row, print_table

from kanmodel.checkpoint import load_checkpoint
from service.commands.serve import RAY_VARIABLES
from service.repository import BUNDLED
from service.settings import Settings

NAME = "nyc-weather"
DURATION, WARM_UP = 4.0, 1.0  # seconds
PROXY, REPLICA, CONTROLLER = "ray::ProxyActor", "ray::ServeReplica", "ray::ServeController"  # as processes are called
VARIANTS = {  # nodes, cores of each, replicas
    "Ray, 1 node, 1 replica": (1, 1, 1),
    "Ray, 1 node, 2 replicas": (1, 2, 2),
    "Ray, 2 nodes, 2 replicas": (2, 1, 2),
}


@dataclass(frozen=True)
class Work:
    """What is asked.

    Attributes:
        name: for the table.
        requests: one for each connection.
        windows: of a request.
    """

    name: str
    requests: list[bytes]
    windows: int


@dataclass(frozen=True)
class Measured:
    """What came of it.

    Attributes:
        rate: requests a second.
        costs: processor time of a request in seconds, by the process that it passes through.
    """

    rate: float
    costs: dict[str, float]


def rows() -> Iterator[Row]:
    """The bundled model, and one process without Ray as the peer."""
    works = list(make_works())
    with free_server(BUNDLED, workers=1, threads=1) as server:
        wait_for_results(server.port)
        alone = [measure(server.port, work, {"process": [server.pid]}) for work in works]
    for variant, (nodes, cores, replicas) in VARIANTS.items():
        with ray_server(nodes, cores, replicas) as port:
            wait_for_results(port)
            processes = find_processes()
            for work, peer in zip(works, alone, strict=True):
                measured = measure(port, work, processes)
                yield Row(
                    f"{work.name}, {variant}",
                    describe(measured, work),
                    f"1 process: {describe(peer, work)}",
                    f"{measured.rate / peer.rate:.1f}x",
                )


def make_works() -> Iterator[Work]:
    """Nothing, forecasts and explanations."""
    model = load_checkpoint(BUNDLED / f"{NAME}.safetensors")
    original = model.scaling.features_to_original(model.reference.windows).round(6)
    yield Work("GET /healthz, connections: 64", [get("/healthz")] * 64, 0)
    for verb, n, connections in (("predict", 1, 64), ("predict", 32, 8), ("explain", 1, 8), ("explain", 32, 8)):
        bodies = [json.dumps({"instances": original[i : i + n].tolist()}).encode() for i in range(connections)]
        requests = [post(f"/v1/models/{NAME}:{verb}", body) for body in bodies]
        yield Work(f":{verb}, windows a request: {n}, connections: {connections}", requests, n)


def measure(port: int, work: Work, processes: dict[str, list[int]]) -> Measured:
    """Rate and costs of one kind of work."""
    keep_busy(port, work.requests, len(work.requests), WARM_UP)
    before = {name: sum(map(processor_seconds, pids)) for name, pids in processes.items()}
    load = keep_busy(port, work.requests, len(work.requests), DURATION)
    after = {name: sum(map(processor_seconds, pids)) for name, pids in processes.items()}
    return Measured(load.rate, {name: (after[name] - before[name]) / len(load.seconds) for name in processes})


def describe(measured: Measured, work: Work) -> str:
    """Requests and windows a second, and what a request costs."""
    windows = f" ({measured.rate * work.windows:.0f} windows/s)" if work.windows > 1 else ""
    costs = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in measured.costs.items())
    return f"{measured.rate:.0f}/s{windows}; {costs}"


@contextmanager
def ray_server(nodes: int, cores: int, replicas: int) -> Iterator[int]:
    """Replicas on a cluster whose nodes are all on this machine; gives the port, at which each node's proxy listens."""
    os.environ.update(RAY_VARIABLES)
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    from service.ray import LOOPBACK, NAME, deploy, start_proxies

    port = free_port()
    settings = Settings(
        engine="ray", models=BUNDLED, port=port, min_replicas=replicas, max_replicas=replicas, log_level="warning"
    )
    node = {"num_cpus": cores, "node_ip_address": LOOPBACK}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**node)
        ray.init(cluster.address, log_to_driver=False)
        start_proxies(settings)
        serve.run(deploy(settings), name=NAME)
        yield port
        serve.delete(NAME)
    finally:
        ray.shutdown()
        cluster.shutdown()


def wait_for_results(port: int) -> None:
    """Until what is computed after loading is there: the last of it is asked for."""
    for _ in range(8):  # on connections of their own, so that each replica is likely asked
        get_status(port, f"/v1/models/{NAME}/report")


def find_processes() -> dict[str, list[int]]:
    """The processes that a request passes through, below this one; and the controller, which it does not."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:  # it has ended
            continue

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    kinds = {"proxy": PROXY, "replica": REPLICA, "controller": CONTROLLER}
    return {
        kind: [pid for pid, name in names.items() if name.startswith(start) and is_ours(pid)]
        for kind, start in kinds.items()
    }


if __name__ == "__main__":
    print_table(rows())
