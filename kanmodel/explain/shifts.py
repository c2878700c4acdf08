"""Constant shifts of the features of one window, with forecasts and gradients of the shifted windows.

A shift z (n_features,) adds z_f training standard deviations to feature f at the chosen steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.errors import DataError
from kanmodel.network.bounds import bound_outputs

NEARLY_WHOLE = 1e-6  # tolerance within which a shift of an integer feature is rounded to a whole number
TRACED = 64  # windows of one pass that keeps all values
ROUNDED = 128  # roundings of an output that bounds allow for
FARTHEST = 10.0  # largest |shift| of a feature, training standard deviations


@dataclass(frozen=True)
class Goal:
    """The range that a forecast must reach, in the target's unit.

    Attributes:
        low: lower bound; -inf for none.
        high: upper bound; inf for none.

    Raises:
        DataError: neither bound is finite, a bound is NaN, or the range is empty.
    """

    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        if np.isnan([self.low, self.high]).any() or not self.low <= self.high:
            raise DataError.at("target", f"must be a range, but is {self.low:g} to {self.high:g}")
        if np.isinf([self.low, self.high]).all() or self.low == np.inf or self.high == -np.inf:
            raise DataError.at("target", "must have a finite bound")

    def tighten(self, margin: float) -> Goal:
        """The goal without a margin at both ends, or its middle if it is narrower than both margins."""
        margin = min(margin, (self.high - self.low) / 2)
        return Goal(self.low + margin, self.high - margin)

    def miss(self, predictions: Array) -> Array:
        """Distance of predictions from the range; 0 inside it."""
        missed: Array = np.maximum(np.maximum(self.low - predictions, predictions - self.high), 0.0)
        return missed


class Shifts:
    """The possible shifts of one window.

    Args:
        model: the model.
        window: (lookback, n_features), original units, oldest step first.
        output: number of the output.
        features: numbers of the features that may change; fixed and constant features do not change even if listed.
        steps: the steps that change.
        within_training_range: whether changed values stay within the training range, minimum to maximum. A value that
            is already outside may stay, but does not move further out.

    Attributes:
        low: the smallest shift of each feature, (n_features,), at most 0; 0 for features that do not change.
        high: the largest shift, at least 0.
        std: training standard deviation of each feature, 1 for a constant one, original units.
        integer: whether a feature shifts by whole numbers of its unit only.
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
        if within_training_range:  # the bounds are clipped at 0 below: a value outside may stay
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
        """Shifts (n, n_features) in original units; near-whole shifts of integer features are rounded."""
        original = shifts * self.std
        whole = np.round(original)
        meant = self.integer & (np.abs(original - whole) < NEARLY_WHOLE)
        found: Array = np.where(meant, whole, original)
        return found

    def predict(self, shifts: Array) -> Array:
        """Forecasts of the output for shifts (n, n_features), (n,), original units."""
        forecasts: Array = self._model.predict(self.change(shifts))[:, self._output]
        return forecasts

    @property
    def has_bounds(self) -> bool:
        """Whether `bound` is possible: the network has no recurrent part."""
        return self._model.config.recurrent is None

    def bound(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Bounds of the forecasts of all shifts between two, (n, n_features) each -> two of (n,), original units."""
        model = self._model
        windows = (model.to_model_units(self.change(shifts)).double() for shifts in (low, high))
        with torch.inference_mode():
            ends = bound_outputs(model.frozen_float64.network, *windows)
        rounding = ROUNDED * torch.finfo(getattr(torch, model.config.dtype)).eps
        wider = (end + sign * rounding * (1 + end.abs()) for sign, end in zip((-1, 1), ends, strict=True))
        low, high = (model.scaling.outputs_to_original(end)[:, self._output] for end in wider)
        return low, high

    def measure_positions(self, shifts: Array) -> Array:
        """Where the inputs of all bases with knots or centres are, in these counted along the grid, (n, n_inputs)."""
        model, n = self._model, len(shifts)
        positions: list[Array] = []
        for batch in np.array_split(shifts, max(1, -(-n // TRACED))):
            with torch.no_grad():
                trace = model.network.trace(model.to_model_units(self.change(batch)))
            found = [np.zeros((len(batch), 0))]
            for stage, traces in trace.stages.items():
                for layer, of_layer in zip(model.network.stages[stage], traces, strict=True):
                    grid, values = getattr(layer, "grid", None), of_layer.inputs
                    for step in layer.before if grid is not None else ():
                        values = step(values)
                    if grid is not None:
                        columns = zip(values.double().T.numpy(), grid.double().numpy(), strict=True)
                        counted = [np.interp(x, knots, np.arange(len(knots))) for x, knots in columns]
                        found.append(np.stack(counted, axis=-1).reshape(len(batch), -1))
            positions.append(np.concatenate(found, axis=1))
        return np.concatenate(positions)

    def predict_with_gradient(self, shifts: Array) -> tuple[Array, Array]:
        """Forecasts, (n,), original units, and their gradients with respect to the shifts, (n, n_features)."""
        model = self._model
        windows = model.to_model_units(self.change(shifts)).requires_grad_()
        with torch.enable_grad():
            outputs = model.frozen.trace(windows).outputs[:, self._output]
            (gradient,) = torch.autograd.grad(outputs.sum(), windows)
        scale, mean = model.scaling.output_scale[self._output], model.scaling.output_mean[self._output]
        slopes: Array = gradient[:, self._steps].sum(dim=1).double().numpy() * scale  # a shift of 1 is one model unit
        return outputs.detach().double().numpy() * scale + mean, slopes

    def round_integers(self, shift: Array) -> Array:
        """All ways to round the shifts of integer features down or up, (n, n_features); other shifts stay."""
        choices = [
            {np.floor(units), np.ceil(units)} if whole else {units}
            for units, whole in zip(self.in_original_units(shift[None])[0], self.integer, strict=True)
        ]
        rounded = np.array(list(product(*choices))) / self.std
        return np.clip(rounded, self.low, self.high)
