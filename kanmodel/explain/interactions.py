"""Interactions of two features in the model, as opposed to correlations in the data.

The mean |f(x) - f(x without i) - f(x without j) + f(x without both)| over the reference windows: the magnitude of a
local second difference, the discrete derivative of f with respect to i and j at each window, all other features
present (Grabisch and Roubens 1999, "An axiomatic approach to the concept of interaction among players in cooperative
games"; their interaction index averages it over all sets of other features, which is not done here). ``Without`` puts
the feature's mean over the reference windows at every step. It is 0, up to rounding, for a pair of features that the
model adds. pykan's `feature_interaction` lists which features reach a node together: a set, not a strength.

Pairs are taken from all features, and screened so that the cost is bounded:

1. of more than 24 features, each against all others together, by the same difference on 64 windows, evenly from the
   reference; the 24 with the largest are kept (a feature whose interactions cancel in their sum may be missed);
2. their pairs, at most 276, on the same windows; the 10 with the largest are kept;
3. these on all reference windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.explain.baseline import spread_windows
from kanmodel.explain.bootstrap import Bootstrap
from kanmodel.explain.effects import forecast_without

N_WINDOWS = 64
N_FEATURES = 24
N_PAIRS = 10


@dataclass(frozen=True)
class Interaction:
    """Two features.

    Attributes:
        features: their names, in the order of the model's features.
        strength: mean magnitude of the second difference, the target's unit.
        interval: of that mean, 95 %.
    """

    features: tuple[str, str]
    strength: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Interactions:
    """The strongest interactions that the screening found.

    Attributes:
        pairs: at most 10, strongest first.
        n_features: number of features; where there are more than 24, each was screened against all others together.
        n_screened: number of pairs screened one by one.
        screening_windows: number of reference windows of the screening.
    """

    pairs: tuple[Interaction, ...]
    n_features: int
    n_screened: int
    screening_windows: int


def measure_interactions(model: LoadedModel, output: int) -> Interactions:
    """The strongest interactions of any two features for output number `output`, screened as the module describes."""
    names, few = model.config.feature_names, spread_windows(model, N_WINDOWS)
    difference = _second_difference(model, output, few)
    chosen = list(range(len(names)))
    if len(names) > N_FEATURES:
        others = [frozenset(chosen) - {feature} for feature in chosen]
        of_feature = [difference(frozenset({feature}), rest) for feature, rest in enumerate(others)]
        chosen = sorted(_largest(of_feature, N_FEATURES))
    candidates = list(combinations(chosen, 2))
    differences = [difference(frozenset({i}), frozenset({j})) for i, j in candidates]

    difference, bootstrap = (
        _second_difference(model, output, model.reference.windows),
        Bootstrap(len(model.reference.windows)),
    )
    found = []
    for i, j in (candidates[pair] for pair in _largest(differences, N_PAIRS)):
        estimate = bootstrap.mean(difference(frozenset({i}), frozenset({j})))
        found.append(Interaction((names[i], names[j]), float(estimate.value), estimate.bounds()))
    found.sort(key=lambda interaction: -interaction.strength)
    return Interactions(tuple(found), len(names), len(candidates), len(few))


def _largest(differences: Sequence[Array], n: int) -> list[int]:
    """Places of the n largest means, largest first."""
    means = np.array([values.mean() for values in differences])
    return [int(place) for place in np.argsort(-means, kind="stable")[:n]]


def _second_difference(
    model: LoadedModel, output: int, windows: Tensor
) -> Callable[[frozenset[int], frozenset[int]], Array]:
    """The magnitude of the second difference of two sets of features at each of n windows, (n,), the target's unit."""

    @cache
    def without(features: frozenset[int]) -> Array:
        gone = np.isin(np.arange(windows.shape[2]), list(features))
        return forecast_without(model, windows, output, gone) * float(model.scaling.output_scale[output])

    def difference(one: frozenset[int], other: frozenset[int]) -> Array:
        magnitude: Array = np.abs(without(frozenset()) - without(one) - without(other) + without(one | other))
        return magnitude

    return difference
