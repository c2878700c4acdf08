"""Chained files: JSON lines, each with a hash of itself and of all lines before it in its file.

The first line of a file states how far the files around it had come: the one before it in the same process, and the
newest of every other process. So an edited, removed, added or moved line is found, and an end that was cut off before a
later file began. Who can write to the folder can compute all hashes anew: note some of them elsewhere, as the log does.
"""

import fcntl
import logging
import os
import re
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from errno import ENOSPC
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import orjson

logger = logging.getLogger(__name__)
OWN = "kanscope.record."  # begins the types of events that the record says of itself
OPENED, CLOSED, REMOVED, LOST = (OWN + kind for kind in ("opened", "closed", "removed", "lost"))
Event = dict[str, Any]  # its members, in the order in which they are written
GENESIS = b"0" * 64  # the hash before the first line
PIECE = 1 << 20  # bytes that are encoded before they are written
LOOK_SECONDS = 60.0  # between two looks for files that are too old
_BEGIN = b'{"specversion":"1.0","type":"' + OWN.encode()
_NAME = re.compile(r"(\d{8}T\d{12}Z-[0-9a-f]{8})-\d{6}\.jsonl")  # by start and process, then by number
_END = re.compile(rb',"chain":"([0-9a-f]{64})"\}\n')
_END_LENGTH = len(b',"chain":""}\n') + 64
_SEALED = re.compile(rb'.*"recordedtime":"([0-9T:.+-]+)","sequence":"(\d{10,18})","chain":"([0-9a-f]{64})"\}')


@dataclass(frozen=True)
class End:
    """The last line of a file, as a line of another one states it."""

    file: str
    lines: int
    chain: str
    time: str  # when it was written


NOTHING = End("", 0, GENESIS.decode(), "")


def seal(body: bytes, line: int, time: str, previous: bytes) -> tuple[bytes, bytes]:
    """The line of an encoded event, and its hash: the SHA-256 of the hash before and the line up to its own hash."""
    body = b'%b,"recordedtime":"%b","sequence":"%010d"' % (body[:-1], time.encode(), line)
    chain = sha256(previous + body).hexdigest().encode()
    return b'%b,"chain":"%b"}\n' % (body, chain), chain


class ChainedFiles:
    """The files of one process in a folder, which other processes may share.

    Args:
        folder: where they are.
        describe: makes an event of the record itself from its type and data.
        max_bytes: of a file, after which the next is begun; each has one event at least.
        max_days: after which files are removed; None for no limit.
        max_total: bytes of the whole folder, beyond which the oldest files are removed; likewise.
    """

    def __init__(
        self,
        folder: Path,
        describe: Callable[[str, Mapping[str, Any]], Event],
        max_bytes: int,
        max_days: float | None = None,
        max_total: int | None = None,
    ) -> None:
        self._folder, self._describe, self._max_bytes, self._max_total = folder, describe, max_bytes, max_total
        self._max_age = None if max_days is None else timedelta(days=max_days)
        self._process, self._number = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(4)}", 0
        self._descriptor = -1  # of the file that is written, locked as long as it is; -1: none
        self._end = NOTHING
        self._size, self._opened, self._looked = 0, 0.0, 0.0
        self._stated: dict[str, End] = {}  # the ends that this process has written down, by process
        self._waiting: deque[bytes] = deque()  # lines about the record itself, written before further events

    def encode(self, event: Event) -> bytes:
        """An event as it is given to `write`."""
        return orjson.dumps(event)

    def write(self, events: deque[bytes]) -> None:
        """Writes events, and removes those that are on the disk from the left; without any, only looks for old files.

        Raises OSError if the disk is full, or the folder is gone; a later call goes on with what is left.
        """
        self._look_after_files()
        while self._waiting or events:
            if self._descriptor < 0:
                self._open()
            self._append(self._waiting or events)

    def close(self) -> None:
        """Ends the file that is written."""
        if self._descriptor < 0:
            return
        with suppress(OSError):  # without its last line it is like one of a killed process
            self._append(deque([self._say(CLOSED, file=self._end.file)]), is_last=True)
        self._leave()
        logger.info("%s of the record ends with line %d, hash %s", self._end.file, self._end.lines, self._end.chain)

    def _look_after_files(self) -> None:
        """Ends a file that is old or has been deleted, and removes old ones."""
        if self._descriptor >= 0 and not os.fstat(self._descriptor).st_nlink:
            self.close()
        age = None if self._max_age is None else self._max_age.total_seconds()
        if age is None or monotonic() - self._looked < min(LOOK_SECONDS, age / 10):
            return
        if self._end.lines > 1 and monotonic() - self._opened > age / 10:
            self.close()
        self._remove_old()

    def _open(self) -> None:
        """Begins the next file with what it states of the others."""
        others = self._find_ends()
        if self._end.lines:
            others[self._process] = self._end
        path = self._folder / f"{self._process}-{self._number:06}.jsonl"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._end, self._size, self._opened = End(path.name, 0, GENESIS.decode(), ""), 0, monotonic()
            ends = [asdict(end) for end in others.values()]
            self._append(deque([self._say(OPENED, file=path.name, ends=ends)]))
        except OSError:
            self._leave()
            path.unlink(missing_ok=True)
            self._end = others.get(self._process, NOTHING)
            raise
        self._number += 1
        self._stated |= others
        self._remove_old()

    def _leave(self) -> None:
        """Closes the file that is written, which unlocks it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _say(self, kind: str, **data: Any) -> bytes:
        return self.encode(self._describe(kind, data))

    def _append(self, events: deque[bytes], is_last: bool = False) -> None:
        """Writes the next events, up to `PIECE` bytes, or ends the file if not even one fits in it."""
        lines, chains, size = list[bytes](), [self._end.chain.encode()], self._size
        now, before = to_text(datetime.now(UTC)), self._end.lines
        for number, body in enumerate(events, start=before + 1):
            line, chain = seal(body, number, now, chains[-1])
            size += len(line)
            # after the opening and what was removed, one event at least
            if (size > self._max_bytes and number > 3 and not is_last) or (lines and size > self._size + PIECE):
                break
            lines.append(line)
            chains.append(chain)
        if not lines:
            return self.close()
        written, n_lines, n_bytes = self._put(b"".join(lines)), 0, 0
        while n_lines < len(lines) and n_bytes + len(lines[n_lines]) <= written:
            n_bytes += len(lines[n_lines])
            n_lines += 1
            events.popleft()
        if n_lines:  # which stay also where the disk is full: others may have read them
            self._end = End(self._end.file, before + n_lines, chains[n_lines].decode(), now)
            self._size += n_bytes
        if n_lines < len(lines):
            try:
                os.ftruncate(self._descriptor, self._size)
            except OSError:
                self._leave()  # nothing may follow half a line
            raise OSError(ENOSPC, os.strerror(ENOSPC), self._end.file)
        os.fsync(self._descriptor)

    def _put(self, piece: bytes) -> int:
        """Writes bytes and returns how many the disk has taken; raises OSError if it takes none."""
        written = 0
        while written < len(piece):
            try:
                written += os.write(self._descriptor, piece[written:])
            except OSError:
                if not written:
                    raise
                break
        return written

    def _find_ends(self) -> dict[str, End]:
        """The ends of the newest files of other processes, where this one has not stated them yet."""
        newest = {name[1]: path for path, name in list_files(self._folder) if name[1] != self._process}
        ends = {process: end for process, path in newest.items() if (end := read_end(path)) is not None}
        return {process: end for process, end in ends.items() if self._stated.get(process) != end}

    def _remove_old(self) -> None:
        """Removes files that are too old or too many, the oldest first, but none that is being written."""
        self._looked = monotonic()
        if self._max_age is None and self._max_total is None:
            return
        known = [(end, path) for path, _ in list_files(self._folder) if (end := read_end(path)) is not None]
        sizes, removed = {path: path.stat().st_size for _, path in known}, dict[Path, End]()
        total, oldest = sum(sizes.values()), "" if self._max_age is None else to_text(datetime.now(UTC) - self._max_age)
        for end, path in sorted(known, key=lambda one: one[0].time):
            if end.time >= oldest and (self._max_total is None or total <= self._max_total):
                break
            if not _is_written(path):
                removed[path] = end
                total -= sizes[path]
        if removed:
            ends = [asdict(end) for end in removed.values()]
            self._waiting.append(self._say(REMOVED, files=ends, until=ends[-1]["time"]))
            if self._descriptor >= 0:
                with suppress(OSError):  # said before, or where the disk is full, once it no longer is
                    self._append(self._waiting)
            for path in removed:
                path.unlink(missing_ok=True)


def to_text(time: datetime) -> str:
    """A time in UTC as events state it; such texts are in the order of time."""
    if not time.microsecond:  # which orjson leaves out; else it takes a quarter of the time
        return time.isoformat(timespec="microseconds")
    return orjson.dumps(time)[1:-1].decode()


def list_files(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    """The chained files of a folder with the parts of their names, each process's oldest first."""
    named = [(path, _NAME.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    return [(path, name) for path, name in named if name is not None]


def read_end(path: Path) -> End | None:
    """The last whole line of a file; None if it has none that can be read, or if it is gone."""
    tail = b""
    try:
        with path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            while position and tail.count(b"\n") < 2:
                step = min(position, max(1 << 16, len(tail)))
                position = file.seek(position - step)
                tail = file.read(step) + tail
    except FileNotFoundError:
        return None
    *_, last, _ = (b"", *tail.split(b"\n"))
    if (sealed := _SEALED.fullmatch(last)) is None:
        return None
    return End(path.name, int(sealed[2]), sealed[3].decode(), sealed[1].decode())


def _is_written(path: Path) -> bool:
    """Whether a process writes a file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@dataclass
class Verified:
    """What the files of a folder say, and what is wrong with them."""

    events: int = 0  # without what the record says of itself
    lost: dict[str, int] = field(default_factory=dict)  # events that were not recorded, by reason
    removed: int = 0  # files that were too old or too many
    ends: list[End] = field(default_factory=list)  # of each file
    unfinished: list[str] = field(default_factory=list)  # files without a closing line
    torn: dict[str, int] = field(default_factory=dict)  # bytes of a last line without its end, by file
    problems: list[str] = field(default_factory=list)


def verify(folder: Path, noted: Collection[str] = ()) -> Verified:
    """Reads all files of a folder, and checks each line; `noted` are hashes that some lines must have."""
    found, missing, until = Verified(), set(noted), ""
    paths = [path for path, _ in list_files(folder)]
    if not paths:
        found.problems.append(f"{folder} has no file of a record")
    stated = [(path.name, end) for path in paths for end in _read_opening(path, found)]
    wanted, chains = {(end.file, end.lines) for _, end in stated}, dict[tuple[str, int], str]()
    for path in paths:
        number, chain, kind = 0, "", ""
        for number, chain, line in _check_lines(path, found):
            missing.discard(chain)
            if (path.name, number) in wanted:
                chains[path.name, number] = chain
            kind = ""
            if line is None:
                found.events += 1
                continue
            try:
                own = orjson.loads(line)
                kind, data = own["type"], own["data"]
                if kind == REMOVED:
                    found.removed, until = found.removed + len(data["files"]), max(until, data["until"])
                elif kind == LOST:
                    found.lost = {name: found.lost.get(name, 0) + data.get(name, 0) for name in found.lost | data}
            except (KeyError, TypeError, ValueError):  # of one who computed the hashes anew
                found.problems.append(f"{path.name}, line {number}, is none that the record says of itself")
        last = read_end(path)
        found.ends.append(End(path.name, number, chain, "" if last is None else last.time))
        if kind != CLOSED:
            found.unfinished.append(path.name)
    lines = {end.file: end.lines for end in found.ends}
    for name, end in stated:
        if end.file not in lines:
            if end.time > until:
                found.problems.append(f"{end.file} is missing: {name} says that it had {end.lines} lines")
        elif lines[end.file] < end.lines:
            cut = f"ends after {lines[end.file]} lines, but had {end.lines}"
            found.problems.append(f"{end.file} {cut} when {name} was begun: its end was cut off")
        elif chains.get((end.file, end.lines)) != end.chain:
            found.problems.append(f"{end.file}, line {end.lines}, is not the one that {name} states: it was replaced")
    found.problems += [f"no line has the hash {chain}: it was removed or replaced" for chain in sorted(missing)]
    return found


def _read_opening(path: Path, found: Verified) -> list[End]:
    """The ends of other files that the first line of one states, which must name the file itself."""
    with path.open("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):  # which `_check_lines` says
        return []
    try:
        opening = orjson.loads(line)
        stated = opening["data"]["ends"]
        ends = [End(str(end["file"]), int(end["lines"]), str(end["chain"]), str(end["time"])) for end in stated]
        if opening["type"] == OPENED and opening["data"]["file"] == path.name:
            return ends
    except (KeyError, TypeError, ValueError):
        pass
    found.problems.append(f"{path.name} does not begin with a line that names it: it was renamed, or that was edited")
    return []


def _check_lines(path: Path, found: Verified) -> Iterator[tuple[int, str, bytes | None]]:
    """Yields the number and the hash of each whole line, and the line where the record speaks of itself."""
    previous: bytes | None = GENESIS
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                found.torn[path.name] = len(line)
                return
            end = _END.fullmatch(line, max(0, len(line) - _END_LENGTH))
            expected = None if previous is None else sha256(previous + line[:-_END_LENGTH]).hexdigest().encode()
            previous, own = None if end is None else end[1], None
            if end is None:
                found.problems.append(f"{path.name}, line {number}, is not a line of a record")
            elif expected not in (None, end[1]):
                reason = "it was edited, or a line before it was added, removed or moved"
                found.problems.append(f"{path.name}, line {number}, does not have its hash: {reason}")
            elif line.startswith(_BEGIN):
                own = line
            yield number, (previous or b"").decode(), own
