"""Samples of a table: windows with their targets, split into training, validation, calibration and test by time.

A sample never shares a row with another part, nor is it of a time that a held-out one of any series reaches; it is in
one series, its window has no gap in time, and no value of it is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array, count_before
from kanmodel.errors import DataError
from kanmodel.tables.columns import Scaling
from kanmodel.tables.encoding import Rows
from kanmodel.tables.instants import DAY
from kanmodel.tables.roles import PARTS, TrainingTable
from kanmodel.tables.windows import CHUNK, Windows, actual_outputs

TEST_SHARE = 0.15  # of the rows, the newest, if no split is given
MIN_SAMPLES = 8  # of each part
UNEVEN = 0.15  # share of held-out instants that may be on other days of the week, or in other parts of the day


@dataclass(frozen=True)
class Parts:
    """The windows of each part by their numbers, in order of time, and those left out."""

    windows: Windows
    train: Rows
    validation: Rows
    calibration: Rows  # of intervals; empty without
    test: Rows
    left_out: str = ""  # how many windows and rows are left out, and why; empty if none are


@dataclass(frozen=True)
class Samples:
    """Windows and targets in model units, taken from the rows on demand."""

    source: Windows
    rows: Tensor  # features, model units, as `Windows.rows`
    targets: Tensor  # (n, horizon * n_targets), steps outermost, model units

    @classmethod
    def of(cls, windows: Windows, scaling: Scaling) -> Samples:
        """The samples of windows."""
        targets = actual_outputs(windows)
        scaled = torch.from_numpy((targets - scaling.output_mean) / scaling.output_scale).to(scaling.dtype)
        return cls(windows, scaling.features_to_model(windows.rows), scaled)

    def windows(self, numbers: Rows) -> Tensor:
        """(len(numbers), lookback, n_features), oldest step first."""
        return self.rows[torch.from_numpy(self.source.index(numbers))]

    def outputs(self, numbers: Rows) -> Tensor:
        """(len(numbers), horizon * n_targets), steps outermost."""
        return self.targets[torch.from_numpy(numbers)]


def split_samples(
    table: TrainingTable,
    lookback: int,
    horizon: int,
    validation_share: float,
    validation_blocks: int,
    n_calibration: int = 0,
) -> Parts:
    """Splits the samples of a table into parts.

    Without labels, the newest 15 % of the rows are for the test, by time. If the split has no validation rows,
    `validation_share` of the times of training samples are held out, in blocks that are evenly spread over them, so
    that they cover the seasons: `validation_blocks`, or fewer if each would be shorter than one sample with its
    targets, or if so many would fall in step with the week or the day. Training samples that reach into the time of a
    block are left out.

    With `n_calibration`, the number of samples that the calibration needs, every second block is for it, so that what
    is trained on stays the same, unless there was one block alone, which is then two; if the split has validation rows,
    half as many blocks of training samples are.

    Raises DataError if a part has too few samples.
    """
    rows = replace(table.table, spec=replace(table.spec, lookback=lookback, horizon=horizon))
    time = rows.instants if rows.instants is not None else np.arange(len(rows), dtype=np.float64)
    if rows.instants is None and rows.names:  # of several series without times, rows of the same number go together
        time = time - np.searchsorted(rows.codes, rows.codes)
    span = lookback + rows.spec.reach  # rows of a sample
    is_dated = rows.spec.time is not None and rows.spec.time.dated
    if len(rows) < span:
        raise DataError(f"the table has {len(rows)} rows, but one window with its targets needs {span}")
    labels = table.split
    if labels is None:
        first = np.sort(time)[min(round((1 - TEST_SHARE) * len(rows)), len(rows) - 1)]
        labels = np.where(time >= first, "test", "train").astype(object)
    windows = Windows.cut(rows, targets=True)
    oldest, reached = windows.ends - lookback + 1, windows.find_rows(horizon - 1)
    changes = count_before((labels[1:] != labels[:-1]) | (rows.codes[1:] != rows.codes[:-1]))
    alone = np.flatnonzero(changes[oldest] == changes[reached])
    times, of_part = time[windows.ends], labels[windows.ends]
    alone = alone[np.argsort(times[alone], kind="stable")]
    parts = {part: alone[of_part[alone] == part] for part in PARTS} | {"calibration": alone[:0]}
    begins, ends = time[oldest], time[reached]

    def leave_apart(numbers: Rows, blocks: list[Rows]) -> Rows:
        """The samples that do not reach into the time of a block."""
        for block in filter(len, blocks):
            is_apart = (ends[numbers] < begins[block].min()) | (begins[numbers] > ends[block].max())
            numbers = numbers[is_apart]
        return numbers

    has_validation, held = "validation" in labels, list[Rows]()
    if not has_validation:
        held = _hold_out(
            parts["train"], times, span, validation_share, validation_blocks, is_dated, 2 if n_calibration else 1
        )
        parts["validation"] = np.concatenate(held[::2] if n_calibration else held)
        if n_calibration:
            parts["calibration"] = np.concatenate(held[1::2])
            parts["validation"] = leave_apart(parts["validation"], held[1::2])
    elif n_calibration:
        held = _hold_out(parts["train"], times, span, validation_share / 2, max(1, validation_blocks // 2), is_dated)
        parts["calibration"] = np.concatenate(held)
    parts["train"] = leave_apart(parts["train"], held)
    for part, least in {**dict.fromkeys(PARTS, MIN_SAMPLES), "calibration": n_calibration}.items():
        if len(parts[part]) < least:
            is_held_out = part == "calibration" or (part == "validation" and not has_validation)
            why = _explain_few(windows, labels == ("train" if is_held_out else part))
            found = f"the {part} part has {len(parts[part])} windows of {span} rows, but needs {least}"
            raise DataError("; ".join([found + (" for the intervals" if part == "calibration" else ""), *why]))
    left_out = _describe_left_out(windows, sum(map(len, parts.values())), span)
    return Parts(windows, **parts, left_out=left_out)


def _hold_out(
    numbers: Rows, times: Array, span: int, share: float, most_blocks: int, is_dated: bool, least_blocks: int = 1
) -> list[Rows]:
    """Blocks of training samples, each of all series in a stretch of time, evenly spread over their times.

    Fewer, down to a half, if so many would be on some days of the week, or at some hours, more than others: 12 blocks
    of 200 days are two weeks apart.
    """
    steps, at = np.unique(times[numbers], return_inverse=True)
    n_held = round(share * len(steps))
    most = max(least_blocks, min(n_held // span, most_blocks))

    def place(n_blocks: int) -> NDArray[np.int64]:
        """Each block's steps, (n_blocks, length)."""
        length = n_held // n_blocks
        centres = (np.arange(n_blocks) + 0.5) * len(steps) / n_blocks
        return np.floor(centres - (length - 1) / 2).astype(int)[:, None] + np.arange(length)

    fewest = max(least_blocks, (most + 1) // 2) if is_dated else most
    uneven = {n: _measure_unevenness(steps, place(n)) for n in range(most, fewest - 1, -1)}
    chosen = next((n for n, value in uneven.items() if value <= UNEVEN), min(uneven, key=lambda n: uneven[n]))
    return [numbers[np.isin(at, block)] for block in place(chosen)]


def _measure_unevenness(instants: Array, chosen: NDArray[np.int64]) -> float:
    """The share of chosen instants, by their numbers, whose day of the week, or part of the day, others should have."""
    found = []
    for period, n in ((7 * DAY, 7), (DAY, 8)):
        part = (instants % period * n // period).astype(int)
        shares = [np.bincount(of, minlength=n) / max(of.size, 1) for of in (part, part[chosen.ravel()])]
        found.append(float(np.abs(shares[0] - shares[1]).sum()) / 2)
    return max(found)


def _explain_few(windows: Windows, own: NDArray[np.bool_]) -> list[str]:
    """Why a part has few samples; `own` are its rows, (n_rows,)."""
    rows, time = windows.table, windows.table.spec.time
    reasons = [f"its longest run of rows without a gap is {np.bincount(rows.run[own]).max(initial=0)}"]
    n_gaps = int(rows.run[-1]) - int(rows.codes[-1])
    if time is not None and n_gaps:
        usual = f"{time.max_step:g} times the usual {time.usual_step} (max_step)"
        reasons.append(f"{n_gaps} steps in time are gaps, longer than {usual}")
    return reasons + [str(windows.missing)] * bool(windows.missing.windows)


def _describe_left_out(windows: Windows, n_used: int, span: int) -> str:
    """The windows that are left out, with their reasons; empty if gaps and missing values are none of them."""
    n_gaps, missing = windows.across_gaps, windows.missing
    if not n_gaps and not missing.windows:
        return ""
    n_all = int(np.maximum(np.bincount(windows.table.codes) - span + 1, 0).sum())
    worst = ", ".join(f"{name} ({count:,})" for name, count in missing.worst.items())
    reasons = {
        "that would cross a gap in time": n_gaps,
        "that would reach across training, validation and test": len(windows) - n_used,
        f"for missing values, of {worst}": missing.windows,
    }
    listed = "; ".join(f"{n:,} {reason}" for reason, n in reasons.items() if n)
    return f"{n_all - n_used:,} of {n_all:,} windows are left out: {listed}"


def covered_rows(windows: Windows, numbers: Rows) -> NDArray[np.bool_]:
    """Whether each of `Windows.rows` is in one of some windows."""
    found = np.zeros(len(windows.rows), dtype=bool)
    for start in range(0, len(numbers), CHUNK):
        found[windows.index(numbers[start : start + CHUNK])] = True
    return found
