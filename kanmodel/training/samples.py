"""Samples of a table: windows with their targets, split into training, validation, calibration and test.

A window ends at row e and consists of the rows e-lookback+1 .. e. Its targets are those of the rows e+ahead ..
e+ahead+horizon-1. With `ahead` 0 the target columns are already shifted: each row has the value to forecast from it. A
sample never shares a row with another part, never crosses a change of segment or a gap in time, and has no missing
value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.errors import DataError
from kanmodel.tables.columns import Scaling
from kanmodel.tables.instants import window_ends
from kanmodel.training.tables import PARTS, TrainingTable

Ends = NDArray[np.int64]  # last rows of windows, ascending

TEST_SHARE = 0.15  # of the rows, the newest, if no split is given
MIN_SAMPLES = 8  # of each part
N_NAMED = 5  # columns that a message names


@dataclass(frozen=True)
class Missing:
    """Windows left out for a missing value or target.

    Attributes:
        windows: their number.
        by_column: number of those with a missing value in each such column, the most first.
    """

    windows: int
    by_column: Mapping[str, int]

    @property
    def worst(self) -> dict[str, int]:
        """The columns with the most missing values."""
        return dict(list(self.by_column.items())[:N_NAMED])

    def __str__(self) -> str:
        worst = ", ".join(f"{name} ({count})" for name, count in self.worst.items())
        return f"{self.windows} windows are left out for missing values, of {worst}"


@dataclass(frozen=True)
class Parts:
    """The windows of each part, and those left out."""

    train: Ends
    validation: Ends
    calibration: Ends  # of intervals; empty without
    test: Ends
    missing: Missing
    left_out: str = ""  # how many windows and rows are left out, and why; empty if none are


@dataclass(frozen=True)
class Samples:
    """Windows and targets in model units, cut from the rows on demand."""

    rows: Tensor  # features, (n_rows, n_features), model units
    targets: Tensor  # (n_rows, n_targets), model units
    lookback: int  # steps of a window
    horizon: int  # forecast steps
    ahead: int = 0  # rows from a window's last row to its first target

    @classmethod
    def of(cls, table: TrainingTable, scaling: Scaling, lookback: int, horizon: int) -> Samples:
        """The samples of a table."""
        n_targets = len(table.target_names)
        mean, scale = scaling.output_mean[:n_targets], scaling.output_scale[:n_targets]
        targets = torch.from_numpy((table.targets - mean) / scale).to(scaling.dtype)
        return cls(scaling.features_to_model(table.features), targets, lookback, horizon, table.ahead)

    def windows(self, ends: Ends) -> Tensor:
        """(len(ends), lookback, n_features), oldest step first."""
        return self.rows[torch.from_numpy(ends[:, None] + np.arange(1 - self.lookback, 1))]

    def outputs(self, ends: Ends) -> Tensor:
        """(len(ends), horizon * n_targets), steps outermost."""
        return self.targets[torch.from_numpy(ends[:, None] + self.ahead + np.arange(self.horizon))].flatten(1)


def split_samples(
    table: TrainingTable,
    lookback: int,
    horizon: int,
    validation_share: float,
    validation_blocks: int,
    n_calibration: int = 0,
) -> Parts:
    """Splits the samples of a table into parts.

    If the split has no validation rows, `validation_share` of the training samples are held out, in blocks that are
    evenly spread over all rows of training, so that they cover its seasons: `validation_blocks`, or fewer if each would
    be shorter than one sample with its targets. Training samples that share a row with one of them are left out.

    With `n_calibration`, the number of samples that the calibration needs, every second block is for it, so that what
    is trained on stays the same, unless there was one block alone, which is then two; if the split has validation rows,
    half as many blocks of training samples are.

    Raises:
        DataError: a part has too few samples; with its longest run of rows, and the windows left out for missing
            values.
    """
    is_test = np.arange(table.n_rows) >= round((1 - TEST_SHARE) * table.n_rows)
    labels = np.where(is_test, "test", "train") if table.split is None else table.split
    last = table.ahead + horizon - 1  # row of the last target, relative to the window's last row
    span = lookback + last  # rows of a sample
    if table.n_rows < span:
        raise DataError(f"the table has {table.n_rows} rows, but one window with its targets needs {span}")
    breaks = np.zeros(table.n_rows, dtype=bool) if table.clock is None else table.clock.gaps.copy()
    for column in (labels, table.segment):
        if column is not None:
            breaks[1:] |= column[1:] != column[:-1]
    run = np.cumsum(breaks)  # no sample spans two runs
    whole = window_ends([run], table.n_rows, span) - last
    ends, missing = leave_out(table, whole, lookback, horizon)
    parts = {part: ends[labels[ends] == part] for part in PARTS} | {"calibration": ends[:0]}
    has_validation = "validation" in labels
    if not has_validation:
        least = 2 if n_calibration else 1
        parts["train"], held = _hold_out(parts["train"], span, validation_share, validation_blocks, least)
        parts["validation"] = held.ravel()
        if n_calibration:
            parts["calibration"] = held[1::2].ravel()
            parts["validation"] = _leave_apart(held[::2].ravel(), parts["calibration"], span)
    elif n_calibration:
        share, most = validation_share / 2, max(1, validation_blocks // 2)
        parts["train"], held = _hold_out(parts["train"], span, share, most)
        parts["calibration"] = held.ravel()
    needed = dict.fromkeys(PARTS, MIN_SAMPLES) | ({"calibration": n_calibration} if n_calibration else {})
    for part, least in needed.items():
        found = parts[part]
        if len(found) < least:
            is_held_out = part == "calibration" or (part == "validation" and not has_validation)
            own = labels == ("train" if is_held_out else part)
            reasons = [f"its longest run of rows without a gap is {np.bincount(run[own]).max(initial=0)}"]
            if table.clock is not None and table.clock.gaps.any():
                reasons.append(str(table.clock))
            if missing.windows:
                reasons.append(str(missing))
            found_of = f"the {part} part has {len(found)} windows of {span} rows, but needs {least}"
            found_of += " for the intervals" if part == "calibration" else ""
            raise DataError("; ".join([found_of, *reasons]))
    left_out = _describe_left_out(table, whole, ends, missing, sum(map(len, parts.values())), span)
    return Parts(**parts, missing=missing, left_out=left_out)


def _describe_left_out(table: TrainingTable, whole: Ends, ends: Ends, missing: Missing, n_used: int, span: int) -> str:
    """The windows that are left out, with their reasons; empty if gaps and missing values are none of them."""
    breaks = np.zeros(table.n_rows, dtype=bool) if table.clock is None else table.clock.gaps.copy()
    for first, _ in table.segments[1:]:
        breaks[first] = True
    n_all = table.n_rows - span + 1
    n_gaps = n_all - len(window_ends([np.cumsum(breaks)], table.n_rows, span))
    if not n_gaps and not missing.windows:
        return ""
    worst = ", ".join(f"{name} ({count:,})" for name, count in missing.worst.items())
    reasons = {
        "that would cross a gap in time or a change of the segment": n_gaps,
        "that would be in two parts": n_all - n_gaps - len(whole) + len(ends) - n_used,
        f"for missing values, of {worst}": missing.windows,
    }
    listed = "; ".join(f"{n:,} {reason}" for reason, n in reasons.items() if n)
    return f"{n_all - n_used:,} of {n_all:,} windows are left out: {listed}"


def covered_rows(ends: Ends, first: int, last: int) -> Ends:
    """Rows from `first` to `last` of all windows, inclusive and relative to a window's last row."""
    return np.unique(ends[:, None] + np.arange(first, last + 1))


def leave_out(table: TrainingTable, ends: Ends, lookback: int, horizon: int) -> tuple[Ends, Missing]:
    """The windows without missing values or targets, and the number of the others, by column."""
    names = (*table.feature_names, *(f"{name} (target)" for name in table.target_names))
    reads = [(column, ends + 1 - lookback, lookback) for column in table.features.T]
    reads += [(column, ends + table.ahead if horizon else ends, horizon) for column in table.targets.T]
    incomplete, counts = np.zeros(len(ends), dtype=bool), Counter[str]()
    for name, (column, first, length) in zip(names, reads, strict=True):
        before = np.concatenate([[0], np.cumsum(np.isnan(column))])  # missing values before each row
        lacks = before[first + length] > before[first]
        counts[name] = int(lacks.sum())
        incomplete |= lacks
    return ends[~incomplete], Missing(int(incomplete.sum()), dict((+counts).most_common()))


def _hold_out(ends: Ends, span: int, share: float, most_blocks: int, least_blocks: int = 1) -> tuple[Ends, Ends]:
    """Training windows, and those held out, (n_blocks, length): evenly spread blocks of consecutive samples."""
    n_held = round(share * len(ends))
    n_blocks = max(least_blocks, min(n_held // span, most_blocks))
    length = n_held // n_blocks
    centres = (np.arange(n_blocks) + 0.5) * len(ends) / n_blocks
    starts = np.round(centres - length / 2).astype(int)
    held: Ends = ends[starts[:, None] + np.arange(length)]
    return _leave_apart(ends, held.ravel(), span), held


def _leave_apart(ends: Ends, others: Ends, span: int) -> Ends:
    """The windows that share no row with others, both ascending."""
    if not len(others):
        return ends
    after = np.searchsorted(others, ends)  # the first of the others that ends no earlier
    to_next = np.abs(others[np.minimum(after, len(others) - 1)] - ends)
    to_previous = np.abs(ends - others[np.maximum(after - 1, 0)])
    apart: Ends = ends[np.minimum(to_next, to_previous) >= span]
    return apart
