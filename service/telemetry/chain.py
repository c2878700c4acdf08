"""Chained files: JSON lines, each with a hash of itself and of all lines before it in its file.

The first line of a file states the last lines of others: of the one before it in its process, and of those of other
processes that no file states as ended yet. So an edited, removed, added or moved line is found, and a file that was
removed, cut off or written on before a later one began. Who can write to the folder can compute all hashes anew: note
some of them elsewhere, as the log does.
"""

import fcntl
import logging
import math
import os
import re
import secrets
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
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
_NAME = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}-\d{6}\.jsonl")  # by start and process, then by number
_SEALED = re.compile(rb',"recordedtime":"([0-9T:.+-]+)","sequence":"(\d{10,18})","chain":"([0-9a-f]{64})"\}\n')
_CHAIN_LENGTH = len(b',"chain":""}\n') + 64
_BEGIN = b'{"specversion":"1.0","type":"' + OWN.encode()


@dataclass(frozen=True)
class End:
    """The last line of a file, as a line of another one states it."""

    file: str
    lines: int
    chain: str
    time: str  # when it was written
    ended: bool = False  # whether it stays the last: no process writes the file any more


NOTHING = End("", 0, GENESIS.decode(), "")


def seal(body: bytes, line: int, time: str, previous: bytes) -> tuple[bytes, bytes]:
    """The line of an encoded event, and its hash: the SHA-256 of the hash before and the line up to its own hash."""
    body = b'%b,"recordedtime":"%b","sequence":"%010d"' % (body[:-1], time.encode(), line)
    chain = sha256(previous + body).hexdigest().encode()
    return b'%b,"chain":"%b"}\n' % (body, chain), chain


class ChainedFiles:
    """The files of one process in a folder, which other processes may share.

    `describe` makes an event of the record itself from its type and data. A file ends with the event that reaches
    `max_bytes`; files are removed after `max_days`, and the oldest beyond `max_total` bytes of the whole folder.
    """

    def __init__(
        self,
        folder: Path,
        describe: Callable[[str, Mapping[str, Any]], Event],
        max_bytes: int,
        max_days: float = math.inf,
        max_total: float = math.inf,
    ) -> None:
        self._folder, self._describe, self._max_bytes = folder, describe, max_bytes
        self._max_age, self._max_total = max_days * 86400, max_total  # seconds, bytes
        self._process, self._number = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(4)}", 0
        self._descriptor = -1  # of the file that is written, locked as long as it is; -1: none
        self._end = NOTHING  # of the file that is written, or was last
        self._size, self._opened, self._looked = 0, 0.0, 0.0
        self._own: deque[bytes] = deque()  # events about the record itself, written before further events

    def encode(self, event: Event) -> bytes:
        """An event as it is given to `write`."""
        return orjson.dumps(event)

    def write(self, events: deque[bytes]) -> None:
        """Writes events, and removes those that are on the disk from the left; without any, only looks for old files.

        Raises OSError if the disk is full, or the folder is gone; a later call goes on with what is left.
        """
        self._look_after_files()
        while self._own or events:
            if self._descriptor < 0:
                self._open()
            if self._own:
                self._append(self._own)
            self._append(events)
            if self._size >= self._max_bytes:
                self.close()

    def close(self) -> None:
        """Ends the file that is written."""
        if self._descriptor < 0:
            return
        with suppress(OSError):  # without its last line it is like one of a killed process
            self._append(deque([self._say(CLOSED, file=self._end.file)]))
        self._leave()
        logger.info("%s of the record ends with line %d, hash %s", self._end.file, self._end.lines, self._end.chain)

    def _look_after_files(self) -> None:
        """Ends a file that is old or has been deleted, and removes old ones."""
        if self._descriptor >= 0 and not os.fstat(self._descriptor).st_nlink:
            self.close()
        if monotonic() - self._looked >= min(LOOK_SECONDS, self._max_age / 10):
            if self._end.lines > 1 and monotonic() - self._opened > self._max_age / 10:
                self.close()
            self._remove_old()

    def _open(self) -> None:
        """Begins the next file with what it states of the others."""
        ends, before = [asdict(end) for end in self._find_ends()], self._end
        path = self._folder / f"{self._process}-{self._number:06}.jsonl"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._end, self._size, self._opened = replace(NOTHING, file=path.name), 0, monotonic()
            self._append(deque([self._say(OPENED, file=path.name, ends=ends)]))
        except OSError:
            self._leave()
            path.unlink(missing_ok=True)
            self._end = before
            raise
        self._number += 1
        self._remove_old()

    def _leave(self) -> None:
        """Closes the file that is written, which unlocks it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _say(self, kind: str, **data: Any) -> bytes:
        return self.encode(self._describe(kind, data))

    def _append(self, events: deque[bytes]) -> None:
        """Writes the next events, up to the one that reaches `max_bytes` or `PIECE`."""
        lines, ends, sizes, time = list[bytes](), [self._end], [self._size], to_text(datetime.now(UTC))
        for number, body in enumerate(events, start=self._end.lines + 1):
            line, chain = seal(body, number, time, ends[-1].chain.encode())
            lines.append(line)
            ends.append(End(self._end.file, number, chain.decode(), time))
            sizes.append(sizes[-1] + len(line))
            if sizes[-1] >= min(self._max_bytes, self._size + PIECE):
                break
        n, failure, piece = len(lines), None, b"".join(lines)
        try:
            while piece:
                piece = piece[os.write(self._descriptor, piece) :]
            os.fsync(self._descriptor)
        except OSError as error:
            # whole lines stay where the disk is full: others may have read them
            failure, n = error, bisect_right(sizes, os.fstat(self._descriptor).st_size) - 1
            try:
                os.ftruncate(self._descriptor, sizes[n])
            except OSError:
                self._leave()  # nothing may follow half a line
        for _ in range(n):
            events.popleft()
        self._end, self._size = ends[n], sizes[n]
        if failure is not None:
            raise failure

    def _find_ends(self) -> list[End]:
        """The end of the file before, and those of other processes' files that none states as ended yet."""
        paths, found = list_files(self._folder), [replace(self._end, ended=True)] if self._end.lines else []
        known = {end.file for path in paths for end in read_opening(path) or () if end.ended}
        for path in paths:
            if path.name not in known and not path.name.startswith(self._process):
                is_written = _is_written(path)  # before its end is read
                if (end := read_end(path)) is not None:
                    found.append(replace(end, ended=not is_written))
        return found

    def _remove_old(self) -> None:
        """Removes files that are too old or too many, the oldest first, but none that is being written."""
        self._looked = monotonic()
        if math.isinf(self._max_age) and math.isinf(self._max_total):
            return
        known = sorted((end for path in list_files(self._folder) if (end := read_end(path))), key=lambda end: end.time)
        sizes, removed = [(self._folder / end.file).stat().st_size for end in known], list[End]()
        total, now = sum(sizes), datetime.now(UTC)
        oldest = "" if math.isinf(self._max_age) else to_text(now - timedelta(seconds=self._max_age))
        for end, size in zip(known, sizes, strict=True):
            if end.time >= oldest and total <= self._max_total:
                break
            if not _is_written(self._folder / end.file):
                removed.append(end)
                total -= size
        if removed:
            self._own.append(self._say(REMOVED, files=[asdict(end) for end in removed], until=removed[-1].time))
            if self._descriptor >= 0:
                with suppress(OSError):  # said before, or where the disk is full, once it no longer is
                    self._append(self._own)
            for end in removed:
                (self._folder / end.file).unlink(missing_ok=True)


def to_text(time: datetime) -> str:
    """A time in UTC as events state it; such texts are in the order of time."""
    if not time.microsecond:  # which orjson leaves out; else it takes a quarter of the time
        return time.isoformat(timespec="microseconds")
    return orjson.dumps(time)[1:-1].decode()


def list_files(folder: Path) -> list[Path]:
    """The chained files of a folder, each process's oldest first."""
    return [path for path in sorted(folder.iterdir()) if _NAME.fullmatch(path.name)]


def read_opening(path: Path) -> list[End] | None:
    """The ends that the first line of a file states; none if that is cut off, and None if it does not name the file."""
    try:
        with path.open("rb") as file:
            line = file.readline()
        if not line.endswith(b"\n"):
            return []
        opening = orjson.loads(line)
        ends = [
            End(str(end["file"]), int(end["lines"]), str(end["chain"]), str(end["time"]), end["ended"] is True)
            for end in opening["data"]["ends"]
        ]
        return ends if (opening["type"], opening["data"]["file"]) == (OPENED, path.name) else None
    except FileNotFoundError:  # removed meanwhile
        return []
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def read_end(path: Path) -> End | None:
    """The last whole line of a file that has a hash; None if it has none, or if it is gone."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for length in (min(size, 1 << 16), size):  # all of it if its last line is half, and long
            file.seek(size - length)
            if found := [*_SEALED.finditer(file.read(length))]:
                time, lines, chain = found[-1].groups()
                return End(path.name, int(lines), chain.decode(), time.decode())
    return None


def _is_written(path: Path) -> bool:
    """Whether a process writes a file."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
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
    found, missing, until, stated = Verified(), set(noted), "", list[tuple[str, End]]()
    paths, say = list_files(folder), found.problems.append
    if not paths:
        say(f"{folder} has no file of a record")
    for path in paths:
        if (ends := read_opening(path)) is None:
            say(f"{path.name} does not begin with a line that names it: it was renamed, or that was edited")
        stated += [(path.name, end) for end in ends or ()]
    wanted, chains = {(end.file, end.lines) for _, end in stated}, dict[tuple[str, int], str]()
    for path in paths:
        last, kind = End(path.name, 0, "", ""), ""
        for last, line in _check_lines(path, found):
            missing.discard(last.chain)
            if (path.name, last.lines) in wanted:
                chains[path.name, last.lines] = last.chain
            if kind == CLOSED:
                say(f"{path.name}, line {last.lines}, was added behind the closing line")
            if not line.startswith(_BEGIN):
                kind = ""
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
                say(f"{path.name}, line {last.lines}, is none that the record says of itself")
        found.ends.append(replace(last, ended=kind == CLOSED))
        if kind != CLOSED:
            found.unfinished.append(path.name)
        elif path.name in found.torn:
            say(f"{path.name} has bytes behind the closing line")
    lines = {end.file: end.lines for end in found.ends}
    for name, end in stated:
        if end.file not in lines:
            if end.time > until:
                say(f"{end.file} is missing: {name} says that it had {end.lines} lines")
        elif (n := lines[end.file]) < end.lines:
            say(f"{end.file} ends after {n} lines, but had {end.lines} when {name} was begun: its end was cut off")
        elif chains.get((end.file, end.lines)) != end.chain:
            say(f"{end.file}, line {end.lines}, is not the one that {name} states: it was replaced")
        elif end.ended and n > end.lines:
            say(f"{end.file} has {n} lines, but had ended with {end.lines} when {name} was begun: lines were added")
    found.problems += [f"no line has the hash {chain}: it was removed or replaced" for chain in sorted(missing)]
    return found


def _check_lines(path: Path, found: Verified) -> Iterator[tuple[End, bytes]]:
    """Yields each whole line of a file, as an end up to there and as it stands."""
    previous: bytes | None = GENESIS
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                found.torn[path.name] = len(line)
                return
            expected = None if previous is None else sha256(previous + line[:-_CHAIN_LENGTH]).hexdigest().encode()
            time, _, previous = (
                sealed.groups() if (sealed := _SEALED.search(line, max(0, len(line) - 200))) else (b"", b"", None)
            )
            if previous is None:
                found.problems.append(f"{path.name}, line {number}, is not a line of a record")
            elif expected not in (None, previous):
                reason = "it was edited, or a line before it was added, removed or moved"
                found.problems.append(f"{path.name}, line {number}, does not have its hash: {reason}")
            yield End(path.name, number, (previous or b"").decode(), time.decode()), line
