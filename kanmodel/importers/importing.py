"""``import_checkpoint``: from a file of weights to a model that is proved to predict the same."""

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

N_REFERENCE = 512  # windows that a checkpoint keeps, evenly chosen


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere.

    Attributes:
        model: ready to save, predict and explain.
        name: what the manifest calls it, or the file.
        comparison: where it differs most from the predictions of the check; None without a check.
        found: how the file was read.
        reading: the same for people, as far as the file does not say it; empty where it says all.
        also_matching: readings that are other functions, yet as good on all windows that are given.
        undecided: of these, what would tell those from the model that differ by more than the check allows somewhere.
        left_out: how many further readings may fit, but are too many to be compared.
        tried: readings that were computed.
        total: readings that there are.
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
    """Progress that nobody watches."""


def import_checkpoint(
    file: Path,
    manifest_file: Path,
    read_table: TableReader | None = None,
    progress: Progress = ignore,
    strict: bool = False,
) -> Imported:
    """Makes a model of a file of weights and what the manifest says about it.

    Whatever neither of them says is found by the check: the one reading of the file that gives its predictions.

    Args:
        file: the weights, as their trainer saved them.
        manifest_file: the manifest, yaml or json.
        read_table: reads csv and parquet where the manifest names such a file.
        progress: called with the readings that were tried, and all.
        strict: whether to refuse a file that the windows leave undecided, in place of taking the simplest function.

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
    """`import_checkpoint` with a manifest that was read already."""
    source = open_source(file)
    anatomy = dissect_source(source, manifest)
    return import_parts(source.name, anatomy, manifest, read_given(manifest, read_table), progress, strict)


def dissect_source(source: Source, manifest: Manifest) -> Anatomy:
    """The parts of a file.

    Raises:
        CheckpointError: as `dissect`; the message begins with the file's name.
    """
    try:
        tensors = {**source.tensors, **source.integers}
        return dissect(tensors, source.module, source.hyper_parameters, manifest, source.prefix)
    except CheckpointError as error:
        raise CheckpointError(f"{source.name} {error}") from error


def import_parts(
    name: str, anatomy: Anatomy, manifest: Manifest, given: Given, progress: Progress, strict: bool = False
) -> Imported:
    """The model of the parts of a file and of the arrays that are given.

    Raises:
        CheckpointError: as `import_checkpoint`.
    """
    refuse_weak(given, manifest.file)
    evidence = _make_evidence(given)
    try:
        spaces = anatomy.spaces(given.shapes, manifest)
        if given.predictions is None:
            return _finish(name, manifest, given, evidence, anatomy, _without_check(spaces, manifest), None)
        result = _search(anatomy, manifest, given, evidence, progress)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{name} {error}") from error
    if not result.matches:
        raise CheckpointError(describe_mismatch(name, given, evidence, spaces, result))
    refuse_ambiguous(name, given, result, strict)
    return _finish(name, manifest, given, evidence, anatomy, result.matches[0].reading, result)


def _search(anatomy: Anatomy, manifest: Manifest, given: Given, evidence: Evidence, progress: Progress) -> Result:
    """The readings that give the predictions, among ever more; the nearest where none does.

    A manifest that says how the model is put together is believed: what it does not name is not there, if that
    gives the predictions.
    """
    told = anatomy.told
    usual = [replace(told, plain=True), told] if manifest.says_how else [told]
    results: list[Result] = []
    for known in (*usual, replace(told, more=(*told.more, *RARE))):
        if results and results[-1].tried < results[-1].total:
            break  # not all were tried, so more would not be either
        spaces = replace(anatomy, told=known).spaces(given.shapes, manifest)
        results.append(search(spaces, evidence, progress))
        if results[-1].matches:
            return results[-1]
    every = results[len(usual) - 1]
    return replace(results[0], tried=every.tried, total=every.total)


def _make_evidence(given: Given) -> Evidence:
    """What the check says; without one there is nothing to explain, and every reading fits."""
    inputs, predictions = given.inputs, given.predictions
    if inputs is None or predictions is None:
        inputs, predictions = given.reference[:0], np.zeros((0, len(given.shapes.outputs)))
    return Evidence(inputs, predictions, given.reference, given.shapes, given.tolerance)


def _without_check(spaces: Sequence[Space], manifest: Manifest) -> Reading:
    """The usual reading, where nothing that it takes for granted is likely to be otherwise.

    Raises:
        CheckpointError: something that the file does not say has to be said.
    """
    space = spaces[0]
    if len(spaces) > 1:
        raise CheckpointError(
            "has parts that may follow each other in several orders, and only a check tells: give one"
        )
    needed = {
        READOUT: "no weight tells what the head sees of the steps: give readout, last or mean",
        "base": "it does not say what is added to the basis: give base_activation, silu by default, or pykan_config",
        "library": "its keys fit fast-kan and FasterKAN: say in the manifest which library it is",
        "denominator": "FasterKAN up to 14 May 2024 divides by a denominator that is not in the file: give it (0.33 by "
        "default)",
        "mult_arity": "it does not say how many factors its product nodes have: give mult_arity (pykan's default is 2)",
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
    """The model of a reading."""
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
    """The reference windows, evenly chosen where there are more than a checkpoint keeps."""
    chosen = found.chosen
    n = len(given.reference)
    kept = choose_evenly(n) if given.reference_name == "windows" else np.arange(n)
    windows = evidence.to_model(given.reference[kept], chosen[INPUTS]).to(getattr(torch, network.config.dtype))
    targets = None if given.targets is None else given.targets[kept]
    if targets is not None and chosen[PREDICTIONS] == "scaled":
        targets = targets * evidence.scaling.output_scale + evidence.scaling.output_mean
    return Reference(windows, targets)


def choose_evenly(n: int) -> NDArray[np.intp]:
    """Numbers of the windows that a checkpoint keeps of n: all, or as many as it keeps, evenly chosen."""
    return np.arange(n) if n <= N_REFERENCE else np.linspace(0, n - 1, N_REFERENCE).round().astype(np.intp)
