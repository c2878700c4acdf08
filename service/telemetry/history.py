"""Hours of tallies by version of a model, in one SQLite file that the processes of a host share."""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np

from kanmodel.errors import ConfigError
from kanmodel.tables.statistics.tally import Tally

HOUR = 3600
FORMAT = 2  # of the file
BUSY_SECONDS = 10.0  # to wait for other processes that write


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


Tallies = Mapping[tuple[Counted, int], Tally]
"""Tallies of one block, by version and hour since 1970."""

_KEYS = ", ".join(("hour", *Counted._fields))
_TABLE = f"CREATE TABLE hours ({_KEYS}, tally BLOB, PRIMARY KEY ({_KEYS})) WITHOUT ROWID"
_IS_ONE = " AND ".join(f"{name} = ?" for name in Counted._fields)


class History:
    """The file, which threads and processes may share; without a path it is memory of this process.

    Every write is a transaction, so that a killed process loses none that has ended. Its owner alone may read the file.

    Args:
        path: of the file.
        hours: that are kept.
        n_bytes: beyond which the oldest hours are dropped.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, path: Path | None, hours: int, n_bytes: int) -> None:
        self._hours, self._most, self._lock = hours, n_bytes, RLock()
        name = ":memory:" if path is None else str(path)
        try:
            if path is not None:
                _protect(path)
            self._file = sqlite3.connect(name, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            with self._transaction():
                self._begin()
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"KANSCOPE_MONITOR is {path}, which cannot be used: {error}") from error

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._file.close()

    def write(self, tallies: Tallies, now: int) -> None:
        """Adds tallies, of one block, to those of their hours, and drops what is too old in hour `now`.

        Raises `sqlite3.Error`, and then nothing is written.
        """
        query = f"SELECT tally FROM hours WHERE hour = ? AND {_IS_ONE}"  # nosec B608
        with self._transaction():
            for (of, hour), tally in tallies.items():
                data = np.concatenate([each.ravel() for each in tally.arrays])
                if (before := self._file.execute(query, (hour, *of)).fetchone()) is not None:
                    data += np.frombuffer(before[0])
                values = hour, *of, data.tobytes()
                self._file.execute("INSERT OR REPLACE INTO hours VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            self._file.execute("DELETE FROM hours WHERE hour <= ?", (now - self._hours,))
            oldest = "DELETE FROM hours WHERE hour = (SELECT min(hour) FROM hours)"
            while self._is_full() and self._file.execute(oldest).rowcount:
                pass

    def read(self, of: Counted, first: int) -> dict[int, Tally]:
        """The tallies since hour `first`, by their hours, ascending; those of one block. Raises `sqlite3.Error`."""
        query = f"SELECT hour, tally FROM hours WHERE hour >= ? AND {_IS_ONE} ORDER BY hour"  # nosec B608
        with self._transaction():
            rows = self._file.execute(query, (first, *of)).fetchall()
        return {hour: _decode(of, data) for hour, data in rows}

    def _is_full(self) -> bool:
        count, free, size = (
            self._file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return bool((count - free) * size > self._most)

    def _begin(self) -> None:
        """Makes the table in an empty file."""
        (known,) = self._file.execute("PRAGMA user_version").fetchone()
        if known == FORMAT:
            return
        for (name,) in self._file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            raise sqlite3.DatabaseError(f"it has a table {name} of another format ({known})")
        self._file.execute(_TABLE)
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


def _protect(path: Path) -> None:
    """Makes the file, and takes it, and those that SQLite has beside it, from others than its owner."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(FileNotFoundError, PermissionError):  # not there, or of another user, who decides
            file.chmod(0o600)


def _decode(of: Counted, data: bytes) -> Tally:
    numbers, arrays, start = np.frombuffer(data), [], 0
    for each in of.empty().arrays:
        arrays.append(numbers[start : start + each.size].reshape(each.shape))
        start += each.size
    return Tally(*arrays)
