"""What a forecast and an explanation cost over HTTP, beside the last release, in three minutes: `make bench-quick`.

The servers of both take turns on one core, each with a model that its own code has saved. Instructions are counted by
valgrind, where it is installed: unlike time they hardly depend on what else the machine does. Below are the functions
whose processor time changed most, by py-spy's samples, each with what it calls outside Python.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import which
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from urllib.request import Request, urlopen

from load import drive, post_windows
from models import NAME, large_model, original_windows
from servers import CLIENT_CORE, Server, free_port, measure, pin, running
from table import Row, print_table

ROOT = Path(__file__).parents[2]
ROUNDS, SECONDS = 7, 1.0
SAMPLED, RATE = 6.0, 500  # seconds of a load, and samples in each
IDLE = 0.05  # seconds of the processor in one second
COUNTED = 20  # requests whose instructions are counted
MOST = 10  # functions
KINDS = {"predict": "a forecast", "explain": "an explanation"}
SETTINGS = {"KANSCOPE_CACHED_RESULTS": "4", "PYTHONSAFEPATH": "1"}  # nothing is computed in advance


def rows(trees: Mapping[str, Path], folder: Path) -> Iterator[Row]:
    """Both questions in all trees, by name, the newest first; then the functions that changed most."""
    windows = original_windows(large_model())
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serve(tree, folder / name)) for name, tree in trees.items()}
        for server in servers.values():
            wait_until_idle(server)
        for method, what in KINDS.items():
            requests = post_windows(f"/v1/models/{NAME}:{method}", windows, 1, 16)
            cpu: dict[str, list[float]] = {name: [] for name in servers}
            for number in range(ROUNDS + 1):
                for name, server in servers.items():
                    found = measure(server, requests, 1, SECONDS, warm_up=0).cpu
                    cpu[name] += [found] if number else []  # the first is to warm up
            new, old = map(median, cpu.values())
            figures = f"{new * 1e3:.3f} ms of the processor", f"{old * 1e3:.3f} ms", f"{old / new:.2f}x"
            yield Row(f"{what}, 1 window, 1 connection", *figures)
            of_new, of_old = (
                sample(server, requests, cpu) for server, cpu in zip(servers.values(), (new, old), strict=True)
            )
            changes = {name: of_new[name] - of_old[name] for name in of_new | of_old}
            for name in sorted(changes, key=lambda name: -abs(changes[name]))[:MOST]:
                now, then = (f"{each[name]:.0f} µs" for each in (of_new, of_old))
                yield Row(f"{what}: {name}", now, then, f"{changes[name]:+.0f} µs")
    if which("valgrind") is None:
        print("valgrind is not installed: no instructions are counted", file=sys.stderr)
        return
    counted = [count_instructions(tree, folder / name) for name, tree in trees.items()]
    for what, (new, old) in zip(KINDS.values(), zip(*counted, strict=True), strict=True):
        figures = f"{new / 1e6:.2f} million instructions", f"{old / 1e6:.2f} million", f"{old / new:.2f}x"
        yield Row(f"{what}, 1 window", *figures)


def wait_until_idle(server: Server) -> None:
    """Waits until a server has computed what it does after its start, such as the reference of its monitor."""
    before = -math.inf
    while (now := server.cpu_seconds()) > before + IDLE:
        before = now
        sleep(1.0)


def sample(server: Server, requests: Sequence[bytes], cpu: float) -> Counter[str]:
    """Microseconds of the processor of each function of a request, which takes so many seconds."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "stacks"
        command = ["py-spy", "record", "--pid", str(server.pid), "--format", "raw", "--output", str(file)]
        command += ["--duration", f"{SAMPLED:.0f}", "--rate", str(RATE), "--function", "--nonblocking"]
        with subprocess.Popen(
            [Path(sys.executable).with_name(command[0]), *command[1:]], stdout=subprocess.DEVNULL
        ) as spy:
            while spy.poll() is None:
                drive(server.port, requests, 1, SECONDS)
        stacks = [line.rpartition(" ") for line in file.read_text().splitlines()]
    samples = Counter[str]()
    for stack, _, n in stacks:
        samples[re.sub(r":\d+\)$", ")", stack.rpartition(";")[2])] += int(n)  # lines move from release to release
    return Counter({name: n / samples.total() * cpu * 1e6 for name, n in samples.items()})


def count_instructions(tree: Path, models: Path) -> list[float]:
    """Instructions of a request of each kind."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        with serve(tree, models, valgrind) as server:
            return [_count(server, out, method) for method in KINDS]


def _count(server: Server, out: Path, method: str) -> float:
    windows, url = original_windows(large_model()), f"http://127.0.0.1:{server.port}/v1/models/{NAME}:{method}"
    bodies = [json.dumps({"instances": windows[number : number + 1].tolist()}).encode() for number in range(COUNTED)]

    def control(*options: str) -> None:
        subprocess.run(["callgrind_control", *options, str(server.pid)], check=True, capture_output=True)

    def ask() -> None:
        for body in bodies:
            with urlopen(Request(url, body, {"Content-Type": "application/json"})) as answer:
                answer.read()

    ask()
    control("--instr=on")
    control("--zero")
    ask()
    control("--dump")
    control("--instr=off")
    newest = max(out.parent.iterdir(), key=lambda file: file.stat().st_mtime)
    return int(re.findall(r"^(?:totals|summary): (\d+)", newest.read_text(), re.MULTILINE)[-1]) / COUNTED


@contextmanager
def serve(tree: Path, models: Path, before: Sequence[str] = ()) -> Iterator[Server]:
    """The service of a tree with the model that its own code has saved."""
    path = {"PYTHONPATH": str(tree)}
    models.mkdir(exist_ok=True)
    save = "import sys, pathlib, models; models.save_large_model(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", save, str(models)]
    subprocess.run(command, cwd=tree / "tests" / "benchmarks", env=os.environ | path, check=True)
    port = free_port()
    command = [*before, sys.executable, "-m", "service.cli", "serve", str(models), "--port", str(port)]
    with running(command, port, "/readyz", variables=SETTINGS | path) as server:
        yield server


def extract_release(folder: Path) -> str:
    """Extracts the tree of the last release, and returns its version."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout

    commit, _, message = git("log", "-1", "--format=%H %s", "--grep=^Version [0-9]").decode().strip().partition(" ")
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as archive:
        archive.extractall(folder, filter="data")
    return message


def main() -> None:
    """Prints the table."""
    start = perf_counter()
    pin(0, CLIENT_CORE)
    with TemporaryDirectory() as folder:
        release = Path(folder) / "release"
        version = extract_release(release)
        print(f"beside: {version}")
        print_table(rows({"now": ROOT, "then": release}, Path(folder)))
    print(f"\n{(perf_counter() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
