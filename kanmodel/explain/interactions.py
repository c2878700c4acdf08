"""Whether two features work together in the model, which is not whether they are correlated in the data.

The mean |f(x) - f(x without i) - f(x without j) + f(x without both)| over the reference windows, a second difference
(Friedman and Popescu 2008, section 8.1, in the form without averaging). ``Without`` takes the feature's mean.
pykan's `feature_interaction` lists which features reach a node together: a set, not a strength.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.baseline import Baseline, baseline_window
from kanmodel.explain.bootstrap import Bootstrap
from kanmodel.explain.importance import Importance
from kanmodel.scaling import Array

N_FEATURES = 5


@dataclass(frozen=True)
class Interaction:
    """Two features.

    Attributes:
        features: their names.
        strength: mean size of what they do together beyond what each does alone, the target's unit.
        interval: of that mean, 95 %.
    """

    features: tuple[str, str]
    strength: float
    interval: tuple[float, float]


def measure_interactions(model: LoadedModel, importance: Importance) -> tuple[Interaction, ...]:
    """The pairs of the five most important features, strongest first."""
    windows = model.reference.windows
    start = model.to_model_units(baseline_window(model, Baseline())[None], "baseline")
    scale = float(model.scaling.output_scale[importance.output])

    def without(*features: int) -> Array:
        changed = windows.clone()
        changed[:, :, list(features)] = start[:, :, list(features)]
        with torch.inference_mode():
            values: Array = model.network(changed)[:, importance.output].double().numpy()
        return values * scale

    top = np.argsort(-importance.features.value, kind="stable")[:N_FEATURES].tolist()
    full, alone = without(), {feature: without(feature) for feature in top}
    bootstrap = Bootstrap(len(windows))
    found = []
    for i, j in combinations(top, 2):
        together = bootstrap.mean(np.abs(full - alone[i] - alone[j] + without(i, j)))
        names = model.config.feature_names[i], model.config.feature_names[j]
        found.append(Interaction(names, float(together.value), (float(together.low), float(together.high))))
    return tuple(sorted(found, key=lambda interaction: -interaction.strength))
