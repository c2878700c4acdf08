"""`kanscope explain … --engine ray`: the same table, from a cluster of this machine alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import ray
from factories import make_model
from waiting import poll

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from service.batch.cluster import explain_with_ray
from service.batch.plan import Plan
from service.batch.run import explain_table
from service.engines.clusters import join_cluster

pytestmark = pytest.mark.xdist_group("ray")  # one worker has the clusters

N_ROWS, PARTS = 1500, ("--part-windows", 50)
MODEL = make_model("lstm", with_targets=False)
NAMES, LOOKBACK = MODEL.config.feature_names, MODEL.config.lookback


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and a table with a bad row in it."""
    folder = tmp_path_factory.mktemp("table")
    save_checkpoint(MODEL, folder / "model.safetensors")
    rng = np.random.default_rng(0)
    rows = {
        name: feature.mean + feature.std * rng.normal(size=N_ROWS)
        for name, feature in zip(NAMES, MODEL.config.features, strict=True)
    }
    rows["f1"][700] = np.nan
    pl.DataFrame(rows).write_csv(folder / "rows.csv")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two cores on loopback."""
    join_cluster(2, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def words(place: Path, out: Path, *options: object) -> list[str]:
    return ["explain", *map(str, (place / "model.safetensors", place / "rows.csv", "-o", out, *PARTS, *options))]


@pytest.fixture
def wanted(run, place, tmp_path) -> dict[str, bytes]:
    """The files that threads make."""
    assert run(*words(place, tmp_path / "threads"))[0] == 0
    return contents(tmp_path / "threads")


def descendants(pid: int) -> Iterator[int]:
    """Processes that one has started, and those that these have."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in map(int, children):
        yield child
        yield from descendants(child)


def find_actors(pid: int) -> list[int]:
    """The processes below one that hold the model."""
    named = ((child, Path(f"/proc/{child}/cmdline").read_bytes()) for child in descendants(pid))
    return [child for child, name in named if b"_Explainer" in name]


def test_the_cluster_makes_the_same_files(run, cluster, place, wanted, tmp_path):
    """Every chunk is the same, so every byte is, the list of bad rows included; and it makes what is missing alone."""
    out = tmp_path / "out"
    assert run(*words(place, out, "--engine", "ray"))[0] == 0
    assert contents(out) == wanted
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    missing = {f"part-{number:05d}.parquet" for number in (0, 7, 29)}
    for name in missing:
        (out / name).unlink()
    assert run(*words(place, out, "--engine", "ray"))[0] == 0
    assert contents(out) == wanted
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert {name for name, time in after.items() if before[name] != time} == missing


def test_a_worker_that_is_killed_is_replaced(cluster, place, wanted, tmp_path):
    """SIGKILL of an actor in the middle changes nothing in the result."""
    plan = Plan(place / "rows.csv", NAMES, LOOKBACK, 0, part_windows=50)
    killed = []
    model = load_checkpoint(place / "model.safetensors")
    for number, _ in enumerate(explain_table(model, plan, tmp_path / "out", explain_with_ray, 2)):
        if number == 3:
            killed = find_actors(os.getpid())
            os.kill(killed[0], signal.SIGKILL)
    assert len(killed) == 2
    assert contents(tmp_path / "out") == wanted


@pytest.mark.ray
def test_what_ends_the_reading_leaves_what_was_read(run, cluster, place, tmp_path):
    """The error is the sentence of the other engine, and the rows before it are explained."""
    table = tmp_path / "table"
    table.mkdir()
    text = (place / "rows.csv").read_bytes()
    (table / "a.csv").write_bytes(text)
    (table / "b.csv").write_bytes(text + b"1,2,3,4,5\n")
    out = tmp_path / "out"
    code, _, error = run("explain", place / "model.safetensors", table, "-o", out, *PARTS, "--engine", "ray")
    assert code == 2 and "kanscope: cannot read b.csv: " in error
    assert "and the same command goes on from there" in error
    assert len(list(out.glob("part-*"))) == N_ROWS // 50


@pytest.mark.ray
def test_a_command_that_is_killed_is_finished_by_the_next(place, wanted, tmp_path):
    """SIGKILL of the driver takes its cluster with it; the next run makes the rest."""
    command = [
        sys.executable,
        "-m",
        "service.cli",
        *words(place, tmp_path / "out", "--engine", "ray", "--workers", "1"),
    ]
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        poll(lambda: len(list((tmp_path / "out").glob("part-*"))) >= 2 or process.poll() is not None)
        assert process.poll() is None
        started = list(descendants(process.pid))
    finally:
        process.kill()
        process.wait()
    poll(lambda: not any(is_running(pid) for pid in started))
    assert len(list((tmp_path / "out").glob("part-*"))) < N_ROWS // 50
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert contents(tmp_path / "out") == wanted


def is_running(pid: int) -> bool:
    """Whether a process exists, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
