"""Starts Kanscope and its peers in their own processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import chain
from pathlib import Path
from time import perf_counter, sleep
from urllib.request import urlopen

from load import Load, drive

PATIENCE = 120.0  # seconds until a server that is not ready has failed
CLIENT_CORE, SERVER_CORE = 0, 1
DURATION, WARM_UP = 2.0, 1.0  # seconds of a load, and before it
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        port: where it listens on 127.0.0.1.
        pid: its process, which may have child processes.
        start: seconds from its start until it was ready.
        start_cpu: processor seconds that this took.
    """

    port: int
    pid: int
    start: float
    start_cpu: float

    def cpu_seconds(self) -> float:
        """Processor time used by all its processes."""
        return sum(map(processor_seconds, processes(self.pid)))

    def memory(self) -> float:
        """Resident memory of all its processes, MB, with shared pages counted in part."""
        lines = [
            line for pid in processes(self.pid) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        ]
        return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:"))


@dataclass(frozen=True)
class Measured:
    """A load, or the medians of several.

    Attributes:
        load: what the client saw, of several loads that with the median rate.
        cpu: processor seconds of the server per request.
    """

    load: Load
    cpu: float

    def __str__(self) -> str:
        return f"{self.load}, {self.cpu * 1e3:.2f} ms of the processor"


def measure(
    server: Server, requests: Sequence[bytes], connections: int, duration: float = DURATION, warm_up: float = WARM_UP
) -> Measured:
    """Load for some seconds, with the server's processor time per request."""
    if warm_up:
        drive(server.port, requests, connections, warm_up)
    before = server.cpu_seconds()
    load = drive(server.port, requests, connections, duration)
    return Measured(load, (server.cpu_seconds() - before) / max(1, load.n_requests))  # a peer may answer none


def processes(pid: int) -> list[int]:
    """A process and its descendants."""
    lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [pid, *(one for child in chain.from_iterable(lists) for one in processes(int(child)))]


def processor_seconds(pid: int) -> float:
    """Processor time used by a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> float:
    """Peak resident memory of a process, MB; 0 once it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


def resident_memory(pid: int) -> float:
    """Resident memory of a process, MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def our_server(models: Path, **variables: str) -> Iterator[Server]:
    """`kanscope serve` on its own core, with settings by environment variables."""
    port = free_port()
    command = [sys.executable, "-m", "service.cli", "serve", str(models), "--port", str(port)]
    with running(command, port, "/readyz", variables=variables) as server:
        yield server


@contextmanager
def free_server(models: Path, workers: int) -> Iterator[Server]:
    """`kanscope serve` with so many processes, on all cores."""
    port = free_port()
    command = [sys.executable, "-m", "service.cli", "serve", str(models), "--port", str(port)]
    variables = {"KANSCOPE_WORKERS": str(workers)}
    with running(command, port, "/readyz", core=None, variables=variables) as server:
        yield server


@contextmanager
def other_server(
    script: str, checkpoint: Path, ready: str, python: Path | str = sys.executable, workers: int = 1
) -> Iterator[Server]:
    """One of the peers' scripts with a checkpoint: on the same core, or with several processes on all cores.

    Args:
        script: its name.
        checkpoint: the model.
        ready: the path that returns 200 once it is ready.
        python: the interpreter.
        workers: the number of worker processes.
    """
    port = free_port()
    command = [str(python), str(HERE / script), str(checkpoint), str(port), str(workers)]
    paths = {"PYTHONPATH": str(HERE.parents[1])}  # for the model core, which the peers' environment does not have
    with running(command, port, ready, SERVER_CORE if workers == 1 else None, paths) as server:
        yield server


@contextmanager
def running(
    command: list[str],
    port: int,
    ready: str,
    core: int | None = SERVER_CORE,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server from its start until it has ended; it is ready once GET `ready` returns 200.

    Its modules are compiled once for all starts, as an installer does.
    """
    start = perf_counter()
    environment = {**os.environ, **(variables or {})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    pin(process.pid, core)
    try:
        while get_status(port, ready) != 200:
            if process.poll() is not None or perf_counter() - start > PATIENCE:
                raise RuntimeError(f"{command} did not become ready")
            sleep(0.01)
        seconds = perf_counter() - start
        yield Server(port, process.pid, seconds, sum(map(processor_seconds, processes(process.pid))))
    finally:
        process.terminate()
        process.wait(PATIENCE)


def pin(pid: int, core: int | None) -> None:
    """Pins a process to one core, if there are several, or with None to none, as that of its parent is its own."""
    every = range(os.cpu_count() or 1)
    os.sched_setaffinity(pid, {core} & {*every} or every)


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get_status(port: int, path: str) -> int:
    """The status of a GET; 0 without a response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def read_gauge(port: int, name: str) -> float:
    """A gauge of our server without labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def finish_background(port: int, name: str, n_processes: int = 1) -> None:
    """Waits for the report, the last background result, of each process: new connections go to them in turn."""
    end, n_finished = perf_counter() + PATIENCE, 0
    while n_finished < n_processes:
        status = get_status(port, f"/v1/models/{name}/report")
        n_finished = n_finished + 1 if status == 200 else 0
        if status not in (200, 503) or perf_counter() > end:  # on a busy machine it takes longer than a request may
            raise RuntimeError(f"there is no report: {status}")
