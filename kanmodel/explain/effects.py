"""Feature ablation: the effect of removing a part of a window, and the effect of that part alone.

A removal-based explanation (Covert et al. 2021, arXiv 2011.14878): a part is removed by setting it to the baseline's
values. For a window x, a baseline x0, one output F and the cells S of a part:

    removed   F(x) - F(x with x0 in S)      effect of removing the part, with everything else present
    alone     F(x0 with x in S) - F(x0)     effect of the part with everything else at the baseline

Both are differences of forecasts, with no approximation. For a part that does not interact with the rest, both equal
its contribution up to the tolerance of the ledger; else `removed - alone` is the interaction. Neither sums to F(x) -
F(x0): the interaction of two parts counts in `removed` of both and in `alone` of neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product

import numpy as np
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel, refuse_non_finite_outputs
from kanmodel.computing import pause
from kanmodel.data import Array
from kanmodel.explain.baseline import Baseline, ReferenceBaselines, baseline_window, draw_baselines
from kanmodel.explain.paths.bisection import BATCH
from kanmodel.explain.structure import connected_features
from kanmodel.network.config import ModelConfig

FORECASTS = 256  # windows per batch of forecasts


@dataclass(frozen=True)
class Part:
    """Some features of a window at some of its steps.

    Attributes:
        features: their numbers.
        steps: rows of the window, oldest first; all by default.
    """

    features: tuple[int, ...]
    steps: slice = field(default_factory=lambda: slice(None))


@dataclass(frozen=True)
class Effects:
    """Effects of parts of n windows on the forecast of one output, in the target's unit.

    Attributes:
        removed: F(x) minus the forecast with the part at the baseline, (n, ...).
        alone: the forecast with only the part at the window's values, minus F(x0), the same shape.
    """

    removed: Array
    alone: Array

    @property
    def together(self) -> Array:
        """`removed` - `alone`: the interaction of a part with all others."""
        difference: Array = self.removed - self.alone
        return difference

    def __getitem__(self, windows: slice) -> Effects:
        """The effects for a slice of the windows."""
        return Effects(self.removed[windows], self.alone[windows])

    def reshape(self, *shape: int) -> Effects:
        """The same effects with both arrays reshaped."""
        return Effects(self.removed.reshape(shape), self.alone.reshape(shape))


def each_feature(config: ModelConfig) -> list[Part]:
    """One part per feature, with all its steps."""
    return [Part((feature,)) for feature in range(len(config.features))]


def each_cell(config: ModelConfig) -> list[Part]:
    """One part per step and feature, oldest step first."""
    cells = product(range(config.lookback), range(len(config.features)))
    return [Part((feature,), slice(step, step + 1)) for step, feature in cells]


def measure_effects(
    model: LoadedModel,
    windows: Tensor,
    output: int,
    baseline: Baseline | ReferenceBaselines,
    parts: Sequence[Part],
) -> Effects:
    """Effects of parts on forecasts: at most 2 forecasts per window, baseline and part, besides those without removal.

    Args:
        model: the model.
        windows: (n, lookback, n_features), model units.
        output: number of the output.
        baseline: the values of a removed part; with several baselines the effects are averaged.
        parts: the parts.

    Returns:
        (n, n_parts); exactly 0 where a part equals the baseline, or has no connection with the output.

    Raises:
        DataError: the baseline cannot be used.
        UnknownNameError: the baseline names a feature that does not exist.
        NonFiniteError: a forecast is not finite.
    """
    if isinstance(baseline, ReferenceBaselines):
        starts = draw_baselines(model, baseline.count, baseline.seed)
    else:
        starts = baseline_window(model, baseline)[None]
    # Forecasts of one window in batches of different sizes may differ by rounding, so features without any effect are
    # found from the connections of the network, not by comparing forecasts.
    connected = torch.tensor(connected_features(model.network, output))
    scale = float(model.scaling.output_scale[output])
    of_baselines = []
    for start in model.to_model_units(starts, "baseline"):
        batches = [_Trial(model, batch, start, output, connected) for batch in torch.split(windows, BATCH)]
        of_baselines.append(np.concatenate([trial.measure(parts) for trial in batches], axis=1))
    removed, alone = np.mean(of_baselines, axis=0) * scale
    refuse_non_finite_outputs(removed)
    refuse_non_finite_outputs(alone)
    return Effects(removed, alone)


@dataclass(frozen=True)
class _Trial:
    """Ablation of windows (n, lookback, n_features) against one baseline (lookback, n_features)."""

    model: LoadedModel
    windows: Tensor
    start: Tensor
    output: int
    connected: Tensor

    def measure(self, parts: Sequence[Part]) -> Array:
        """`removed` and `alone`, (2, n, n_parts), model units."""
        moves = (self.windows != self.start) & self.connected
        moving = torch.stack([_take(moves, part).any(dim=1) for part in parts], dim=1).numpy()  # (n, n_parts)
        acting = np.flatnonzero(moving.any(axis=0)).tolist()
        n = len(self.windows)
        ends = self._forecast(iter([self.windows, self.start[None]]), n)
        exchanged = self._forecast(self._exchange([parts[number] for number in acting]), n)
        without, only = exchanged.reshape(len(acting), 2, n).transpose(1, 2, 0)
        effects = np.zeros((2, n, len(parts)))
        effects[0][:, acting] = ends[:n, None] - without
        effects[1][:, acting] = only - ends[n]
        return np.where(moving, effects, 0.0)

    def _exchange(self, parts: Sequence[Part]) -> Iterator[Tensor]:
        """Yields for each part the windows without it, then the baseline with it, (n, lookback, n_features) each."""
        starts = self.start.expand_as(self.windows)
        for part in parts:
            for kept, given in ((self.windows, starts), (starts, self.windows)):
                changed = kept.clone()
                changed[:, part.steps, list(part.features)] = given[:, part.steps, list(part.features)]
                yield changed

    def _forecast(self, changed: Iterator[Tensor], n: int) -> Array:
        """Forecasts of all changed windows, concatenated, (n_forecasts,), model units."""
        forecasts = [np.zeros(0)]
        while some := list(islice(changed, max(FORECASTS // n, 1))):
            pause()
            outputs = self.model.frozen.forward(torch.cat(some))[:, self.output]
            forecasts.append(outputs.double().numpy())
        return np.concatenate(forecasts)


def _take(values: Tensor, part: Part) -> Tensor:
    """The cells of a part, (n, lookback, n_features) -> (n, n_cells)."""
    return values[:, part.steps, list(part.features)].flatten(1)
