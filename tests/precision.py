"""How the explorer writes forecasts and contributions: as precise as the spread of the output gives a meaning to."""

from __future__ import annotations

from math import floor, log10

LEAST = 200  # of what the last digit means a spread has so many at least, where one forecast is explained


def write(value: float, explanation: dict, unit: str = "", sign: str = "") -> str:
    """A value of an output, of which ``explanation`` has the spread; with ``sign="+"`` as a change."""
    spread = explanation["tolerance"] / 1e-3  # the tolerance is in standard deviations of the output
    decimals = max(0, -floor(log10(spread / LEAST)))
    zero = float(f"{value:.{decimals}f}") == 0
    return f"{0.0 if zero else value:{'' if zero else sign}.{decimals}f}{unit and ' '}{unit}".replace("-", "−")
