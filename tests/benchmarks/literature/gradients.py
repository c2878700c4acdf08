"""Mean gradients along the paths of Integrated Gradients, in float64 and with gradients of their own."""

from __future__ import annotations

import numpy as np
import torch
from methods import OUTPUT, Subject
from torch import Tensor

NODES = 33  # of a path, by Gauss and Legendre


def forecast(subject: Subject, windows: Tensor) -> Tensor:
    """Forecasts with gradients, (n,), in standard deviations of the output."""
    outputs: Tensor = subject.model.frozen_float64.network(windows)[:, OUTPUT]
    return outputs / subject.spread


def mean_gradient(subject: Subject, windows: Tensor, differentiable: bool = False) -> Tensor:
    """The mean gradient of the forecast between the baseline and windows, both (n, lookback, n_features)."""
    x, weights = (torch.from_numpy(values)[:, None, None, None] for values in np.polynomial.legendre.leggauss(NODES))
    points = torch.lerp(torch.from_numpy(subject.start).double(), windows, (x + 1) / 2)
    points = points if points.requires_grad else points.requires_grad_()
    (gradient,) = torch.autograd.grad(
        forecast(subject, points.flatten(0, 1)).sum(), points, create_graph=differentiable
    )
    return (weights / 2 * gradient).sum(dim=0)
