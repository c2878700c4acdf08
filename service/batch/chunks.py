"""Numbered chunks of windows, the same whichever engine computes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kanmodel.data import Array, take_windows, window_ends
from kanmodel.errors import DataError
from service.batch.plan import Plan
from service.batch.rows import INSTANT, SEGMENT, TIME, Rows, place_of, read_rows


@dataclass(frozen=True)
class Chunk:
    """Windows that are explained together and written to one file.

    Attributes:
        number: number of the chunk, from 0.
        values: (n_steps, n_features), original units; the series that the windows are cut from.
        ends: index in `values` of the last step of each window, (n,).
        windows: number of each window in the table: that of the row that holds it, or its last step, from 0, (n,).
        times: time of the last step of each window; None without a time column.
        places: ``file`` and ``row`` of each window.
        rejected: ``file``, ``row`` and ``reason`` of each bad row.
        lost: number of windows left out because of bad rows.
        across_gaps: number of windows left out because they cross a gap in time.
        gap: the times around one of these gaps; empty if there is none.
        read: bytes of the table up to the end of the chunk, roughly.
        digest: hash of everything that is explained.
    """

    number: int
    values: Array
    ends: NDArray[np.int64]
    windows: NDArray[np.int64]
    times: pl.Series | None
    places: pl.DataFrame
    rejected: pl.DataFrame
    lost: int
    across_gaps: int
    gap: str
    read: int
    digest: str

    def __len__(self) -> int:
        return len(self.ends)

    def take(self, first: int, last: int, lookback: int) -> Array:
        """Some of the windows, (n, lookback, n_features)."""
        return take_windows(self.values, self.ends[first:last], lookback)


def read_chunks(plan: Plan, finished: Mapping[int, str]) -> Iterator[Chunk]:
    """Yields the chunks of a table, except the finished ones.

    Args:
        plan: the table.
        finished: digests of the chunks to skip, by number.

    Raises:
        DataError: as `read_rows`; the table has no window; a finished chunk has another digest now.
        UnknownNameError: as `read_rows`.
    """
    number = n_windows = 0
    for number, chunk in enumerate(_cut_chunks(read_rows(plan), plan)):
        n_windows += len(chunk) + chunk.lost + chunk.across_gaps
        if number not in finished:
            yield chunk
        elif finished[number] != chunk.digest:
            raise DataError(f"{plan.table.name} has changed since part {number} was made: choose another output folder")
    if n_windows == 0:
        raise DataError(f"{plan.table.name} has no window of {plan.lookback} rows")
    if any(known > number for known in finished):
        raise DataError(f"{plan.table.name} ends before part {max(finished)}: choose another output folder")


def _cut_chunks(pieces: Iterable[Rows], plan: Plan) -> Iterator[Chunk]:
    """Cuts chunks of windows, each of those that end in the same `part_windows` rows."""
    number, size, before = 0, plan.part_windows, 0
    waiting: list[Rows] = []
    for piece in pieces:
        waiting.append(piece)
        while sum(map(len, waiting)) >= before + size:
            rows = Rows.join(waiting)
            yield _cut(rows.take(0, before + size), before, number, plan)
            number += 1
            kept = plan.lookback - rows.values.shape[1]  # rows that the first windows of the next chunk reach back to
            start = max(0, before + size - kept)
            before = before + size - start
            waiting = [rows.take(start, len(rows))]
    if sum(map(len, waiting)) > before:
        yield _cut(Rows.join(waiting), before, number, plan)


def _cut(rows: Rows, before: int, number: int, plan: Plan) -> Chunk:
    """The chunk of the windows that end after the first `before` rows."""
    good = rows.marks["reason"].is_null().to_numpy()
    n_rows, steps, n_features = rows.values.shape
    across_gaps, gap = 0, ""
    if steps == plan.lookback:  # a row is a window
        ends = np.arange(n_rows)
        whole = good
    else:
        segment = [rows.marks[SEGMENT].fill_null("").to_numpy().astype(str)] if plan.segment is not None else []
        ends = window_ends(segment, n_rows, plan.lookback)
        ends = ends[ends >= before]
        crosses, gap = _find_gaps(rows, ends, plan)
        across_gaps, ends = int(crosses.sum()), ends[~crosses]
        bad = np.append(0, np.cumsum(~good))
        whole = bad[ends + 1] == bad[ends + 1 - plan.lookback]
    lost, ends = int((~whole).sum()), ends[whole]
    of_window, here = rows.marks[ends], rows.marks[before:]
    chunk = Chunk(
        number=number,
        values=rows.values.reshape(n_rows * steps, n_features),
        ends=ends * steps + steps - 1,
        windows=ends + number * plan.part_windows - before,
        times=of_window[TIME] if plan.time is not None else None,
        places=of_window.select("file", "row"),
        rejected=here.filter(pl.col("reason").is_not_null()).select("file", "row", "reason"),
        lost=lost,
        across_gaps=across_gaps,
        gap=gap,
        read=int(rows.marks["read"][-1]),
        digest="",
    )
    return replace(chunk, digest=_digest(chunk))


def _find_gaps(rows: Rows, ends: NDArray[np.int64], plan: Plan) -> tuple[NDArray[np.bool_], str]:
    """Whether each window crosses a gap in time, and the times around the first such gap.

    Raises:
        DataError: most steps of a window are shorter than those of the training, or it repeats a time.
    """
    clock = plan.clock
    if clock is None:
        return np.zeros(len(ends), dtype=bool), ""
    steps = np.diff(rows.marks[INSTANT].to_numpy(), append=np.nan)  # to the next row

    def count(found: NDArray[np.bool_]) -> NDArray[np.int64]:
        total: NDArray[np.int64] = np.append(0, np.cumsum(found))
        counted: NDArray[np.int64] = total[ends] - total[ends - plan.lookback + 1]
        return counted

    wrong = np.flatnonzero((2 * count(clock.is_short(steps)) > plan.lookback - 1) | (count(steps == 0) > 0))
    if len(wrong):
        reason = f"has repeated times, or mostly steps shorter than those of the training, {clock.usual_step}"
        raise DataError(
            f"{place_of(rows.marks, int(ends[wrong[0]]))}, column {plan.time}: the window that ends here {reason}"
        )
    is_gap = clock.is_gap(steps)
    crosses = count(is_gap) > 0
    if not crosses.any():
        return crosses, ""
    end = ends[crosses.argmax()]
    row = int(np.flatnonzero(is_gap[:end])[-1])
    before, after = rows.marks[TIME][row : row + 2]
    return crosses, f"{before} to {after}"


def _digest(chunk: Chunk) -> str:
    times = "" if chunk.times is None else chunk.times.to_frame().write_csv()
    text = "".join((chunk.places.write_csv(), chunk.rejected.write_csv(), times))
    hashed = hashlib.sha256(text.encode())
    for array in (chunk.values, chunk.ends, chunk.windows):
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()
