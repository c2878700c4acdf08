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

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.data import Array
from kanmodel.explain.baseline import scaled_baselines, spread_windows
from kanmodel.explain.bootstrap import Bootstrap

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
    """The strongest interactions of any two features, screened as the module describes.

    Args:
        model: the model.
        output: number of the output.
    """
    reference, names = model.reference.windows, model.config.feature_names
    n_features = len(names)
    few = spread_windows(model, N_WINDOWS)
    screened = _Differences(model, output, few)
    chosen = list(range(n_features))
    if n_features > N_FEATURES:
        chosen = sorted(_largest([screened.of_feature(feature) for feature in chosen], N_FEATURES))
    candidates = list(combinations(chosen, 2))
    differences = [float(np.abs(screened.of_pair(i, j)).mean()) for i, j in candidates]
    strongest = [candidates[pair] for pair in _largest(differences, N_PAIRS)]

    whole, bootstrap = _Differences(model, output, reference), Bootstrap(len(reference))
    found = []
    for i, j in strongest:
        estimate = bootstrap.mean(np.abs(whole.of_pair(i, j)))
        found.append(Interaction((names[i], names[j]), float(estimate.value), estimate.bounds()))
    found.sort(key=lambda interaction: -interaction.strength)
    return Interactions(tuple(found), n_features, len(candidates), len(few))


def _largest(values: Sequence[float], n: int) -> list[int]:
    """Places of the n largest values, largest first."""
    return [int(place) for place in np.argsort(-np.array(values), kind="stable")[:n]]


class _Differences:
    """Second differences of one output over some windows, the target's unit."""

    def __init__(self, model: LoadedModel, output: int, windows: Tensor) -> None:
        self._model, self._output, self._windows = model, output, windows
        self._start = scaled_baselines(model)
        self._alone: dict[int, Array] = {}
        self._full = self._without([])

    def _without(self, features: list[int]) -> Array:
        """The output without some features, (n,)."""
        pause()
        changed = self._windows.clone()
        changed[:, :, features] = self._start[:, :, features]
        with torch.inference_mode():
            values: Array = self._model.network(changed)[:, self._output].double().numpy()
        return values * float(self._model.scaling.output_scale[self._output])

    def _without_one(self, feature: int) -> Array:
        if feature not in self._alone:
            self._alone[feature] = self._without([feature])
        return self._alone[feature]

    def of_pair(self, i: int, j: int) -> Array:
        """Of two features, (n,)."""
        return self._full - self._without_one(i) - self._without_one(j) + self._without([i, j])

    def of_feature(self, feature: int) -> float:
        """Mean magnitude of that of a feature and all others together."""
        others = [other for other in range(self._windows.shape[2]) if other != feature]
        nothing = self._without([feature, *others])
        return float(np.abs(self._full - self._without_one(feature) - self._without(others) + nothing).mean())
