"""Replicas on Ray, on one node and on two simulated ones, compared with a single process on all cores.

Client, proxies and replicas share this machine's cores, which limits the rates. The processor time per request of each
determines the number of cores for a rate elsewhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundled import NAME, WORK, make_requests
from load import get, keep_busy
from servers import finish_background, free_port, free_server, processor_seconds, running
from table import Row, machine

from kanmodel.checkpoint import load_checkpoint
from service.commands.serve import RAY_VARIABLES
from service.models.repository import BUNDLED

DURATION, WARM_UP = 4.0, 1.0  # seconds
MILLION_AN_HOUR = 1e6 / 3600  # windows a second
KINDS = {"proxy": "ray::ProxyActor", "replica": "ray::ServeReplica"}  # names of their processes


@dataclass(frozen=True)
class Variant:
    """A cluster configuration.

    Attributes:
        nodes: number of simulated nodes.
        cores: cores per node.
        replicas: on all nodes together.
        haproxy: whether HAProxy replaces Serve's own proxies.
    """

    nodes: int
    cores: int
    replicas: int
    haproxy: bool = False

    def __str__(self) -> str:
        counts = [f"{n} {what}{'s' * (n > 1)}" for n, what in ((self.nodes, "node"), (self.replicas, "replica"))]
        return ", ".join(["Ray with HAProxy" if self.haproxy else "Ray", *counts])


VARIANTS = (Variant(1, 1, 1), Variant(1, 2, 2), Variant(2, 1, 2), Variant(1, 1, 1, True), Variant(2, 1, 2, True))


@dataclass(frozen=True)
class Work:
    """A kind of request.

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
    """The results of a measurement.

    Attributes:
        rate: requests per second.
        costs: processor seconds per request, by process.
    """

    rate: float
    costs: dict[str, float]


def rows() -> Iterator[Row]:
    """The bundled model, with one process without Ray as the peer."""
    (_, alone), *others = measure_all()
    for variant, measured in others:
        for work, one, peer in zip(make_works(), measured, alone, strict=True):
            beside = f"1 process: {describe(peer, work)}"
            yield Row(f"{work.name}, {variant}", describe(one, work), beside, f"{one.rate / peer.rate:.1f}x")


def print_plan() -> None:
    """Prints rates, costs, and the cores for a million explanations an hour, by engine."""
    variants, measured = zip(*measure_all(), strict=True)
    works = list(make_works())
    by_work = [(work, ones) for work, *ones in zip(works, *measured, strict=True)]
    print(f"\n{machine()}")
    print_lines(
        "requests a second", variants, ((work.name, [f"{one.rate:.0f}" for one in ones]) for work, ones in by_work)
    )
    print_lines(
        "a request costs", variants, ((work.name, [describe_costs(one) for one in ones]) for work, ones in by_work)
    )
    print()
    for work, ones in by_work:
        if work.name.startswith(":explain"):
            a_second = MILLION_AN_HOUR / work.windows
            for variant, one in zip(variants, ones, strict=True):
                cores = ", ".join(f"{name} {a_second * seconds:.2f}" for name, seconds in one.costs.items())
                print(f"a million an hour by {work.name}, {variant}: cores of {cores}")


def measure_all() -> Iterator[tuple[str, list[Measured]]]:
    """One process and then each cluster, with the results of each kind of request."""
    works = list(make_works())
    with free_server(BUNDLED, workers=1, threads=1) as server:
        wait_for_results(server.port)
        yield "1 process", [measure(server.port, work, {"process": [server.pid]}) for work in works]
    for variant in VARIANTS:
        with ray_server(variant) as port:
            wait_for_results(port)
            processes = find_processes()
            yield str(variant), [measure(port, work, processes) for work in works]


def make_works() -> Iterator[Work]:
    """Empty requests, forecasts and explanations."""
    model = load_checkpoint(BUNDLED / f"{NAME}.safetensors")
    yield Work("GET /healthz, connections: 64", [get("/healthz")] * 64, 0)
    for verb, n, connections in WORK:
        requests = make_requests(model, verb, n, connections)
        yield Work(f":{verb}, windows a request: {n}, connections: {connections}", requests, n)


def measure(port: int, work: Work, processes: dict[str, list[int]]) -> Measured:
    """Rate and costs of one kind of request."""
    keep_busy(port, work.requests, len(work.requests), WARM_UP)
    before = {name: sum(map(processor_seconds, pids)) for name, pids in processes.items()}
    load = keep_busy(port, work.requests, len(work.requests), DURATION)
    after = {name: sum(map(processor_seconds, pids)) for name, pids in processes.items()}
    return Measured(load.rate, {name: (after[name] - before[name]) / load.n_requests for name in processes})


def describe(measured: Measured, work: Work) -> str:
    """Requests and windows a second, and the cost of a request."""
    windows = f" ({measured.rate * work.windows:.0f} windows/s)" if work.windows > 1 else ""
    return f"{measured.rate:.0f}/s{windows}; {describe_costs(measured)}"


def describe_costs(measured: Measured) -> str:
    """The cost of a request in each process."""
    return ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in measured.costs.items())


def print_lines(what: str, variants: Sequence[str], lines: Iterable[tuple[str, list[str]]]) -> None:
    """Prints a Markdown table with a column for each variant."""
    print(f"\n| {what} | {' | '.join(variants)} |\n|{'---|' * (1 + len(variants))}")
    for name, cells in lines:
        print(f"| {name} | {' | '.join(cells)} |")


@contextmanager
def ray_server(variant: Variant) -> Iterator[int]:
    """`kanscope serve` on a cluster whose nodes are all on this machine; yields the port of the proxies."""
    os.environ.update(RAY_VARIABLES)
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = str(int(variant.haproxy))  # for the nodes, which inherit it
    from ray.cluster_utils import Cluster

    from service.batch import LOOPBACK

    node = {"num_cpus": variant.cores, "node_ip_address": LOOPBACK}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(variant.nodes - 1):
            cluster.add_node(**node)
        port = free_port()
        command = [sys.executable, "-m", "service.cli", "serve", str(BUNDLED), "--engine", "ray", "--port", str(port)]
        replicas = str(variant.replicas)
        variables = {
            "RAY_ADDRESS": cluster.address,
            "KANSCOPE_MIN_REPLICAS": replicas,
            "KANSCOPE_MAX_REPLICAS": replicas,
        }
        with running(command, port, "/readyz", core=None, variables=variables):
            yield port
    finally:
        cluster.shutdown()


def wait_for_results(port: int) -> None:
    """Waits for background results by requesting the last of them."""
    for _ in range(8):  # on new connections, so that each replica is likely asked
        finish_background(port, NAME)


def find_processes() -> dict[str, list[int]]:
    """The processes that a request passes through, below this one except HAProxy, which detaches."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:  # it has ended
            continue

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    found = {
        kind: [pid for pid, name in names.items() if name.startswith(start) and is_ours(pid)]
        for kind, start in KINDS.items()
    }
    found["haproxy"] = [pid for pid, name in names.items() if name.partition("\0")[0].endswith("haproxy")]
    return {kind: pids for kind, pids in found.items() if pids}


if __name__ == "__main__":
    print_plan()
