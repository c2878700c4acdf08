"""Quantiles of distributions that have no closed form, and how they move with the parameters.

A quantile q(theta) solves F(q; theta) = p for the distribution function F of one distribution or of a mixture of some
of a family. It is found by Newton's method, kept in a bracket by bisection; its slopes are those of the implicit
function theorem, dq/dtheta = -(dF/dtheta) / (dF/dq). All is computed in float64.

- F of a Student t, a gamma, a beta, a Poisson and a negative binomial distribution are incomplete beta and gamma
  functions (DLMF 8.2, 8.17). These are integrals of a density that is log-concave in the logarithm of a ratio of
  gammas, which are computed piece by piece by the tanh-sinh rule (Takahasi and Mori 1974), as are their slopes.
- F is within 1e-12 of the exact one for parameters from 0.1 to 1e6, within 1e-8 at 0.01. An error e of F moves the
  quantile by e divided by the density there.
- A count has steps in place of quantiles. In their place stands the solution of F for real numbers, by the same
  functions, plus 1/2, and at least 0. It is at most 1/2 away from the smallest count whose probability to be reached or
  undercut is p, and gives it when it is rounded (up to ties). Of a mixture it is the same of the mixed F.
- A Tweedie distribution with 1 < rho < 2 and a dispersion of 1 is a Poisson number of gammas; its quantile is 0 up to
  the probability of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.overrides import handle_torch_function, has_torch_function

DEPTH = 40.0  # the logarithm of a density below its largest at which it is cut off
N_POINTS = 100  # of the rule, for each piece
N_COARSE = 24  # of Gauss' rule, for the steps of Newton's method but the last ones
N_STEPS = 60  # of Newton's method at most
N_FINE = 3  # of its last steps
NEAR = 1e-7  # of the first bracket, the step after which these follow
AT_ONCE = 1 << 12  # distributions whose values on all points are in memory at once
N_TERMS = 80  # of the sum over the number of gammas of a Tweedie distribution
SPREAD = 8.0  # deviations on both sides of its mean that this sum covers
LEAST = 1e-300
FAR = 600.0  # the largest logarithm that is raised
N_HALVED = 6  # times, the bracket of an edge
SMALLEST = -690.0  # the least logarithm of a value

Rule = tuple[Tensor, Tensor]  # points on (0, 1) and their weights
Tails = tuple[Tensor, Tensor]  # the probability up to a value, and that beyond it


class Family(NamedTuple):
    """A family of distributions.

    Attributes:
        parameters: their names, as torch has them.
        tails: from a coordinate of its values, the parameters and a rule.
        centre: about the middle and the spread of the coordinate, from the parameters.
        value: of a coordinate.
        lowest: the least coordinate.
    """

    parameters: tuple[str, ...]
    tails: Callable[..., Tails]
    centre: Callable[..., tuple[Tensor, Tensor]]
    value: Callable[[Tensor], Tensor] = torch.clone
    lowest: float = -torch.inf


def _tanh_sinh(n: int, reach: float = 3.2) -> Rule:
    at = torch.linspace(-reach, reach, n, dtype=torch.float64)
    inner = pi * at.sinh()
    return inner.sigmoid(), (at[1] - at[0]) * pi * at.cosh() * inner.sigmoid() * (-inner).sigmoid()


def _gauss(n: int) -> Rule:
    points, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)


FINE, COARSE = _tanh_sinh(N_POINTS), _gauss(N_COARSE)


def _log_density(d: Tensor, a: Tensor, b: Tensor | None) -> Tensor:
    """Of the logarithm of F = (X / a) / (Y / b), gammas of shapes a and b, less its largest; None for Y / b = 1."""
    if b is None:
        return a * (d - d.expm1())
    near = d.clamp(max=FAR)
    return a * d - (a + b) * ((a / (a + b) * near.expm1()).log1p() + (d - near))


@torch.no_grad()
def _edges(a: Tensor, b: Tensor | None) -> Tensor:
    """The values below and above 0 at which the density is cut off, about."""
    depth = DEPTH / (a if b is None else a * b / (a + b))  # of a density whose curvature at 0 is 1, see Bach 2010
    low, high = depth.log1p(), (depth + (depth * (depth + 8)).sqrt()) / 2
    sides = torch.tensor([-1.0, 1.0], dtype=a.dtype).view(2, *(1,) * a.ndim)
    low, high = torch.minimum(low, high / 2) * sides.abs(), high * sides.abs()
    for _ in range(N_HALVED):
        middle = (low * high).sqrt()
        is_inside = _log_density(sides * middle, a, b) > -DEPTH
        low, high = torch.where(is_inside, middle, low), torch.where(is_inside, high, middle)
    return sides * high


def _ratio(d: Tensor, a: Tensor, b: Tensor | None, rule: Rule) -> Tails:
    """The tails of the logarithm of a ratio of gammas, see `_log_density`: F(d) = I_x(a, b) at logit x = d + ln a/b."""
    if b is None and not a.requires_grad:
        x = a * d.clamp(max=FAR).exp()
        return torch.special.gammainc(a, x), torch.special.gammaincc(a, x)
    a = a + 0 * d
    least, most = _edges(a, b)
    d = torch.minimum(torch.maximum(d, least), most)
    points, weights = rule

    def piece(start: Tensor, end: Tensor) -> Tensor:
        at = start[..., None] + (end - start)[..., None] * points
        density = _log_density(at, a[..., None], None if b is None else b[..., None]).exp()
        return (density @ weights) * (end - start)

    low, high = d.clamp(max=0.0), d.clamp(min=0.0)
    left, between, right = piece(least, low), piece(low, high), piece(high, most)
    below, above = torch.where(d > 0, left + between, left), torch.where(d > 0, right, between + right)
    return below / (below + above), above / (below + above)


def _normal(x: Tensor, loc: Tensor, scale: Tensor, rule: Rule) -> Tails:
    z = (x - loc) / (scale * 2**0.5)
    return (-z).erfc() / 2, z.erfc() / 2


def _student_t(x: Tensor, df: Tensor, loc: Tensor, scale: Tensor, rule: Rule) -> Tails:
    return _ratio(2 * ((x - loc) / (scale * df.sqrt())).asinh(), df / 2, df / 2, rule)


def _gamma(log_x: Tensor, concentration: Tensor, rate: Tensor, rule: Rule) -> Tails:
    return _ratio(log_x + rate.log() - concentration.log(), concentration, None, rule)


def _beta(logit_x: Tensor, one: Tensor, zero: Tensor, rule: Rule) -> Tails:
    return _ratio(logit_x - one.log() + zero.log(), one, zero, rule)


def _poisson(x: Tensor, rate: Tensor, rule: Rule) -> Tails:
    after = (x + 1).clamp(min=LEAST)
    above, below = _ratio(rate.log() - after.log(), after, None, rule)
    return below, above


def _negative_binomial(x: Tensor, count: Tensor, logits: Tensor, rule: Rule) -> Tails:
    after = (x + 1).clamp(min=LEAST)
    return _ratio(after.log() - count.log() - logits, count, after, rule)


def _tweedie(log_x: Tensor, log_mu: Tensor, rho: Tensor, rule: Rule) -> Tails:
    """The sum over the number of gammas, by every so many where there are many."""
    rate, shape = ((2 - rho) * log_mu).exp() / (2 - rho), (2 - rho) / (rho - 1)
    with torch.no_grad():
        reach = SPREAD * rate.sqrt() + SPREAD
        first = (rate - reach).clamp(min=1.0).floor()
        stride = ((rate + reach - first) / (N_TERMS - 1)).clamp(min=1.0)
        n = first[..., None] + stride[..., None] * torch.arange(N_TERMS, dtype=log_x.dtype)
    weight = stride[..., None] * (n * rate.log()[..., None] - rate[..., None] - (n + 1).lgamma()).exp()
    at = log_x + (1 - rho) * log_mu - (rho - 1).log()
    below, above = _ratio(at[..., None] - (n * shape[..., None]).log(), n * shape[..., None], None, rule)
    return (-rate).exp() + (weight * below).sum(-1), (weight * above).sum(-1)


def _of_count(x: Tensor) -> Tensor:
    return (x + 0.5).clamp(min=0.0)


def _centre_of_count(count: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    mean = count * logits.exp()
    return mean, (mean * (1 + logits.exp())).sqrt() + 1


FAMILIES = {
    "normal": Family(("loc", "scale"), _normal, lambda loc, scale: (loc, scale)),
    "student_t": Family(("df", "loc", "scale"), _student_t, lambda df, loc, scale: (loc, scale)),
    "gamma": Family(
        ("concentration", "rate"), _gamma, lambda a, rate: ((a / rate).log(), a.rsqrt()), torch.exp, SMALLEST
    ),
    "beta": Family(
        ("concentration1", "concentration0"),
        _beta,
        lambda one, zero: ((one / zero).log(), (1 / one + 1 / zero).sqrt()),
        torch.sigmoid,
        SMALLEST,
    ),
    "poisson": Family(("rate",), _poisson, lambda rate: (rate, rate.sqrt() + 1), _of_count, -1.0),
    "negative_binomial": Family(("total_count", "logits"), _negative_binomial, _centre_of_count, _of_count, -1.0),
    "tweedie": Family(
        ("log_mu", "rho"), _tweedie, lambda log_mu, rho: (log_mu, ((rho / 2 - 1) * log_mu).exp()), torch.exp, SMALLEST
    ),
}


def quantile(family: str, weights: Tensor, *given: Tensor | float) -> Tensor:
    """The quantile of mixtures, whose components are on the last axis; the last argument is its level.

    Args:
        family: of the components.
        weights: of the components; 1 for a distribution that is no mixture.
        *given: the parameters of the family, and the level.

    Returns:
        The quantile, with the last axis gone, and with slopes by all weights and parameters.
    """
    if has_torch_function((weights, *given)):  # for ONNX export, which refuses it
        return handle_torch_function(quantile, (weights, *given), family, weights, *given)
    *parameters, level = given
    theta = torch.broadcast_tensors(weights, *map(torch.as_tensor, parameters))  # type: ignore[no-untyped-call]
    shape, n = theta[0].shape, theta[0].shape[-1]
    moves = [each.requires_grad or unpack_dual(each).tangent is not None for each in theta]  # type: ignore[no-untyped-call]
    with torch.inference_mode(False):
        rows = [each.detach().double().reshape(-1, n).clone() for each in theta]
        some = zip(*(torch.split(each, max(1, AT_ONCE // n)) for each in rows), strict=True)
        solved = zip(*(_Equation(family, each, float(level)).solve(moves) for each in some), strict=True)
        found, *slopes = (torch.cat(each).to(theta[0].dtype) for each in solved)
    value = found.reshape(shape[:-1])
    for each, slope in zip(
        (each for each, is_moved in zip(theta, moves, strict=True) if is_moved), slopes, strict=True
    ):
        value = value + (slope.reshape(shape) * (each - each.detach())).sum(-1)  # 0, with a slope
    return value


class _Equation:
    """F(x) = p of some mixtures, (rows, components) each."""

    def __init__(self, family: str, theta: Sequence[Tensor], level: float) -> None:
        self.family, self.theta, self.level = FAMILIES[family], theta, level

    def excess(self, x: Tensor, theta: Sequence[Tensor], rule: Rule) -> Tensor:
        """F(x) - p, from the lesser tail."""
        weights, *parameters = theta
        below, above = self.family.tails(x[:, None], *parameters, rule)
        if self.level < 0.5:
            return (weights * below).sum(-1) - self.level
        return (1 - self.level) - (weights * above).sum(-1)

    @torch.no_grad()
    def bracket(self) -> tuple[Tensor, Tensor]:
        """Coordinates of too little and of too much, around those of the components."""
        centre, spread = self.family.centre(*self.theta[1:])
        low, high = (centre - 4 * spread).amin(-1).clamp(min=self.family.lowest), (centre + 4 * spread).amax(-1)
        for _ in range(N_STEPS):
            width = high - low
            is_high = (self.excess(low, self.theta, COARSE) > 0) & (low > self.family.lowest)
            is_low = self.excess(high, self.theta, COARSE) < 0
            if not bool((is_high | is_low).any()):
                break
            low = torch.where(is_high, low - 2 * width, low).clamp(min=self.family.lowest)
            high = torch.where(is_low, high + 2 * width, high)
        return low, high

    @torch.no_grad()
    def root(self) -> Tensor:
        """The coordinate of the quantile: by Newton's method roughly, then with the last slope and the finer rule."""
        low, high = self.bracket()
        near, x = NEAR * (high - low), (low + high) / 2
        for step in range(N_STEPS):
            excess = self.excess(x, self.theta, COARSE)
            density = (self.excess(x + near, self.theta, COARSE) - excess) / near
            low, high = torch.where(excess < 0, x, low), torch.where(excess < 0, high, x)
            newton = x - excess / density
            is_inside = (newton > low) & (newton < high) & (step % 8 < 7)
            new = torch.where(is_inside, newton, (low + high) / 2)
            moved, x = (new - x).abs(), new
            if not bool((moved > near).any()):
                break
        for _ in range(N_FINE):
            step_size = self.excess(x, self.theta, FINE) / density
            x = torch.where(step_size.isfinite(), x - step_size, x).clamp(min=self.family.lowest)
        return x

    def solve(self, moves: Sequence[bool]) -> tuple[Tensor, ...]:
        """The quantiles, and their slopes by those of the weights and parameters that move."""
        x = self.root()
        if not any(moves):
            return (self.family.value(x),)
        with torch.enable_grad():
            x, theta = x.requires_grad_(), [e.requires_grad_(m) for e, m in zip(self.theta, moves, strict=True)]
            found = self.family.value(x)
            moving = [each for each in theta if each.requires_grad]
            density, *by = torch.autograd.grad(self.excess(x, theta, FINE).sum(), [x, *moving])
            (slope,) = torch.autograd.grad(found.sum(), x)
        of_excess = torch.where(x > self.family.lowest, -slope / density.clamp(min=LEAST), 0.0).detach()
        return found.detach(), *(of_excess[:, None] * each for each in by)
