"""``import_checkpoint``: a file of weights and a manifest -> a model that is proved to compute the same."""

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
from kanmodel.importers.assembly import assemble
from kanmodel.importers.manifest import Check, Manifest, read_manifest
from kanmodel.importers.source import open_source
from kanmodel.network import LSTMKAN
from kanmodel.scaling import Array, Scaling
from kanmodel.windows import take_windows

MAX_TOLERANCE = 0.01  # of a check, in standard deviations of its outputs: beyond it a check proves nothing


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere.

    Attributes:
        model: ready to save, predict and explain.
        name: what the manifest calls it, or the file.
        difference: largest difference from the predictions of the `check`, in its space; None without a check.
    """

    model: LoadedModel
    name: str
    difference: float | None


def import_checkpoint(file: Path, manifest_file: Path, read_table: TableReader | None = None) -> Imported:
    """Makes a model of a file of weights and what the manifest says about it.

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
        assembled = assemble(source, manifest)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{source.name} {error}") from error
    reader = _Reader(manifest, assembled.network, read_table)
    windows = reader.windows(manifest.reference)
    reference = Reference(windows, reader.targets(manifest.reference_targets, len(windows)))
    difference = None if manifest.check is None else _run_check(reader, manifest.check, source.name)
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    provenance = Provenance(
        "import",
        f"{assembled.library}, read by kanscope {version('kanscope')}",
        created,
        verified=difference is not None,
    )
    model = LoadedModel(assembled.network, reference, {}, provenance)
    if not bool(torch.isfinite(model.reference_outputs).all()):
        raise CheckpointError(f"{source.name} has a forecast that is not finite for a window of {manifest.reference}")
    return Imported(model, manifest.name or file.stem, difference)


@dataclass(frozen=True)
class _Reader:
    """The arrays of a manifest in the shapes that the network has."""

    manifest: Manifest
    network: LSTMKAN
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


def _run_check(reader: _Reader, check: Check, source: str) -> float:
    """The largest difference between the predictions that are known and those computed.

    Raises:
        CheckpointError: it is above the tolerance, or the tolerance is so large that it proves nothing.
    """
    windows = reader.windows(check.inputs)
    expected = reader.outputs(check.outputs, len(windows))
    spread = float(expected.std(axis=0).max())
    if spread > 0 and check.tolerance > MAX_TOLERANCE * spread:
        raise CheckpointError(
            f"{reader.manifest.file}: check.tolerance is {check.tolerance}, above {MAX_TOLERANCE:.0%} of the standard "
            f"deviation {spread:.3g} of the outputs, which proves nothing"
        )
    with torch.inference_mode():
        computed = reader.network.eval()(windows)
    scaled = reader.manifest.space == "scaled"
    outputs = computed.double().numpy() if scaled else reader.scaling.outputs_to_original(computed)
    differences = np.where(np.isfinite(outputs), np.abs(outputs - expected), np.inf)
    window, output = np.unravel_index(int(differences.argmax()), differences.shape)
    largest = float(differences[window, output])
    if not largest <= check.tolerance:
        raise CheckpointError(
            f"{source} does not compute {check.outputs}: the largest difference is {largest:.3g}, at window {window}, "
            f"output {reader.network.config.outputs[output]} ({outputs[window, output]:.7g} in place of "
            f"{expected[window, output]:.7g}), and {check.tolerance:g} is allowed"
        )
    return largest
