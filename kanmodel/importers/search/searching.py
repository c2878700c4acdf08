"""``search``: finds the readings of a file that reproduce the known predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from kanmodel.importers.comparison import Comparison
from kanmodel.importers.search import screening
from kanmodel.importers.search.evidence import Evidence
from kanmodel.importers.search.functions import Apart, Match, compare_functions, group_readings
from kanmodel.importers.search.screening import Progress, Screen, choose_windows, screen_all
from kanmodel.importers.search.space import Reading, Space

MAX_SECONDS = 20.0
MAX_SURVIVORS = 1000  # survivors of the screen that are compared on all windows, simplest first
N_NEAREST = 5
FIRST_ROUND = 3  # most departures of the first round, if the space is too large to evaluate at once


@dataclass(frozen=True)
class Result:
    """The result of a search.

    Attributes:
        matches: functions that give the predictions, the simplest first.
        apart: difference of each of them from the first; 0 for the first.
        nearest: the readings nearest to the predictions on a few windows.
        tried: number of readings evaluated.
        total: number of all readings.
        left_out: number of readings that may give the predictions too, but were not compared on all windows.
    """

    matches: tuple[Match, ...]
    apart: tuple[Apart, ...]
    nearest: tuple[Reading, ...]
    tried: int
    total: int
    left_out: int = 0


def search(spaces: Sequence[Space], evidence: Evidence, progress: Progress = lambda tried, total: None) -> Result:
    """Evaluates every reading, or the simplest ones up to a limit, and compares those that fit.

    Args:
        spaces: one for each order of the file's parts.
        evidence: windows and their predictions.
        progress: called from time to time.
    """
    total = sum(space.n_readings for space in spaces)
    screen = Screen()
    windows = choose_windows(evidence)
    deadline = monotonic() + MAX_SECONDS
    deepest = max(len(space.choices) for space in spaces)
    rounds = [deepest] if total <= screening.MAX_READINGS else [*range(FIRST_ROUND, deepest + 1)]
    likely = [] if total <= screening.MAX_READINGS else _with_one_activation(spaces, evidence, windows, deadline)
    least = 0
    for most in rounds:
        complete = screen_all(screen, spaces, evidence, windows, (least, most), deadline, progress, total)
        if not complete:
            break
        least = most + 1
    survivors = sorted(screen.survivors, key=lambda survivor: survivor[:2])[:MAX_SURVIVORS]
    closest = [reading for _, reading in screen.nearest]
    likely = list(dict.fromkeys([*(reading for *_, reading in survivors), *likely, *closest]))
    found = sorted(_verify(likely, evidence), key=lambda pair: pair[0].departures)
    if screen.tried < total:
        close = dict.fromkeys(reading for match, _ in found[:N_NEAREST] for reading in match.changed_once())
        found += _verify([reading for reading in close if reading not in likely], evidence)
        found.sort(key=lambda pair: pair[0].departures)
    matches = group_readings(found, evidence)
    apart = tuple(compare_functions(matches[0], match, evidence) for match in matches)
    nearest = dict.fromkeys([*likely[:N_NEAREST], *closest[:N_NEAREST]])
    left_out = len(screen.survivors) - len(survivors)
    return Result(tuple(matches), apart, tuple(nearest), screen.tried, total, left_out)


def _with_one_activation(
    spaces: Sequence[Space],
    evidence: Evidence,
    windows: NDArray[np.intp],
    deadline: float,
) -> list[Reading]:
    """Survivors among the readings with the same activation nearly everywhere, for any number of layers."""
    found: list[Reading] = []
    for space in spaces:
        for reordered in space.with_one_activation():
            screen = Screen()
            screen_all(screen, [reordered], evidence, windows, (0, FIRST_ROUND), deadline)
            found += [reading.within(space) for *_, reading in sorted(screen.survivors, key=lambda s: s[:2])[:20]]
    return found


def _verify(readings: Sequence[Reading], evidence: Evidence) -> Iterator[tuple[Reading, Comparison]]:
    """Yields those that give the predictions for all windows."""
    for reading in readings:
        network = evidence.build(reading)
        computed = evidence.predict(network, reading, evidence.windows)
        comparison = evidence.bounds.compare(evidence.expected, computed)
        if comparison.matches:
            yield reading, comparison
