"""What a pod needs, and what its limits do: `kanscope serve` in a cgroup with a processor quota and a memory limit.

python tests/benchmarks/pod.py    as root, with cgroups of version 1

Memory and processor time hardly depend on what else the machine does; rates do, and are not printed.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep

import numpy as np
from bundled import NAME, WORK, make_requests
from load import keep_busy
from servers import Server, finish_background, free_port, processes, running
from table import machine

from kanmodel.checkpoint import load_checkpoint
from kanmodel.forecaster import Forecaster
from service.models.repository import BUNDLED

ROOT = Path("/sys/fs/cgroup")
PERIOD = 100_000  # microseconds of processor time that a quota of one core has, the period of Kubernetes
GIB, MIB = 1 << 30, 1 << 20
JOIN = 'for group in $GROUPS_TO_JOIN; do echo $$ >"$group/cgroup.procs"; done; exec "$@"'


@dataclass(frozen=True)
class Group:
    """A cgroup: its folder of the processor's controller, and that of the memory's."""

    cpu: Path
    memory: Path

    def megabytes(self) -> tuple[float, float]:
        """Memory that must fit, and the pages of files that are mapped, which the kernel can drop, MiB."""
        pids = map(int, (self.memory / "cgroup.procs").read_text().split())
        return self._read("memory.stat", "total_rss") / MIB, max(map(_mapped, pids), default=0.0)

    def kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        return self._read("memory.oom_control", "oom_kill")

    def _read(self, file: str, key: str) -> int:
        return dict(
            (name, int(value)) for name, value in map(str.split, (self.memory / file).read_text().splitlines())
        )[key]


def _mapped(pid: int) -> float:
    """Pages of files that a process has mapped, MiB; the processes of a pod map the same libraries."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssFile:"))


@contextmanager
def group(cores: float | None, n_bytes: int | None) -> Iterator[Group]:
    """A cgroup with a processor quota and a memory limit, and no swap; None for no limit."""
    made = Group(*(ROOT / part / f"kanscope-{free_port()}" for part in ("cpu", "memory")))
    files: dict[Path, str] = {}
    if cores is not None:
        files[made.cpu / "cpu.cfs_quota_us"] = str(int(cores * PERIOD))
    if n_bytes is not None:
        files |= {made.memory / "memory.limit_in_bytes": str(n_bytes), made.memory / "memory.swappiness": "0"}
    for folder in (made.cpu, made.memory):
        folder.mkdir()
    try:
        for file, text in files.items():
            file.write_text(text)
        yield made
    finally:
        end = monotonic() + 10
        while any((folder / "cgroup.procs").read_text() for folder in (made.cpu, made.memory)) and monotonic() < end:
            sleep(0.05)
        for folder in (made.cpu, made.memory):
            folder.rmdir()


@contextmanager
def pod(cores: float | None, n_bytes: int | None, **variables: str) -> Iterator[tuple[Group, Server]]:
    """`kanscope serve` with the bundled model in a group."""
    port = free_port()
    with group(cores, n_bytes) as made:
        command = ["sh", "-c", JOIN, "sh", sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
        joined = {"GROUPS_TO_JOIN": f"{made.cpu} {made.memory}", "KANSCOPE_MODELS": str(BUNDLED), **variables}
        with running(command, port, "/readyz", core=None, variables=joined) as server:
            yield made, server


def fill(port: int, bodies: Mapping[str, bytes], connections: int, seconds: float) -> Counter[int]:
    """Sends large requests over many connections at once, again and again; the statuses, 0 for no answer."""
    end = monotonic() + seconds

    def ask(number: int) -> list[int]:
        statuses = []
        verb, body = [*bodies.items()][number % len(bodies)]
        while monotonic() < end:
            connection = HTTPConnection("127.0.0.1", port, timeout=120)
            try:
                connection.request("POST", f"/v1/models/{NAME}:{verb}", body, {"Content-Type": "application/json"})
                statuses.append(connection.getresponse().status)
            except (OSError, HTTPException):
                statuses.append(0)
                sleep(0.5)
            finally:
                connection.close()
        return statuses

    with ThreadPoolExecutor(connections) as pool:
        return Counter(status for each in pool.map(ask, range(connections)) for status in each)


def measure_memory(model: Forecaster, workers: int) -> str:
    """The memory and the processor time of a pod with the limits of the Deployment, from its start on; a row."""
    with pod(1, GIB * workers, KANSCOPE_WORKERS=str(workers)) as (made, server):
        seen, ready = [made.megabytes()], server.cpu_seconds()
        finish_background(server.port, NAME)
        seen, prepared = [*seen, made.megabytes()], server.cpu_seconds()
        most = seen[-1]
        for work in WORK:
            requests = make_requests(model, *work)
            with ThreadPoolExecutor(1) as pool:
                load = pool.submit(keep_busy, server.port, requests, len(requests), 4.0)
                while not load.done():
                    most = max(most, made.megabytes())
                    sleep(0.1)
                load.result()
        seen += [most, made.megabytes()]
        n_threads = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in processes(server.pid))
        assert made.kills() == 0
        cells = [f"{own:.0f} + {mapped:.0f}" for own, mapped in seen]
        return (
            f"| {' | '.join([str(workers), *cells, f'{ready:.1f} s', f'{prepared - ready:.1f} s', str(n_threads)])} |"
        )


def measure_limit(model: Forecaster, megabytes: int, variables: Mapping[str, str]) -> str:
    """What a pod of some memory answers to as many large requests as 48 connections can send; a row."""
    windows = model.scaling.features_to_original(model.reference.scaled).round(4)
    twice = np.concatenate([windows, windows])
    bodies = {
        verb: json.dumps({"instances": twice[:number].tolist()}).encode()
        for verb, number in (("predict", 1000), ("explain", 512))
    }
    most = 0.0
    with pod(1, megabytes * MIB, **variables) as (made, server), ThreadPoolExecutor(1) as pool:
        filling = pool.submit(fill, server.port, bodies, 48, 20.0)
        while not filling.done():
            with suppress(OSError):  # once it is killed
                most = max(most, made.megabytes()[0])
            sleep(0.05)
        killed = made.kills()
        statuses = Counter(
            {"answered" if status == 200 else str(status or "no answer"): n for status, n in filling.result().items()}
        )
    setting = ", ".join(
        f"{name.removeprefix('KANSCOPE_').lower()} {int(value) >> 20} MiB" for name, value in variables.items()
    )
    told = ", ".join(f"{kind}: {number}" for kind, number in statuses.most_common())
    return f"| {megabytes} MiB | {setting or 'defaults'} | {most:.0f} | {told} | {'killed' if killed else 'lives'} |"


def main() -> None:
    """Prints the tables."""
    model = load_checkpoint(BUNDLED / f"{NAME}.safetensors")
    print(f"{machine()}")
    print("\n| processes | MiB when ready | at rest | most under load | after it | start | preparation | threads |")
    print("|---|---|---|---|---|---|---|---|")
    for workers in (1, 2):
        print(measure_memory(model, workers), flush=True)
    print("\n| limit | settings | most, MiB | 48 connections with large requests | the pod |\n|---|---|---|---|---|")
    for megabytes, variables in ((1024, {}), (512, {}), (384, {}), (384, {"KANSCOPE_MAX_WORK_BYTES": str(96 * MIB)})):
        print(measure_limit(model, megabytes, variables), flush=True)


if __name__ == "__main__":
    main()
