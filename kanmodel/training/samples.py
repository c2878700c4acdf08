"""Samples of a table: windows with their targets, split into training, validation and test.

A window ends at row e and consists of the rows e-lookback+1 .. e. Its targets are those of the rows e+ahead ..
e+ahead+horizon-1. With `ahead` 0 the target columns are already shifted: each row has the value to forecast from it. A
sample never shares a row with another part, never crosses a change of segment or a gap in time, and has no missing
value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.data import Array, Clock, Scaling, refuse_non_finite, window_ends
from kanmodel.errors import DataError, UnknownNameError
from kanmodel.network.config import Groups, resolve_groups

Labels = NDArray[np.generic]
Ends = NDArray[np.int64]
Flags = NDArray[np.bool_]

PARTS = ("train", "validation", "test")
TEST_SHARE = 0.15  # of the rows, the newest, if no split is given
MIN_SAMPLES = 8  # of each part
N_NAMED = 5  # columns that a message names


@dataclass(frozen=True)
class TrainingTable:
    """The columns of a table, as arrays; rows oldest first.

    Attributes:
        features: (n_rows, n_features), original units; NaN where a value is missing.
        targets: (n_rows, n_targets), original units; NaN where a value is missing.
        feature_names: names of the columns of `features`.
        target_names: names of the columns of `targets`.
        ahead: rows from a window's last row to its first target; 0 if `targets` are already shifted.
        split: (n_rows,), each row's part: ``train``, ``validation`` or ``test``; None if the
            newest 15 % are for the test.
        segment: (n_rows,), changes where another series begins; None if there is only one.
        clock: the instant of each row; None if unknown. No window spans one of its gaps.
        times: each row's time stamp; None if unknown.
        units: unit of a feature or target, by name.
        last_value: by target, the feature whose value at a window's last row is the persistence forecast, or 0 for a
            target that is itself a change. Without one it is the target's own last value, if `ahead` is not 0.
        groups: features that belong together, by the name of their group.
        integer: names of features whose values are whole numbers.
        fixed: names of features that nobody can change.
        left_out: why a column is not a feature, by its name, where features were not named.
    """

    features: Array
    targets: Array
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    ahead: int = 0
    split: Labels | None = None
    segment: Labels | None = None
    clock: Clock | None = None
    times: tuple[str, ...] | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    last_value: Mapping[str, str | float] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)
    integer: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, values in (("features", self.features), ("targets", self.targets)):
            refuse_non_finite(np.where(np.isnan(values), 0.0, values), path)
        if type(self.ahead) is not int or self.ahead < 0:
            raise DataError(f"ahead must be a whole number from 0, but is {self.ahead!r}")
        for name in self.target_names:
            if name in self.feature_names and not self.ahead:
                raise DataError(f"{name} is a target and a feature, so the model would see the value to forecast")
        _refuse_unknown(self.units, "unit", (*self.feature_names, *self.target_names))
        _refuse_unknown(self.last_value, "last value", self.target_names)
        sources = [source for source in self.last_value.values() if source != 0]
        _refuse_unknown(dict.fromkeys(map(str, sources)), "last value", self.feature_names)
        resolve_groups(self.groups, self.feature_names)
        _refuse_unknown(dict.fromkeys(self.fixed), "fixed feature", self.feature_names)
        _refuse_unknown(dict.fromkeys(self.integer), "integer feature", self.feature_names)
        for name in self.integer:
            values = self.features[:, self.feature_names.index(name)]
            for row in np.flatnonzero((values != np.rint(values)) & ~np.isnan(values)).tolist():
                raise DataError.at(
                    f"data row {row + 1}, column {name}", f"must be a whole number, but is {values[row]}"
                )
        if self.split is not None:
            for row, label in enumerate(self.split.tolist()):
                if label not in PARTS:
                    raise DataError(f"the split of data row {row + 1} must be one of {list(PARTS)}, but is {label!r}")

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        return len(self.features)


@dataclass(frozen=True)
class Parts:
    """Rows at which the windows of each part end, ascending.

    Attributes:
        train: of the training part.
        validation: of the validation part.
        test: of the test part.
        missing: the windows left out.
    """

    train: Ends
    validation: Ends
    test: Ends
    missing: Missing


@dataclass(frozen=True)
class Missing:
    """Counts of windows left out because a value or a target is missing.

    Attributes:
        windows: number of windows left out.
        by_column: number of those with a missing value in each column, the most first.
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
class Samples:
    """Windows and targets in model units, cut from the rows on demand.

    Attributes:
        rows: features, (n_rows, n_features), model units.
        targets: (n_rows, n_targets), model units.
        lookback: steps of a window.
        horizon: forecast steps.
        ahead: rows from a window's last row to its first target.
    """

    rows: Tensor
    targets: Tensor
    lookback: int
    horizon: int
    ahead: int = 0

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
    table: TrainingTable, lookback: int, horizon: int, validation_share: float, validation_blocks: int
) -> Parts:
    """Splits the samples of a table into three parts.

    If the split has no validation rows, blocks of training samples are held out, evenly spread over all rows of
    training, so that they cover its seasons. Training samples that share a row with one of them are left out.

    Args:
        table: the rows.
        lookback: steps of a window.
        horizon: forecast steps.
        validation_share: share of the training samples to hold out.
        validation_blocks: most blocks to hold out; fewer if each would be shorter than one sample with its targets.

    Raises:
        DataError: a part has too few samples; the message states its longest run of rows, and the windows left out for
            missing values.
    """
    is_test = np.arange(table.n_rows) >= round((1 - TEST_SHARE) * table.n_rows)
    labels = np.where(is_test, "test", "train") if table.split is None else table.split
    boundaries = _boundaries(table, labels)
    last = table.ahead + horizon - 1  # row of the last target, relative to the window's last row
    span = lookback + last  # rows of a sample
    if table.n_rows < span:
        raise DataError(f"the table has {table.n_rows} rows, but one window with its targets needs {span}")
    ends, missing = _leave_out(table, window_ends(boundaries, table.n_rows, span) - last, lookback, horizon)
    parts = {part: ends[labels[ends] == part] for part in PARTS}
    if "validation" not in labels:
        parts["train"], parts["validation"] = _hold_out(parts["train"], span, validation_share, validation_blocks)
    for part, found in parts.items():
        if len(found) < MIN_SAMPLES:
            held_out = part == "validation" and "validation" not in labels
            longest = _longest_run(boundaries, labels == ("train" if held_out else part))
            reasons = [f"its longest run of rows without a gap is {longest}"]
            if table.clock is not None and table.clock.gaps.any():
                reasons.append(str(table.clock))
            if missing.windows:
                reasons.append(str(missing))
            raise DataError(
                f"the {part} part has {len(found)} windows of {span} rows, but needs {MIN_SAMPLES}; "
                + "; ".join(reasons)
            )
    return Parts(**parts, missing=missing)


def covered_rows(ends: Ends, first: int, last: int) -> Ends:
    """Rows from `first` to `last` of all windows, inclusive and relative to a window's last row."""
    return np.unique(ends[:, None] + np.arange(first, last + 1))


def _boundaries(table: TrainingTable, labels: Labels) -> list[Labels]:
    """Columns whose changes no sample may span."""
    runs = None if table.clock is None else np.cumsum(table.clock.gaps)
    return [column for column in (labels, table.segment, runs) if column is not None]


def _leave_out(table: TrainingTable, ends: Ends, lookback: int, horizon: int) -> tuple[Ends, Missing]:
    """The windows without missing values or targets, and the number of the others, by column."""
    names = (*table.feature_names, *(f"{name} (target)" for name in table.target_names))
    reads = [(column, ends + 1 - lookback, lookback) for column in table.features.T]
    reads += [(column, ends + table.ahead, horizon) for column in table.targets.T]
    incomplete, counts = np.zeros(len(ends), dtype=bool), {}
    for name, (column, first, length) in zip(names, reads, strict=True):
        before = np.concatenate([[0], np.cumsum(np.isnan(column))])  # missing values before each row
        lacks = before[first + length] > before[first]
        counts[name] = int(lacks.sum())
        incomplete |= lacks
    ordered = sorted(((name, count) for name, count in counts.items() if count), key=lambda pair: -pair[1])
    return ends[~incomplete], Missing(int(incomplete.sum()), dict(ordered))


def _hold_out(ends: Ends, span: int, share: float, most_blocks: int) -> tuple[Ends, Ends]:
    """Training and validation windows: holds out evenly spread blocks of consecutive samples."""
    n_held = round(share * len(ends))
    n_blocks = int(np.clip(n_held // span, 1, most_blocks))
    length = n_held // n_blocks
    centres = (np.arange(n_blocks) + 0.5) * len(ends) / n_blocks
    starts = np.round(centres - length / 2).astype(int)
    held = ends[(starts[:, None] + np.arange(length)).ravel()]
    if not len(held):
        return ends, held
    after = np.searchsorted(held, ends)  # the first held-out window that ends no earlier
    to_next = np.abs(held[np.minimum(after, len(held) - 1)] - ends)
    to_previous = np.abs(ends - held[np.maximum(after - 1, 0)])
    return ends[np.minimum(to_next, to_previous) >= span], held


def _longest_run(boundaries: Sequence[Labels], chosen: Flags) -> int:
    """Length of the longest run of chosen rows in which no boundary column changes."""
    if not chosen.any():
        return 0
    breaks = np.zeros(len(chosen), dtype=int)
    for column in boundaries:
        breaks[1:] |= column[1:] != column[:-1]
    return int(np.bincount(np.cumsum(breaks)[chosen]).max())


def _refuse_unknown(given: Mapping[str, object], what: str, existing: Sequence[str]) -> None:
    for name in given:
        if name not in existing:
            raise UnknownNameError(f"{what} given for {name!r}, which is not one of {list(existing)}")
