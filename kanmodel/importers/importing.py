"""``import_checkpoint``: converts a file of weights to a model, verified by the original model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel, Provenance, Reference
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.importers.anatomy import Anatomy, dissect
from kanmodel.importers.arrays import TableReader
from kanmodel.importers.comparison import Comparison
from kanmodel.importers.given import (
    Given,
    read_given,
    refuse_fractions,
    refuse_weak,
)
from kanmodel.importers.manifest import Manifest, read_manifest
from kanmodel.importers.refusals import (
    describe_apart,
    describe_mismatch,
    find_undecided,
    refuse_ambiguous,
    refuse_mixed_units,
)
from kanmodel.importers.search.evidence import Evidence
from kanmodel.importers.search.orders import number_between
from kanmodel.importers.search.screening import Progress
from kanmodel.importers.search.searching import Result, search
from kanmodel.importers.search.space import INPUTS, PREDICTIONS, RARE, READOUT, Reading, Space, gap
from kanmodel.importers.source import Source, open_source
from kanmodel.network.chain import Network

N_REFERENCE = 512  # most reference windows of a checkpoint, evenly chosen


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
    total: int = 0


def ignore(tried: int, total: int) -> None:
    """A progress callback that does nothing."""


def import_checkpoint(
    file: Path,
    manifest_file: Path,
    read_table: TableReader | None = None,
    progress: Progress = ignore,
    strict: bool = False,
) -> Imported:
    """Converts a file of weights and its manifest to a model.

    The check determines what neither of them states: the reading of the file that gives its predictions.

    Args:
        file: the weights, as saved by torch.save or safetensors.
        manifest_file: the manifest, yaml or json.
        read_table: reads csv and parquet files that the manifest names.
        progress: called with the number of readings tried and of all readings.
        strict: whether to refuse a file if several functions fit the windows, instead of choosing the simplest.

    Raises:
        CheckpointError: the file or the manifest cannot be used, something is missing, or no reading passes the check;
            one sentence that names the place.
    """
    return import_with(file, read_manifest(manifest_file), read_table, progress, strict)


def import_with(
    file: Path,
    manifest: Manifest,
    read_table: TableReader | None = None,
    progress: Progress = ignore,
    strict: bool = False,
) -> Imported:
    """`import_checkpoint` with a parsed manifest."""
    source = open_source(file)
    anatomy = dissect_source(source, manifest)
    return import_parts(source.name, anatomy, manifest, read_given(manifest, read_table), progress, strict)


def dissect_source(source: Source, manifest: Manifest) -> Anatomy:
    """The parts of a file.

    Raises:
        CheckpointError: as `dissect`; the message starts with the name of the file.
    """
    try:
        tensors = {**source.tensors, **source.integers}
        return dissect(tensors, source.module, source.hyper_parameters, manifest, source.prefix)
    except CheckpointError as error:
        raise CheckpointError(f"{source.name} {error}") from error


def import_parts(
    name: str, anatomy: Anatomy, manifest: Manifest, given: Given, progress: Progress, strict: bool = False
) -> Imported:
    """Builds a model from the parts of a file and the given arrays.

    Raises:
        CheckpointError: as `import_checkpoint`.
    """
    refuse_weak(given, manifest.file)
    evidence = _make_evidence(given)
    try:
        spaces = anatomy.spaces(given.shapes, manifest)
        if given.predictions is None and anatomy.doubt:
            raise CheckpointError(anatomy.doubt)
        if given.predictions is None:
            return _finish(name, manifest, given, evidence, anatomy, _without_check(spaces, manifest), None)
        result = _search(anatomy, manifest, given, evidence, progress)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{name} {anatomy.doubt or error}") from error
    if not result.matches and anatomy.doubt:
        raise CheckpointError(f"{name} {anatomy.doubt}")
    if not result.matches:
        raise CheckpointError(describe_mismatch(name, given, evidence, spaces, result))
    refuse_ambiguous(name, given, result, strict)
    return _finish(name, manifest, given, evidence, anatomy, result.matches[0].reading, result)


def _search(anatomy: Anatomy, manifest: Manifest, given: Given, evidence: Evidence, progress: Progress) -> Result:
    """Searches the readings that give the predictions, in growing spaces; returns the nearest if there is none.

    If the manifest states how the model is put together, readings without further activations are tried first.
    """
    told = anatomy.told
    usual = [replace(told, plain=True), told] if manifest.says_how else [told]
    results: list[Result] = []
    for known in (*usual, replace(told, more=(*told.more, *RARE))):
        if results and results[-1].tried < results[-1].total:
            break  # this space was not searched completely, so a larger one would not be either
        spaces = replace(anatomy, told=known).spaces(given.shapes, manifest)
        results.append(search(spaces, evidence, progress))
        if results[-1].matches:
            return results[-1]
    every = results[len(usual) - 1]
    return replace(results[0], tried=every.tried, total=every.total)


def _make_evidence(given: Given) -> Evidence:
    """The evidence of the check; without one, every reading fits."""
    inputs, predictions = given.inputs, given.predictions
    if inputs is None or predictions is None:
        inputs, predictions = given.reference[:0], np.zeros((0, len(given.shapes.outputs)))
    return Evidence(inputs, predictions, given.reference, given.shapes, given.tolerance)


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
        choice = space.choices[space.index[gap(part.place)]]
        left_out = number_between(before.place, part.place)
        if left_out is not None and len(choice.options) > 1 and part.place not in manifest.activations:
            raise CheckpointError(
                f"has no {left_out}, so what stands there between its layers is unknown: give a check, or activations"
            )
    return Reading(space, (0,) * len(space.choices))


def _finish(
    name: str,
    manifest: Manifest,
    given: Given,
    evidence: Evidence,
    anatomy: Anatomy,
    found: Reading,
    result: Result | None,
) -> Imported:
    """Builds the model of a reading."""
    network = evidence.build(found)
    comparison = result.matches[0].comparison if result else None
    reading = found.describe()
    refuse_mixed_units(name, given, found, evidence)
    if found.chosen[INPUTS] == "original" or not manifest.is_scaled:
        refuse_fractions(given.reference, given.shapes.features, given.reference_name)
    undecided = find_undecided(result) if result else []
    provenance = replace(
        Provenance.now("import", verified=comparison is not None),
        library=f"{anatomy.library}{', ' if reading else ''}{reading}, read by kanscope {version('kanscope')}",
        difference=comparison.absolute if comparison else None,
        relative_difference=comparison.relative if comparison else None,
        not_told_apart=tuple(match.reading.describe() for match, _ in undecided),
        unused=anatomy.unused,
    )
    model = LoadedModel(network, _make_reference(given, found, evidence, network), {}, provenance)
    if not bool(torch.isfinite(model.reference_outputs).all()):
        raise CheckpointError(f"{name} has a forecast that is not finite for a window of {given.reference_name}")
    others = result.matches[1:] if result else ()
    return Imported(
        model,
        manifest.name or Path(name).stem,
        comparison,
        found,
        reading,
        tuple(match.reading.describe() for match in others),
        tuple(describe_apart(match.reading, found, stretch) for match, stretch in undecided),
        result.left_out if result else 0,
        result.tried if result else 0,
        result.total if result else 1,
    )


def _make_reference(given: Given, found: Reading, evidence: Evidence, network: Network) -> Reference:
    """The reference windows, evenly chosen if there are more than `N_REFERENCE`."""
    chosen = found.chosen
    n = len(given.reference)
    kept = choose_evenly(n) if given.reference_name == "windows" else np.arange(n)
    windows = evidence.to_model(given.reference[kept], chosen[INPUTS]).to(getattr(torch, network.config.dtype))
    targets = None if given.targets is None else given.targets[kept]
    if targets is not None and chosen[PREDICTIONS] == "scaled":
        targets = targets * evidence.scaling.output_scale + evidence.scaling.output_mean
    return Reference(windows, targets)


def choose_evenly(n: int) -> NDArray[np.intp]:
    """Indices of at most `N_REFERENCE` of n windows, evenly chosen."""
    return np.arange(n) if n <= N_REFERENCE else np.linspace(0, n - 1, N_REFERENCE).round().astype(np.intp)
