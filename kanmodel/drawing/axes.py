"""Axes of a plot: the scale from values to pixels, and the ticks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10

from kanmodel.drawing.svg import require_finite
from kanmodel.scaling import Array

STEPS = (1, 2, 5, 10)  # distances of ticks, times a power of ten
TINY = 1e-300  # shorter scales have no ticks


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels.

    Attributes:
        low: smallest value.
        high: largest value, above `low`.
        start: pixel of `low`.
        end: pixel of `high`.
    """

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def all_at(self, values: Array) -> list[float]:
        """The pixels of values."""
        return [self.at(value) for value in values.tolist()]

    def ticks(self, count: int = 6) -> list[float]:
        """At most `count` + 1 round values, evenly spaced."""
        rough = (self.high - self.low) / count
        power = 10.0 ** floor(log10(rough))
        step = next(factor * power for factor in STEPS if factor * power >= rough * (1 - 1e-9))
        return [number * step for number in range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)]


def scale_over(values: Iterable[float], start: float, end: float, margin: float = 0.0) -> Scale:
    """The scale from the smallest to the largest value; if they are equal, a scale around that value.

    Args:
        values: the values to include.
        start: pixel of the smallest.
        end: pixel of the largest.
        margin: added on either side, as a share of the length.

    Raises:
        NonFiniteError: a value is not finite.
    """
    known = [float(value) for value in values]
    require_finite(sum(known))
    low, high = min(known), max(known)
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, TINY):
        around = size if size > TINY else 1.0
        low, high = low - around, high + around
    beyond = margin * (high - low)
    return Scale(low - beyond, high + beyond, start, end)
