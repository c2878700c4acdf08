"""The samples of an import: windows, targets and known predictions, and how near a network comes to the latter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.data import Array, Feature, Scaling, Target, take_windows
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.importers.arrays import TableReader, is_table, read_array
from kanmodel.importers.assembly import assemble
from kanmodel.importers.manifest import DEFAULT_TOLERANCE, Manifest, unnamed_targets
from kanmodel.importers.space import INPUTS, PREDICTIONS, Reading
from kanmodel.network.bases import Line
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig, plain_layers

WHOLE = 1e-3, 1e-6  # by which a whole number may be missed: absolute, and of its magnitude
MAX_TOLERANCE = 0.01  # in standard deviations of an output: a check with a larger tolerance proves nothing
ROUNDING = 8 * float(np.finfo(np.float32).eps)  # allowed for float32, relative to the output's largest magnitude


@dataclass(frozen=True)
class Comparison:
    """The largest difference of two sets of predictions, relative to the allowed difference.

    Attributes:
        absolute: the difference, in the unit of the predictions; inf if the computed one is not finite.
        relative: the same in standard deviations of that output over the check's windows, or relative to the output's
            magnitude if it does not vary.
        window: index of the window.
        output: index of the output.
        expected: the known prediction.
        computed: the prediction of the network.
        varies: whether that output varies by more than float32's rounding.
        matches: whether this difference, and so every other, is allowed.
    """

    absolute: float
    relative: float
    window: int
    output: int
    expected: float
    computed: float
    varies: bool
    matches: bool


@dataclass(frozen=True)
class Bounds:
    """The allowed differences, one for each output.

    Attributes:
        unit: unit of `Comparison.relative`: the standard deviation, or the largest magnitude of an output that does
            not vary.
        varies: whether the output varies by more than float32's rounding.
        allowed: the largest allowed difference.
    """

    unit: Array
    varies: NDArray[np.bool_]
    allowed: Array

    @classmethod
    def of(cls, expected: Array, tolerance: float) -> Bounds:
        """The bounds for known predictions: `tolerance` units, plus float32's rounding at the output's magnitude.

        All three scale with the predictions, so that the verdict does not depend on their unit. An output that does not
        vary must be equal within `DEFAULT_TOLERANCE` of its magnitude at most.

        Args:
            expected: known predictions, (n, n_outputs).
            tolerance: in standard deviations of each output.
        """
        magnitude = np.abs(expected).max(axis=0)
        # standard deviation of values scaled to at most 1, so that no square overflows or underflows
        std = magnitude * (expected / np.where(magnitude > 0, magnitude, 1)).std(axis=0)
        rounding = ROUNDING * magnitude
        varies = std > rounding
        relative = np.where(varies, tolerance, min(tolerance, DEFAULT_TOLERANCE))
        unit = np.where(varies, std, magnitude)
        return cls(unit, varies, relative * unit + rounding)

    @property
    def proves_nothing(self) -> int | None:
        """The first output that varies, but may differ by more than `MAX_TOLERANCE` standard deviations."""
        found = np.flatnonzero(self.varies & (self.allowed > MAX_TOLERANCE * self.unit))
        return int(found[0]) if len(found) else None

    def compare(self, expected: Array, computed: Array) -> Comparison:
        """The largest difference relative to the allowed one; both arguments (n, n_outputs)."""
        differences = np.where(np.isfinite(computed), np.abs(computed - expected), np.inf)
        excess = _ratio(differences, self.allowed)
        window, output = (int(n) for n in np.unravel_index(int(excess.argmax()), excess.shape))
        return Comparison(
            absolute=float(differences[window, output]),
            relative=float(_ratio(differences, self.unit)[window, output]),
            window=window,
            output=output,
            expected=float(expected[window, output]),
            computed=float(computed[window, output]),
            varies=bool(self.varies[output]),
            matches=bool(excess[window, output] <= 1),
        )


def _ratio(differences: Array, units: Array) -> Array:
    """Differences (n, n_outputs) in units (n_outputs,); infinite for a unit of 0."""
    ratios = np.where(differences > 0, np.inf, 0.0)
    np.divide(differences, units, out=ratios, where=np.broadcast_to(units > 0, differences.shape))
    return ratios


def describe_relative(comparison: Comparison) -> str:
    """The relative difference, in words."""
    what = "standard deviations of that output" if comparison.varies else "of the magnitude of that output"
    return f"{comparison.relative:.2g} {what}"


@dataclass(frozen=True)
class Samples:
    """The arrays of an import, as they were given; a reading must give the known predictions.

    Attributes:
        shapes: features and targets with their scaling, lookback and horizon; its layers are placeholders.
        reference: reference windows, (n, lookback, n_features).
        targets: their true values, (n, n_outputs); None if unknown.
        inputs: windows of the check, (n_checked, lookback, n_features); none without a check.
        predictions: of the original model for them, (n_checked, n_outputs).
        tolerance: in standard deviations of each output.
        reference_name: name of the reference windows in errors.
        predictions_name: name of the predictions in errors.
    """

    shapes: ModelConfig
    reference: Array
    targets: Array | None
    inputs: Array
    predictions: Array
    tolerance: float
    reference_name: str = "windows"
    predictions_name: str = "predictions"

    @property
    def has_check(self) -> bool:
        """Whether there are known predictions."""
        return len(self.predictions) > 0

    @cached_property
    def bounds(self) -> Bounds:
        """The allowed differences from the known predictions."""
        return Bounds.of(self.predictions, self.tolerance)

    @cached_property
    def scaling(self) -> Scaling:
        """Original units <-> model units."""
        return self.shapes.scaling

    def to_model(self, windows: Array, units: str) -> Tensor:
        """Converts windows to model units, float64."""
        if units == "original":
            windows = (windows - self.scaling.feature_mean) / self.scaling.feature_scale
        return torch.from_numpy(np.ascontiguousarray(windows))

    def from_model(self, outputs: Tensor, units: str) -> Array:
        """Converts outputs from model units."""
        found: Array = outputs.double().numpy()
        return found * self.scaling.output_scale + self.scaling.output_mean if units == "original" else found

    def build(self, reading: Reading, dtype: torch.dtype | None = None) -> Network:
        """Builds the network of a reading, in the dtype of its weights or another."""
        chain = reading.chain()
        return assemble(chain, self.shapes, dtype or chain.dtype)

    def predict(self, network: Network, reading: Reading, windows: Array) -> Array:
        """Predictions of a network, in the units of the known predictions."""
        chosen = reading.chosen
        x = self.to_model(windows, chosen[INPUTS]).to(getattr(torch, network.config.dtype))
        with torch.inference_mode():
            return self.from_model(network(x), chosen[PREDICTIONS])

    def compare(self, reading: Reading) -> Comparison:
        """The largest difference between the known predictions and those of a reading."""
        return self.bounds.compare(self.predictions, self.predict(self.build(reading), reading, self.inputs))


def read_samples(manifest: Manifest, read_table: TableReader | None) -> Samples:
    """Reads the arrays that a manifest names.

    Raises:
        CheckpointError: an array cannot be read, or its shape does not fit the others.
    """
    names = tuple(feature.name for feature in manifest.features)

    def read(name: str, columns: tuple[str, ...]) -> Array:
        return read_array(manifest.folder, name, columns, read_table)

    raw = read(manifest.reference, names)
    lookback = manifest.lookback or (1 if raw.ndim == 2 else raw.shape[1] if raw.ndim == 3 else 1)
    reference = shape_windows(raw, lookback, len(names), manifest.reference)
    check = manifest.check
    targets, horizon = manifest.targets, manifest.horizon
    if check is not None:
        inputs = shape_windows(read(check.inputs, names), lookback, len(names), check.inputs)
        if not is_table(check.outputs):
            targets, horizon = name_outputs(manifest, read(check.outputs, ()), check.outputs)
    if not targets:
        raise CheckpointError(
            f"{manifest.file}: lacks targets: a list of names, or of {{name, unit}}, in the model's order"
        )
    shapes = make_shapes(manifest, targets, lookback, horizon or 1)

    def read_outputs(name: str, n_windows: int, columns: tuple[str, ...]) -> Array:
        return shape_outputs(read(name, columns), n_windows, columns, name, shapes.horizon)

    columns = shapes.outputs if shapes.horizon > 1 else tuple(target.name for target in targets)
    known = read_outputs(manifest.reference_targets, len(reference), columns) if manifest.reference_targets else None
    if check is None:
        return Samples(
            shapes, reference, known, reference[:0], np.zeros((0, len(shapes.outputs))), 0.0, manifest.reference
        )
    predictions = read_outputs(check.outputs, len(inputs), columns)
    return Samples(shapes, reference, known, inputs, predictions, check.tolerance, manifest.reference, check.outputs)


def make_shapes(manifest: Manifest, targets: tuple[Target, ...], lookback: int, horizon: int) -> ModelConfig:
    """A config with these features and targets, and a placeholder for the layers."""
    n_features, n_outputs = len(manifest.features), horizon * len(targets)
    try:
        layers = plain_layers([n_features, n_outputs], Line(), base="zero")
        return ModelConfig(manifest.features, targets, lookback, horizon, layers, groups=manifest.groups)
    except ConfigError as error:
        raise CheckpointError(f"{manifest.file}: {error}") from error


def name_outputs(manifest: Manifest, predictions: Array, name: str) -> tuple[tuple[Target, ...], int]:
    """Targets and horizon, as far as the predictions determine them; the default names are y, or y1, y2, and so on."""
    n_outputs = prod(predictions.shape[1:])
    if not n_outputs:
        raise CheckpointError(f"{name} has no columns")
    if manifest.targets:
        fits = n_outputs % len(manifest.targets) == 0
        return manifest.targets, manifest.horizon or (n_outputs // len(manifest.targets) if fits else 1)
    horizon = manifest.horizon or 1
    if n_outputs % horizon:
        raise CheckpointError(f"{name} has {n_outputs} columns, which a horizon of {horizon} does not divide")
    return unnamed_targets(n_outputs // horizon), horizon


def shape_windows(array: Array, lookback: int, n_features: int, name: str) -> Array:
    """Reshapes windows or rows to (n, lookback, n_features).

    Raises:
        CheckpointError: they have another shape.
    """
    if array.ndim == 2 and array.shape[1] == n_features:
        if lookback == 1:
            array = array[:, None]
        elif is_table(name) and len(array) >= lookback:
            array = take_windows(array, np.arange(lookback - 1, len(array)), lookback)
    if array.ndim != 3 or array.shape[1:] != (lookback, n_features) or not len(array):
        rows = " or (n, n_features)" if lookback == 1 else ""
        raise CheckpointError(
            f"{name} must have the shape (n, lookback, n_features){rows}, here (n, {lookback}, {n_features}), but has "
            f"{array.shape}"
        )
    return array


def shape_outputs(array: Array, n_windows: int, columns: tuple[str, ...], name: str, horizon: int) -> Array:
    """Reshapes outputs to (n_windows, n_outputs), also from (n_windows,) or with separate axes of steps and targets.

    Raises:
        CheckpointError: they have another shape.
    """
    fits = array.shape[:1] == (n_windows,) and prod(array.shape[1:]) == len(columns)
    if fits and (array.ndim == 1 or (array.ndim == 3 and array.shape[1] == horizon)):
        array = array.reshape(n_windows, -1)
    if n_windows == 1 and array.shape == (len(columns),):
        array = array[None]
    if array.shape != (n_windows, len(columns)):
        raise CheckpointError(
            f"{name} must have the shape ({n_windows}, {len(columns)}), a row for each window and a column for each of "
            f"{', '.join(columns)}, but has {array.shape}"
        )
    return array


def refuse_fractions(windows: Array, features: Sequence[Feature], name: str) -> None:
    """Refuses values of an integer feature that are not whole numbers, but for the rounding of a scaling in float32.

    Args:
        windows: (n, lookback, n_features), original units.
        features: of their last axis.
        name: of the windows, for the error.

    Raises:
        CheckpointError: there is one; the message says where.
    """
    broken = np.abs(windows - np.rint(windows)) > WHOLE[0] + WHOLE[1] * np.abs(windows)
    broken &= np.array([feature.integer for feature in features])
    if broken.any():
        place = np.unravel_index(broken.argmax(), broken.shape)
        window, step, feature = map(int, place)
        raise CheckpointError(
            f"{name} must have whole numbers of {features[feature].name}, but [{window}][{step}][{feature}] is "
            f"{windows[place]:g}"
        )


def refuse_weak(samples: Samples, place: str) -> None:
    """Refuses a check that a wrong model could pass.

    Raises:
        CheckpointError: the tolerance is so large that the check would prove nothing.
    """
    if samples.tolerance > MAX_TOLERANCE:
        raise CheckpointError(
            f"{place}: check.tolerance is {samples.tolerance} standard deviations of the outputs, above "
            f"{MAX_TOLERANCE}, which proves nothing"
        )
    weak = samples.bounds.proves_nothing if samples.has_check else None
    if weak is not None:
        raise CheckpointError(
            f"{place}: {samples.shapes.outputs[weak]} has a standard deviation of {samples.bounds.unit[weak]:.3g} in "
            f"{samples.predictions_name}, too little at its magnitude for float32 to prove anything by a tolerance of "
            f"{samples.tolerance:g}: subtract its mean"
        )
