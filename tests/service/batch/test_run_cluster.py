"""`kanscope explain … --engine ray` on a cluster of this machine writes the same table as threads do.

Commands and cluster run in their own processes: a Ray driver in this process would slow down later tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import numpy as np
import polars as pl
import pytest
from factories import make_model
from waiting import poll

from kanmodel.checkpoint import save_checkpoint

pytestmark = pytest.mark.thorough("starts a Ray cluster")

N_ROWS = 1500
MODEL = make_model("lstm", with_targets=False)
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token_hex(32)}  # or the command runs outside of it
CLUSTER = """
import ray
from service.batch import join_cluster
join_cluster(2, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a table that has one bad row."""
    folder = tmp_path_factory.mktemp("table")
    save_checkpoint(MODEL, folder / "model.safetensors")
    rng, features = np.random.default_rng(0), MODEL.config.features
    rows = {one.name: one.mean + one.std * rng.normal(size=N_ROWS) for one in features}
    rows["f1"][700] = np.nan
    pl.DataFrame(rows).write_csv(folder / "rows.csv")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with two cores on loopback."""
    environment = {**os.environ, **TOKEN, "RAY_ADDRESS": "local"}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate("\n", timeout=60)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def words(place: Path, out: Path, table: Path | None = None) -> list[str]:
    table = place / "rows.csv" if table is None else table
    return ["explain", *map(str, (place / "model.safetensors", table, "-o", out, "--part-windows", 50))]


def start(address: str, arguments: list[str], *options: str) -> subprocess.Popen[str]:
    """Starts the command on a cluster."""
    command = [sys.executable, "-m", "service.cli", *arguments, "--engine", "ray", *options]
    environment = {**os.environ, **TOKEN, "RAY_ADDRESS": address}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """The stderr of the command, which ends with the code."""
    _, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    return error


@pytest.fixture
def wanted(run, place, tmp_path) -> dict[str, bytes]:
    """The files that the thread engine writes."""
    assert run(*words(place, tmp_path / "threads"))[0] == 0
    return contents(tmp_path / "threads")


def descendants(pid: int) -> Iterator[int]:
    """The child processes of a process, recursively."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in map(int, children):
        yield child
        yield from descendants(child)


def find_workers() -> set[int]:
    """The processes that explain a chunk."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"_explain_chunk" in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def test_the_cluster_makes_the_same_files(cluster, place, wanted, tmp_path):
    """Ray writes the same bytes as threads, list of bad rows included; a second run writes only the missing part."""
    out = tmp_path / "out"
    finish(start(cluster, words(place, out)))
    assert contents(out) == wanted
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    missing = {f"part-{number:05d}.parquet" for number in (0, 7, 29)}
    for name in missing:
        (out / name).unlink()
    finish(start(cluster, words(place, out)))
    assert contents(out) == wanted
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert {name for name, time in after.items() if before[name] != time} == missing


def test_a_worker_that_is_killed_is_replaced(cluster, place, wanted, tmp_path):
    """Killing a worker process with SIGKILL midway does not change the result."""
    out = tmp_path / "out"
    process = start(cluster, words(place, out), "--workers", "2")
    poll(lambda: len(list(out.glob("part-*"))) >= 2 and len(find_workers()) == 2)
    os.kill(next(iter(find_workers())), signal.SIGKILL)
    begun_with = len(list(out.glob("part-*")))
    finish(process)
    assert begun_with < N_ROWS // 50
    assert contents(out) == wanted


def test_rows_before_a_read_error_are_explained(cluster, place, tmp_path):
    """The error is the same sentence as with threads, and the rows read before it are explained."""
    table = tmp_path / "table"
    table.mkdir()
    text = (place / "rows.csv").read_bytes()
    (table / "a.csv").write_bytes(text)
    (table / "b.csv").write_bytes(text + b"1,2,3,4,5\n")
    out = tmp_path / "out"
    error = finish(start(cluster, words(place, out, table)), code=2)
    assert "kanscope: cannot read b.csv: " in error and "run the same command again to resume" in error
    assert len(list(out.glob("part-*"))) == N_ROWS // 50


def test_a_command_that_is_killed_is_finished_by_the_next(place, wanted, tmp_path):
    """SIGKILL of the driver also ends its cluster; the next run writes the remaining parts."""
    out = tmp_path / "out"
    process = start("local", words(place, out), "--workers", "1")
    try:
        poll(lambda: len(list(out.glob("part-*"))) >= 2 or process.poll() is not None)
        assert process.poll() is None
        started = list(descendants(process.pid))
    finally:
        process.kill()
        process.wait()
    poll(lambda: not any(is_running(pid) for pid in started))
    assert len(list(out.glob("part-*"))) < N_ROWS // 50
    finish(start("local", words(place, out), "--workers", "1"))
    assert contents(out) == wanted


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
