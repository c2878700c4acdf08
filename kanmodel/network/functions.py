"""The functions of symbolic edges, by pykan's names.

Source: `SYMBOLIC_LIB` of pykan 0.2.8, without singularity avoidance: outside a function's domain the edge and the
forecast are not finite, which is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "0": torch.zeros_like,
    "x": lambda u: u,
    "x^2": lambda u: u**2,
    "x^3": lambda u: u**3,
    "x^4": lambda u: u**4,
    "x^5": lambda u: u**5,
    "1/x": lambda u: 1 / u,
    "1/x^2": lambda u: 1 / u**2,
    "1/x^3": lambda u: 1 / u**3,
    "1/x^4": lambda u: 1 / u**4,
    "1/x^5": lambda u: 1 / u**5,
    "sqrt": torch.sqrt,
    "x^0.5": torch.sqrt,
    "x^1.5": lambda u: torch.sqrt(u) ** 3,
    "1/sqrt(x)": lambda u: 1 / torch.sqrt(u),
    "1/x^0.5": lambda u: 1 / torch.sqrt(u),
    "exp": torch.exp,
    "log": torch.log,
    "abs": torch.abs,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "tanh": torch.tanh,
    "sgn": torch.sign,
    "arcsin": torch.arcsin,
    "arccos": torch.arccos,
    "arctan": torch.arctan,
    "arctanh": torch.arctanh,
    "gaussian": lambda u: torch.exp(-(u**2)),
}

# Of those with bumps: arguments as positions, see `Basis.in_bumps`.
IN_BUMPS: dict[str, Callable[[Tensor], Tensor]] = {
    "sin": lambda u: u / pi,
    "cos": lambda u: u / pi,
    "tan": lambda u: u / pi,
    "gaussian": lambda u: u.clamp(-2.5, 2.5) / 5,
}
