"""Scaling by series: a network sees its target's past, and forecasts, relative to the level of each window.

The level is the mean magnitude of the target's past in the window, plus a floor, so new series have
one too (DeepAR divides by such a mean: Salinas et al. 2017, arXiv 1704.04110, section 3.3). A chain is trained on
relative values; then `assembly` makes it the graph that computes them, and its forecasts, from windows in model units,
so that explanations go through the level as well:

    x = past / level - 1,   forecast = level (1 + spread chain(x))

with x in units of its `spread` over the training windows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kanmodel.errors import ConfigError
from kanmodel.network.config import ModelConfig
from kanmodel.tables.encoding import Rows
from kanmodel.tables.samples import Samples

FLOOR = 1e-3  # of the level, in standard deviations of the target
ROWS = 8192  # windows from which the spread is measured


def find_without_level(config: ModelConfig) -> str | None:
    """The first target whose level is not in a window: its past is no feature, or of one step; None if all are."""
    names = config.feature_names if config.lookback > 1 else ()
    return next((target.name for target in config.targets if target.name not in names), None)


@dataclass(frozen=True)
class RelativeSamples(Samples):
    """Samples whose windows and targets are relative to the level of each window.

    Attributes:
        own: the number of the feature that is each target's past.
        mean, scale: of these features, (n_targets,), original units.
        spread: standard deviation of relative targets over training windows, (n_targets,).
    """

    own: tuple[int, ...]
    mean: Tensor
    scale: Tensor
    spread: Tensor

    @classmethod
    def of_samples(cls, samples: Samples, config: ModelConfig, train: Rows) -> RelativeSamples:
        """Those of samples; raises ConfigError if a target's past is not a feature, or windows have one step."""
        if (target := find_without_level(config)) is not None:
            reason = f"the past of {target} must be a feature, with ahead, over several steps"
            raise ConfigError(f"scaling by series divides by the level of a window: {reason}")
        own = tuple(config.feature_names.index(target.name) for target in config.targets)
        figures = np.array([[config.features[n].mean, config.features[n].std or 1.0] for n in own])
        mean, scale = torch.from_numpy(figures.T).to(samples.rows.dtype)
        plain = cls(samples.source, samples.rows, samples.targets, own, mean, scale, torch.ones_like(scale))
        relative = plain.outputs(train[:: max(1, len(train) // ROWS)]).view(-1, config.horizon, len(own))
        return replace(plain, spread=relative.std(dim=(0, 1)).clamp_min(FLOOR))

    def windows(self, numbers: Rows) -> Tensor:
        """(len(numbers), lookback, n_features), oldest step first."""
        windows = super().windows(numbers).clone()
        past, levels = self._levels(windows)
        windows[..., list(self.own)] = (past / levels[:, None] - 1) / self.spread
        return windows

    def outputs(self, numbers: Rows) -> Tensor:
        """(len(numbers), horizon * n_targets), steps outermost."""
        _, levels = self._levels(super().windows(numbers))
        original = super().outputs(numbers).view(len(numbers), -1, len(self.own)) * self.scale + self.mean
        relative = (original / levels[:, None] - 1) / self.spread
        return relative.flatten(1)

    def _levels(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """The past of each target, (n, lookback, n_targets), original units, and its level, (n, n_targets)."""
        past = windows[..., list(self.own)] * self.scale + self.mean
        return past, past.abs().mean(dim=1) + FLOOR * self.scale
