"""Radial bases: bumps around centres, in place of B-splines.

Source: fast-kan (Li 2024, arXiv 2405.06721, eq. 5) for the gaussian; FasterKAN (Delis 2024) for the other, whose
denominator was 0.33 until its checkpoints held an `inv_denominator`; its forward pass ignores that one: it is 1 since.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian(x: Tensor, centres: Tensor, denominator: float) -> Tensor:
    """exp(-((x - centre) / denominator)^2).

    Args:
        x: positions, (batch, n_in).
        centres: (n_in, G).
        denominator: width of every bump.

    Returns:
        (batch, n_in, G).
    """
    return torch.exp(-(((x.unsqueeze(-1) - centres) / denominator) ** 2))


def sech2(x: Tensor, centres: Tensor, denominator: float) -> Tensor:
    """1 - tanh((x - centre) / denominator)^2, of the shapes of `gaussian`."""
    return 1 - torch.tanh((x.unsqueeze(-1) - centres) / denominator) ** 2
