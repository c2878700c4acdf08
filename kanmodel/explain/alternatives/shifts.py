"""Constant shifts of the features of one window, and what the forecast makes of them.

A shift z (n_features,) adds z_f training standard deviations to feature f at the steps that may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import DataError
from kanmodel.scaling import Array

NEARLY_WHOLE = 1e-6  # a shift this near to a whole number is that number, but for rounding
FARTHEST = 10.0  # standard deviations that a feature may shift where no training range holds it


@dataclass(frozen=True)
class Goal:
    """Where a forecast shall lie, in the target's unit.

    Attributes:
        low: it shall be at least this; -inf for no bound.
        high: it shall be at most this; inf for no bound.

    Raises:
        DataError: no bound, or none that a number can meet.
    """

    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        if np.isnan([self.low, self.high]).any() or not self.low <= self.high:
            raise DataError.at("target", f"must be a range, but is {self.low:g} to {self.high:g}")
        if np.isinf([self.low, self.high]).all() or self.low == np.inf or self.high == -np.inf:
            raise DataError.at("target", "must have a finite bound")

    def tighten(self, margin: float) -> Goal:
        """The goal without a margin at both ends, or its middle where it is narrower than that."""
        margin = min(margin, (self.high - self.low) / 2)
        return Goal(self.low + margin, self.high - margin)

    def miss(self, predictions: Array) -> Array:
        """How far predictions are from it; 0 where they reach it."""
        missed: Array = np.maximum(np.maximum(self.low - predictions, predictions - self.high), 0.0)
        return missed


class Shifts:
    """The shifts that one window may have.

    Args:
        model: the model.
        window: (lookback, n_features), original units, oldest step first.
        output: number of the output that is looked at.
        features: numbers of those that may change; fixed and constant ones stay all the same.
        steps: the steps that change.
        within_training_range: whether a changed value keeps within the smallest and the largest of training.

    Attributes:
        low: the smallest shift of each feature, (n_features,), at most 0; 0 for one that stays.
        high: the largest, at least 0.
        std: training standard deviation of each feature, 1 for a constant one, original units.
        integer: which features shift by whole numbers of their unit.
    """

    def __init__(
        self,
        model: LoadedModel,
        window: Array,
        output: int,
        features: list[int],
        steps: slice,
        within_training_range: bool,
    ) -> None:
        columns = model.config.features
        self._model, self._window, self._output, self._steps = model, window, output, steps
        self.std = model.scaling.feature_scale
        self.integer: NDArray[np.bool_] = np.array([column.integer for column in columns])
        moves = np.zeros(len(columns), dtype=bool)
        moves[features] = True
        moves &= np.array([column.std > 0 and not column.fixed for column in columns])
        low, high = np.full(len(columns), -FARTHEST), np.full(len(columns), FARTHEST)
        if within_training_range:  # a window that is outside already may stay where it is
            taken = window[steps]
            low = np.maximum(low, (model.feature_low - taken.min(axis=0)) / self.std)
            high = np.minimum(high, (model.feature_high - taken.max(axis=0)) / self.std)
        self.low = np.where(moves, np.minimum(low, 0.0), 0.0)
        self.high = np.where(moves, np.maximum(high, 0.0), 0.0)
        whole_low, whole_high = np.ceil(self.low * self.std) / self.std, np.floor(self.high * self.std) / self.std
        self.low = np.where(self.integer, whole_low, self.low)
        self.high = np.where(self.integer, whole_high, self.high)

    @property
    def movable(self) -> NDArray[np.int64]:
        """Numbers of the features that can change."""
        return np.flatnonzero((self.low < 0) | (self.high > 0))

    def change(self, shifts: Array) -> Array:
        """The changed windows, (n, lookback, n_features), for shifts (n, n_features)."""
        changed = np.repeat(self._window[None], len(shifts), axis=0)
        changed[:, self._steps] += self.in_original_units(shifts)[:, None]
        return changed

    def in_original_units(self, shifts: Array) -> Array:
        """Shifts (n, n_features) in the features' units; whole numbers exactly so where they are meant."""
        original = shifts * self.std
        whole = np.round(original)
        meant = self.integer & (np.abs(original - whole) < NEARLY_WHOLE)
        found: Array = np.where(meant, whole, original)
        return found

    def predict(self, shifts: Array) -> Array:
        """Forecasts of the output for shifts (n, n_features), (n,), original units."""
        forecasts: Array = self._model.predict(self.change(shifts))[:, self._output]
        return forecasts

    def predict_with_gradient(self, shifts: Array) -> tuple[Array, Array]:
        """The forecasts, (n,), and their slopes in each feature's shift, (n, n_features)."""
        model = self._model
        windows = model.to_model_units(self.change(shifts)).requires_grad_()
        with torch.enable_grad():
            outputs = model.frozen.trace(windows).outputs[:, self._output]
            (gradient,) = torch.autograd.grad(outputs.sum(), windows)
        scale, mean = model.scaling.output_scale[self._output], model.scaling.output_mean[self._output]
        slopes: Array = gradient[:, self._steps].sum(dim=1).double().numpy() * scale  # a shift of 1 is one model unit
        return outputs.detach().double().numpy() * scale + mean, slopes

    def round_integers(self, shift: Array) -> Array:
        """Every way to round what integer features shift by, down or up, (n, n_features); all else stays."""
        choices = [
            {np.floor(units), np.ceil(units)} if whole else {units}
            for units, whole in zip(self.in_original_units(shift[None])[0], self.integer, strict=True)
        ]
        rounded = np.array(list(product(*choices))) / self.std
        return np.clip(rounded, self.low, self.high)
