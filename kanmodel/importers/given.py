"""The arrays of an import, checked and brought to the model's shapes: windows, targets, and known predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.importers.arrays import TableReader, is_table, read_array
from kanmodel.importers.comparison import MAX_TOLERANCE, Bounds
from kanmodel.importers.manifest import Manifest, unnamed_targets
from kanmodel.network.bases import Line
from kanmodel.network.config import Feature, ModelConfig, Target, plain_layers
from kanmodel.scaling import Array
from kanmodel.windows import take_windows

ROUNDING = 1e-3, 1e-6  # by which a whole number may be missed: absolute, and of its magnitude


@dataclass(frozen=True)
class Given:
    """The arrays of an import.

    Attributes:
        shapes: features, targets, lookback and horizon; its layers are placeholders.
        reference: reference windows, (n, lookback, n_features).
        targets: their true values, (n, n_outputs); None if unknown.
        inputs: windows of the check, (n_checked, lookback, n_features); None without a check.
        predictions: of the original model for them, (n_checked, n_outputs).
        tolerance: in standard deviations of each output.
        reference_name: name of the reference windows in errors.
        predictions_name: name of the predictions in errors.
    """

    shapes: ModelConfig
    reference: Array
    targets: Array | None
    inputs: Array | None
    predictions: Array | None
    tolerance: float
    reference_name: str
    predictions_name: str


def read_given(manifest: Manifest, read_table: TableReader | None) -> Given:
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
    inputs = None if check is None else shape_windows(read(check.inputs, names), lookback, len(names), check.inputs)

    targets, horizon = manifest.targets, manifest.horizon
    if check is not None and not is_table(check.outputs):
        targets, horizon = name_outputs(manifest, read(check.outputs, ()), check.outputs)
    if not targets:
        raise CheckpointError(
            f"{manifest.file}: lacks targets: a list of names, or of {{name, unit}}, in the model's order"
        )
    shapes = make_shapes(manifest, targets, lookback, horizon or 1)

    def read_outputs(name: str, n_windows: int, columns: tuple[str, ...]) -> Array:
        return shape_outputs(read(name, columns), n_windows, columns, name, shapes.horizon)

    columns = shapes.outputs if shapes.horizon > 1 else tuple(target.name for target in targets)
    return Given(
        shapes,
        reference,
        read_outputs(manifest.reference_targets, len(reference), columns) if manifest.reference_targets else None,
        inputs,
        read_outputs(check.outputs, len(inputs), columns) if check is not None and inputs is not None else None,
        check.tolerance if check is not None else 0.0,
        manifest.reference,
        check.outputs if check is not None else "",
    )


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
    broken = np.abs(windows - np.rint(windows)) > ROUNDING[0] + ROUNDING[1] * np.abs(windows)
    broken &= np.array([feature.integer for feature in features])
    if broken.any():
        place = np.unravel_index(broken.argmax(), broken.shape)
        window, step, feature = map(int, place)
        raise CheckpointError(
            f"{name} must have whole numbers of {features[feature].name}, but [{window}][{step}][{feature}] is "
            f"{windows[place]:g}"
        )


def refuse_weak(given: Given, place: str) -> None:
    """Refuses a check that a wrong model could pass.

    Raises:
        CheckpointError: the tolerance is so large that the check would prove nothing.
    """
    if given.predictions is None:
        return
    if given.tolerance > MAX_TOLERANCE:
        raise CheckpointError(
            f"{place}: check.tolerance is {given.tolerance} standard deviations of the outputs, above {MAX_TOLERANCE}, "
            "which proves nothing"
        )
    bounds = Bounds.of(given.predictions, given.tolerance)
    weak = bounds.proves_nothing
    if weak is not None:
        raise CheckpointError(
            f"{place}: {given.shapes.outputs[weak]} has a standard deviation of {bounds.unit[weak]:.3g} in "
            f"{given.predictions_name}, too little at its magnitude for float32 to prove anything by a tolerance of "
            f"{given.tolerance:g}: subtract its mean"
        )
