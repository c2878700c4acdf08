"""Formulas for the function on an edge: c f(a x + b) + d, over pykan's library of functions.

For every f one vectorised search over (a, b), refined by zooming in; c and d are the least-squares ones, in closed
form. Many f need no search in two dimensions: a power's a is part of c, and an exponential's b too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from kanmodel.scaling import Array

N_ZOOMS = 9
FAR = 20.0  # the largest b of an exponential that becomes part of c
DIGITS = (4, 6, 9)  # of the numbers in a formula, tried in turn
LOSS = 1e-5  # of R2 that fewer digits may cost
Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Candidate:
    """A formula c f(a x + b) + d for sampled values, its numbers rounded to as few digits as keep its R2.

    Attributes:
        function: name of f.
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
        """The formula in Python's notation."""
        inner = _affine(self.a, "x", self.b)
        return _affine(self.c, LIBRARY[self.function].pattern.format(inner), self.d)


@dataclass(frozen=True)
class _Family:
    """One f: how to write it, what it costs, and which of a and b are worth a search."""

    function: Function
    pattern: str
    complexity: int
    search_a: bool = True
    search_b: bool = True
    signs: tuple[float, ...] = (1.0,)  # signs of a that are not part of c or d


LIBRARY: dict[str, _Family] = {
    "x": _Family(lambda u: u, "{}", 1, search_a=False, search_b=False),
    "x^2": _Family(lambda u: u**2, "({})**2", 2, search_a=False),
    "x^3": _Family(lambda u: u**3, "({})**3", 3, search_a=False),
    "x^4": _Family(lambda u: u**4, "({})**4", 3, search_a=False),
    "x^5": _Family(lambda u: u**5, "({})**5", 4, search_a=False),
    "1/x": _Family(lambda u: 1 / u, "1/({})", 2, search_a=False),
    "1/x^2": _Family(lambda u: 1 / u**2, "1/({})**2", 2, search_a=False),
    "sqrt": _Family(np.sqrt, "sqrt({})", 2, search_a=False, signs=(1.0, -1.0)),
    "x^1.5": _Family(lambda u: np.sqrt(u) * u, "({})**1.5", 4, search_a=False, signs=(1.0, -1.0)),
    "1/sqrt(x)": _Family(lambda u: 1 / np.sqrt(u), "1/sqrt({})", 2, search_a=False, signs=(1.0, -1.0)),
    "exp": _Family(np.exp, "exp({})", 2, search_b=False, signs=(1.0, -1.0)),
    "log": _Family(np.log, "log({})", 2, search_a=False, signs=(1.0, -1.0)),
    "abs": _Family(np.abs, "abs({})", 3, search_a=False),
    "sgn": _Family(np.sign, "sign({})", 3, search_a=False),
    "sin": _Family(np.sin, "sin({})", 2),
    "tan": _Family(np.tan, "tan({})", 3),
    "tanh": _Family(np.tanh, "tanh({})", 3),
    "gaussian": _Family(lambda u: np.exp(-(u**2)), "exp(-({})**2)", 3),
    "arcsin": _Family(np.arcsin, "asin({})", 4),
    "arctan": _Family(np.arctan, "atan({})", 4),
    "arctanh": _Family(np.arctanh, "atanh({})", 4),
}


def suggest_formulas(x: Array, y: Array, functions: Iterable[str] = tuple(LIBRARY)) -> list[Candidate]:
    """The best formula of each function, best first.

    A function whose domain the samples leave for every (a, b) tried is left out; a straight line never is.

    Args:
        x: positions, (n,).
        y: values there, (n,).
        functions: names from `LIBRARY`.
    """
    middle, half = (x.max() + x.min()) / 2, (x.max() - x.min()) / 2 or 1.0
    u = (x - middle) / half  # on [-1, 1], so that one range of (a, b) serves every edge
    candidates = []
    for name in dict.fromkeys(("x", *functions)):
        family = LIBRARY[name]
        scale, shift = max((_search(u, y, family, sign) for sign in family.signs), key=lambda found: found[0])[1:]
        a, b = scale / half, shift - scale * middle / half
        if not family.search_a:  # what is in front of x is part of c or d
            a, b = np.sign(a), b / abs(a) if family.search_b else 0.0
        elif not family.search_b and abs(b) < FAR:
            b = 0.0
        candidate = _fitted(name, float(a), float(b), x, y)
        if np.isfinite(candidate.r2):
            candidates.append(candidate)
    return sorted(candidates, key=lambda candidate: (-round(candidate.r2, 4), candidate.complexity))


def _fitted(name: str, a: float, b: float, x: Array, y: Array) -> Candidate:
    """The candidate for f(a x + b) with as few digits as its R2 allows; that is NaN beyond the domain of f."""
    exact = _rounded(name, a, b, x, y, 15)
    shorter = (_rounded(name, a, b, x, y, digits) for digits in DIGITS)
    return next((candidate for candidate in shorter if candidate.r2 >= exact.r2 - LOSS), exact)


def _rounded(name: str, a: float, b: float, x: Array, y: Array, digits: int) -> Candidate:
    """The candidate with so many digits, whose c and d are the least-squares ones for the rounded a and b."""
    a = _tidy(a, digits)
    b = _tidy(b, digits, float(np.abs(a * x).max()))
    with np.errstate(all="ignore"):
        values = LIBRARY[name].function(a * x + b)
        centred, y_centred = values - values.mean(), y - y.mean()
        spread, y_spread = float(centred @ centred), float(y_centred @ y_centred)
        c = _tidy(float(centred @ y_centred) / spread if np.ptp(values) != 0 else 0.0, digits)
        d = _tidy(float((y - c * values).mean()), digits, float(np.abs(c * values).max()))
        lost = y - c * values - d
        r2 = 1 - float(lost @ lost) / y_spread if np.ptp(y) > 0 else 1.0
    domain_left = not np.isfinite(spread)
    return Candidate(name, a, b, c, d, float("nan") if domain_left else r2, LIBRARY[name].complexity)


def _tidy(value: float, digits: int, beside: float = 0.0) -> float:
    """A number with so many digits; 0 where it is nothing beside another."""
    return 0.0 if abs(value) <= beside * 10.0 ** (-digits - 2) else float(f"{value:.{digits}g}")


def _search(u: Array, y: Array, family: _Family, sign: float) -> tuple[float, float, float]:
    """Best (r2, a, b) for u in [-1, 1]; a has the given sign."""
    if family.search_a and family.search_b:  # two starts, since a bump has mirror images that are nearly as good
        log_a = np.linspace(np.log(0.05), np.log(12.0), 28)
        grids: tuple[Array, ...] = (np.linspace(-6, 0, 25), np.linspace(0, 6, 25))
    else:
        log_a = np.linspace(np.log(0.05), np.log(12.0), 200) if family.search_a else np.zeros(1)
        grids = (np.linspace(-12, 12, 480) if family.search_b else np.zeros(1),)
    r2, best_log_a, best_b = max(_zoom(u, y, family.function, sign, log_a, b) for b in grids)
    return r2, sign * float(np.exp(best_log_a)), best_b


def _zoom(u: Array, y: Array, function: Function, sign: float, log_a: Array, b: Array) -> tuple[float, float, float]:
    """(r2, log a, b) of the best pair on a grid, and on ever finer ones around it."""
    best = _best_on_grid(u, y, function, sign, log_a, b)
    step_a, step_b = (float(grid[1] - grid[0]) if len(grid) > 1 else 0.0 for grid in (log_a, b))
    offsets = np.linspace(-1, 1, 7)
    for _ in range(N_ZOOMS if np.isfinite(best[0]) else 0):
        near_a = best[1] + offsets * step_a if step_a else np.array([best[1]])
        near_b = best[2] + offsets * step_b if step_b else np.array([best[2]])
        best = max(best, _best_on_grid(u, y, function, sign, near_a, near_b))
        step_a, step_b = step_a / 2.5, step_b / 2.5
    return best


def _best_on_grid(
    u: Array, y: Array, function: Function, sign: float, log_a: Array, b: Array
) -> tuple[float, float, float]:
    """(r2, log a, b) of the best pair; -inf where no pair keeps the samples in the function's domain."""
    inner = sign * np.exp(log_a)[:, None, None] * u + b[:, None]  # (n_a, n_b, n)
    with np.errstate(all="ignore"):
        values = function(inner)
        centred = values - values.mean(axis=-1, keepdims=True)
        spread = np.einsum("abn,abn->ab", centred, centred)
        y_centred = y - y.mean()
        r2 = (centred @ y_centred) ** 2 / (spread * (y_centred @ y_centred))
    r2 = np.where(np.isfinite(r2) & np.isfinite(spread), r2, -np.inf)
    place = np.unravel_index(int(np.argmax(r2)), r2.shape)
    return float(r2[place]), float(log_a[place[0]]), float(b[place[1]])


def _affine(scale: float, inner: str, shift: float) -> str:
    """``scale*inner + shift`` without what does nothing."""
    if scale == 0:
        return f"{shift:.15g}"
    text = inner if scale == 1 else f"{scale:.15g}*{inner}"
    return text if shift == 0 else f"{text} {'+' if shift > 0 else '-'} {abs(shift):.15g}"
