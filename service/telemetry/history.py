"""What the monitor remembers: hours of tallies, and forecasts that wait for their outcomes, in one SQLite file.

The processes of a host share it: an outcome finds its forecast whichever of them gets it, and an hour is that of all.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from tempfile import gettempdir
from threading import RLock
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError
from kanmodel.tables.statistics.tally import Tally

logger = logging.getLogger(__name__)
FORMAT = 1  # of the file
BUSY_SECONDS = 10.0  # to wait for other processes that write
CACHE_BYTES = 8 << 20
MEMORY = 8  # the part of `n_bytes` that is kept where there is no folder for temporary files
DROPPED = 16  # the part of the forecasts that is dropped at once
LISTED = 64  # packs whose ids are listed in one write
LISTED_BYTES = 30  # that an id takes there, besides twice its length
REQUESTS = 1 << 20  # more than a pack has: the number of an id is that of its pack times this, and one of its requests
_SETTLED = np.array(np.nan).tobytes()  # in place of a forecast that has its outcome
_LISTED = f"(SELECT coalesce(max(number), 0) / {REQUESTS} FROM ids)"  # nosec B608  # the last pack whose ids are listed
_TABLES = """
CREATE TABLE models (number INTEGER PRIMARY KEY, name TEXT, version TEXT, checkpoint TEXT, n_features INTEGER,
    n_names INTEGER, levels TEXT, UNIQUE (name, version, checkpoint, n_features, n_names, levels));
CREATE TABLE hours (model INTEGER, hour INTEGER, tally BLOB, PRIMARY KEY (model, hour)) WITHOUT ROWID;
CREATE TABLE packs (number INTEGER PRIMARY KEY, model INTEGER, hour INTEGER, width INTEGER, listing INTEGER, ids BLOB,
    ends BLOB, columns BLOB);
CREATE TABLE unlisted (listing INTEGER);
INSERT INTO unlisted VALUES (0);
CREATE TABLE ids (number INTEGER PRIMARY KEY, id TEXT, model INTEGER, first INTEGER, n INTEGER);
CREATE INDEX by_id ON ids (id, model);
CREATE TABLE times (time REAL, model INTEGER, pack INTEGER, row INTEGER, PRIMARY KEY (time, model)) WITHOUT ROWID;
CREATE INDEX by_pack ON times (pack);
"""


class Counted(NamedTuple):
    """One version of a model, of which forecasts are counted, and what its tallies have; levels with blanks between."""

    name: str
    version: str
    checkpoint: str
    n_features: int
    n_names: int
    levels: str

    def empty(self) -> Tally:
        """A tally of nothing."""
        return Tally.empty(self.n_features, self.n_names, len(self.levels.split()))


class Pack(NamedTuple):
    """Forecasts of one version of a model, of some requests one after another, as they wait for their outcomes."""

    of: Counted
    hour: int  # in which they were made, since 1970
    ids: Sequence[str]  # of the requests
    ends: NDArray[np.int64]  # one past the last forecast of each request
    columns: Array  # (n, 1 + 2 n_levels): forecast, lower and upper bounds; without intervals (n, 1)
    times: Sequence[tuple[float, int]] = ()  # instants of windows' newest rows, and which forecasts these are


class Found(NamedTuple):
    """A forecast that gets its outcome: its columns, as of `Pack`."""

    of: Counted
    hour: int
    columns: Array


class _Row(NamedTuple):
    """Where the file has a forecast."""

    of: Counted
    hour: int
    pack: int
    width: int  # of the pack's columns
    number: int  # of the row in them


Tallies = Mapping[tuple[Counted, int], Tally]
"""Tallies of one block, by model and hour."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which forecast an outcome is of: that of an id and the number of its window, or those of a time."""

    id: str = ""
    instance: int = 0
    time: float | None = None


class History:
    """The file, which threads and processes may share; without a path a temporary one of this process.

    Every write is a transaction, so that a killed process loses none that has ended.

    Args:
        path: of the file.
        hours: that are kept.
        n_bytes: beyond which the oldest forecasts, and then the oldest hours, are dropped.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, path: Path | None, hours: int, n_bytes: int) -> None:
        self._hours, self._most, self._lock = hours, n_bytes, RLock()
        name = "" if path is None else str(path)  # "" is a file without a name, in the folder of temporary files
        if path is None:
            try:
                gettempdir()
            except OSError:
                name, self._most = ":memory:", n_bytes // MEMORY
        try:
            self._file = sqlite3.connect(name, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            with self._transaction():
                self._begin()
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"journal_size_limit = {CACHE_BYTES}"):
                self._file.execute(f"PRAGMA {pragma}")
            self._file.execute(f"PRAGMA cache_size = {-(CACHE_BYTES >> 10)}")
        except sqlite3.Error as error:
            raise ConfigError(f"KANSCOPE_MONITOR is {path}, which cannot be used: {error}") from error

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._file.close()

    def write(self, tallies: Tallies, packs: Sequence[Pack], now: int) -> None:
        """Adds tallies, of one block, to those of their hours, and forecasts; drops what is too old in hour `now`.

        Of a time, the first forecast of a model is kept. Raises `sqlite3.Error`, and then nothing is written.
        """
        insert = "INSERT INTO packs (model, hour, width, listing, ids, ends, columns) VALUES (?, ?, ?, ?, ?, ?, ?)"
        with self._transaction():
            for (of, hour), tally in tallies.items():
                self._add(self._number(of), hour, tally)
            for pack in packs:
                model, arrays = self._number(pack.of), (pack.ends.tobytes(), pack.columns.tobytes())
                ids, width = orjson.dumps(pack.ids), pack.columns.shape[1]
                listing = 2 * len(ids) + LISTED_BYTES * len(pack.ids)
                number = self._file.execute(insert, (model, pack.hour, width, listing, ids, *arrays)).lastrowid
                self._file.execute("UPDATE unlisted SET listing = listing + ?", (listing,))
                times = [(time, model, number, row_number) for time, row_number in pack.times]
                self._file.executemany("INSERT OR IGNORE INTO times VALUES (?, ?, ?, ?)", times)
            self._drop(now)

    def read(self, of: Counted, first: int) -> dict[int, Tally]:
        """The tallies since hour number `first`, by their hours, ascending; those of one block."""
        query = "SELECT hour, tally FROM hours WHERE model = ? AND hour >= ? ORDER BY hour"
        with self._transaction():
            rows = self._file.execute(query, (self._number(of), first)).fetchall()
        return {hour: _decode(of, data) for hour, data in rows}

    def settle(
        self,
        name: str,
        version: str | None,
        outcomes: Iterable[Place],
        count: Callable[[Sequence[tuple[int, Found]]], Tallies],
    ) -> list[bool | None]:
        """Takes the forecasts of outcomes, and adds the tallies that `count` makes of them and the outcomes' numbers.

        Of an id that was repeated it is the last one. Returns of each outcome whether it is the first for a forecast,
        of any version or of the one given; None where there is no forecast. Raises as `write`.
        """
        results, taken = list[bool | None](), list[tuple[int, Found]]()
        while self._list_ids():
            pass
        with self._transaction():
            for number, place in enumerate(outcomes):
                rows = self._find(name, version, place)
                new = 0
                for of, hour, pack, width, row in rows:
                    with self._file.blobopen("packs", "columns", pack) as blob:
                        blob.seek(8 * width * row)
                        columns = np.frombuffer(blob.read(8 * width))
                        if not np.isnan(columns[0]):
                            new += 1
                            taken.append((number, Found(of, hour, columns)))
                            blob.seek(8 * width * row)
                            blob.write(_SETTLED)
                results.append(bool(new) if rows else None)
            for (of, hour), tally in count(taken).items():
                self._add(self._number(of), hour, tally)
        return results

    def _list_ids(self) -> bool:
        """Lists ids of some packs that were written since, and returns whether there were any.

        Most services never ask for them, so writing leaves this. Their room is kept free, see `_is_full`.
        """
        query = f"SELECT number, model, listing, ids, ends FROM packs WHERE number > {_LISTED} ORDER BY number LIMIT ?"  # nosec B608
        with self._transaction():
            packs = self._file.execute(query, (LISTED,)).fetchall()
            for number, model, listing, ids, data in packs:
                ends = np.frombuffer(data, np.int64)
                sizes = np.diff(ends, prepend=0)
                numbers = range(number * REQUESTS, number * REQUESTS + len(ends))
                columns = numbers, orjson.loads(ids), repeat(model), (ends - sizes).tolist(), sizes.tolist()
                self._file.executemany("INSERT INTO ids VALUES (?, ?, ?, ?, ?)", zip(*columns, strict=False))
                self._file.execute("UPDATE unlisted SET listing = listing - ?", (listing,))
        return bool(packs)

    def _find(self, name: str, version: str | None, place: Place) -> list[_Row]:
        """The forecasts of an outcome, one of each version at most."""
        if place.time is None:
            source, row = "ids JOIN packs ON packs.number = ids.number / :requests", "ids.first + :instance"
            condition = (
                "ids.number = (SELECT max(number) FROM ids WHERE id = :id AND model = models.number) AND n > :instance"
            )
        else:
            source, row = "times JOIN packs ON times.pack = packs.number", "times.row"
            condition = "time = :time AND times.model = models.number"
        query = (
            f"SELECT {', '.join(Counted._fields)}, hour, packs.number, width, {row} FROM models JOIN {source}"  # nosec B608
            f" WHERE name = :name AND models.version = coalesce(:version, models.version) AND {condition}"
        )
        values = {**asdict(place), "name": name, "version": version, "requests": REQUESTS}
        rows = self._file.execute(query, values).fetchall()
        return [_Row(Counted(*row[:-4]), *row[-4:]) for row in rows]

    def _number(self, of: Counted) -> int:
        """The number of a model in the file, which has it from then on."""
        condition = " AND ".join(f"{name} = ?" for name in Counted._fields)
        found = self._file.execute(f"SELECT number FROM models WHERE {condition}", of).fetchone()  # nosec B608
        if found is None:
            names = ", ".join(Counted._fields)
            found = (self._file.execute(f"INSERT INTO models ({names}) VALUES (?, ?, ?, ?, ?, ?)", of).lastrowid,)  # nosec B608
        number: int = found[0]
        return number

    def _add(self, model: int, hour: int, tally: Tally) -> None:
        data = np.concatenate([each.ravel() for each in tally.arrays])
        query = "SELECT tally FROM hours WHERE model = ? AND hour = ?"
        if (before := self._file.execute(query, (model, hour)).fetchone()) is not None:
            data += np.frombuffer(before[0])
        self._file.execute("INSERT OR REPLACE INTO hours VALUES (?, ?, ?)", (model, hour, data.tobytes()))

    def _drop(self, now: int) -> None:
        """Drops what is too old, and while the file is too large the oldest forecasts, and then the oldest hours."""
        oldest = now - self._hours
        self._file.execute("DELETE FROM hours WHERE hour <= ?", (oldest,))
        first = "SELECT max(number) FROM (SELECT number, hour FROM packs ORDER BY number LIMIT 100) WHERE hour <= ?"
        self._drop_packs(self._file.execute(first, (oldest,)).fetchone()[0])
        while self._is_full():
            low, high = self._file.execute("SELECT min(number), max(number) FROM packs").fetchone()
            if low is not None:
                self._drop_packs(low + (high - low) // DROPPED)
            elif self._file.execute("DELETE FROM hours WHERE hour = (SELECT min(hour) FROM hours)").rowcount == 0:
                return

    def _drop_packs(self, last: int | None) -> None:
        """Drops forecasts up to those of a pack; none for None."""
        if last is not None:
            unlisted = f"SELECT coalesce(sum(listing), 0) FROM packs WHERE number <= ? AND number > {_LISTED}"  # nosec B608
            self._file.execute(f"UPDATE unlisted SET listing = listing - ({unlisted})", (last,))  # nosec B608
            self._file.execute("DELETE FROM times WHERE pack <= ?", (last,))
            self._file.execute("DELETE FROM ids WHERE number < ?", ((last + 1) * REQUESTS,))
            self._file.execute("DELETE FROM packs WHERE number <= ?", (last,))

    def _is_full(self) -> bool:
        """Whether what is written, with the room that listing its ids will take, is larger than the file may be."""
        (listing,) = self._file.execute("SELECT listing FROM unlisted").fetchone()
        count, free, size = (
            self._file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return bool((count - free) * size + listing > self._most)

    def _begin(self) -> None:
        """Makes the tables, anew in a file of another format."""
        (known,) = self._file.execute("PRAGMA user_version").fetchone()
        if known == FORMAT:
            return
        for (name,) in self._file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            raise sqlite3.DatabaseError(f"it has a table {name} of another format ({known})")
        for statement in _TABLES.split(";"):
            self._file.execute(statement)
        self._file.execute(f"PRAGMA user_version = {FORMAT}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One at a time, of all threads and processes."""
        with self._lock:
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._file.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._file.execute("ROLLBACK")
                raise


def _decode(of: Counted, data: bytes) -> Tally:
    numbers, arrays, start = np.frombuffer(data), [], 0
    for each in of.empty().arrays:
        arrays.append(numbers[start : start + each.size].reshape(each.shape))
        start += each.size
    return Tally(*arrays)
