"""Import of a file of weights, verified by the original model's predictions: ``from_file``, or with a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel, Provenance, Reference
from kanmodel.checks import checked
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.importers.documents import TableReader
from kanmodel.importers.manifest import Manifest, Statement
from kanmodel.importers.refusals import describe_mismatch, refuse_ambiguous, refuse_mixed_units
from kanmodel.importers.samples import (
    Samples,
    as_array,
    make_samples,
    read_samples,
    refuse_fractions,
    refuse_weak,
    state_call,
)
from kanmodel.importers.search import Progress, Result, find_reading, ignore
from kanmodel.importers.source import Source, open_source
from kanmodel.importers.structure import INPUTS, PREDICTIONS, Structure, find_structure
from kanmodel.network.chain import Network
from kanmodel.network.config import Groups

N_REFERENCE = 512  # most reference windows of a checkpoint, evenly chosen
SEARCH_TOLERANCE = 1e-4  # standard deviations


@checked
def from_file(
    path: str | Path,
    *,
    windows: Any,
    predictions: Any,
    features: Sequence[str],
    outputs: Sequence[str] | None = None,
    targets: Any = None,
    scaling: Any = None,
    horizon: int | None = None,
    groups: Groups | None = None,
    integer: Sequence[str] = (),
    fixed: Sequence[str] = (),
    tolerance: float = SEARCH_TOLERANCE,
    strict: bool = False,
) -> LoadedModel:
    """Converts a file of torch.save or safetensors to a model, using the original model's predictions.

    The predictions determine everything that the file leaves open: the readout, activations, the base function of
    splines, the order of layers, and whether windows and predictions are scaled.

    Args:
        path: a state_dict, a whole module, or a training or Lightning checkpoint.
        windows: inputs, (n, lookback, n_features), oldest step first; up to 512 of them become the reference windows.
        predictions: of the model for these windows, (n, n_outputs) or (n,).
        features: names of the inputs.
        outputs: names of the outputs; by default y, or y1, y2, …
        targets: true values for these windows, (n, n_outputs) or (n,).
        scaling: ``mean`` and ``std`` of the features, ``target_mean`` and ``target_std`` of the outputs; None if the
            model takes and returns original units.
        horizon: forecast steps; by default as many as the predictions have for each output.
        groups: features that belong together, such as ``{"hour": ["hour_sin", "hour_cos"]}``; explanations also sum
            their contributions.
        integer: features with whole numbers, which a counterfactual keeps whole.
        fixed: features that nobody can change, such as the calendar, which a counterfactual leaves unchanged.
        tolerance: in standard deviations of each output.
        strict: whether to refuse a file if several functions give the predictions. Otherwise the simplest is chosen,
            and the provenance names the others as `not_told_apart`.

    Raises:
        CheckpointError: no reading of the file gives the predictions, or several do that differ on a given window; the
            message states the smallest difference.
    """
    stated = state_call(features, outputs, scaling, horizon, groups, integer, fixed)
    found, computed = as_array(windows, "windows"), as_array(predictions, "predictions")
    known = None if targets is None else as_array(targets, "targets")
    samples = make_samples(stated, found, known, computed, tolerance)
    return import_weights(open_source(Path(path)), stated, samples, strict=strict).model


@dataclass(frozen=True)
class Imported:
    """An imported model, ready to save, predict and explain."""

    model: LoadedModel
    name: str  # in the manifest, or that of the file
    result: Result  # the reading of the file that was found, and other functions that fit all given windows as well


def import_checkpoint(
    file: Path,
    manifest: Manifest,
    read_table: TableReader | None = None,
    progress: Progress = ignore,
    strict: bool = False,
) -> Imported:
    """Converts a file of weights and its manifest to a model.

    The check determines what neither of them states: the reading of the file that gives its predictions. `progress` is
    called with the numbers of readings tried and of all; `read_table` reads csv and parquet files; `strict` as in
    `from_file`.

    Raises:
        CheckpointError: the file cannot be used, something is missing, or no reading passes the check; one sentence
            that names the place.
    """
    samples = read_samples(manifest, read_table)
    imported = import_weights(open_source(file), manifest, samples, progress, strict)
    return replace(imported, name=manifest.name or imported.name)


def import_weights(
    source: Source, stated: Statement, samples: Samples, progress: Progress = ignore, strict: bool = False
) -> Imported:
    """`import_checkpoint` with the file and the samples in memory."""
    refuse_weak(samples, stated.place)
    try:
        structure = find_structure(source, stated)
        result, network = _find_network(structure, samples, progress)
        if samples.has_check:
            refuse_ambiguous(samples, result, strict)
        refuse_mixed_units(samples, result.found)
    except CheckpointError as error:
        raise CheckpointError(f"{source.name} {error}") from error
    if result.found.chosen[INPUTS] == "original" or not stated.is_scaled:
        refuse_fractions(samples.reference, samples.shapes.features, samples.reference_name)
    described, comparison = result.found.describe(), result.comparison
    provenance = replace(
        Provenance.now("import", verified=samples.has_check),
        library=f"{structure.library}{', ' if described else ''}{described}, read by kanscope {version('kanscope')}",
        difference=comparison.absolute if comparison else None,
        relative_difference=comparison.relative if comparison else None,
        not_told_apart=tuple(match.reading.describe() for match in result.undecided),
        unused=structure.unused,
    )
    model = LoadedModel(network, _make_reference(samples, result, network), {}, provenance)
    if not bool(torch.isfinite(model.reference_outputs).all()):
        raise CheckpointError(
            f"{source.name} has a forecast that is not finite for a window of {samples.reference_name}"
        )
    return Imported(model, Path(source.name).stem, result)


def _find_network(structure: Structure, samples: Samples, progress: Progress) -> tuple[Result, Network]:
    """The reading that gives the predictions, and its network; a doubt about keys is the first reason of a refusal."""
    try:
        result = find_reading(structure, samples, progress)
        if not result.matches:
            raise CheckpointError(
                structure.doubt or describe_mismatch(samples, structure.spaces(samples.shapes), result)
            )
        return result, samples.build(result.found)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(structure.doubt or str(error)) from error


def _make_reference(samples: Samples, result: Result, network: Network) -> Reference:
    """The reference windows, evenly chosen if in-memory ones are more than `N_REFERENCE`."""
    chosen = result.found.chosen
    kept = choose_evenly(len(samples.reference)) if samples.reference_name == "windows" else slice(None)
    windows = samples.to_model(samples.reference[kept], chosen[INPUTS]).to(getattr(torch, network.config.dtype))
    targets = None if samples.targets is None else samples.targets[kept]
    if targets is not None and chosen[PREDICTIONS] == "scaled":
        targets = targets * samples.scaling.output_scale + samples.scaling.output_mean
    return Reference(windows, targets)


def choose_evenly(n: int) -> NDArray[np.intp]:
    """Indices of at most `N_REFERENCE` of n windows, evenly chosen."""
    return np.arange(n) if n <= N_REFERENCE else np.linspace(0, n - 1, N_REFERENCE).round().astype(np.intp)
