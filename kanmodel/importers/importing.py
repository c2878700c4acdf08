"""``import_checkpoint``: a file of weights and a manifest -> a model that a check proves to compute the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel, Provenance, Reference
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.importers.arrays import TableReader, is_table, read_array
from kanmodel.importers.assembly import Assembled, assemble
from kanmodel.importers.comparison import MAX_TOLERANCE, Bounds, Comparison
from kanmodel.importers.manifest import Check, Manifest, read_manifest
from kanmodel.importers.source import open_source
from kanmodel.network.chain import Network
from kanmodel.scaling import Array, Scaling
from kanmodel.windows import take_windows


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere.

    Attributes:
        model: ready to save, predict and explain.
        name: what the manifest calls it, or the file.
        comparison: where it differs most from the predictions of the `check`; None without a check.
        reading: what was taken for granted that neither file nor manifest says; empty where there was no choice.
        also_matching: other readings that compute the predictions of the `check` too.
    """

    model: LoadedModel
    name: str
    comparison: Comparison | None
    reading: str = ""
    also_matching: tuple[str, ...] = ()


def import_checkpoint(file: Path, manifest_file: Path, read_table: TableReader | None = None) -> Imported:
    """Makes a model of a file of weights and what the manifest says about it.

    Where the file can be read in several ways that only predictions tell apart, the `check` decides; without one the
    library's own way is taken.

    Args:
        file: the weights, as their trainer saved them.
        manifest_file: the manifest, yaml or json.
        read_table: reads csv and parquet where the manifest names such a file.

    Raises:
        CheckpointError: the file or the manifest cannot be used, something is missing, or the check fails; one sentence
            that names the place.
    """
    manifest = read_manifest(manifest_file)
    source = open_source(file)
    try:
        readings = assemble(source, manifest)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{source.name} {error}") from error
    reader = _Reader(manifest, readings[0].network, read_table)
    windows = reader.windows(manifest.reference)
    reference = Reference(windows, reader.targets(manifest.reference_targets, len(windows)))
    chosen, comparison = readings[0], None
    also_matching: tuple[str, ...] = ()
    if manifest.check is not None:
        chosen, comparison, also_matching = _choose_reading(reader, manifest.check, readings, source.name)
    library = f"{chosen.library}, {chosen.reading}" if chosen.reading else chosen.library
    provenance = Provenance(
        "import",
        f"{library}, read by kanscope {version('kanscope')}",
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        verified=comparison is not None,
        difference=comparison.absolute if comparison else None,
        relative_difference=comparison.relative if comparison else None,
    )
    model = LoadedModel(chosen.network, reference, {}, provenance)
    if not bool(torch.isfinite(model.reference_outputs).all()):
        raise CheckpointError(f"{source.name} has a forecast that is not finite for a window of {manifest.reference}")
    return Imported(model, manifest.name or file.stem, comparison, chosen.reading, also_matching)


@dataclass(frozen=True)
class _Reader:
    """The arrays of a manifest in the shapes that the network has."""

    manifest: Manifest
    network: Network
    read_table: TableReader | None

    @property
    def scaling(self) -> Scaling:
        return Scaling.of(self.network.config)

    def windows(self, name: str) -> Tensor:
        """Windows in model units, (n, lookback, n_features)."""
        config = self.network.config
        array = read_array(self.manifest.folder, name, config.feature_names, self.read_table)
        expected = (config.lookback, len(config.features))
        if array.ndim == 2 and array.shape[1] == expected[1]:
            if config.lookback == 1:
                array = array[:, None]
            elif is_table(name) and len(array) >= config.lookback:
                array = take_windows(array, np.arange(config.lookback - 1, len(array)), config.lookback)
        if array.ndim != 3 or array.shape[1:] != expected or not len(array):
            rows = " or (n, n_features)" if config.lookback == 1 else ""
            raise CheckpointError(
                f"{name} must have the shape (n, lookback, n_features){rows}, here (n, {expected[0]}, {expected[1]}), "
                f"but has {array.shape}"
            )
        if self.manifest.space == "original":
            return self.scaling.features_to_model(array)
        return torch.from_numpy(array).to(self.scaling.dtype)

    def predict(self, network: Network, windows: Tensor) -> Array:
        """What a network of these shapes computes, as the manifest's space has it, (n, n_outputs)."""
        with torch.inference_mode():
            computed = network.eval()(windows)
        scaled = self.manifest.space == "scaled"
        outputs: Array = computed.double().numpy() if scaled else self.scaling.outputs_to_original(computed)
        return outputs

    def outputs(self, name: str, n_windows: int) -> Array:
        """Outputs as the manifest's space has them, (n, n_outputs)."""
        config = self.network.config
        columns = config.outputs if config.horizon > 1 else tuple(target.name for target in config.targets)
        array = read_array(self.manifest.folder, name, columns, self.read_table)
        by_step = (n_windows, config.horizon, len(config.targets))
        if array.shape == by_step or array.shape == (n_windows,) == (prod(by_step),):
            array = array.reshape(n_windows, -1)
        if array.ndim == 1 and len(config.outputs) == 1:
            array = array[:, None]
        if array.shape != (n_windows, len(config.outputs)):
            raise CheckpointError(
                f"{name} must have the shape ({n_windows}, {len(config.outputs)}), a row for each window and a column "
                f"for each of {', '.join(config.outputs)}, but has {array.shape}"
            )
        return array

    def targets(self, name: str | None, n_windows: int) -> Array | None:
        """Targets of the reference windows, original units."""
        if name is None:
            return None
        targets = self.outputs(name, n_windows)
        if self.manifest.space == "original":
            return targets
        return targets * self.scaling.output_scale + self.scaling.output_mean


def _choose_reading(
    reader: _Reader, check: Check, readings: list[Assembled], source: str
) -> tuple[Assembled, Comparison, tuple[str, ...]]:
    """The first reading that computes the predictions that are known, how far it is off, and which others do too.

    Raises:
        CheckpointError: none does, or so much is allowed that it would prove nothing.
    """
    windows = reader.windows(check.inputs)
    expected = reader.outputs(check.outputs, len(windows))
    bounds = Bounds.of(expected, check.tolerance)
    _refuse_weak(reader, check, bounds)
    compared = [(reading, bounds.compare(expected, reader.predict(reading.network, windows))) for reading in readings]
    matching = [(reading, comparison) for reading, comparison in compared if comparison.matches]
    if matching:
        (chosen, comparison), *others = matching
        return chosen, comparison, tuple(reading.reading for reading, _ in others)
    _, comparison = min(compared, key=lambda pair: pair[1].relative)
    wrong = f"{comparison.computed:.7g} in place of {comparison.expected:.7g}"
    output = reader.network.config.outputs[comparison.output]
    message = (
        f"{source} does not compute {check.outputs}: the largest difference is {comparison.absolute:.3g}, at window "
        f"{comparison.window}, output {output} ({wrong}), which is {describe_relative(comparison)}, and "
        f"{bounds.allowed[comparison.output] / bounds.unit[comparison.output]:.2g} is allowed"
    )
    if len(compared) > 1:
        message += "; tried: " + "; ".join(f"{other.reading} ({off.relative:.3g})" for other, off in compared)
    raise CheckpointError(message)


def _refuse_weak(reader: _Reader, check: Check, bounds: Bounds) -> None:
    """Refuses a check that a wrong model would pass."""
    if check.tolerance > MAX_TOLERANCE:
        raise CheckpointError(
            f"{reader.manifest.file}: check.tolerance is {check.tolerance} standard deviations of the outputs, above "
            f"{MAX_TOLERANCE}, which proves nothing"
        )
    weak = bounds.proves_nothing
    if weak is not None:
        raise CheckpointError(
            f"{reader.manifest.file}: {reader.network.config.outputs[weak]} has a standard deviation of "
            f"{bounds.unit[weak]:.3g} in {check.outputs}, too little at its magnitude for float32 to prove anything by "
            f"a tolerance of {check.tolerance:g}: subtract its mean"
        )


def describe_relative(comparison: Comparison) -> str:
    """The relative difference in words."""
    what = "standard deviations of that output" if comparison.varies else "of the magnitude of that output"
    return f"{comparison.relative:.2g} {what}"
