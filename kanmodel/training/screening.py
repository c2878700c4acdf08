"""Which columns of a wide table a forecaster can do without, found before it is trained.

A network that reads forty columns of which six matter fits noise by the others. So a first network is trained briefly,
and each column is shuffled among the windows of the validation part (permutation importance: Breiman 2001; Fisher,
Rudin and Dominici 2019). Columns whose shuffling does not raise the error beyond chance, by stretches of time, are left
out, weakly at first and then more strictly, since a network that reads fewer tells better which of them matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from kanmodel.arrays import Array
from kanmodel.network.config import ModelConfig
from kanmodel.network.network import Network
from kanmodel.tables.samples import Parts, Samples
from kanmodel.training.optimization import Progress, SquaredError, TrainingOptions, descend, leave_out

MOST_COLUMNS = 24  # of a table that is not screened by default
ROUNDS = (1.0, 2.0)  # standard errors by which shuffling a column that stays raises the error, of each round
EPOCHS = 20  # of each round, at most
SHUFFLES = 3
STRETCHES = 24  # of the validation part, over which the standard error is


def screen(
    config: ModelConfig,
    columns: Sequence[Sequence[int]],
    samples: Samples,
    parts: Parts,
    options: TrainingOptions,
    report: Callable[[Progress], None],
) -> list[int]:
    """The numbers of columns that can be left out; none if no column matters, as nothing is known then.

    `columns` are the features of each, by their numbers. No window of the test part is read.
    """
    left_out, brief = list[int](), replace(options, epochs=min(EPOCHS, options.epochs))
    for least in ROUNDS:
        network = Network(config, torch.Generator().manual_seed(options.seed))
        leave_out(network, [feature for column in left_out for feature in columns[column]])
        descend(SquaredError(network, "columns"), samples, parts, brief, report)
        rises = _measure_rises(network, columns, samples, parts, options.seed)
        weak = [column for column in range(len(columns)) if column in left_out or rises[column] <= least]
        if len(weak) == len(columns):
            return left_out
        left_out = weak
    return left_out


def _measure_rises(
    network: Network, columns: Sequence[Sequence[int]], samples: Samples, parts: Parts, seed: int
) -> Array:
    """By how many standard errors shuffling each column raises the error of validation windows, (n_columns,)."""
    windows, targets = samples.windows(parts.validation), samples.outputs(parts.validation)
    rises, random = np.zeros(len(columns)), np.random.default_rng(seed)
    orders = [torch.from_numpy(random.permutation(len(windows))) for _ in range(SHUFFLES)]
    with torch.no_grad():
        errors = (network(windows) - targets).square().mean(dim=1)
        for number, features in enumerate(map(list, columns)):
            changes = torch.zeros_like(errors)
            for order in orders:
                shuffled = windows.clone()
                shuffled[..., features] = windows[order][..., features]
                changes += (network(shuffled) - targets).square().mean(dim=1) - errors
            means = np.array([stretch.mean() for stretch in np.array_split(changes.numpy(), STRETCHES) if len(stretch)])
            spread = means.std(ddof=1) / np.sqrt(len(means))
            rises[number] = means.mean() / spread if spread else 0.0
    return rises
