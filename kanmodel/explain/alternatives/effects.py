"""What a forecast loses without a part of its window, and what that part does alone.

Feature ablation, a removal-based explanation (Covert et al. 2021, arXiv 2011.14878): a part is removed by giving it the
baseline's values. For a window x, a baseline x0, one output F and the cells S of a part:

    removed   F(x) - F(x with x0 in S)      what the forecast loses without the part, all else being there
    alone     F(x0 with x in S) - F(x0)     what the part does where nothing else is there

Both are differences of exact forecasts. For a part that acts on its own they are equal to its contribution; where they
differ, it acts together with the rest, and `removed - alone` says by how much. Neither sums to F(x) - F(x0): what two
parts do only together is in both of their `removed`, and in none of their `alone`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product

import numpy as np
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel, refuse_non_finite_outputs
from kanmodel.explain.paths.baseline import Baseline, baseline_window
from kanmodel.explain.paths.bisection import BATCH
from kanmodel.explain.paths.expected import ReferenceBaselines, draw_baselines
from kanmodel.explain.structure.connectivity import connected_features
from kanmodel.network.config import ModelConfig
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array

FORECASTS = 256  # of one pass


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
    """What parts of n windows do to the forecast of one output, in the target's unit.

    Attributes:
        removed: F(x) minus the forecast with the part at the baseline, (n, ...).
        alone: the forecast with only the part at the window's values, minus F(x0), the same shape.
    """

    removed: Array
    alone: Array

    @property
    def together(self) -> Array:
        """`removed` - `alone`: how much a part acts together with all others, which is 0 where it acts on its own."""
        difference: Array = self.removed - self.alone
        return difference

    def __getitem__(self, windows: slice) -> Effects:
        """Those of some windows."""
        return Effects(self.removed[windows], self.alone[windows])

    def reshape(self, *shape: int) -> Effects:
        """The same in another shape."""
        return Effects(self.removed.reshape(shape), self.alone.reshape(shape))


def each_feature(config: ModelConfig) -> list[Part]:
    """A part for each feature, with all its steps."""
    return [Part((feature,)) for feature in range(len(config.features))]


def each_cell(config: ModelConfig) -> list[Part]:
    """A part for each step of each feature, oldest step first."""
    cells = product(range(config.lookback), range(len(config.features)))
    return [Part((feature,), slice(step, step + 1)) for step, feature in cells]


def measure_effects(
    model: LoadedModel,
    windows: Tensor,
    output: int,
    baseline: Baseline | ReferenceBaselines,
    parts: Sequence[Part],
    pause: Pause = go_on,
) -> Effects:
    """What each part does to the forecasts of windows: at most 2 forecasts for each window, baseline and part.

    Args:
        model: the model.
        windows: (n, lookback, n_features), model units.
        output: number of the output.
        baseline: what stands for a part that is not there; over several, the effects are averaged.
        parts: which parts.
        pause: called between passes.

    Returns:
        (n, n_parts), exactly 0 where a part holds the baseline's values, or has no connection with the output.

    Raises:
        DataError: the baseline cannot be used.
        UnknownNameError: the baseline names a feature that does not exist.
        NonFiniteError: a forecast is not finite.
    """
    if isinstance(baseline, ReferenceBaselines):
        starts = draw_baselines(model, baseline.count, baseline.seed)
    else:
        starts = baseline_window(model, baseline)[None]
    # Two forecasts of one window may differ by rounding where they stand in batches of different sizes, so that
    # a feature is without effect is read off the network, not off forecasts.
    connected = torch.tensor(connected_features(model.network, output))
    scale = float(model.scaling.output_scale[output])
    of_baselines = []
    for start in model.to_model_units(starts, "baseline"):
        batches = [_Trial(model, batch, start, output, connected, pause) for batch in torch.split(windows, BATCH)]
        of_baselines.append(np.concatenate([trial.measure(parts) for trial in batches], axis=1))
    removed, alone = np.mean(of_baselines, axis=0) * scale
    refuse_non_finite_outputs(removed)
    refuse_non_finite_outputs(alone)
    return Effects(removed, alone)


@dataclass(frozen=True)
class _Trial:
    """Windows (n, lookback, n_features) and a baseline (lookback, n_features), between which parts are exchanged."""

    model: LoadedModel
    windows: Tensor
    start: Tensor
    output: int
    connected: Tensor
    pause: Pause

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
        """For each part the windows without it, and the baseline with it, (n, lookback, n_features) each."""
        starts = self.start.expand_as(self.windows)
        for part in parts:
            for kept, given in ((self.windows, starts), (starts, self.windows)):
                changed = kept.clone()
                changed[:, part.steps, list(part.features)] = given[:, part.steps, list(part.features)]
                yield changed

    def _forecast(self, changed: Iterator[Tensor], n: int) -> Array:
        """Forecasts of all windows in a row, (n_forecasts,), model units, `FORECASTS` at a time."""
        forecasts = [np.zeros(0)]
        while some := list(islice(changed, max(FORECASTS // n, 1))):
            self.pause()
            outputs = self.model.frozen.forward(torch.cat(some))[:, self.output]
            forecasts.append(outputs.double().numpy())
        return np.concatenate(forecasts)


def _take(values: Tensor, part: Part) -> Tensor:
    """The cells of a part, (n, lookback, n_features) -> (n, n_cells)."""
    return values[:, part.steps, list(part.features)].flatten(1)
