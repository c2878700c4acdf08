"""The library of functions f for formulas c f(a x + b) + d: values, notation, complexity and domain.

Source: `SYMBOLIC_LIB` of pykan 0.2.8, whose names and complexities these are; silu is the base function of most KANs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, pi

import numpy as np

from kanmodel.scaling import Array


@dataclass(frozen=True)
class Function:
    """One f.

    Attributes:
        values: f itself, elementwise, float64.
        pattern: f in Python's notation, with numpy's names, where ``{}`` stands for the argument.
        complexity: pykan's price.
        domain: from where to where f is defined without a pole.
        mirrored: whether f(-u) is f(u) or -f(u), so that the sign of the argument is part of c; the domain then holds
            for the argument or its negative.
        homogeneous: whether f(a u) is a straight line of f(u) for positive a, so that the scale of the argument is
            part of c and d.
    """

    values: Callable[[Array], Array]
    pattern: str
    complexity: int
    domain: tuple[float, float] = (-inf, inf)
    mirrored: bool = False
    homogeneous: bool = False

    def is_defined_between(self, first: float, last: float) -> bool:
        """Whether the domain holds every argument from one to another, both finite in f."""
        low, high = min(first, last), max(first, last)
        inside = self.domain[0] <= low and high <= self.domain[1]
        if self.mirrored:
            inside = inside or (self.domain[0] <= -high and -low <= self.domain[1])
        with np.errstate(all="ignore"):
            return inside and bool(np.isfinite(self.values(np.array([low, high]))).all())


POSITIVE = (0.0, inf)


def _power(exponent: int) -> Callable[[Array], Array]:
    """u to a positive integer by products, which are faster than `numpy.power`."""

    def values(u: Array) -> Array:
        result = u
        for _ in range(exponent - 1):
            result = result * u
        return result

    return values


# What a search tries.
LIBRARY: dict[str, Function] = {
    "x": Function(lambda u: u, "{}", 1, mirrored=True, homogeneous=True),
    "x^2": Function(_power(2), "({})**2", 2, mirrored=True, homogeneous=True),
    "x^3": Function(_power(3), "({})**3", 3, mirrored=True, homogeneous=True),
    "x^4": Function(_power(4), "({})**4", 3, mirrored=True, homogeneous=True),
    "x^5": Function(_power(5), "({})**5", 4, mirrored=True, homogeneous=True),
    "1/x": Function(lambda u: 1 / u, "1/({})", 2, POSITIVE, mirrored=True, homogeneous=True),
    "1/x^2": Function(lambda u: 1 / u**2, "1/({})**2", 2, POSITIVE, mirrored=True, homogeneous=True),
    "sqrt": Function(np.sqrt, "sqrt({})", 2, POSITIVE, homogeneous=True),
    "x^1.5": Function(lambda u: np.sqrt(u) * u, "({})**1.5", 4, POSITIVE, homogeneous=True),
    "1/sqrt(x)": Function(lambda u: 1 / np.sqrt(u), "1/sqrt({})", 2, POSITIVE, homogeneous=True),
    "exp": Function(np.exp, "exp({})", 2),
    "log": Function(np.log, "log({})", 2, POSITIVE, homogeneous=True),
    "abs": Function(np.abs, "abs({})", 3, mirrored=True, homogeneous=True),
    "sgn": Function(np.sign, "sign({})", 3, mirrored=True, homogeneous=True),
    "sin": Function(np.sin, "sin({})", 2, mirrored=True),
    "tan": Function(np.tan, "tan({})", 3, (-pi / 2, pi / 2), mirrored=True),
    "tanh": Function(np.tanh, "tanh({})", 3, mirrored=True),
    "gaussian": Function(lambda u: np.exp(-(u**2)), "exp(-({})**2)", 3, mirrored=True),
    "arcsin": Function(np.arcsin, "asin({})", 4, (-1.0, 1.0), mirrored=True),
    "arctan": Function(np.arctan, "atan({})", 4, mirrored=True),
    "arctanh": Function(np.arctanh, "atanh({})", 4, (-1.0, 1.0), mirrored=True),
}

# What an edge may hold exactly: `LIBRARY`, the other names of `kanmodel.network.functions.FUNCTIONS`, and silu.
FUNCTIONS: dict[str, Function] = LIBRARY | {
    "0": Function(np.zeros_like, "0*({})", 0),
    "1/x^3": Function(lambda u: 1 / u**3, "1/({})**3", 3, POSITIVE, mirrored=True),
    "1/x^4": Function(lambda u: 1 / u**4, "1/({})**4", 4, POSITIVE, mirrored=True),
    "1/x^5": Function(lambda u: 1 / u**5, "1/({})**5", 5, POSITIVE, mirrored=True),
    "x^0.5": LIBRARY["sqrt"],
    "1/x^0.5": LIBRARY["1/sqrt(x)"],
    "cos": Function(np.cos, "cos({})", 2, mirrored=True),
    "arccos": Function(np.arccos, "acos({})", 4, (-1.0, 1.0)),
    "silu": Function(lambda u: u / (1 + np.exp(-u)), "({0})/(1 + exp(-({0})))", 3),
}
