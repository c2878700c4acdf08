"""``search``: finds the readings of a file that give the known predictions, and which of them are the same function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.data import Array
from kanmodel.importers import evaluation
from kanmodel.importers.evaluation import Progress, Screen, choose_windows, screen_all
from kanmodel.importers.samples import Comparison, Samples
from kanmodel.importers.space import Reading, Space

MAX_SECONDS = 20.0
MAX_SURVIVORS = 1000  # survivors of the screen that are compared on all windows, simplest first
N_NEAREST = 5
FIRST_ROUND = 3  # most departures of the first round, if the space is too large to evaluate at once
SAME = 1e-10  # of the spread: readings that differ less on all probes are the same function
STRETCHES = (1.0, 3.0, 10.0)  # how far from the mean two functions are compared
N_MIXED = 256  # mixed probes for each stretch


@dataclass(frozen=True)
class Match:
    """A function that gives the predictions, with all readings that compute it, and how it differs from the simplest.

    Attributes:
        reading: the simplest reading.
        comparison: its largest difference from the predictions.
        probed: its outputs for the probes, (n_probes, n_outputs).
        same: other readings of the same function.
        window: index of the reference window, without a prediction, on which it differs most from the first match.
        difference: their difference there, in standard deviations of the output.
        is_material: whether it is more than the check allows.
        stretch: how many times as far from the mean as the given ones windows must be for the two to differ by more
            than the check allows; None if they do not at any of `STRETCHES`.
    """

    reading: Reading
    comparison: Comparison
    probed: Array
    same: tuple[Reading, ...] = ()
    window: int = 0
    difference: float = 0.0
    is_material: bool = False
    stretch: float | None = None


@dataclass(frozen=True)
class Result:
    """The result of a search.

    Attributes:
        matches: functions that give the predictions, the simplest first.
        nearest: the readings nearest to the predictions on a few windows.
        tried: number of readings evaluated.
        total: number of all readings.
        left_out: number of readings that may give the predictions too, but were not compared on all windows.
    """

    matches: tuple[Match, ...]
    nearest: tuple[Reading, ...]
    tried: int
    total: int
    left_out: int = 0

    @property
    def undecided(self) -> list[Match]:
        """Other functions that fit as well as the first, and that windows exist to distinguish from it."""
        return [match for match in self.matches if match.stretch is not None]


def search(spaces: Sequence[Space], samples: Samples, progress: Progress = lambda tried, total: None) -> Result:
    """Evaluates every reading, or the simplest ones up to a limit, and compares those that fit.

    Args:
        spaces: one for each order of the file's parts.
        samples: windows and their predictions.
        progress: called from time to time.
    """
    total = sum(space.n_readings for space in spaces)
    screen, windows, deadline = Screen(), choose_windows(samples), monotonic() + MAX_SECONDS
    deepest = max(len(space.choices) for space in spaces)
    rounds, likely = [deepest], list[Reading]()
    if total > evaluation.MAX_READINGS:
        rounds = [*range(FIRST_ROUND, deepest + 1)]
        likely = _with_one_activation(spaces, samples, windows, deadline)
    least = 0
    for most in rounds:
        if not screen_all(screen, spaces, samples, windows, (least, most), deadline, progress, total):
            break
        least = most + 1
    survivors = sorted(screen.survivors, key=lambda survivor: survivor[:2])[:MAX_SURVIVORS]
    closest = [reading for _, reading in screen.nearest]
    likely = list(dict.fromkeys([*(reading for *_, reading in survivors), *likely, *closest]))
    found = sorted(_verify(likely, samples), key=lambda pair: pair[0].departures)
    if screen.tried < total:
        close = dict.fromkeys(reading for match, _ in found[:N_NEAREST] for reading in match.changed_once())
        found += _verify([reading for reading in close if reading not in likely], samples)
        found.sort(key=lambda pair: pair[0].departures)
    nearest = dict.fromkeys([*likely[:N_NEAREST], *closest[:N_NEAREST]])
    left_out = len(screen.survivors) - len(survivors)
    return Result(_group(found, samples), tuple(nearest), screen.tried, total, left_out)


def _with_one_activation(
    spaces: Sequence[Space], samples: Samples, windows: NDArray[np.intp], deadline: float
) -> list[Reading]:
    """Survivors among the readings with the same activation nearly everywhere, for any number of layers."""
    found: list[Reading] = []
    for space in spaces:
        for reordered in space.with_one_activation():
            screen = Screen()
            screen_all(screen, [reordered], samples, windows, (0, FIRST_ROUND), deadline)
            found += [reading.within(space) for *_, reading in sorted(screen.survivors, key=lambda s: s[:2])[:20]]
    return found


def _verify(readings: Sequence[Reading], samples: Samples) -> Iterator[tuple[Reading, Comparison]]:
    """Yields those that give the predictions for all windows."""
    for reading in readings:
        comparison = samples.compare(reading)
        if comparison.matches:
            yield reading, comparison


def _group(found: Sequence[tuple[Reading, Comparison]], samples: Samples) -> tuple[Match, ...]:
    """Groups readings by function, the simplest first."""
    probes = _make_probes(np.concatenate([samples.inputs, samples.reference]))
    matches: list[Match] = []
    for reading, comparison in found:
        outputs = samples.predict(samples.build(reading, torch.float64), reading, probes)
        for number, match in enumerate(matches):
            if _are_same(match.probed, outputs, samples.bounds.unit):
                matches[number] = replace(match, same=(*match.same, reading))
                break
        else:
            matches.append(Match(reading, comparison, outputs))
    return tuple([*matches[:1], *(_compare(match, matches[0], samples) for match in matches[1:])])


def _compare(match: Match, first: Match, samples: Samples) -> Match:
    """A match with its difference from the first one on the probes."""
    tiny = np.finfo(float).tiny
    differences = np.abs(first.probed - match.probed)
    excess = np.nan_to_num(differences / np.maximum(samples.bounds.allowed, tiny), nan=np.inf).max(axis=1)
    far = (excess > 1).reshape(len(STRETCHES), -1).any(axis=1)
    n_checked, n_reference = len(samples.inputs), len(samples.reference)
    window = int(excess[n_checked : n_checked + n_reference].argmax())
    relative = (differences[n_checked + window] / np.maximum(samples.bounds.unit, tiny)).max()
    return replace(
        match,
        window=window,
        difference=float(relative),
        is_material=bool(excess[n_checked + window] > 1),
        stretch=STRETCHES[int(far.argmax())] if far.any() else None,
    )


def _make_probes(windows: Array) -> Array:
    """Windows on which functions are compared: the given ones and mixtures of their values, near and far from the mean.

    In a mixture each value comes from a random window, so that units reach states that they have for no window.
    Mixtures are the same in every run.
    """
    random = np.random.default_rng(0)
    mean = windows.mean(axis=(0, 1))
    numbers = random.integers(len(windows), size=(N_MIXED, *windows.shape[1:]))
    mixed = np.take_along_axis(windows, numbers, axis=0)
    # the same at every step, which drives recurrent units to extreme states
    constant = np.broadcast_to(mixed[:, :1], mixed.shape)
    around = np.concatenate([windows, mixed, constant]) - mean
    return np.concatenate([mean + stretch * around for stretch in STRETCHES])


def _are_same(one: Array, other: Array, unit: Array) -> bool:
    with np.errstate(invalid="ignore"):
        equal = np.abs(one - other) <= SAME * np.maximum(np.maximum(unit, np.abs(one)), np.finfo(float).tiny)
    return bool((equal | (~np.isfinite(one) & ~np.isfinite(other))).all())
