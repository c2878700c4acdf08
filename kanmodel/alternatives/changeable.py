"""What may change in a window, the goal of a change, and the forecasts of changed windows.

A shift z (n_features,) adds z_f training standard deviations to feature f at the chosen steps of one window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.arrays import Array, rows_of_steps
from kanmodel.errors import DataError, KanscopeError, Problem, UnknownNameError, check_lowest, quote
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import ModelConfig
from kanmodel.tables.columns import column_of
from kanmodel.tables.inputs import Input, Inputs
from kanmodel.text import list_some

NEARLY_WHOLE = 1e-6  # tolerance within which a shift of an integer feature is rounded to a whole number
TRACED = 64  # windows of one pass that keeps all values
FARTHEST = 10.0  # largest |shift| of a feature, training standard deviations


class Levels(NamedTuple):
    """An input that changes as a whole, through its levels: a column of levels, a flag, or a cycle of the calendar."""

    input: Input  # the input
    chosen: tuple[int, ...]  # places of the levels that are asked for

    def set(self, window: Array, rows: slice, level: float) -> Array:
        """A window (lookback, n_features) with a level, by its place, in some rows."""
        changed = window.copy()
        changed[rows, self.input.numbers] = self.input.encode(level)
        return changed


def find_columns(model: Forecaster, names: Sequence[str] | str | None) -> list[int | Levels]:
    """What changes together, in the given order, or all of it for None: a feature, by its number, or an input's levels.

    A name is that of an input, of a feature that is one alone, or of one level, as ``daytype=holiday``.

    Raises:
        DataError: there is no name, one is repeated, or one is of a feature that is not an input alone.
        UnknownNameError: there is no such input, feature or level.
    """
    columns, levels = dict[str, int | Levels](), dict[str, int | Levels]()
    for one in model.inputs:
        columns[one.name] = Levels(one, one.values) if one.levels else one.numbers[0]
        if len(one.features) == 1 and one.kind != "level":
            levels[one.features[0]] = columns[one.name]
        for number, level in enumerate(one.levels):
            levels[f"{one.name}={level}"] = Levels(one, (number,))
            levels |= {one.features[number]: Levels(one, (number,))} if one.kind == "level" else {}
    known, found = levels | columns, dict[int | Levels, None]()
    given = columns if names is None else [names] if isinstance(names, str) else names
    if not given:
        raise DataError.at("features", "must name at least one feature")
    for number, name in enumerate(given):
        place = f"features[{number}]"
        if name not in known:
            raise _refuse_name(model.inputs, place, name)
        if known[name] in found:
            raise DataError.at(place, "is given twice")
        found[known[name]] = None
    return list(found)


def _refuse_name(inputs: Inputs, place: str, name: str) -> KanscopeError:
    """The error of a name of no input or level."""
    if (whole := inputs.of_feature.get(name)) is not None:
        return DataError.at(place, f"is {quote(name)}, a part of {whole.name}, which changes as a whole: name that")
    known = f"the features are {', '.join(one.name for one in inputs)}"
    for one in inputs:
        if one.levels and name.startswith((f"{one.name}=", one.features[0].removesuffix(one.levels[0]))):
            known = f"the levels of {one.name} are {list_some(one.levels)}"
    problem = Problem(place, f"is unknown: {quote(name)}; {known}")
    return UnknownNameError(str(problem), [problem])


def find_changeable(model: Forecaster, names: Sequence[str] | str | None) -> tuple[list[int], list[Levels]]:
    """What a counterfactual may change: numbers of features that shift, and inputs of levels.

    For None all but levels, the calendar, what is fixed, and the history of a target. Yes and no shift by 1.

    Raises:
        DataError: as `find_columns`; a name is of something that is fixed, or nothing may change.
        UnknownNameError: as `find_columns`.
    """
    config, inputs = model.config, model.inputs.of_feature
    history = {column_of(target.name, config.feature_names) for target in config.targets}
    numbers, columns = list[int](), dict[str, Levels]()
    for place, one in enumerate(find_columns(model, names)):
        number = one.input.numbers[0] if isinstance(one, Levels) else one
        feature = config.features[number]
        of = inputs[feature.name]
        if of.fixed and names is not None:
            raise DataError.at(f"features[{place}]", f"is {quote(of.name)}, which is fixed: nobody can change it")
        if names is None and (of.fixed or of.is_encoded or feature.fixed or feature.name in history):
            continue
        if isinstance(one, Levels) and (of.is_encoded or not feature.is_binary):
            chosen = {*one.chosen, *columns.get(of.name, one).chosen}
            columns[of.name] = one._replace(chosen=tuple(sorted(chosen)))
        elif feature.std > 0:
            numbers.append(number)
    if not numbers and not columns:
        why = "all are constant in training, fixed, or the history of a target, which changes only if it is named"
        raise DataError.at("features", f"has nothing that may change: {why}")
    return numbers, [*columns.values()]


def find_rows(config: ModelConfig, steps: Sequence[int] | None) -> slice:
    """The rows of a window from a first to a last step, inclusive, 0 the newest, or else DataError; all for None."""
    oldest = 1 - config.lookback
    steps = (oldest, 0) if steps is None else steps
    if len(steps) != 2 or not oldest <= steps[0] <= steps[1] <= 0:
        range_ = f"a first and a last step from {oldest}, the oldest, to 0"
        raise DataError.at("steps", f"must be {range_}, but is {quote(list(steps))}")
    return rows_of_steps(steps[0], steps[1], config.lookback)


@dataclass(frozen=True)
class Goal:
    """The range that a forecast must reach, in the target's unit; DataError if it is empty, NaN or unbounded."""

    low: float = -np.inf  # lower bound; -inf for none
    high: float = np.inf  # upper bound; inf for none

    def __post_init__(self) -> None:
        if np.isnan([self.low, self.high]).any() or not self.low <= self.high:
            raise DataError.at("target", f"must be a range, but is {self.low:g} to {self.high:g}")
        if np.isinf([self.low, self.high]).all() or self.low == np.inf or self.high == -np.inf:
            raise DataError.at("target", "must have a finite bound")

    @classmethod
    def of(cls, at_least: float | None, at_most: float | None, between: Sequence[float] | None) -> Goal:
        """The goal from exactly one of a lower bound, an upper bound and both.

        Raises DataError if none or several are given, `between` is not two numbers in order, or there is no such range.
        """
        bounds = {"at_least": at_least, "at_most": at_most, "between": between}
        given = [name for name, bound in bounds.items() if bound is not None]
        if len(given) != 1:
            what = f"has {' and '.join(given)}" if given else "is empty"
            raise DataError.at("target", f"{what}: give one of at_least, at_most and between")
        if between is not None and len(between) != 2:
            raise DataError.at("target.between", f"must be two numbers, but is {quote(between)}")
        if between is not None and between[0] > between[1]:
            raise DataError.at("target.between", "must be the lower bound, then the upper")
        low, high = (at_least, at_most) if between is None else between
        return cls(-np.inf if low is None else float(low), np.inf if high is None else float(high))

    def tighten(self, margin: float) -> Goal:
        """The goal without a margin at both ends, or its middle if it is narrower than both margins."""
        margin = min(margin, (self.high - self.low) / 2)
        return Goal(self.low + margin, self.high - margin)

    def is_reached(self, predictions: Array) -> NDArray[np.bool_]:
        """Whether predictions are in the range."""
        return np.asarray(self.miss(predictions) == 0)

    def __str__(self) -> str:
        if np.isinf(self.low):
            return f"at most {self.high:.4g}"
        return f"at least {self.low:.4g}" if np.isinf(self.high) else f"between {self.low:.4g} and {self.high:.4g}"

    def miss(self, predictions: Array) -> Array:
        """Distance of predictions from the range; 0 inside it."""
        return np.maximum(np.maximum(self.low - predictions, predictions - self.high), 0.0)


@dataclass(frozen=True)
class SearchOptions:
    """What a counterfactual may change: see `CounterfactualQuestion`.

    Attributes:
        features, steps: see there.
        max_features: from 1, or else DataError.
        within_training_range: whether changed values stay within the training range. A value that is already outside
            may stay, but does not move further out. A feature shifts by at most 10 training standard deviations in any
            case. One of 0 and 1 alone stays 0 or 1, so it changes only if the steps have one value.
    """

    features: Sequence[str] | str | None = None
    steps: Sequence[int] | None = None
    max_features: int = 2
    within_training_range: bool = True

    def __post_init__(self) -> None:
        check_lowest("max_features", self.max_features, 1)


class ShiftableWindow:
    """The possible shifts of one window, (lookback, n_features), original units, and their forecasts of one output.

    Raises as `find_changeable` and `find_rows`.

    Attributes:
        inputs: of the model.
        columns: the features.
        low, high: smallest shift of each feature, (n_features,), at most 0, and largest; 0 if it does not change.
        std: training standard deviation of each feature, 1 for a constant one, original units.
        integer: whether a feature shifts by whole numbers of its unit only.
        movable: numbers of the features that can change.
    """

    def __init__(self, model: Forecaster, window: Array, output: int, search: SearchOptions) -> None:
        self.inputs = model.inputs
        self.columns, rows = model.config.features, find_rows(model.config, search.steps)
        self._model, self._window, self._output, self._rows = model, window, output, rows
        self.std = model.scaling.feature_scale
        self.integer: NDArray[np.bool_] = np.array([column.integer for column in self.columns])
        moves = np.isin(np.arange(len(self.columns)), find_changeable(model, search.features)[0])
        is_binary = np.array([column.is_binary for column in self.columns])
        farthest, stays_inside = np.where(is_binary, np.inf, FARTHEST), search.within_training_range | is_binary
        to_lowest = np.where(stays_inside, (model.feature_low - window[rows].min(axis=0)) / self.std, -np.inf)
        to_highest = np.where(stays_inside, (model.feature_high - window[rows].max(axis=0)) / self.std, np.inf)
        low = np.where(moves, np.clip(to_lowest, -farthest, 0.0), 0.0)
        high = np.where(moves, np.clip(to_highest, 0.0, farthest), 0.0)
        self.low = np.where(self.integer, np.ceil(low * self.std - NEARLY_WHOLE) / self.std, low)
        self.high = np.where(self.integer, np.floor(high * self.std + NEARLY_WHOLE) / self.std, high)
        self.movable: NDArray[np.int64] = np.flatnonzero((self.low < 0) | (self.high > 0))

    def change(self, shifts: Array) -> Array:
        """The changed windows, (n, lookback, n_features), for shifts (n, n_features)."""
        changed = np.repeat(self._window[None], len(shifts), axis=0)
        changed[:, self._rows] += self.in_original_units(shifts)[:, None]
        return changed

    def in_original_units(self, shifts: Array) -> Array:
        """Shifts (n, n_features) in original units; near-whole shifts of integer features are rounded."""
        original, whole = shifts * self.std, np.round(shifts * self.std)
        return np.where(self.integer & (np.abs(original - whole) < NEARLY_WHOLE), whole, original)

    def predict(self, shifts: Array) -> Array:
        """Forecasts of the output for shifts (n, n_features), (n,), original units."""
        return self._model.predict(self.change(shifts))[:, self._output]

    def predict_with_gradient(self, shifts: Array) -> tuple[Array, Array]:
        """Forecasts, (n,), original units, and their gradients with respect to the shifts, (n, n_features)."""
        model = self._model
        windows = model.to_model_units(self.change(shifts)).requires_grad_()
        with torch.enable_grad():
            outputs = model.frozen.trace(windows).outputs[:, self._output]
            (gradient,) = torch.autograd.grad(outputs.sum(), windows)
        scale, mean = model.scaling.output_scale[self._output], model.scaling.output_mean[self._output]
        slopes = gradient[:, self._rows].sum(dim=1).double().numpy() * scale  # a shift of 1 is one model unit
        return outputs.detach().double().numpy() * scale + mean, slopes

    def measure_positions(self, shifts: Array) -> Array:
        """Where the inputs of all bases with knots or centres are, in these counted along the grid, (n, n_inputs)."""
        model, positions = self._model, []
        for batch in np.array_split(shifts, max(1, -(-len(shifts) // TRACED))):
            with torch.no_grad():
                trace = model.network.trace(model.to_model_units(self.change(batch)))
            found = [np.zeros((len(batch), 0))]
            for stage, traces in trace.stages.items():
                for layer, of_layer in zip(model.network.stages[stage], traces, strict=True):
                    if (grid := getattr(layer, "grid", None)) is None:
                        continue
                    _, values = layer.read(of_layer.inputs)
                    for x, knots in zip(values.double().T.numpy(), grid.double().numpy(), strict=True):
                        found.append(np.interp(x, knots, np.arange(len(knots))).reshape(len(batch), -1))
            positions.append(np.concatenate(found, axis=1))
        return np.concatenate(positions)

    def round_integers(self, shift: Array) -> Array:
        """All ways to round the shifts (n_features,) of integer features down or up, (n, n_features); others stay."""
        units = self.in_original_units(shift[None])[0]
        choices = [{np.floor(u), np.ceil(u)} if whole else {u} for u, whole in zip(units, self.integer, strict=True)]
        return np.clip(np.array(list(product(*choices))) / self.std, self.low, self.high)
