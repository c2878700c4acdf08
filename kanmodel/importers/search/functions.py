"""Equivalence of readings: which of them compute the same function, on windows near and far from the given ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from kanmodel.importers.comparison import Comparison
from kanmodel.importers.search.evidence import Evidence
from kanmodel.importers.search.space import Reading
from kanmodel.scaling import Array

SAME = 1e-10  # of the spread: readings that differ less on all probes are the same function
STRETCHES = (1.0, 3.0, 10.0)  # how far from the mean two functions are compared
N_MIXED = 256  # mixed probes for each stretch


@dataclass(frozen=True)
class Match:
    """A function that gives the predictions, with all readings that compute it.

    Attributes:
        reading: the simplest reading.
        comparison: its largest difference from the predictions.
        same: other readings of the same function.
        probed: its outputs for the probes, (n_probes, n_outputs).
    """

    reading: Reading
    comparison: Comparison
    same: tuple[Reading, ...]
    probed: Array


@dataclass(frozen=True)
class Apart:
    """The difference of two functions that both give the predictions.

    Attributes:
        window: index of the reference window, without a prediction, on which they differ most.
        difference: their difference there, in standard deviations of the output.
        material: whether it is more than the check allows.
        stretch: how many times as far from the mean as the given ones windows must be for the two to differ by more
            than the check allows; None if they do not at any of `STRETCHES`.
    """

    window: int
    difference: float
    material: bool
    stretch: float | None


def group_readings(found: Iterable[tuple[Reading, Comparison]], evidence: Evidence) -> list[Match]:
    """Groups readings by function, the simplest first."""
    probes = _make_probes(np.concatenate([evidence.windows, evidence.reference]))
    matches: list[tuple[Array, Reading, Comparison, list[Reading]]] = []
    for reading, comparison in found:
        outputs = evidence.predict(evidence.build(reading, torch.float64), reading, probes)
        for known, _, _, same in matches:
            if _same(known, outputs, evidence.bounds.unit):
                same.append(reading)
                break
        else:
            matches.append((outputs, reading, comparison, []))
    return [Match(reading, comparison, tuple(same), outputs) for outputs, reading, comparison, same in matches]


def compare_functions(one: Match, other: Match, evidence: Evidence) -> Apart:
    """The difference of two functions on the probes."""
    if one is other:
        return Apart(0, 0.0, material=False, stretch=None)
    tiny = np.finfo(float).tiny
    differences = np.abs(one.probed - other.probed)
    excess = np.nan_to_num(differences / np.maximum(evidence.bounds.allowed, tiny), nan=np.inf).max(axis=1)
    far = (excess > 1).reshape(len(STRETCHES), -1).any(axis=1)
    n_checked, n_reference = len(evidence.windows), len(evidence.reference)
    window = int(excess[n_checked : n_checked + n_reference].argmax())
    relative = (differences[n_checked + window] / np.maximum(evidence.bounds.unit, tiny)).max()
    return Apart(
        window,
        float(relative),
        material=bool(excess[n_checked + window] > 1),
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
    constant = np.broadcast_to(
        mixed[:, :1], mixed.shape
    )  # the same at every step, which drives recurrent units to extreme states
    around = np.concatenate([windows, mixed, constant]) - mean
    return np.concatenate([mean + stretch * around for stretch in STRETCHES])


def _same(one: Array, other: Array, unit: Array) -> bool:
    with np.errstate(invalid="ignore"):
        equal = np.abs(one - other) <= SAME * np.maximum(np.maximum(unit, np.abs(one)), np.finfo(float).tiny)
    return bool((equal | (~np.isfinite(one) & ~np.isfinite(other))).all())
