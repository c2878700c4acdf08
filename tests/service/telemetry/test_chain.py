"""Chained files: what a change of them leaves to be found, and what it does not."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.telemetry.chain import (
    GENESIS,
    LOST,
    OPENED,
    REMOVED,
    ChainedFiles,
    list_files,
    read_opening,
    seal,
    to_text,
    verify,
)


def describe(kind: str, data: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "type": kind, "id": "own", "data": data}


def make(folder: Path, max_bytes: int = 1 << 20, **limits: Any) -> ChainedFiles:
    return ChainedFiles(folder, describe, max_bytes, **limits)


def events(*names: object) -> deque[bytes]:
    return deque(orjson.dumps({"specversion": "1.0", "type": "forecast", "id": str(name)}) for name in names)


def ids(folder: Path) -> list[str]:
    """Those of all events in a folder, without what the record says of itself."""
    lines = [line for path in list_files(folder) for line in path.read_bytes().split(b"\n")[:-1]]
    return [event["id"] for event in map(json.loads, lines) if event["type"] == "forecast"]


def paths_of(folder: Path) -> list[Path]:
    return list_files(folder)


def find_newest(folder: Path) -> Path:
    """The file of the last process, which nobody states."""
    return next(path for path in paths_of(folder) if b"three" in path.read_bytes())


@contextmanager
def full_at(n_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: the system's own limit, which acts like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of three processes, two at the same time with several files each, then one that states their ends."""
    folder = tmp_path_factory.mktemp("record")
    one, two, last = make(folder, 1200), make(folder, 1200), make(folder)
    for number in range(6):
        one.write(events(f"one {number}"))
        two.write(events(f"two {number}"))
    one.close()
    two.close()
    last.write(events("three 0", "three 1"))
    last.close()
    assert len(paths_of(folder)) > 4
    return folder


def copy(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to


def test_what_was_written_verifies(written):
    """Every event is in it once, in the order of its process, and each file has its closing line."""
    found = verify(written)
    assert found.problems == found.unfinished == [] and not found.torn
    assert found.events == 14 and found.lost == {} and all(end.time and end.ended for end in found.ends)
    assert [end.file for end in found.ends] == [path.name for path in paths_of(written)]
    for process in ("one", "two"):
        assert [name for name in ids(written) if process in name] == [f"{process} {n}" for n in range(6)]


def test_a_line_has_the_hash_of_itself_and_of_all_before(written):
    """The hash can be computed with SHA-256 alone, as the document says."""
    for path in paths_of(written):
        previous = "0" * 64
        for line in path.read_text().splitlines():
            before, _, after = line.rpartition(',"chain":"')
            previous = sha256((previous + before).encode()).hexdigest()
            assert after == previous + '"}'


@given(st.datetimes(timezones=st.just(UTC)), st.booleans())
def test_times_have_six_digits_of_a_second(time: datetime, is_whole: bool):
    """Also where they are zeros, so that the order of the texts is that of the times."""
    time = time.replace(microsecond=0) if is_whole else time
    assert to_text(time) == time.isoformat(timespec="microseconds")


CHANGES = st.one_of(
    st.tuples(st.just("byte"), st.integers(0, 10**6), st.integers(0, 255)),
    st.tuples(st.just("remove"), st.integers(0, 100), st.just(0)),
    st.tuples(st.just("repeat"), st.integers(0, 100), st.integers(0, 100)),
    st.tuples(st.just("swap"), st.integers(0, 100), st.integers(0, 100)),
    st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(0)),
    st.tuples(st.just("join"), st.integers(0, 100), st.just(0)),
    st.tuples(st.just("other"), st.integers(0, 100), st.integers(0, 100)),
)


def change(data: bytes, others: bytes, kind: str, at: int, with_: int) -> bytes:
    """The data with a byte replaced or its end cut off, or a line removed, repeated, moved, joined or taken."""
    lines = data.splitlines(keepends=True)
    one, other = at % len(lines), with_ % len(lines)
    match kind:
        case "byte":
            position = at % len(data)
            return data[:position] + bytes([with_]) + data[position + 1 :]
        case "cut":
            return data[: at % len(data)]
        case "remove":
            del lines[one]
        case "repeat":
            lines.insert(other, lines[one])
        case "swap":
            lines[one], lines[other] = lines[other], lines[one]
        case "join":
            lines[one] = lines[one][:-1]
        case "other":
            taken = others.splitlines(keepends=True)
            lines[one] = taken[with_ % len(taken)]
    return b"".join(lines)


@given(which=st.integers(0, 100), other=st.integers(0, 100), changed=CHANGES)
def test_every_change_is_found_but_of_the_end_of_the_last_file(written, tmp_path_factory, which, other, changed):
    """Without a problem, a file's whole lines are a beginning of what was written that no later file contradicts.

    Then the missing closing line, or the bytes after the last whole line, are said.
    """
    folder = copy(written, tmp_path_factory.getbasetemp() / "changed")
    paths = paths_of(folder)
    path = paths[which % len(paths)]
    before, is_newest = path.read_bytes(), path == find_newest(folder)
    after = change(before, paths[other % len(paths)].read_bytes(), *changed)
    path.write_bytes(after)
    found = verify(folder)
    if after == before:
        assert found.problems == [] == found.unfinished
        return
    assert found.problems or found.unfinished == [path.name]
    whole = after[: after.rfind(b"\n") + 1]
    is_beginning = before.startswith(whole) and is_newest
    assert bool(found.problems) != is_beginning
    assert found.torn.get(path.name, 0) == len(after) - len(whole)


def append(path: Path, *names: object) -> None:
    """Adds events behind the last line, with the hashes that follow from it, as anyone can who may write the file."""
    *_, last = map(json.loads, path.read_bytes().splitlines())
    chain = last["chain"].encode()
    with path.open("ab") as file:
        for number, body in enumerate(events(*names), start=int(last["sequence"]) + 1):
            line, chain = seal(body, number, to_text(datetime.now(UTC)), chain)
            file.write(line)


def test_what_is_added_behind_the_last_line_is_found(written, tmp_path):
    """Behind the closing line of every file, the newest one included; whole lines and bytes of one."""
    for path in paths_of(written):
        folder = copy(written, tmp_path / "changed")
        append(folder / path.name, "added", "more")
        found = verify(folder)
        closing = len(path.read_bytes().splitlines())
        assert f"{path.name}, line {closing + 1}, was added behind the closing line" in found.problems
        folder = copy(written, tmp_path / "changed")
        with (folder / path.name).open("ab") as file:
            file.write(b'{"specversion"')
        assert verify(folder).problems == [f"{path.name} has bytes behind the closing line"]


def test_what_is_added_to_the_file_of_a_killed_process_is_found(tmp_path):
    """Once a later file states where it had ended; one that runs may go on."""
    running, killed = make(tmp_path), make(tmp_path)
    running.write(events("a"))
    killed.write(events("b"))
    os.close(killed._descriptor)
    later = make(tmp_path)
    later.write(events("c"))
    running.write(events("d"))
    running.close()
    later.close()
    assert verify(tmp_path).problems == []
    (path,) = (path for path in paths_of(tmp_path) if b'"b"' in path.read_bytes())
    append(path, "added")
    (problem,) = verify(tmp_path).problems
    assert problem.startswith(f"{path.name} has 3 lines, but had ended with 2 when") and "lines were added" in problem


def test_each_end_is_stated_once(tmp_path):
    """The record of many short processes grows with their number; any file of theirs that is deleted is still found."""
    sizes = []
    for number in range(400):
        files = make(tmp_path)
        files.write(events(number))
        if number % 3:
            files.close()
        else:
            os.close(files._descriptor)  # as of a killed process
        sizes.append(max(paths_of(tmp_path)).stat().st_size)
    stated = [end.file for path in paths_of(tmp_path) for end in read_opening(path) or ()]
    assert sorted(stated) == [path.name for path in paths_of(tmp_path)][:-1]
    assert max(sizes) < 2 * sizes[0] and sum(sizes) < 400 * 1200
    assert verify(tmp_path).problems == [] and verify(tmp_path).events == 400
    for path in paths_of(tmp_path)[:-1:40]:
        data = path.read_bytes()
        path.unlink()
        (problem,) = verify(tmp_path).problems
        assert problem.startswith(f"{path.name} is missing")
        path.write_bytes(data)


def test_a_problem_names_its_place(written, tmp_path):
    """An edited line is named alone: those after it are right."""
    path = paths_of(copy(written, tmp_path / "changed"))[1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1].replace(b"one", b"own"), *lines[2:]]))
    (problem,) = verify(path.parent).problems
    assert problem.startswith(f"{path.name}, line 2, does not have its hash")


def test_a_missing_file_is_found(written, tmp_path):
    """The next of its process, or a later process, states it; the newest of all is missed by nobody."""
    for path in paths_of(written):
        folder = copy(written, tmp_path / "changed")
        (folder / path.name).unlink()
        found = verify(folder).problems
        assert bool(found) == (path != find_newest(written))
        assert all(f"{path.name} is missing" in problem for problem in found)


def test_a_renamed_file_and_an_empty_folder_are_found(written, tmp_path):
    """A copy under the name of another process is not taken for its record, and no record for an unchanged one."""
    folder = copy(written, tmp_path / "changed")
    path = find_newest(folder)
    path.rename(path.with_name("20200101T000000000000Z-00000000-000000.jsonl"))
    assert any("does not begin with a line that names it" in problem for problem in verify(folder).problems)
    (tmp_path / "empty").mkdir()
    assert verify(tmp_path / "empty").problems == [f"{tmp_path / 'empty'} has no file of a record"]


def test_hashes_that_were_computed_anew_are_found_with_a_noted_one(written, tmp_path):
    """Who can write can forge the newest file, and no other; the hash of its old end tells."""
    newest = find_newest(written)
    (noted,) = (end.chain for end in verify(written).ends if end.file == newest.name)
    for path in (newest, next(path for path in paths_of(written) if path != newest)):
        folder = copy(written, tmp_path / "changed")
        chain, lines = GENESIS, []
        assert verify(folder, [noted]).problems == []
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            body, _, rest = line.partition(b',"recordedtime":"')
            forged, chain = seal(body.replace(b"0", b"1") + b"}", number, rest[:32].decode(), chain)
            lines.append(line + b"\n" if number == 1 else forged)
            chain = json.loads(line)["chain"].encode() if number == 1 else chain
        (folder / path.name).write_bytes(b"".join(lines))
        if path == newest:
            assert verify(folder).problems == []
            assert verify(folder, [noted]).problems == [f"no line has the hash {noted}: it was removed or replaced"]
        else:
            assert any("it was replaced" in problem for problem in verify(folder).problems)


def test_what_another_process_wrote_stops_no_process(tmp_path):
    """Whatever a line says with its hash, `verify` names it; whatever a file ends with, others are begun."""
    path, chain, lines = tmp_path / "20260101T000000000000Z-00000000-000000.jsonl", GENESIS, []
    own = [(OPENED, {"file": path.name, "ends": []}), (REMOVED, {"files": 5}), (LOST, {"full": "x"}), (LOST, [1])]
    for number, event in enumerate([*(describe(*each) for each in own), {**describe(LOST, 0), "data": None}], start=1):
        line, chain = seal(orjson.dumps(event), number, "2026-01-01", chain)
        lines.append(line)
    path.write_bytes(b"".join(lines))
    assert [problem.partition(" is none that")[0] for problem in verify(tmp_path).problems] == [
        f"{path.name}, line {number}," for number in (2, 3, 4, 5)
    ]
    for last in (
        b'{"sequence":1e300,"chain":"0","recordedtime":"2026"}',
        b'{"sequence":"1","chain":5,"recordedtime":7}',
    ):
        path.write_bytes(b"".join([lines[0], last, b"\n"]))
        files = make(tmp_path, max_days=1000.0)
        files.write(events("one"))
        files.close()
        assert path.exists() and f"{path.name}, line 2, is not a line of a record" in verify(tmp_path).problems


def test_a_torn_line_is_said_and_does_not_matter(tmp_path):
    """What a killed process leaves verifies; a later process begins a file of its own and states its whole lines."""
    make(tmp_path).write(events("a", "b"))  # which is never closed
    (path,) = paths_of(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    found = verify(tmp_path)
    assert found.problems == [] and found.unfinished == [path.name] and found.events == 1
    assert found.torn == {path.name: len(data.splitlines()[-1]) + 1 - 10}
    later = make(tmp_path)
    later.write(events("c"))
    later.close()
    assert verify(tmp_path).problems == [] and ids(tmp_path) == ["a", "c"]
    path.write_bytes(data[: data.index(b"\n") + 1])
    (problem,) = verify(tmp_path).problems
    assert "ends after 1 lines, but had 2" in problem and "its end was cut off" in problem


@pytest.mark.parametrize("room", [0, 100, 1000, 1400, 2000, 3000])
def test_a_full_disk_loses_nothing(tmp_path, room):
    """What is not written is left to the next call, and whatever the disk has taken of it verifies meanwhile."""
    files, asked = make(tmp_path), events(*range(40))
    with full_at(room):
        with pytest.raises(OSError, match=r"File too large|No space left"):
            files.write(asked)
        written = 40 - len(asked)
        found = verify(tmp_path)
        assert found.events == written == len(ids(tmp_path)) and found.torn == {}
        assert found.problems == [] or written == 0
    files.write(asked)
    files.close()
    assert not asked and ids(tmp_path) == [str(number) for number in range(40)]
    found = verify(tmp_path)
    assert found.problems == found.unfinished == [] and not found.torn


def test_nothing_follows_half_a_line(tmp_path, monkeypatch):
    """Where it cannot be removed, the next file begins."""
    files, asked = make(tmp_path), events(*range(40))

    def fail(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patched, full_at(1000):
        patched.setattr(os, "ftruncate", fail)
        with pytest.raises(OSError, match="File too large"):
            files.write(asked)
    files.write(asked)
    files.close()
    found = verify(tmp_path)
    assert found.problems == [] and len(found.torn) == 1 and len(found.ends) == 2
    assert ids(tmp_path) == [str(number) for number in range(40)]


def test_a_file_that_was_deleted_is_not_written_on(tmp_path):
    """The next events are in a new file, which states the deleted one, so that it is missed; a folder may come back."""
    files = make(tmp_path / "record")
    with pytest.raises(FileNotFoundError):
        files.write(events("a"))
    (tmp_path / "record").mkdir()
    files.write(events("a"))
    (path,) = paths_of(tmp_path / "record")
    path.unlink()
    files.write(events("b"))
    assert ids(tmp_path / "record") == ["b"]
    (problem,) = verify(tmp_path / "record").problems
    assert problem.startswith(f"{path.name} is missing")


def test_files_end_at_their_size(tmp_path):
    """No file is larger, apart from its closing line, unless it has a single event."""
    files = make(tmp_path, 2000)
    files.write(events(*range(50), "x" * 5000, *range(50, 60)))
    files.close()
    sizes = [path.stat().st_size for path in paths_of(tmp_path)]
    assert len(sizes) > 5 and sorted(sizes)[-2] < 2000 + 400 and 5000 < max(sizes) < 7000
    assert verify(tmp_path).problems == []


def test_the_oldest_files_are_removed_beyond_a_size(tmp_path):
    """Those of other processes too, but none that is being written; what was removed is said and not missed."""
    other = make(tmp_path, 2000)
    other.write(events(*range(10)))  # remains open
    first = make(tmp_path, 2000)
    first.write(events(*range(100, 150)))
    first.close()
    files = make(tmp_path, 2000, max_total=8000)
    files.write(events(*range(200, 260)))
    assert sum(path.stat().st_size for path in paths_of(tmp_path)) < 8000 + 2000 + 1000
    other.write(events("still"))
    files.close()
    other.close()
    found = verify(tmp_path)
    assert found.problems == [] and found.removed and "still" in ids(tmp_path)
    assert ids(tmp_path)[-1] == "259"


def test_each_file_has_an_event_however_large(tmp_path):
    """Also where a file begins with what was removed, beside which the event would not fit."""
    files = make(tmp_path, max_bytes=1000, max_total=3000)
    for number in range(8):
        files.write(events(f"{number}{'.' * 1000}"))
    files.close()
    assert verify(tmp_path).problems == [] and all(b"forecast" in path.read_bytes() for path in paths_of(tmp_path))
    assert any(b"kanscope.record.removed" in path.read_bytes() for path in paths_of(tmp_path))


def test_old_files_are_removed(tmp_path):
    """A process that writes nothing more ends its file in time; the removal is the last that is left."""
    seconds = 0.3
    files = make(tmp_path, max_days=seconds / 86400)
    files.write(events("a", "b"))
    while ids(tmp_path):
        files.write(deque())
    files.write(events("c"))
    files.close()
    found = verify(tmp_path)
    assert found.problems == [] and found.removed and ids(tmp_path) == ["c"]
