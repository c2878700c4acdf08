"""The samples of an import: windows, targets and known predictions, and how near a network comes to the latter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import inf, isfinite, prod
from reprlib import repr
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array, take_windows
from kanmodel.errors import CheckpointError, ConfigError, DataError
from kanmodel.importers.files.documents import TABLES, TableReader, read_array
from kanmodel.importers.files.manifest import LACKS, Check, Manifest, ModelSpec, parse_spec, unnamed_targets
from kanmodel.importers.search.assembly import assemble
from kanmodel.importers.search.structure import INPUTS, PREDICTIONS, UNIT_WORDS, Candidate
from kanmodel.network.bases import Line
from kanmodel.network.config import Groups, ModelConfig, plain_layers
from kanmodel.tables.columns import Feature
from kanmodel.tables.frames import is_frame, names_of, read_columns
from kanmodel.tables.windows import read_numbers

WHOLE = 1e-3, 1e-6  # by which a whole number may be missed: absolute, and of its magnitude
MAX_TOLERANCE = 0.01  # in standard deviations of an output: a check with a larger tolerance proves nothing
N_REFERENCE = 512  # most reference windows of a checkpoint, evenly chosen
MAX_ROUNDING = 1e-3  # of the spread of the forecasts: what a module may lose in float32
ROUNDING = 8 * float(np.finfo(np.float32).eps)  # allowed for float32, relative to the output's largest magnitude
FAR = 5.0  # distance, in standard deviations, of windows that are certainly not in the same units
TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class Comparison:
    """The largest difference of two sets of predictions, relative to the allowed difference."""

    absolute: float  # in the unit of the predictions; inf if the computed one is not finite
    relative: float  # in standard deviations of that output over the check's windows, or as `Bounds.unit`
    window: int  # its index
    output: int  # its index
    expected: float
    computed: float
    varies: bool  # whether that output varies by more than float32's rounding
    matches: bool  # whether this difference, and so every other, is allowed

    @property
    def is_rounding(self) -> bool:
        """Whether the difference is not allowed, but may be rounding in float32."""
        return not self.matches and self.varies and self.relative < MAX_ROUNDING

    def describe_relative(self) -> str:
        """The relative difference, in words."""
        what = "standard deviations of that output" if self.varies else "of the magnitude of that output"
        return f"{self.relative:.2g} {what}"


@dataclass(frozen=True)
class Bounds:
    """The allowed differences, one for each output."""

    unit: Array  # of `Comparison.relative`: the standard deviation; the magnitude of an output that does not vary
    varies: NDArray[np.bool_]  # whether the output varies by more than float32's rounding
    allowed: Array  # the largest allowed difference

    @classmethod
    def of(cls, expected: Array, tolerance: float) -> Bounds:
        """The bounds for known predictions, (n, n_outputs): `tolerance` standard deviations, plus float32's rounding.

        All three scale with the predictions, so that the verdict does not depend on their unit. An output that does not
        vary must be equal within the default tolerance of its magnitude at most.
        """
        magnitude = np.abs(expected).max(axis=0)
        # standard deviation of values scaled to at most 1, so that no square overflows or underflows
        std = magnitude * (expected / np.where(magnitude > 0, magnitude, 1)).std(axis=0)
        rounding = ROUNDING * magnitude
        varies = std > rounding
        relative = np.where(varies, tolerance, min(tolerance, Check.tolerance))
        unit = np.where(varies, std, magnitude)
        return cls(unit, varies, relative * unit + rounding)

    def excess(self, one: Array, other: Array) -> Array:
        """Differences of outputs relative to the allowed ones, (n, n_outputs); inf where one alone is not finite."""
        with np.errstate(invalid="ignore", over="ignore"):
            relative = np.abs(one - other) / np.maximum(self.allowed, TINY)
        excess: Array = np.nan_to_num(relative, nan=np.inf, posinf=np.inf)
        excess[~np.isfinite(one) & ~np.isfinite(other)] = 0.0
        return excess

    def compare(self, expected: Array, computed: Array) -> Comparison:
        """The largest difference relative to the allowed one; both arguments (n, n_outputs)."""
        excess = self.excess(expected, computed)
        window, output = at = divmod(int(excess.argmax()), excess.shape[1])
        known, found = float(expected[at]), float(computed[at])
        absolute = abs(found - known) if isfinite(found) else inf
        relative = absolute / float(np.maximum(self.unit[output], TINY))
        matches = bool(excess[at] <= 1)
        return Comparison(absolute, relative, window, output, known, found, bool(self.varies[output]), matches)


@dataclass(frozen=True)
class Samples:
    """The arrays of an import, as they were given; a candidate must give the known predictions."""

    shapes: ModelConfig  # features and targets with their scaling, lookback and horizon; layers are placeholders
    reference: Array  # windows, (n, lookback, n_features)
    targets: Array | None  # their true values, (n, n_outputs)
    inputs: Array  # windows of the check, (n_checked, lookback, n_features); none without a check
    predictions: Array  # of the original model for them, (n_checked, n_outputs)
    tolerance: float  # in standard deviations of each output
    reference_name: str = "windows"  # in errors
    predictions_name: str = "predictions"

    @property
    def has_check(self) -> bool:
        """Whether there are known predictions."""
        return len(self.predictions) > 0

    @cached_property
    def bounds(self) -> Bounds:
        """The allowed differences from the known predictions."""
        return Bounds.of(self.predictions, self.tolerance)

    def to_model(self, windows: Array, units: str) -> Tensor:
        """Converts windows to model units, float64."""
        if units == "original":
            return self.shapes.scaling.features_to_model(windows)
        return torch.from_numpy(np.ascontiguousarray(windows))

    def from_model(self, outputs: Tensor, units: str) -> Array:
        """Converts outputs from model units."""
        found: Array = outputs.double().numpy()
        return self.shapes.scaling.outputs_to_original(outputs) if units == "original" else found

    def predict(self, candidate: Candidate, windows: Array, dtype: torch.dtype | None = None) -> Array:
        """Predictions of a candidate, in the units of the known predictions."""
        chosen, network = candidate.chosen, assemble(candidate.chain(), self.shapes, dtype)
        x = self.to_model(windows, chosen[INPUTS]).to(getattr(torch, network.config.dtype))
        with torch.inference_mode():
            return self.from_model(network(x), chosen[PREDICTIONS])

    def refuse_weak(self, place: str) -> None:
        """Raises `CheckpointError` for a check that a wrong model could pass, by its tolerance or its outputs."""
        if self.tolerance > MAX_TOLERANCE:
            proof = f"{self.tolerance} standard deviations of the outputs, above {MAX_TOLERANCE}, which proves nothing"
            raise CheckpointError(f"{place}: check.tolerance is {proof}")
        if not self.has_check:
            return
        bounds = self.bounds
        for weak in np.flatnonzero(bounds.varies & (bounds.allowed > MAX_TOLERANCE * bounds.unit)):
            raise CheckpointError(
                f"{place}: {self.shapes.outputs[weak]} has a standard deviation of {bounds.unit[weak]:.3g} in "
                f"{self.predictions_name}, too little at its magnitude for float32 to prove anything by a tolerance of "
                f"{self.tolerance:g}: subtract its mean"
            )

    def refuse_mixed_units(self, units: str) -> None:
        """Raises `CheckpointError` if the reference windows seem not to be in the units of the check's windows.

        Their mean is then far from that of the check's in the same units, and near it in the other ones.
        """
        if not self.has_check or self.inputs is self.reference:
            return
        checked, other = self.to_model(self.inputs, units), "scaled" if units == "original" else "original"
        spread = checked.std(dim=(0, 1), correction=0).clamp(min=1e-3)
        means = [self.to_model(self.reference, each).mean(dim=(0, 1)) for each in (units, other)]
        same, swapped = (float(((mean - checked.mean(dim=(0, 1))).abs() / spread).max()) for mean in means)
        if same > FAR and swapped < same / FAR:
            raise CheckpointError(
                f"was found by windows of the check that are {UNIT_WORDS[units]}, but {self.reference_name} seems to "
                f"be {UNIT_WORDS[other]}: give both in the same units"
            )


def state_call(
    features: Sequence[str],
    outputs: Sequence[str] | None,
    scaling: Any,
    horizon: int | None,
    groups: Groups | None,
    integer: Sequence[str],
    fixed: Sequence[str],
    ahead: int = 0,
) -> ModelSpec:
    """What the arguments of `from_file` or `from_torch` state."""
    given = {"horizon": horizon, "ahead": ahead, "scaling": _plain_scaling(scaling), "groups": groups and dict(groups)}
    lists = {"features": features, "targets": outputs, "integer": integer, "fixed": fixed}
    named = {key: list(names) for key, names in lists.items() if names is not None}
    return parse_spec(ModelSpec, {**given, **named}, ModelSpec.place)


def _plain_scaling(scaling: Any) -> dict[str, Any] | None:
    """Converts a scaling, a mapping or a StandardScaler fitted to the features, to lists of numbers.

    The columns of the frame that a scaler was fitted to, and the index of a series of means, are names of the features.
    """
    if hasattr(scaling, "mean_") and hasattr(scaling, "scale_"):
        n = getattr(scaling, "n_features_in_", np.size(scaling.scale_))
        mean = scaling.mean_ if getattr(scaling, "with_mean", True) else np.zeros(n)
        std = np.ones(n) if scaling.scale_ is None else scaling.scale_
        scaling = {"mean": mean, "std": std, "feature_names": getattr(scaling, "feature_names_in_", None)}
    if scaling is not None and not isinstance(scaling, Mapping):
        raise DataError.at("scaling", f"must be a mapping or a fitted StandardScaler, but is {repr(scaling)}")
    plain = {str(name): values for name, values in (scaling or {}).items() if values is not None}
    for name, values in [*plain.items()]:
        index = getattr(values, "index", None)
        if index is not None and not callable(index) and all(isinstance(each, str) for each in index):
            plain.setdefault("target_names" if name.startswith("target") else "feature_names", [*index])
        if not name.endswith("names"):
            values = np.atleast_1d(read_numbers(values, f"scaling.{name}")).tolist()
        plain[name] = list(values) if isinstance(values, Collection) else values
    return plain or None


def make_samples(stated: ModelSpec, windows: Any, targets: Any, predictions: Any, tolerance: float) -> Samples:
    """The samples of a call, with the same windows as check and reference; arrays as `read_named` takes them.

    Raises `CheckpointError` if a value is not finite, or the arrays do not fit each other.
    """
    given = {"windows": windows, "predictions": predictions, "targets": targets}

    def read(name: str, columns: Sequence[str]) -> Array:
        array = read_named(given[name], name, columns)
        if not np.isfinite(array).all():
            raise CheckpointError(f"{name} must be finite, but some values are not")
        return array

    check = Check("windows", "predictions", tolerance)
    return _collect(stated, "windows", None if targets is None else "targets", check, read)


def read_named(values: Any, path: str, columns: Sequence[str]) -> Array:
    """An array as `read_numbers` takes it; of a frame that has all of some columns, these in their order."""
    if columns and is_frame(values) and {*columns} <= {*names_of(values)}:
        found = read_columns(values, columns)
        values = np.column_stack([found[name] for name in columns])
    return read_numbers(values, path)


def read_samples(manifest: Manifest, read_table: TableReader | None) -> Samples:
    """Reads the arrays of a manifest; raises `CheckpointError` if one cannot be read, or does not fit the others."""
    read = partial(read_array, manifest.folder, read_table=read_table)
    return _collect(manifest, manifest.reference, manifest.reference_targets, manifest.check, read)


def _collect(
    stated: ModelSpec, reference: str, targets: str | None, check: Check | None, read: Callable[..., Array]
) -> Samples:
    """The samples whose arrays have these names, by which `read` gives them; of a table, columns by their names."""
    names = tuple(feature.name for feature in stated.features)
    raw = read(reference, names)
    lookback = stated.lookback or (raw.shape[1] if raw.ndim == 3 else 1)
    windows = inputs = shape_windows(raw, lookback, len(names), reference)
    if check is not None and check.inputs != reference:
        inputs = shape_windows(read(check.inputs, names), lookback, len(names), check.inputs)
    predictions = None if check is None or check.outputs.endswith(TABLES) else read(check.outputs, ())
    shapes = make_shapes(stated, lookback, predictions, check.outputs if check else "")
    columns = output_columns(shapes)

    def outputs(name: str, n_windows: int) -> Array:
        return shape_outputs(read(name, columns), n_windows, columns, name, shapes.horizon)

    known = outputs(targets, len(windows)) if targets else None
    if check is None:
        return Samples(shapes, windows, known, windows[:0], np.zeros((0, len(shapes.outputs))), 0.0, reference)
    predictions = outputs(check.outputs, len(inputs))
    return Samples(shapes, windows, known, inputs, predictions, check.tolerance, reference, check.outputs)


def output_columns(shapes: ModelConfig) -> tuple[str, ...]:
    """What the columns of a table of forecasts are called: of one step, as the targets."""
    return shapes.outputs if shapes.horizon > 1 else tuple(target.name for target in shapes.targets)


def make_shapes(stated: ModelSpec, lookback: int, predictions: Array | None, name: str = "predictions") -> ModelConfig:
    """A config of features, targets, lookback and horizon, with a placeholder for the layers.

    Predictions, (n, ...), determine the targets and the horizon as far as these are not stated; the default names are
    y, or y1, y2, and so on. Raises `CheckpointError` if they have no columns, or do not fit what is stated.
    """
    targets, horizon = stated.targets, stated.horizon
    if predictions is not None:
        n_outputs = prod(predictions.shape[1:])
        if not n_outputs:
            raise CheckpointError(f"{name} has no columns")
        if not targets and n_outputs % (horizon or 1):
            raise CheckpointError(f"{name} has {n_outputs} columns, which a horizon of {horizon} does not divide")
        targets = targets or unnamed_targets(n_outputs // (horizon or 1))
        horizon = horizon or (1 if n_outputs % len(targets) else n_outputs // len(targets))
    if not targets:
        raise CheckpointError(f"{stated.place}: {LACKS.format('targets')}")
    horizon = horizon or 1
    try:
        layers = plain_layers([len(stated.features), horizon * len(targets)], Line(), base="zero")
        options = stated.features, targets, lookback, horizon, layers
        return ModelConfig(*options, dtype="float64", ahead=stated.ahead, groups=stated.groups)
    except ConfigError as error:
        raise CheckpointError(f"{stated.place}: {error}") from error


def shape_windows(array: Array, lookback: int, n_features: int, name: str) -> Array:
    """Reshapes windows or rows to (n, lookback, n_features); raises `CheckpointError` for another shape."""
    if array.ndim == 2 and array.shape[1] == n_features:
        if lookback == 1:
            array = array[:, None]
        elif name.endswith(TABLES) and len(array) >= lookback:
            array = take_windows(array, np.arange(lookback - 1, len(array)), lookback)
    if array.ndim != 3 or array.shape[1:] != (lookback, n_features) or not len(array):
        rows = " or (n, n_features)" if lookback == 1 else ""
        shape = f"(n, lookback, n_features){rows}, here (n, {lookback}, {n_features})"
        raise CheckpointError(f"{name} must have the shape {shape}, but has {array.shape}")
    return array


def shape_outputs(array: Array, n_windows: int, columns: tuple[str, ...], name: str, horizon: int) -> Array:
    """Reshapes outputs to (n_windows, n_outputs), also from (n_windows,) or with separate axes of steps and targets.

    Raises `CheckpointError` for another shape.
    """
    fits = array.shape[:1] == (n_windows,) and prod(array.shape[1:]) == len(columns)
    if fits and (array.ndim == 1 or (array.ndim == 3 and array.shape[1] == horizon)):
        array = array.reshape(n_windows, -1)
    if n_windows == 1 and array.shape == (len(columns),):
        array = array[None]
    if array.shape != (n_windows, len(columns)):
        shape = f"({n_windows}, {len(columns)}), a row for each window and a column for each of {', '.join(columns)}"
        raise CheckpointError(f"{name} must have the shape {shape}, but has {array.shape}")
    return array


def refuse_fractions(windows: Array, features: Sequence[Feature], name: str) -> None:
    """Raises `CheckpointError` for values of an integer feature that are not whole, but for a scaling in float32.

    The windows are (n, lookback, n_features) in original units; `name` is for the error.
    """
    broken = np.abs(windows - np.rint(windows)) > WHOLE[0] + WHOLE[1] * np.abs(windows)
    broken &= np.array([feature.integer for feature in features])
    if broken.any():
        place = np.unravel_index(broken.argmax(), broken.shape)
        window, step, feature = map(int, place)
        found = f"but [{window}][{step}][{feature}] is {windows[place]:g}"
        raise CheckpointError(f"{name} must have whole numbers of {features[feature].name}, {found}")
