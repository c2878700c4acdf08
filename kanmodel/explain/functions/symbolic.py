"""Symbolic regression of an edge function: c f(a x + b) + d for every f of pykan's library.

For each f a search over a and b, in which c and d are the least-squares ones; then as few digits as keep the R2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kanmodel.explain.functions.library import FUNCTIONS, LIBRARY
from kanmodel.explain.functions.search import search_argument
from kanmodel.scaling import Array

FAR = 20.0  # the largest argument of an exponential whose b becomes part of c
DIGITS = (4, 6, 9)  # of the numbers in a formula, tried in turn
EXACT_DIGITS = 15
LOSS = 1e-5  # of R2 that fewer digits may cost
TINY = 1e-150  # the square of less may be 0 in float64


@dataclass(frozen=True)
class Candidate:
    """A formula c f(a x + b) + d for sampled values.

    Attributes:
        function: name of f, in `kanmodel.explain.functions.library.FUNCTIONS`.
        a: inner scale.
        b: inner shift.
        c: outer scale.
        d: outer shift.
        r2: coefficient of determination on the samples.
        complexity: pykan's price of f; 1 for a straight line.
    """

    function: str
    a: float
    b: float
    c: float
    d: float
    r2: float
    complexity: int

    @property
    def expression(self) -> str:
        """The formula of x in Python's notation, with numpy's names."""
        inner = _affine(self.a, "x", self.b)
        return _affine(self.c, FUNCTIONS[self.function].pattern.format(inner), self.d)

    def values(self, x: Array) -> Array:
        """The formula at positions, (n,); not finite beyond the domain of f."""
        with np.errstate(all="ignore"):
            values: Array = self.c * FUNCTIONS[self.function].values(self.a * x + self.b) + self.d
        return values

    def is_defined_between(self, low: float, high: float) -> bool:
        """Whether f is defined, and has no pole, wherever x is between two positions."""
        return FUNCTIONS[self.function].is_defined_between(self.a * low + self.b, self.a * high + self.b)


def suggest_formulas(x: Array, y: Array, functions: Iterable[str] = tuple(LIBRARY)) -> list[Candidate]:
    """The best formula of each function, by R2 to four digits and then complexity; a straight line is among them.

    No formula leaves the domain of its function, or has a pole, between the smallest and the largest position. For
    values or positions within 1e-150 of each other the straight line is the only formula, of slope 0 for a constant.

    Args:
        x: positions, (n,), finite.
        y: values there, (n,), finite.
        functions: names from `LIBRARY`.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    candidates = [_fitted("x", 1.0, 0.0, x, y)]
    if min(np.ptp(x), np.ptp(y)) > TINY:
        middle, half = (x[-1] + x[0]) / 2, (x[-1] - x[0]) / 2
        u = (x - middle) / half
        centred = (y - y.mean()) / np.ptp(y)
        unit = centred / np.sqrt(centred @ centred)
        for name in dict.fromkeys(functions):
            found = search_argument(name, u, unit) if name != "x" else None
            if found is None:
                continue
            a = (found.last - found.first) / (2 * half)
            b = (found.last + found.first) / 2 - a * middle
            candidate = _fitted(name, *_standard(name, a, b, x), x, y)
            if np.isfinite(candidate.r2):
                candidates.append(candidate)
    return sorted(candidates, key=lambda candidate: (-round(candidate.r2, 4), candidate.complexity))


def _standard(name: str, a: float, b: float, x: Array) -> tuple[float, float]:
    """a and b in a standard form: a factor or shift that c and d can express is moved there."""
    function = LIBRARY[name]
    if function.mirrored and a < 0:
        a, b = -a, -b
    if function.homogeneous and a != 0:
        a, b = float(np.sign(a)), b / abs(a)
    if name == "sin":
        b = float(np.remainder(b + np.pi, 2 * np.pi) - np.pi)
    if name == "exp" and np.abs(a * x).max() < FAR:
        b = 0.0
    return float(a), float(b)


def _fitted(name: str, a: float, b: float, x: Array, y: Array) -> Candidate:
    """The candidate for f(a x + b) with as few digits as its R2 allows; that is NaN beyond the domain of f."""
    exact = _rounded(name, a, b, x, y, EXACT_DIGITS)
    shorter = (_rounded(name, a, b, x, y, digits) for digits in DIGITS)
    return next((candidate for candidate in shorter if candidate.r2 >= exact.r2 - LOSS), exact)


def _rounded(name: str, a: float, b: float, x: Array, y: Array, digits: int) -> Candidate:
    """The candidate with `digits` digits; c and d are fitted by least squares after a and b are rounded."""
    function = LIBRARY[name]
    a = _tidy(a, digits)
    b = _tidy(b, digits, float(np.abs(a * x).max()))
    if not function.is_defined_between(a * x[0] + b, a * x[-1] + b):
        return Candidate(name, a, b, 0.0, 0.0, float("nan"), function.complexity)
    with np.errstate(all="ignore"):
        values = function.values(a * x + b)
        centred, y_centred = values - values.mean(), y - y.mean()
        spread, y_spread = float(centred @ centred), float(y_centred @ y_centred)
        c = _tidy(float(centred @ y_centred) / spread if np.ptp(values) > TINY else 0.0, digits)
        d = _tidy(float((y - c * values).mean()), digits, float(np.abs(c * values).max()))
        lost = y - c * values - d
        r2 = 1 - float(lost @ lost) / y_spread if np.ptp(y) > TINY else 1.0
    return Candidate(name, a, b, c, d, r2, function.complexity)


def _tidy(value: float, digits: int, beside: float = 0.0) -> float:
    """A number rounded to `digits` digits; 0 if it is negligible beside another."""
    return 0.0 if abs(value) <= beside * 10.0 ** (-digits - 2) else float(f"{value:.{digits}g}")


def _affine(scale: float, inner: str, shift: float) -> str:
    """``scale*inner + shift`` without a factor of 1 or a term of 0."""
    if scale == 0:
        return f"{shift:.15g}"
    text = inner if scale == 1 else f"{scale:.15g}*{inner}"
    return text if shift == 0 else f"{text} {'+' if shift > 0 else '-'} {abs(shift):.15g}"
