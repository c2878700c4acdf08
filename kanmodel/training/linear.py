"""A sparse linear path beside the network, whose edges are edges like any other.

A recurrent layer hands on as many numbers as it has units, too few for a curve of 24 steps of which each needs the
known values of its own time. What lines through a window can say need not go through it: each output reads a few
values of the window, chosen by orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993), and the network
is trained on what these lines leave.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.tables.encoding import Rows
from kanmodel.tables.samples import Samples
from kanmodel.training.baselines import Moments

MOST_READ = 12  # values of a window that an output reads
RIDGE = 1e-4  # of the variance of the values, so that equal ones share their weight


@dataclass(frozen=True)
class LinearPath:
    """Lines from values of a window to the outputs, model units.

    Attributes:
        places: of the values that any output reads, in the flattened window, oldest step first, (n_read,).
        weights: of each output, (n_outputs, n_read); 0 of values that it does not read.
        intercept: (n_outputs,).
    """

    places: Rows
    weights: Tensor
    intercept: Tensor

    @classmethod
    def fit(cls, moments: Moments, may_read: NDArray[np.bool_], dtype: torch.dtype) -> LinearPath:
        """The path of up to `MOST_READ` values for each output, of those that it may read, (n_inputs,) bool."""
        n_inputs, n_outputs = moments.xy.shape
        weights, scale = np.zeros((n_outputs, n_inputs)), np.sqrt(np.diag(moments.xx))
        usable = may_read & (scale > 0)
        for output in range(n_outputs):
            chosen, left = list[int](), moments.xy[:, output]
            for _ in range(min(MOST_READ, int(usable.sum()))):
                score = np.divide(np.abs(left), scale, out=np.zeros(n_inputs), where=usable)
                score[chosen] = 0
                chosen.append(int(score.argmax()))
                among = moments.xx[np.ix_(chosen, chosen)]
                found = np.linalg.solve(among + RIDGE * np.diag(np.diag(among)), moments.xy[chosen, output])
                left = moments.xy[:, output] - moments.xx[:, chosen] @ found
                weights[output, chosen] = found
        intercept = moments.mean_y - weights @ moments.mean_x
        places = np.flatnonzero((weights != 0).any(axis=0))
        return cls(places, torch.from_numpy(weights[:, places]).to(dtype), torch.from_numpy(intercept).to(dtype))

    def forecast(self, windows: Tensor) -> Tensor:
        """Of windows (n, lookback, n_features), the outputs (n, n_outputs)."""
        return windows.flatten(1)[:, self.places] @ self.weights.T + self.intercept


@dataclass(frozen=True)
class LinearSamples(Samples):
    """Samples whose targets are what a linear path leaves of those of others."""

    others: Samples
    path: LinearPath

    @classmethod
    def of(cls, others: Samples, path: LinearPath) -> LinearSamples:  # type: ignore[override]
        """Those of samples."""
        return cls(**{each.name: getattr(others, each.name) for each in fields(Samples)}, others=others, path=path)

    def windows(self, numbers: Rows) -> Tensor:
        """As the others'."""
        return self.others.windows(numbers)

    def outputs(self, numbers: Rows) -> Tensor:
        """(len(numbers), horizon * n_targets), steps outermost."""
        return self.others.outputs(numbers) - self.path.forecast(self.windows(numbers))
