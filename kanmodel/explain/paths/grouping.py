"""Contributions of groups of features and segments of steps: sums over their members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kanmodel.errors import DataError, quote
from kanmodel.scaling import Array
from kanmodel.windows import rows_of_steps

Segments = Mapping[str, tuple[int, int]]
"""Name of a segment to its first and last step: 0 is the newest, -1 the one before."""


def sum_groups(contributions: Array, groups: Iterable[Sequence[int]]) -> Array:
    """The contribution of each group of features, which are given by numbers, (..., n_features) -> (..., n_groups)."""
    return np.stack([contributions[..., list(members)].sum(axis=-1) for members in groups], axis=-1)


def sum_segments(steps: Array, segments: Sequence[slice]) -> Array:
    """The contribution of each segment, (n, lookback, ...) -> (n, n_segments, ...)."""
    return np.stack([steps[:, segment].sum(axis=1) for segment in segments], axis=1)


def resolve_segments(segments: object, lookback: int) -> dict[str, slice]:
    """The rows of a window, oldest first, of each segment.

    Raises:
        DataError: not a mapping of names to pairs, or a segment is not a range of steps, or overlaps with another.
    """
    if not isinstance(segments, Mapping) or not all(isinstance(name, str) and name for name in segments):
        raise DataError.at("segments", f"must be an object of pairs of steps by their names, but is {quote(segments)}")
    taken: dict[int, str] = {}
    rows: dict[str, slice] = {}
    for name, ends in segments.items():
        place = f"segments.{name}"
        if not _are_ends(ends, lookback):
            message = f"must be two steps from {1 - lookback} to 0, first and last, but is {quote(ends)}"
            raise DataError.at(place, message)
        first, last = ends
        for step in range(first, last + 1):
            if step in taken:
                raise DataError.at(place, f"shares step {step} with {quote(taken[step])}")
            taken[step] = name
        rows[name] = rows_of_steps(first, last, lookback)
    return rows


def complete_segments(segments: Segments, lookback: int) -> Segments:
    """The segments, and an entry for each run of steps that none of them holds, so that they sum to the whole window.

    Such a run is called ``other steps -47 to -6`` by its first and last. Without segments there are none.

    Raises:
        DataError: as `resolve_segments`, or a segment has the name of such a run.
    """
    rows = resolve_segments(segments, lookback)
    held = np.zeros(lookback, dtype=bool)
    for steps in rows.values():
        held[steps] = True
    complete = dict(segments)
    starts = np.flatnonzero(np.diff(held, prepend=True) & ~held)
    ends = np.flatnonzero(np.diff(held, append=True) & ~held)
    for first, last in zip((starts + 1 - lookback).tolist(), (ends + 1 - lookback).tolist(), strict=True):
        name = f"other steps {first} to {last}" if first < last else f"other step {first}"
        if name in segments:
            raise DataError.at(f"segments.{name}", "has the name of steps that no segment holds")
        if segments:
            complete[name] = (first, last)
    return complete


def _are_ends(ends: object, lookback: int) -> bool:
    match ends:
        case [int() as first, int() as last] if not isinstance(first, bool) and not isinstance(last, bool):
            return 1 - lookback <= first <= last <= 0
    return False
