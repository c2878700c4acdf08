"""Hours add up over processes, an outcome finds its forecast whichever of them has it, and the file stays small."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kanmodel.errors import ConfigError
from kanmodel.tables.statistics.tally import Tally
from service.telemetry.history import Counted, Found, History, Pack, Place

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


def pack(
    ids: Sequence[str], sizes: Sequence[int] | None = None, of: Counted = LOAD, hour: int = HOUR, **more: Any
) -> Pack:
    """Forecasts 0, 1, 2, ... of requests of so many windows each, one by default."""
    ends = np.cumsum(sizes or [1] * len(ids))
    return Pack(of, hour, ids, ends, np.arange(ends[-1], dtype=float)[:, None], **more)


def tally(value: float, of: Counted = LOAD) -> Tally:
    return Tally(*(each + value for each in of.empty().arrays))


def settle(
    history: History, *places: Place, name: str = "load", version: str | None = None
) -> tuple[list[Any], list[Found]]:
    """What became of outcomes, and the forecasts that got them."""
    taken: list[Found] = []

    def count(found: Sequence[tuple[int, Found]]) -> dict[tuple[Counted, int], Tally]:
        taken.extend(one for _, one in found)
        places = Counter((one.of, one.hour) for _, one in found)
        return {(of, hour): tally(n, of) for (of, hour), n in places.items()}

    return history.settle(name, version, places, count), taken


def test_hours_add_up_over_processes(tmp_path):
    """Tallies of an hour are summed, whoever writes them; each version and checkpoint has its own."""
    with opened(tmp_path / "file") as one, opened(tmp_path / "file") as other:
        one.write({(LOAD, HOUR): tally(1), (NEW, HOUR): tally(5)}, (), HOUR)
        other.write({(LOAD, HOUR): tally(2), (LOAD, HOUR + 1): tally(7)}, (), HOUR)
        found = one.read(LOAD, HOUR)
        assert [*found] == [HOUR, HOUR + 1]
        for hour, value in ((HOUR, 3), (HOUR + 1, 7)):
            assert all((each == value).all() for each in found[hour].arrays)
        assert [*one.read(LOAD, HOUR + 1)] == [HOUR + 1] and one.read(NEW._replace(levels=""), 0) == {}
    with opened(tmp_path / "file") as again:
        assert (again.read(NEW, 0)[HOUR].known == 5).all()


def test_an_outcome_finds_its_forecast_once(tmp_path):
    """By id and instance, in any process; then it is repeated; unknown ids and instances stay unknown."""
    with opened(tmp_path / "file") as one, opened(tmp_path / "file") as other:
        one.write({}, [pack(["a", "b\n", "c"], [1, 3, 1])], HOUR)
        places = Place("b\n", 2), Place("b\n", 3), Place("x"), Place("c"), Place("c")
        results, taken = settle(other, *places)
        assert results == [True, None, None, True, False]
        assert [(found.of, found.hour, found.columns.tolist()) for found in taken] == [
            (LOAD, HOUR, [3]),
            (LOAD, HOUR, [4]),
        ]
        assert settle(one, Place("c"), Place("b\n", 1))[0] == [False, True]
        assert settle(one, Place("a"), name="other")[0] == settle(one, Place("a"), version="2")[0] == [None]
        assert one.read(LOAD, 0)[HOUR].known == 3


def test_an_id_that_is_repeated_is_the_last(history):
    """Clients may send an id again: its outcome is that of the last request; each version has its own."""
    history.write({}, [pack(["a", "a"]), pack(["a"], of=NEW)], HOUR)
    results, taken = settle(history, Place("a"), Place("a"))
    assert results == [True, False] and [(one.of, one.columns[0]) for one in taken] == [(LOAD, 1), (NEW, 0)]
    history.write({}, [pack(["a"], hour=HOUR + 1)], HOUR)
    assert settle(history, Place("a"), version="1")[1][0].hour == HOUR + 1


def test_an_outcome_of_a_time_is_of_its_first_forecast(history):
    """Later forecasts of the same time, as of a series that is sent each hour, do not count again."""
    history.write({}, [pack(["a"], [3], times=[(10.0, 0), (20.0, 1), (30.0, 2)])], HOUR)
    history.write({}, [pack(["b"], [2], times=[(30.0, 0), (40.0, 1)], of=LOAD, hour=HOUR + 1)], HOUR)
    results, taken = settle(history, Place(time=30.0), Place(time=40.0), Place(time=30.0), Place(time=50.0))
    assert results == [True, True, False, None]
    assert [(one.hour, one.columns[0]) for one in taken] == [(HOUR, 2), (HOUR + 1, 1)]
    assert settle(history, Place("a", 2), Place("b"))[0] == [False, True]


def test_what_is_too_old_is_dropped(history):
    """Hours, and forecasts that were made in them."""
    for hour in range(HOUR, HOUR + 3):
        history.write({(LOAD, hour): tally(1)}, [pack([f"{hour}"], hour=hour, times=[(hour, 0)])], hour)
    history.write({}, [], HOUR + 101)
    assert [*history.read(LOAD, 0)] == [HOUR + 2]
    assert settle(history, Place(f"{HOUR + 1}"), Place(f"{HOUR + 2}"), Place(time=HOUR + 1.0))[0] == [None, True, None]


def test_the_file_stays_small(tmp_path):
    """The oldest forecasts go, whether or not their ids were ever asked for, and the newest are there."""
    path = tmp_path / "file"
    with opened(path, n_bytes=1 << 20) as history:
        for number in range(120):
            ids = [f"{number}.{request}" for request in range(500)]
            history.write({(LOAD, HOUR): tally(1)}, [pack(ids, times=[(number, 3)])], HOUR)
            assert settle(history, Place(ids[3]))[0] == [True] or number % 2
        assert path.stat().st_size < 1.2 * (1 << 20)
        assert settle(history, Place("0.1"), Place("119.1"), Place(time=0.0), Place(time=119.0))[0] == [
            None,
            True,
            None,
            False,
        ]
        assert history.read(LOAD, 0)[HOUR].explained == 120 + 120 + 1
        wide = LOAD._replace(n_features=2000)
        for hour in range(HOUR, HOUR + 20):
            history.write({(wide, hour): tally(1, wide)}, [], HOUR)
        assert HOUR + 19 in history.read(wide, 0) and HOUR not in history.read(wide, 0)
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 3 << 20


def test_many_threads_and_connections_write_at_once(tmp_path):
    """Nothing is lost, and each forecast has one outcome."""
    with opened(tmp_path / "file") as one, opened(tmp_path / "file") as other:
        both = (one, other)

        def write(number: int) -> list[Any]:
            history = both[number % 2]
            history.write({(LOAD, HOUR): tally(1)}, [pack([f"{number}", "all"])], HOUR)
            return settle(both[(number + 1) % 2], Place(f"{number}"), Place("0"))[0]

        with ThreadPoolExecutor(8) as pool:
            results = [*pool.map(write, range(200))]
        assert sum(first is True for first, _ in results) == 200 - (results[0][0] is False)
        assert one.read(LOAD, 0)[HOUR].explained == 200 + sum(found is True for pair in results for found in pair)


def test_a_killed_process_loses_no_write(tmp_path):
    """Whatever it was doing, the file has each write that has returned, whole."""
    program = (
        "import sys; sys.path[:0] = ['tests/service/telemetry', 'tests']\n"
        "from test_history import *\n"
        "history = History(Path(sys.argv[1]), 100, MEGABYTES)\n"
        "for number in range(10**9):\n"
        "    history.write({(LOAD, HOUR): tally(1)}, [pack([str(number)])], HOUR)\n"
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
        counted = history.read(LOAD, 0)[HOUR].explained[0]
        assert last + 1 <= counted <= last + 2
        results = settle(history, *(Place(str(number)) for number in range(last + 3)))[0]
        assert results.count(True) == counted


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
