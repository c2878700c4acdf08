"""How much the error grows when a feature's series are exchanged between windows.

Permutation importance (Breiman 2001, "Random Forests", section 10; Fisher et al. 2019, arXiv 1801.01489), with a
feature's whole series moved together, and the series of all features of a group. It asks the data as well as the model:
a feature that the model uses to no good has a contribution, but no effect here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array

N_PERMUTATIONS = 3


def permute_features(
    model: LoadedModel,
    output: int,
    seed: int,
    groups: Sequence[Sequence[int]] | None = None,
    pause: Pause = go_on,
) -> Array | None:
    """Growth of each reference window's absolute error when one feature, or group of them, comes from other windows.

    Args:
        model: the model.
        output: number of the output.
        seed: of the permutations, which depend on it and on the first feature of a group alone.
        groups: numbers of features that come from the same window; each feature alone without.
        pause: called between the groups.

    Returns:
        (n, n_groups), the target's unit, the mean of three permutations; None where targets are unknown.
    """
    if model.reference.targets is None:
        return None
    windows = model.reference.windows
    targets = model.reference.targets[:, output]
    if groups is None:
        groups = [[feature] for feature in range(windows.shape[2])]

    def errors(permuted: torch.Tensor) -> Array:
        with torch.inference_mode():
            outputs = model.scaling.outputs_to_original(model.network(permuted))
        return np.abs(outputs[:, output] - targets)

    before = errors(windows)
    growth = np.zeros((len(windows), len(groups)))
    for number, features in enumerate(groups):
        pause()
        generator = np.random.default_rng([seed, min(features)])
        for _ in range(N_PERMUTATIONS):
            permuted, moved = windows.clone(), torch.from_numpy(generator.permutation(len(windows)))
            permuted[:, :, list(features)] = windows[moved][:, :, list(features)]
            growth[:, number] += (errors(permuted) - before) / N_PERMUTATIONS  # exactly 0 where nothing changes
    return growth
