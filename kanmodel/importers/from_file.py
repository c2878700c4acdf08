"""Import of a file of weights, verified by the original model's predictions: ``from_file``, or with a manifest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from reprlib import repr
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel, Provenance, Reference
from kanmodel.checks import check_count, checked
from kanmodel.errors import CheckpointError, ConfigError, DataError
from kanmodel.importers.arrays import TableReader
from kanmodel.importers.evaluation import Progress
from kanmodel.importers.manifest import Manifest, make_columns
from kanmodel.importers.refusals import (
    describe_apart,
    describe_mismatch,
    refuse_ambiguous,
    refuse_mixed_units,
)
from kanmodel.importers.samples import (
    Comparison,
    Samples,
    make_shapes,
    name_outputs,
    read_samples,
    refuse_fractions,
    refuse_weak,
    shape_outputs,
    shape_windows,
)
from kanmodel.importers.search import Result, search
from kanmodel.importers.source import open_source
from kanmodel.importers.space import INPUTS, PREDICTIONS, RARE, READOUT, Reading, Space, activation_slot, number_between
from kanmodel.importers.structure import Structure, find_structure
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
    manifest = describe_call(features, outputs, scaling, horizon, groups, integer, fixed)
    found, computed = as_array(windows, "windows"), as_array(predictions, "predictions")
    known = None if targets is None else as_array(targets, "targets")
    return import_weights(
        Path(path), manifest, make_samples(manifest, found, known, computed, tolerance), strict=strict
    ).model


def describe_call(
    features: Sequence[str],
    outputs: Sequence[str] | None,
    scaling: Any,
    horizon: int | None,
    groups: Groups | None,
    integer: Sequence[str],
    fixed: Sequence[str],
) -> Manifest:
    """The manifest of `from_file`'s or `from_torch`'s arguments."""
    place, names = "the call", None if outputs is None else list(outputs)
    try:
        if horizon is not None:
            check_count(horizon, "horizon")
        columns = make_columns(list(features), names, plain_scaling(scaling), list(integer), list(fixed))
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{place}: {error}") from error
    return Manifest(place, Path(), *columns, None, horizon, "windows", groups=dict(groups or {}))


def plain_scaling(scaling: Any) -> dict[str, Any] | None:
    """Converts a scaling, a mapping or a StandardScaler fitted to the features, to lists of numbers."""
    if scaling is None:
        return None
    if not isinstance(scaling, Mapping):
        if not hasattr(scaling, "mean_") or not hasattr(scaling, "scale_"):
            raise DataError.at("scaling", f"must be a mapping or a fitted StandardScaler, but is {repr(scaling)}")
        scaling = {"mean": scaling.mean_, "std": scaling.scale_}
    plain: dict[str, Any] = {}
    for name, values in scaling.items():
        if str(name).endswith("names") and values is not None:
            plain[str(name)] = list(values) if isinstance(values, Collection) else values
        elif values is not None:
            plain[str(name)] = np.atleast_1d(as_array(values, f"scaling.{name}")).tolist()
    return plain


def as_array(values: Any, name: str) -> np.ndarray:
    """Converts a tensor, an array, or nested lists to float64.

    Raises:
        DataError: they are no array of numbers.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError.at(name, f"must be an array of numbers: {error}") from error


def make_samples(
    manifest: Manifest, windows: np.ndarray, targets: np.ndarray | None, predictions: np.ndarray, tolerance: float
) -> Samples:
    """The samples of an import from one set of windows, which are those of the check and the reference."""
    lookback = windows.shape[1] if windows.ndim == 3 else 1
    found = shape_windows(windows, lookback, len(manifest.features), "windows")
    named, horizon = name_outputs(manifest, predictions, "predictions")
    shapes = make_shapes(manifest, named, lookback, horizon)
    outputs = shape_outputs(predictions, len(found), shapes.outputs, "predictions", shapes.horizon)
    known = None if targets is None else shape_outputs(targets, len(found), shapes.outputs, "targets", shapes.horizon)
    for name, array in (("windows", found), ("predictions", outputs), ("targets", known)):
        if array is not None and not np.isfinite(array).all():
            raise CheckpointError(f"{name} must be finite, but some values are not")
    return Samples(shapes, found, known, found, outputs, tolerance)


@dataclass(frozen=True)
class Imported:
    """An imported model.

    Attributes:
        model: ready to save, predict and explain.
        name: its name in the manifest, or that of the file.
        comparison: its largest difference from the predictions of the check; None without a check.
        found: the reading of the file.
        reading: the choices that the file left open, in words; empty if it left none.
        also_matching: other functions that fit all given windows as well.
        undecided: those of them that can differ by more than the check allows, and the windows that would distinguish
            them.
        left_out: number of further readings that may fit, but are too many to compare.
        tried: number of readings that were evaluated.
        total: number of possible readings.
    """

    model: LoadedModel
    name: str
    comparison: Comparison | None
    found: Reading
    reading: str = ""
    also_matching: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    left_out: int = 0
    tried: int = 0
    total: int = 1


def ignore(tried: int, total: int) -> None:
    """A progress callback that does nothing."""


def import_checkpoint(
    file: Path,
    manifest: Manifest,
    read_table: TableReader | None = None,
    progress: Progress = ignore,
    strict: bool = False,
) -> Imported:
    """Converts a file of weights and its manifest to a model.

    The check determines what neither of them states: the reading of the file that gives its predictions.

    Args:
        file: the weights, as saved by torch.save or safetensors.
        manifest: what the user states.
        read_table: reads csv and parquet files that the manifest names.
        progress: called with the number of readings tried and of all readings.
        strict: whether to refuse a file if several functions fit the windows, instead of choosing the simplest.

    Raises:
        CheckpointError: the file cannot be used, something is missing, or no reading passes the check; one sentence
            that names the place.
    """
    return import_weights(file, manifest, read_samples(manifest, read_table), progress, strict)


def import_weights(
    file: Path, manifest: Manifest, samples: Samples, progress: Progress = ignore, strict: bool = False
) -> Imported:
    """`import_checkpoint` with the samples in memory."""
    source = open_source(file)
    name, result = source.name, None
    refuse_weak(samples, manifest.file)
    try:
        structure = find_structure(source.tensors, source.module, source.hyper_parameters, manifest, source.prefix)
    except CheckpointError as error:
        raise CheckpointError(f"{name} {error}") from error
    try:
        spaces = structure.spaces(samples.shapes, manifest)
        if samples.has_check:
            result = _search(structure, manifest, samples, progress)
        elif structure.doubt:
            raise CheckpointError(structure.doubt)
        if result is None or result.matches:
            found = result.matches[0].reading if result else _without_check(spaces, manifest)
            network = samples.build(found)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{name} {structure.doubt or error}") from error
    if result is not None:
        if not result.matches:
            raise CheckpointError(f"{name} {structure.doubt or describe_mismatch(samples, spaces, result)}")
        refuse_ambiguous(name, samples, result, strict)
    refuse_mixed_units(name, samples, found)
    if found.chosen[INPUTS] == "original" or not manifest.is_scaled:
        refuse_fractions(samples.reference, samples.shapes.features, samples.reference_name)
    comparison, described = result.matches[0].comparison if result else None, found.describe()
    provenance = replace(
        Provenance.now("import", verified=comparison is not None),
        library=f"{structure.library}{', ' if described else ''}{described}, read by kanscope {version('kanscope')}",
        difference=comparison.absolute if comparison else None,
        relative_difference=comparison.relative if comparison else None,
        not_told_apart=tuple(match.reading.describe() for match in (result.undecided if result else ())),
        unused=structure.unused,
    )
    model = LoadedModel(network, _make_reference(samples, found, network), {}, provenance)
    if not bool(torch.isfinite(model.reference_outputs).all()):
        raise CheckpointError(f"{name} has a forecast that is not finite for a window of {samples.reference_name}")
    imported = Imported(model, manifest.name or Path(name).stem, comparison, found, described)
    if result is None:
        return imported
    return replace(
        imported,
        also_matching=tuple(match.reading.describe() for match in result.matches[1:]),
        undecided=tuple(describe_apart(match, result.matches[0]) for match in result.undecided),
        left_out=result.left_out,
        tried=result.tried,
        total=result.total,
    )


def _make_reference(samples: Samples, found: Reading, network: Network) -> Reference:
    """The reference windows, evenly chosen if in-memory ones are more than `N_REFERENCE`."""
    kept = choose_evenly(len(samples.reference)) if samples.reference_name == "windows" else slice(None)
    windows = samples.to_model(samples.reference[kept], found.chosen[INPUTS]).to(getattr(torch, network.config.dtype))
    targets = None if samples.targets is None else samples.targets[kept]
    if targets is not None and found.chosen[PREDICTIONS] == "scaled":
        targets = targets * samples.scaling.output_scale + samples.scaling.output_mean
    return Reference(windows, targets)


def _search(structure: Structure, manifest: Manifest, samples: Samples, progress: Progress) -> Result:
    """Searches the readings that give the predictions, in growing spaces; returns the nearest if there is none.

    If the manifest states how the model is put together, readings without further activations are tried first.
    """
    known = structure.constraints
    usual = [replace(known, plain=True), known] if manifest.says_how else [known]
    results: list[Result] = []
    for constraints in (*usual, replace(known, more=(*known.more, *RARE))):
        if results and results[-1].tried < results[-1].total:
            break  # this space was not searched completely, so a larger one would not be either
        spaces = replace(structure, constraints=constraints).spaces(samples.shapes, manifest)
        results.append(search(spaces, samples, progress))
        if results[-1].matches:
            return results[-1]
    every = results[len(usual) - 1]
    return replace(results[0], tried=every.tried, total=every.total)


def _without_check(spaces: Sequence[Space], manifest: Manifest) -> Reading:
    """The usual reading, for an import without a check.

    Raises:
        CheckpointError: the manifest must state something that the file leaves open.
    """
    space = spaces[0]
    if len(spaces) > 1:
        raise CheckpointError(
            "has parts that fit together in several orders, and only a check can determine which: give one"
        )
    needed = {
        READOUT: "the weights do not determine what the head reads of the steps: give readout, last or mean",
        "base": "its base function is not known: give base_activation, silu by default, or pykan_config",
        "library": "its keys fit fast-kan and FasterKAN: give library in the manifest",
        "denominator": "FasterKAN up to 14 May 2024 divides by a denominator that is not in the file: give it (0.33 by "
        "default)",
        "mult_arity": "the number of factors of its product nodes is not known: give mult_arity (pykan's default is 2)",
        INPUTS: f"{manifest.file} lacks space: whether reference and check are scaled or original",
    }
    for choice in space.choices:
        matters = choice.name != READOUT or len(space.order.front) or space.recurrent is not None
        if choice.name in needed and len(choice.options) > 1 and matters:
            raise CheckpointError(f"has no check to be compared with, and {needed[choice.name]}")
    for before, part in pairwise(space.order.head):
        choice = space.choices[space.index[activation_slot(part.place)]]
        left_out = number_between(before.place, part.place)
        if left_out is not None and len(choice.options) > 1 and part.place not in manifest.activations:
            raise CheckpointError(
                f"has no {left_out}, so what stands there between its layers is unknown: give a check, or activations"
            )
    return Reading(space, (0,) * len(space.choices))


def choose_evenly(n: int) -> NDArray[np.intp]:
    """Indices of at most `N_REFERENCE` of n windows, evenly chosen."""
    return np.arange(n) if n <= N_REFERENCE else np.linspace(0, n - 1, N_REFERENCE).round().astype(np.intp)
