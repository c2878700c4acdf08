"""Verification of an import: compares known predictions with those of the network, within a tolerance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kanmodel.importers.manifest import DEFAULT_TOLERANCE
from kanmodel.scaling import Array

MAX_TOLERANCE = 0.01  # in standard deviations of an output: a check with a larger tolerance proves nothing
ROUNDING = 8 * float(np.finfo(np.float32).eps)  # allowed for float32, relative to the output's largest magnitude


@dataclass(frozen=True)
class Comparison:
    """The largest difference of two sets of predictions, relative to the allowed difference.

    Attributes:
        absolute: the difference, in the unit of the predictions; inf if the computed one is not finite.
        relative: the same in standard deviations of that output over the check's windows, or relative to the output's
            magnitude if it does not vary.
        window: index of the window.
        output: index of the output.
        expected: the known prediction.
        computed: the prediction of the network.
        varies: whether that output varies by more than float32's rounding.
        matches: whether this difference, and so every other, is allowed.
    """

    absolute: float
    relative: float
    window: int
    output: int
    expected: float
    computed: float
    varies: bool
    matches: bool


@dataclass(frozen=True)
class Bounds:
    """The allowed differences, one for each output.

    Attributes:
        unit: unit of `Comparison.relative`: the standard deviation, or the largest magnitude of an output that does
            not vary.
        varies: whether the output varies by more than float32's rounding.
        allowed: the largest allowed difference.
    """

    unit: Array
    varies: NDArray[np.bool_]
    allowed: Array

    @classmethod
    def of(cls, expected: Array, tolerance: float) -> Bounds:
        """The bounds for known predictions: `tolerance` units, plus float32's rounding at the output's magnitude.

        All three scale with the predictions, so that the verdict does not depend on their unit. An output that does not
        vary must be equal within `DEFAULT_TOLERANCE` of its magnitude at most.

        Args:
            expected: known predictions, (n, n_outputs).
            tolerance: in standard deviations of each output.
        """
        magnitude = np.abs(expected).max(axis=0)
        # standard deviation of values scaled to at most 1, so that no square overflows or underflows
        std = magnitude * (expected / np.where(magnitude > 0, magnitude, 1)).std(axis=0)
        rounding = ROUNDING * magnitude
        varies = std > rounding
        relative = np.where(varies, tolerance, min(tolerance, DEFAULT_TOLERANCE))
        unit = np.where(varies, std, magnitude)
        return cls(unit, varies, relative * unit + rounding)

    @property
    def proves_nothing(self) -> int | None:
        """The first output that varies, but may differ by more than `MAX_TOLERANCE` standard deviations."""
        found = np.flatnonzero(self.varies & (self.allowed > MAX_TOLERANCE * self.unit))
        return int(found[0]) if len(found) else None

    def compare(self, expected: Array, computed: Array) -> Comparison:
        """The largest difference relative to the allowed one; both arguments (n, n_outputs)."""
        differences = np.where(np.isfinite(computed), np.abs(computed - expected), np.inf)
        excess = _ratio(differences, self.allowed)
        window, output = (int(n) for n in np.unravel_index(int(excess.argmax()), excess.shape))
        return Comparison(
            absolute=float(differences[window, output]),
            relative=float(_ratio(differences, self.unit)[window, output]),
            window=window,
            output=output,
            expected=float(expected[window, output]),
            computed=float(computed[window, output]),
            varies=bool(self.varies[output]),
            matches=bool(excess[window, output] <= 1),
        )


def _ratio(differences: Array, units: Array) -> Array:
    """Differences (n, n_outputs) in units (n_outputs,); infinite for a unit of 0."""
    ratios = np.where(differences > 0, np.inf, 0.0)
    np.divide(differences, units, out=ratios, where=np.broadcast_to(units > 0, differences.shape))
    return ratios


def describe_relative(comparison: Comparison) -> str:
    """The relative difference, in words."""
    what = "standard deviations of that output" if comparison.varies else "of the magnitude of that output"
    return f"{comparison.relative:.2g} {what}"
