from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time

import pytest
from factories import make_model

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.structure import questions as structure
from service.compute import Compute
from service.models.registry import Registry
from service.models.watching import Watch
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.work.results import GlobalResults

SEEDS = (401, 402, 403)  # models that no other test makes: apps that tests share may load theirs meanwhile


@pytest.fixture
def file(tmp_path):
    (tmp_path / "models").mkdir()
    return write(tmp_path / "models" / "m.safetensors", SEEDS[0])


def write(path, seed):
    save_checkpoint(make_model("head", seed=seed), path)
    return path


def watch_while(steps, registry, seconds=0.01):
    """Runs the watch during the steps, each of which changes something and yields a condition to wait for."""

    async def run():
        compute = Compute(Settings(), Metrics())
        compute.start()
        kept = GlobalResults(64, compute, registry.defaults)
        watch = Watch(registry, kept.prepare, seconds)
        watching = asyncio.create_task(watch.run())
        deadline = time.monotonic() + 120
        for condition in steps:
            while not condition():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
        watch.close()
        await compute.close()
        await asyncio.wait_for(watching, 120)

    asyncio.run(run())


@pytest.fixture
def registry(file):
    return Registry(file.parent)


@pytest.fixture
def looks(registry, monkeypatch):
    """The scans of this registry; those of apps that tests share are ignored."""
    calls = []
    poll = registry.poll

    def count():
        calls.append(time.monotonic())
        return poll()

    monkeypatch.setattr(registry, "poll", count)
    return calls


def test_models_are_loaded_and_followed_until_the_watch_is_closed(file, registry):
    """A replaced file is loaded, and closing ends the watch."""

    def steps():
        yield lambda: registry.ready
        first = registry.get("m")
        write(file, SEEDS[1])
        yield lambda: registry.get("m") is not first

    watch_while(steps(), registry)
    assert registry.get("m").checkpoint == f"sha256:{load_checkpoint(file).sha256}"


def test_zero_seconds_disable_scans(registry, looks):
    """0 disables scans, not the first load."""
    watch_while([lambda: registry.ready], registry, seconds=0)
    assert looks == []


def test_global_results_of_new_models_are_computed_in_advance(file, registry, tmp_path, monkeypatch):
    """Results are computed for the models loaded first, and for each new version that is served."""
    wanted = [load_checkpoint(write(tmp_path / f"{seed}.safetensors", seed)).sha256 for seed in SEEDS[:2]]
    measured = []
    measure = structure.measure_importance

    def record(model, *rest):
        if model.sha256 in wanted:
            measured.append(model.sha256)
        return measure(model, *rest)

    monkeypatch.setattr(structure, "measure_importance", record)

    def steps():
        yield lambda: measured == wanted[:1]
        write(file, SEEDS[1])
        yield lambda: measured == wanted

    watch_while(steps(), registry)
    assert measured == wanted


def test_a_failing_scan_is_logged_once_and_repeated(file, registry, looks, caplog):
    """A folder that is missing for many scans is logged once, as is its return, and again when it is missing again."""
    caplog.set_level(logging.INFO, "service.models.watching")
    away = file.parent.with_name("away")

    def steps():
        yield lambda: registry.ready
        for seed in SEEDS[1:]:
            served = registry.get("m")
            file.parent.rename(away)
            n_looks = len(looks)
            yield lambda n_looks=n_looks: len(looks) > n_looks + 5
            assert registry.get("m") is served
            write(away / "m.safetensors", seed)
            away.rename(file.parent)
            yield lambda served=served: registry.get("m") is not served

    watch_while(steps(), registry)
    said = [record for record in caplog.records if record.name == "service.models.watching"]
    assert [record.levelname for record in said] == ["ERROR", "INFO"] * 2
    assert not any(record.exc_info for record in said)
    text = f"are still served: there is no file or folder {file.parent}; mend that"
    assert said[2].getMessage().endswith(text) and said[3].getMessage() == "the models are scanned again"


SCRIPT = """
import ctypes, sys, threading
from service.models.watching import share_memory

if sys.argv[1] == "shared":
    share_memory()
held = threading.Barrier(9)

def hold():
    own = [bytearray(2000) for _ in range(100)]  # larger than what Python allocates itself
    held.wait()
    held.wait()

threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
held.wait()
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(library.fopen(sys.argv[2].encode(), b"w"))
library.malloc_info(0, file)
library.fclose(file)
held.wait()
"""


def count_arenas(tmp_path, threads):
    file = tmp_path / f"{threads}.xml"
    subprocess.run([sys.executable, "-c", SCRIPT, threads, file], check=True, env={})
    return file.read_text().count("<heap nr=")


@pytest.mark.thorough("starts a process of its own")
def test_threads_share_memory(tmp_path):
    """Eight threads that allocate at once use two arenas of glibc, and more without the limit."""
    assert count_arenas(tmp_path, "shared") <= 2 < count_arenas(tmp_path, "apart")
