"""Permutation importance: how much the error grows when a feature's series are permuted among windows.

Permutation importance (Breiman 2001, "Random Forests", section 10; Fisher et al. 2019, arXiv 1801.01489), with a
feature's whole series moved together. It depends on the targets as well as on the model: a feature that the model uses
without benefit has a contribution, but no permutation importance.
"""

from __future__ import annotations

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array

N_PERMUTATIONS = 3


def permute_features(model: LoadedModel, output: int, seed: int, pause: Pause = go_on) -> Array | None:
    """Growth of each reference window's absolute error when one feature comes from other windows.

    Args:
        model: the model.
        output: number of the output.
        seed: of the permutations.
        pause: called between the features.

    Returns:
        (n, n_features), the target's unit, the mean of three permutations; None where targets are unknown.
    """
    if model.reference.targets is None:
        return None
    windows = model.reference.windows
    targets = model.reference.targets[:, output]
    generator = np.random.default_rng(seed)

    def errors(permuted: torch.Tensor) -> Array:
        with torch.inference_mode():
            outputs = model.scaling.outputs_to_original(model.network(permuted))
        return np.abs(outputs[:, output] - targets)

    before = errors(windows)
    growth = np.zeros((len(windows), windows.shape[2]))
    for feature in range(windows.shape[2]):
        pause()
        for _ in range(N_PERMUTATIONS):
            permuted = windows.clone()
            permuted[:, :, feature] = windows[torch.from_numpy(generator.permutation(len(windows))), :, feature]
            growth[:, feature] += (errors(permuted) - before) / N_PERMUTATIONS  # exactly 0 where nothing changes
    return growth
