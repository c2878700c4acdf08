"""The rows of a table as samples: windows with the targets that belong to them, in three parts.

A window ends at row e and reads the rows e-lookback+1 .. e. Its targets are those of the rows e ..
e+horizon-1: a target column holds, at each row, what is to be forecast at that row, so that step 1 is the
target of the window's last row. A sample never shares a row with another part, and never crosses a change
of segment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.errors import DataError, UnknownNameError
from kanmodel.scaling import Array, Scaling
from kanmodel.windows import refuse_non_finite, window_ends

Labels = NDArray[np.generic]
Ends = NDArray[np.int64]

PARTS = ("train", "validation", "test")
TIME_ORDERED = (0.70, 0.15, 0.15)  # share of each part, oldest rows first, where no split is given
MIN_SAMPLES = 8  # of each part
MAX_BLOCKS = 10  # stretches that a held-out validation part consists of
BLOCK_SPANS = 4  # each is at least so many samples' rows long, since the samples beside it are lost


@dataclass(frozen=True)
class TrainingTable:
    """The columns of a table, as arrays; rows oldest first.

    Attributes:
        features: (n_rows, n_features), original units.
        targets: (n_rows, n_targets), original units; at each row what is to be forecast there.
        feature_names: names of the columns of `features`.
        target_names: names of the columns of `targets`.
        split: (n_rows,), each row's part: ``train``, ``validation`` or ``test``; None for 70/15/15 % in
            row order.
        segment: (n_rows,), changes at each gap; None where there is none.
        times: each row's time stamp; None where unknown.
        units: unit of a feature or target, by name.
        last_value: by target, the feature whose value at a window's last row is what the persistence forecast
            repeats. Without one the target counts as a change, and persistence forecasts 0.
    """

    features: Array
    targets: Array
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    split: Labels | None = None
    segment: Labels | None = None
    times: tuple[str, ...] | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    last_value: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, values in (("features", self.features), ("targets", self.targets)):
            refuse_non_finite(values, path)
        for name in self.target_names:
            if name in self.feature_names:
                raise DataError(f"{name} is a target and a feature, so the model would be given its answer")
        _refuse_unknown(self.units, "unit", (*self.feature_names, *self.target_names))
        _refuse_unknown(self.last_value, "last value", self.target_names)
        _refuse_unknown(dict.fromkeys(self.last_value.values()), "last value", self.feature_names)
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
    """Row numbers at which the windows of each part end, ascending."""

    train: Ends
    validation: Ends
    test: Ends


@dataclass(frozen=True)
class Samples:
    """Windows and targets in model units, cut from the rows on demand.

    Attributes:
        rows: features, (n_rows, n_features), model units.
        targets: (n_rows, n_targets), model units.
        lookback: steps of a window.
        horizon: forecast steps.
    """

    rows: Tensor
    targets: Tensor
    lookback: int
    horizon: int

    @classmethod
    def of(cls, table: TrainingTable, scaling: Scaling, lookback: int, horizon: int) -> Samples:
        """The samples of a table."""
        n_targets = len(table.target_names)
        mean, scale = scaling.output_mean[:n_targets], scaling.output_scale[:n_targets]
        targets = torch.from_numpy((table.targets - mean) / scale).to(scaling.dtype)
        return cls(scaling.features_to_model(table.features), targets, lookback, horizon)

    def windows(self, ends: Ends) -> Tensor:
        """(len(ends), lookback, n_features), oldest step first."""
        return self.rows[torch.from_numpy(ends[:, None] + np.arange(1 - self.lookback, 1))]

    def outputs(self, ends: Ends) -> Tensor:
        """(len(ends), horizon * n_targets), steps outermost."""
        return self.targets[torch.from_numpy(ends[:, None] + np.arange(self.horizon))].flatten(1)


def split_samples(table: TrainingTable, lookback: int, horizon: int, validation_share: float) -> Parts:
    """Sorts the samples of a table into three parts.

    Where the split names no validation rows, stretches of training samples spread over the whole time are
    held out, and training samples that share a row with one of them are left out.

    Args:
        table: the rows.
        lookback: steps of a window.
        horizon: forecast steps.
        validation_share: share of the training samples to hold out.

    Raises:
        DataError: a part has too few samples; the message says how long its longest run of rows is.
    """
    labels = _time_ordered(table.n_rows) if table.split is None else table.split
    boundaries = [labels] if table.segment is None else [labels, table.segment]
    span = lookback + horizon - 1  # rows of a sample
    if table.n_rows < span:
        raise DataError(f"the table has {table.n_rows} rows, but one window with its targets needs {span}")
    ends = window_ends(boundaries, table.n_rows, span) - (horizon - 1)
    parts = {part: ends[labels[ends] == part] for part in PARTS}
    if "validation" not in labels:
        parts["train"], parts["validation"] = _hold_out(parts["train"], span, validation_share)
    for part, found in parts.items():
        if len(found) < MIN_SAMPLES:
            held_out = part == "validation" and "validation" not in labels
            longest = _longest_run(boundaries, labels == ("train" if held_out else part))
            raise DataError(
                f"the {part} part has {len(found)} windows of {span} rows, but needs {MIN_SAMPLES}; "
                f"its longest run of rows without a gap is {longest}"
            )
    return Parts(**parts)


def covered_rows(ends: Ends, first: int, last: int) -> Ends:
    """Rows from `first` to `last` of all the windows, both relative to a window's last row and included."""
    return np.unique(ends[:, None] + np.arange(first, last + 1))


def _time_ordered(n_rows: int) -> Labels:
    bounds = np.round(np.cumsum(TIME_ORDERED) * n_rows).astype(int)
    return np.array(PARTS)[np.searchsorted(bounds, np.arange(n_rows), side="right")]


def _hold_out(ends: Ends, span: int, share: float) -> tuple[Ends, Ends]:
    """Training and validation: evenly spread blocks of consecutive samples are held out."""
    n_held = round(share * len(ends))
    n_blocks = int(np.clip(n_held // (BLOCK_SPANS * span), 1, MAX_BLOCKS))
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


def _longest_run(boundaries: Sequence[Labels], chosen: NDArray[np.bool_]) -> int:
    """Rows of the longest stretch of chosen rows within which no boundary column changes."""
    if not chosen.any():
        return 0
    breaks = np.zeros(len(chosen), dtype=int)
    for column in boundaries:
        breaks[1:] |= column[1:] != column[:-1]
    return int(np.bincount(np.cumsum(breaks)[chosen]).max())


def _refuse_unknown(given: Mapping[str, object], what: str, existing: Sequence[str]) -> None:
    for name in given:
        if name not in existing:
            raise UnknownNameError(f"{what} given for {name!r}, which is none of {list(existing)}")
