"""What a module that returns a distribution has as outputs: its mean, its quantiles and its parameters.

A sampled path is not explained, its distribution is. Quantiles are torch's own where it has them in closed form, else
they are solved for, see `kanmodel.network.distributions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, distributions
from torch.distributions import AffineTransform, Distribution

from kanmodel.arrays import Array
from kanmodel.errors import UnreadableModelError
from kanmodel.network.distributions import quantile
from kanmodel.tables.columns import Target

QUANTILES = (0.1, 0.5, 0.9)
SYMMETRIC = (distributions.Normal, distributions.StudentT, distributions.Laplace, distributions.Cauchy)
SHIFTED = (*SYMMETRIC, distributions.Gumbel)  # families whose loc and scale are in the unit of their values
# Family of those that are solved for, and its parameters; others are known by the name of their class.
SOLVED = {
    "StudentT": ("student_t", "df", "loc", "scale"),
    "Gamma": ("gamma", "concentration", "rate"),
    "Chi2": ("gamma", "concentration", "rate"),
    "Beta": ("beta", "concentration1", "concentration0"),
    "Poisson": ("poisson", "rate"),
    "NegativeBinomial": ("negative_binomial", "total_count", "logits"),
    "Tweedie": ("tweedie", "log_mu", "rho"),
    "Normal": ("normal", "loc", "scale"),
}


@torch.library.custom_op("kanscope::quantile", mutates_args=())
def solve(family: str, theta: Sequence[Tensor], level: float) -> Tensor:
    """`kanmodel.network.distributions.quantile` of weights and parameters, as one operation for a tracer."""
    return quantile(family, *theta, level)


@dataclass(frozen=True)
class Described:
    """A distribution as outputs.

    Attributes:
        values: the mean, the quantiles and the parameters on the last axis, after the batch and its other axes.
        parts: what they are of a target, as in its name: nothing, ``@0.1`` or ``:scale``.
        units: whether each has the unit of the target, and moves with its origin.
    """

    values: Tensor
    parts: tuple[str, ...]
    units: tuple[tuple[bool, bool], ...]

    def spread(self, actual: Array) -> Array:
        """Actual values of the targets, (n, ...), as those of all values, (n, n_outputs); NaN for parameters."""
        has_none = np.array([part.startswith(":") for part in self.parts])
        found: Array = np.where(has_none, np.nan, actual.reshape(len(actual), -1, 1)).reshape(len(actual), -1)
        return found

    def targets(self, of: Sequence[Target]) -> tuple[Target, ...]:
        """The targets of the values, from those whose distribution it is."""
        return tuple(
            replace(
                target,
                name=target.name + part,
                unit=target.unit if scaled else None,
                mean=target.mean if moved else 0.0,
                std=target.std if scaled else 1.0,
                parameter=part.startswith(":"),
            )
            for target in of
            for part, (scaled, moved) in zip(self.parts, self.units, strict=True)
        )


def describe(distribution: Distribution, quantiles: Sequence[float] = QUANTILES) -> Described:
    """The outputs of a distribution of each value alone; those of a mixture number its components from 1.

    It has no mean where that is no finite operation; of a Student t the centre is taken. Of an event there are no
    quantiles. Raises `UnreadableModelError`, which names the distribution, if its quantiles are not known.
    """
    of, shape = _plain(distribution), distribution.batch_shape + distribution.event_shape
    parts = dict[str, tuple[Tensor, tuple[bool, bool]]]()
    mean = _mean(of)
    if mean is not None:
        parts[""] = mean, (True, True)
    if not isinstance(of, distributions.Bernoulli):
        levels = quantiles if mean is not None else sorted({*quantiles, 0.5})
        parts |= {f"@{level:.4g}": (_quantile(of, level), (True, True)) for level in levels}
        parts |= {f":{name}": (value, _units(of, name)) for name, value in _parameters(of).items()}
    values = torch.stack([value.expand(shape) for value, _ in parts.values()], dim=-1)
    return Described(values, tuple(parts), tuple(unit for _, unit in parts.values()))


def _plain(of: Any) -> Any:
    """A distribution of single values, without what shifts and scales a family that has a loc and a scale."""
    if isinstance(of, distributions.Independent):
        return _plain(of.base_dist)
    if isinstance(of, distributions.MixtureSameFamily) and of._num_component == 1:
        component = _plain(of.component_distribution)
        return type(component)(**{name: value[..., 0] for name, value in _parameters(component).items()})
    if not isinstance(of, distributions.TransformedDistribution):
        return of
    base = _plain(of.base_dist)
    transforms: list[Any] = of.transforms
    if issubclass(type(base), SYMMETRIC) and all(isinstance(each, AffineTransform) for each in transforms):
        own = _parameters(base)
        for each in transforms:
            own |= {"loc": each.loc + each.scale * own["loc"], "scale": abs(each.scale) * own["scale"]}
        return type(base)(**own)
    return of


def _parameters(of: Any) -> dict[str, Tensor]:
    """By name, as the distribution was given them."""
    if isinstance(of, distributions.MixtureSameFamily):
        every, n = _parameters_of_mixture(of).items(), of._num_component
        return {f"{name}_{k + 1}": value[..., k] for name, value in every for k in range(n)}
    if isinstance(of, distributions.TransformedDistribution) and not of.arg_constraints:
        return _parameters(_plain(of.base_dist))
    return {name: getattr(of, name) for name in of.arg_constraints if _is_given(of, name)}


def _is_given(of: Any, name: str) -> bool:
    """Whether a distribution was made of a parameter: of probs or logits, the other of which it computes."""
    if name not in ("probs", "logits"):
        return True
    return vars(of).get(name) is of._param if hasattr(of, "_param") else name in vars(of)


def _parameters_of_mixture(of: Any) -> dict[str, Tensor]:
    """By name, the components on the last axis."""
    every = {"weight": of.mixture_distribution.probs, **_parameters(of.component_distribution)}
    return {name: value.expand(*of.batch_shape, of._num_component) for name, value in every.items()}


def _units(of: Any, name: str) -> tuple[bool, bool]:
    """Whether a parameter has the unit of the values, and moves with their origin."""
    of = of.component_distribution if isinstance(of, distributions.MixtureSameFamily) else of
    plain = name.partition("_")[0] if isinstance(of, SHIFTED) else ""
    return plain in ("loc", "scale"), plain == "loc"


def _mean(of: Any) -> Tensor | None:
    if isinstance(of, distributions.StudentT):
        return of.loc
    if isinstance(of, distributions.NegativeBinomial):
        return of.total_count * (of.logits.exp() if _is_given(of, "logits") else of.probs / (1 - of.probs))
    if isinstance(of, distributions.MixtureSameFamily):
        mean, weights = _mean(of.component_distribution), _parameters_of_mixture(of)["weight"]
        return None if mean is None else (weights * mean).sum(-1)
    transforms = of.transforms if isinstance(of, distributions.TransformedDistribution) else []
    if transforms and all(isinstance(each, AffineTransform) for each in transforms):
        mean = _mean(_plain(of.base_dist))
        return mean if mean is None else distributions.ComposeTransform(transforms)(mean)
    with suppress(NotImplementedError):
        return cast(Tensor, of.mean)
    return None


def _theta(of: Any, names: Sequence[str]) -> list[Tensor]:
    """The parameters that the quantiles of a family are solved with."""
    has_probs = "logits" in names and _is_given(of, "probs")
    solved_for = {"logits": of.probs.log() - (1 - of.probs).log()} if has_probs else {}
    found = [solved_for[name] if name in solved_for else getattr(of, name) for name in names]
    return [torch.as_tensor(each, dtype=found[0].dtype) for each in found]


def _quantile(of: Any, level: float) -> Tensor:
    is_mixture = isinstance(of, distributions.MixtureSameFamily)
    component = of.component_distribution if is_mixture else of
    kind = type(component).__name__
    if kind in SOLVED and (is_mixture or kind != "Normal"):
        family, *names = SOLVED[kind]
        theta = _theta(component, names)
        weights = of.mixture_distribution.probs if is_mixture else torch.ones(1, dtype=theta[0].dtype)
        theta = [weights, *(each if is_mixture else each[..., None] for each in theta)]
        return cast(Tensor, solve(family, theta, level))
    try:
        transformed = distributions.TransformedDistribution
        if isinstance(of, transformed) and type(of).icdf is transformed.icdf:  # which knows fewer bases
            return _through(_plain(of.base_dist), of.transforms, level)
        like = next(iter(_parameters(of).values()))
        return cast(Tensor, of.icdf(torch.tensor(level, dtype=like.dtype)))
    except NotImplementedError as error:
        named = f"a mixture of {kind}" if is_mixture else kind
        problem = f"the quantiles of the distribution {named} are not known: return its mean, or its parameters"
        raise UnreadableModelError(problem) from error


def _through(base: Any, transforms: Sequence[Any], level: float) -> Tensor:
    """The quantile after some transforms, of which those that fall turn the levels around."""
    if not transforms:
        return _quantile(base, level)
    *inner, last = transforms
    sign = last.sign
    if isinstance(sign, Tensor):
        upright, turned = (last(_through(base, inner, each)) for each in (level, 1 - level))
        size = last.exponent if isinstance(last, distributions.PowerTransform) else last.scale
        return torch.where(size > 0, upright, turned)
    return cast(Tensor, last(_through(base, inner, level if sign > 0 else 1 - level)))
