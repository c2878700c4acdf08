"""Elementwise functions: activations of edges, between layers and of outputs; and symbolic functions of edges."""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Symbolic functions by pykan's names, as in `SYMBOLIC_LIB` of pykan 0.2.8 without singularity avoidance: outside a
# function's domain the edge and the forecast are not finite, which is an error.
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
    **{name: getattr(torch, name) for name in ("exp", "log", "abs", "sin", "cos", "tan", "tanh")},
    "sgn": torch.sign,
    **{name: getattr(torch, name) for name in ("arcsin", "arccos", "arctan", "arctanh")},
    "gaussian": lambda u: torch.exp(-(u**2)),
    **{"relu": functional.relu, "softplus": functional.softplus},  # not pykan's, but unikan's
}

# Of those with bumps: arguments as positions, see `Basis.in_bumps`.
IN_BUMPS: dict[str, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(("sin", "cos", "tan"), lambda u: u / pi),
    "gaussian": lambda u: u.clamp(-2.5, 2.5) / 5,
}


class Activation(NamedTuple):
    """A function of one number."""

    function: Callable[..., Tensor]  # takes values of any shape, and the parameter if there is one
    parameter: float | None = None  # its default; None if the function has none


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda x: x),
    "relu": Activation(functional.relu),
    "leaky_relu": Activation(functional.leaky_relu, 0.01),  # slope below 0
    "elu": Activation(functional.elu, 1.0),  # alpha
    "selu": Activation(functional.selu),
    "gelu": Activation(functional.gelu),
    "gelu_tanh": Activation(lambda x: functional.gelu(x, approximate="tanh")),
    "silu": Activation(functional.silu),
    "mish": Activation(functional.mish),
    "tanh": Activation(torch.tanh),
    "sigmoid": Activation(torch.sigmoid),
    "softplus": Activation(functional.softplus, 1.0),  # beta
    "softsign": Activation(functional.softsign),
    "relu6": Activation(functional.relu6),
    "hardtanh": Activation(functional.hardtanh),
    "hardsigmoid": Activation(functional.hardsigmoid),
    "hardswish": Activation(functional.hardswish),
}


# Those that may go from one end to the other while their argument hardly moves, operations among them.
BOUNDED = {"tanh", "sigmoid", "softsign", "relu6", "hardtanh", "hardsigmoid"}
BOUNDED |= {"arctan", "atan", "erf", "softmax", "maximum", "minimum"}


def activate(name: str, parameter: float | None, x: Tensor) -> Tensor:
    """The values of an activation, of the shape of `x`."""
    function = ACTIVATIONS[name].function
    return function(x) if parameter is None else function(x, parameter)


def pull_back(function: Callable[[Tensor], Any], x: Tensor, gradient: Any) -> Tensor:
    """The gradient by x, from that by the function's values (a vector-Jacobian product); several values are a tuple.

    It is differentiable where the given gradient is.
    """
    differentiable = any(each.requires_grad for each in (gradient if isinstance(gradient, tuple) else (gradient,)))
    with torch.enable_grad():
        points = x.detach().requires_grad_()
        (by_points,) = torch.autograd.grad(function(points), points, gradient, create_graph=differentiable)
    return by_points


def value_and_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Values and first derivatives of an elementwise function, both of the shape of `x`."""
    if function is functional.silu:
        sigmoid = x.sigmoid()
        values = x * sigmoid
        return values, torch.addcmul(sigmoid, values, 1 - sigmoid)
    with torch.inference_mode(False), torch.enable_grad():
        points = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
        values = function(points)
        (slopes,) = torch.autograd.grad(values.sum(), points)
    return values.detach(), slopes
