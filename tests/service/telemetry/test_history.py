"""Hours add up over processes, and the file stays small."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from kanmodel.errors import ConfigError
from kanmodel.tables.statistics.tally import Tally
from service.telemetry.history import Counted, History

LOAD = Counted("load", "1", "sha256:a", 3, 2, "0.8")
NEW = LOAD._replace(version="2", checkpoint="sha256:b")
HOUR = 500_000
MEGABYTES = 64 << 20


@contextmanager
def opened(path: Path | None, hours: int = 100, n_bytes: int = MEGABYTES) -> Iterator[History]:
    history = History(path, hours, n_bytes)
    try:
        yield history
    finally:
        history.close()


@pytest.fixture
def history() -> Iterator[History]:
    with opened(None) as found:
        yield found


def tally(value: float, of: Counted = LOAD) -> Tally:
    return Tally(*(each + value for each in of.empty().arrays))


def test_hours_add_up_over_processes(tmp_path):
    """Tallies of an hour are summed, whoever writes them; each version and checkpoint has its own."""
    with opened(tmp_path / "file") as one, opened(tmp_path / "file") as other:
        one.write({(LOAD, HOUR): tally(1), (NEW, HOUR): tally(5)}, HOUR)
        other.write({(LOAD, HOUR): tally(2), (LOAD, HOUR + 1): tally(7)}, HOUR)
        found = one.read(LOAD, HOUR)
        assert [*found] == [HOUR, HOUR + 1]
        for hour, value in ((HOUR, 3), (HOUR + 1, 7)):
            assert all((each == value).all() for each in found[hour].arrays)
        assert [*one.read(LOAD, HOUR + 1)] == [HOUR + 1] and one.read(NEW._replace(levels=""), 0) == {}
    with opened(tmp_path / "file") as again:
        assert (again.read(NEW, 0)[HOUR].known == 5).all()


def test_what_is_too_old_is_dropped(history):
    """Hours, whenever they are written."""
    for hour in range(HOUR, HOUR + 3):
        history.write({(LOAD, hour): tally(1)}, hour)
    history.write({(LOAD, HOUR): tally(1)}, HOUR + 101)
    assert [*history.read(LOAD, 0)] == [HOUR + 2]


def test_the_file_stays_small(tmp_path):
    """The oldest hours go, and the newest are there."""
    wide = LOAD._replace(n_features=2000)
    with opened(tmp_path / "file", n_bytes=1 << 20) as history:
        for hour in range(HOUR, HOUR + 20):
            for _ in range(3):
                history.write({(wide, hour): tally(1, wide)}, HOUR)
        kept = history.read(wide, 0)
        assert HOUR not in kept and (kept[HOUR + 19].explained == 3).all()
    assert (tmp_path / "file").stat().st_size < 2 << 20


def test_many_threads_and_connections_write_at_once(tmp_path):
    """Nothing is lost."""
    with opened(tmp_path / "file") as one, opened(tmp_path / "file") as other:

        def write(number: int) -> None:
            (one, other)[number % 2].write({(LOAD, HOUR): tally(1)}, HOUR)

        with ThreadPoolExecutor(8) as pool:
            [*pool.map(write, range(200))]
        assert one.read(LOAD, 0)[HOUR].explained == 200


def test_a_killed_process_loses_no_write(tmp_path):
    """Whatever it was doing, the file has each write that has returned, whole."""
    program = (
        "import sys; sys.path[:0] = ['tests/service/telemetry', 'tests']\n"
        "from test_history import *\n"
        "history = History(Path(sys.argv[1]), 100, MEGABYTES)\n"
        "for number in range(10**9):\n"
        "    history.write({(LOAD, HOUR): tally(1)}, HOUR)\n"
        "    print(number, flush=True)\n"
    )
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "file")],
        cwd=root,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.wait()
    last = int([line for line in lines if line.endswith(b"\n")][-1])
    with opened(tmp_path / "file") as history:
        assert last + 1 <= history.read(LOAD, 0)[HOUR].explained[0] <= last + 2


@pytest.mark.parametrize("content", [b"not a database, but a text of some length " * 100, None])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    """It is left as it is, and so is a folder that does not exist."""
    path = tmp_path / "file"
    if content is None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE users (name TEXT)")
        other.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"KANSCOPE_MONITOR is .*file, which cannot be used"):
        History(path, 1, MEGABYTES)
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="cannot be used"):
        History(tmp_path / "none" / "file", 1, MEGABYTES)


def test_the_file_is_its_owners_alone(tmp_path):
    """Also one that an earlier version has made, and what SQLite writes beside it, whatever the process's mask is."""
    path, before = tmp_path / "monitor.db", os.umask(0)
    try:
        for _ in range(2):
            history = History(path, 10, 1 << 20)
            history.write({}, 0)
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
            assert modes == dict.fromkeys(("monitor.db", "monitor.db-shm", "monitor.db-wal"), 0o600)
            history.close()
            path.chmod(0o644)
    finally:
        os.umask(before)
