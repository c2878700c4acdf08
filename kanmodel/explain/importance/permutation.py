"""Permutation importance: how much the error grows when a feature's series are permuted among windows.

Permutation importance (Breiman 2001, "Random Forests", section 10; Fisher et al. 2019, arXiv 1801.01489), with a
feature's whole series moved together, or the series of all features of a group. It depends on the targets as well as on
the model: a feature that the model uses without benefit has a contribution, but no permutation importance.

Of a large model, for which every permutation of every window would take more than a minute or two, fewer permutations
are made, and then of fewer windows; see `plan_permutations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.network.config import ModelConfig
from kanmodel.network.recurrent import KINDS, recurrent_shapes
from kanmodel.scaling import Array

N_PERMUTATIONS = 3
MIN_WINDOWS = 64  # on which the error is measured, however large the model is
MULTIPLY_ADDS = 2e12  # a minute or two of one core
BATCH_BYTES = 1 << 26  # of the values that one batch holds in the recurrent part and on the edges


class Plan(NamedTuple):
    """How much is permuted.

    Attributes:
        permutations: of each feature.
        windows: the reference windows, numbers in time order.
    """

    permutations: int
    windows: Tensor


def permute_features(
    model: LoadedModel,
    output: int,
    seed: int,
    groups: Sequence[Sequence[int]] | None = None,
) -> Array | None:
    """Growth of the absolute error when one feature, or group of them, comes from other windows.

    Args:
        model: the model.
        output: number of the output.
        seed: of the permutations, which depend on it and on the first feature of a group alone.
        groups: numbers of features that come from the same window; each feature alone without.

    Returns:
        (n, n_groups), the target's unit, the mean of up to three permutations, for each reference window in time order,
        or for fewer of a large model; None where targets are unknown.
    """
    if model.reference.targets is None:
        return None
    plan = plan_permutations(model.config, len(model.reference.windows))
    windows = model.reference.windows[plan.windows]
    targets = model.reference.targets[plan.windows.numpy(), output]
    per_batch = max(1, BATCH_BYTES // _bytes_of_window(model.config))
    if groups is None:
        groups = [[feature] for feature in range(windows.shape[2])]

    def errors(permuted: Tensor) -> Array:
        found = []
        for batch in torch.split(permuted, per_batch):
            pause()
            found.append(model.frozen.forward(batch))
        off: Array = np.abs(model.scaling.outputs_to_original(torch.cat(found))[:, output] - targets)
        return off

    before = errors(windows)
    growth = np.zeros((len(windows), len(groups)))
    for number, features in enumerate(groups):
        generator = np.random.default_rng([seed, min(features)])
        for _ in range(plan.permutations):
            permuted, moved = windows.clone(), torch.from_numpy(generator.permutation(len(windows)))
            permuted[:, :, list(features)] = windows[moved][:, :, list(features)]
            growth[:, number] += (errors(permuted) - before) / plan.permutations  # exactly 0 where nothing changes
    return growth


def plan_permutations(config: ModelConfig, n_windows: int) -> Plan:
    """Three permutations of all windows; of a large model fewer, and then of fewer windows, taken evenly."""
    of_windows = len(config.features) * _multiply_adds(config) * n_windows
    permutations = min(N_PERMUTATIONS, max(1, int(MULTIPLY_ADDS / of_windows)))
    affordable = int(MULTIPLY_ADDS / of_windows * n_windows)  # by one permutation
    n = min(n_windows, max(affordable, MIN_WINDOWS)) if permutations == 1 else n_windows
    return Plan(permutations, torch.linspace(0, n_windows - 1, n, dtype=torch.float64).round().long())


def _multiply_adds(config: ModelConfig) -> int:
    """Of one forecast, without those of the bases."""
    of_step = sum(layer.n_in * layer.n_subnodes for layer in config.front)
    if config.recurrent is not None:
        of_step += sum(prod(shape) for shape in recurrent_shapes(config.recurrent, config.n_steps).values())
    return config.lookback * of_step + sum(layer.n_in * layer.n_subnodes for layer in config.head)


def _bytes_of_window(config: ModelConfig) -> int:
    """Memory of one window's forecast."""
    of_step = len(config.features) + sum(layer.n_in * layer.n_subnodes for layer in config.front)
    if config.recurrent is not None:
        of_step += KINDS[config.recurrent.cell].n_gates * config.recurrent.n_units
    values = config.lookback * of_step + max(layer.n_in * layer.n_subnodes for layer in config.head)
    itemsize: int = getattr(torch, config.dtype).itemsize
    return values * itemsize
