"""``import_checkpoint``: a file of weights -> a model that is proved to compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel, Provenance, Reference
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.importers.anatomy import Anatomy, dissect
from kanmodel.importers.arrays import TableReader
from kanmodel.importers.comparison import Comparison
from kanmodel.importers.given import (
    Given,
    read_given,
    refuse_weak,
)
from kanmodel.importers.manifest import Manifest, read_manifest
from kanmodel.importers.search.orders import number_between
from kanmodel.importers.search.searching import Evidence, Match, Progress, Result, search
from kanmodel.importers.search.space import INPUTS, OUTPUT, PREDICTIONS, RARE, READOUT, Reading, Space, gap
from kanmodel.importers.search.strangers import explain_failure
from kanmodel.importers.source import Source, open_source
from kanmodel.network.chain import Network

N_REFERENCE = 512  # windows that a checkpoint keeps, evenly chosen
FAR = 5.0  # standard deviations between windows that are surely not in the same units


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
    try:
        spaces = anatomy.spaces(given.shapes, manifest)
        if given.predictions is None:
            return _finish(name, manifest, given, anatomy, _without_check(spaces, manifest), None)
        result = _search(anatomy, manifest, given, progress)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{name} {error}") from error
    if not result.matches:
        raise CheckpointError(_no_match(name, given, spaces, result))
    _refuse_ambiguous(name, given, result, strict)
    return _finish(name, manifest, given, anatomy, result.matches[0].reading, result)


def _search(anatomy: Anatomy, manifest: Manifest, given: Given, progress: Progress) -> Result:
    """The readings that give the predictions, among ever more; the nearest where none does.

    A manifest that says how the model is put together is believed: what it does not name is not there, if that
    gives the predictions.
    """
    told, evidence = anatomy.told, _evidence(given)
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


def _evidence(given: Given) -> Evidence:
    assert given.inputs is not None and given.predictions is not None
    return Evidence(given.inputs, given.predictions, given.reference, given.shapes, given.tolerance)


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
    name: str, manifest: Manifest, given: Given, anatomy: Anatomy, found: Reading, result: Result | None
) -> Imported:
    """The model of a reading."""
    evidence = Evidence(
        given.reference,
        given.predictions if given.predictions is not None else np.zeros((1, len(given.shapes.outputs))),
        given.reference,
        given.shapes,
        given.tolerance,
    )
    network = evidence.build(found)
    comparison = result.matches[0].comparison if result else None
    reading = found.describe()
    _refuse_mixed_units(name, given, found, evidence)
    undecided = _find_undecided(result) if result else []
    provenance = replace(
        Provenance.now("import", verified=comparison is not None),
        library=f"{anatomy.library}{', ' if reading else ''}{reading}, read by kanscope {version('kanscope')}",
        difference=comparison.absolute if comparison else None,
        relative_difference=comparison.relative if comparison else None,
        not_told_apart=tuple(match.reading.describe() for match, _ in undecided),
    )
    model = LoadedModel(network, make_reference(given, found, evidence, network), {}, provenance)
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
        tuple(_describe_apart(match.reading, found, stretch) for match, stretch in undecided),
        result.left_out if result else 0,
        result.tried if result else 0,
        result.total if result else 1,
    )


def make_reference(given: Given, found: Reading, evidence: Evidence, network: Network) -> Reference:
    """The reference windows, evenly chosen where there are more than a checkpoint keeps."""
    chosen = found.chosen
    n = len(given.reference)
    kept = np.arange(n) if n <= N_REFERENCE or given.reference_name != "windows" else _evenly(n)
    windows = evidence.to_model(given.reference[kept], chosen[INPUTS]).to(getattr(torch, network.config.dtype))
    targets = None if given.targets is None else given.targets[kept]
    if targets is not None and chosen[PREDICTIONS] == "scaled":
        targets = targets * evidence.scaling.output_scale + evidence.scaling.output_mean
    return Reference(windows, targets)


def _refuse_mixed_units(name: str, given: Given, found: Reading, evidence: Evidence) -> None:
    """Refuses reference windows in other units than those of the check, by which everything would be explained.

    They are if, in the other units, they lie among the windows of the check, and far from them in the same.
    """
    if given.inputs is None or given.inputs is given.reference:
        return
    units = found.chosen[INPUTS]
    checked = evidence.to_model(given.inputs, units).flatten(0, 1)
    spread = checked.std(dim=0, correction=0).clamp(min=1e-3)

    def distance(units: str) -> float:
        """Of the means of reference and check, in standard deviations of the feature where it is largest."""
        reference = evidence.to_model(given.reference, units).flatten(0, 1)
        return float(((reference.mean(dim=0) - checked.mean(dim=0)).abs() / spread).max())

    other = "scaled" if units == "original" else "original"
    same = distance(units)
    if same > FAR and distance(other) < same / FAR:
        words = {"scaled": "scaled", "original": "in original units"}
        raise CheckpointError(
            f"{name} was found by windows of the check that are {words[units]}, but {given.reference_name} seems to be "
            f"{words[other]}: give both in the same units"
        )


def _evenly(n: int) -> np.ndarray:
    return np.linspace(0, n - 1, N_REFERENCE).round().astype(int)


def _find_undecided(result: Result) -> list[tuple[Match, float]]:
    """The functions that fit as well as the first, but are others; how far from the mean windows must lie to tell."""
    pairs = zip(result.matches, result.apart, strict=True)
    return [(match, apart.stretch) for match, apart in pairs if apart.stretch is not None]


def _describe_apart(reading: Reading, first: Reading, stretch: float) -> str:
    """Another function, and what would tell it from the first."""
    described, spread = reading.describe(), f"{stretch:g} times as far from their mean"
    if set(reading.differs_from(first)) == {OUTPUT}:
        return f"{described}, which only predictions of another sign or size would tell, as for values {spread}"
    return f"{described}, which windows with values {'mixed anew' if stretch == 1 else spread} would tell"


def _refuse_ambiguous(name: str, given: Given, result: Result, strict: bool) -> None:
    """Refuses functions that all give the predictions, but differ on a window that is known, or if strict at all."""
    undecided = _find_undecided(result)
    if strict and (undecided or result.left_out):
        first = result.matches[0].reading
        others = "; ".join(_describe_apart(match.reading, first, stretch) for match, stretch in undecided[:5])
        raise CheckpointError(
            f"{name} can be read as {len(undecided) + 1 + result.left_out} functions that all give "
            f"{given.predictions_name}: {first.describe()}; {others or 'and more'}: add such windows to the check, or "
            "say in the manifest which it is"
        )
    for match, apart in zip(result.matches, result.apart, strict=True):
        if apart.material:
            fitting = "; ".join(match.reading.describe() for match in result.matches[:5])
            raise CheckpointError(
                f"{name} can be read as {len(result.matches)} functions that all give {given.predictions_name}: "
                f"{fitting}; the first and [{match.reading.describe()}] differ by {apart.difference:.2g} standard "
                f"deviations at window {apart.window} of {given.reference_name}: add the model's prediction for it to "
                "the check, or say in the manifest which it is"
            )


def _no_match(name: str, given: Given, spaces: Sequence[Space], result: Result) -> str:
    """Why no reading gives the predictions: how near one comes, and what would explain the rest."""
    evidence = _evidence(given)
    if np.isin(evidence.expected, (0.0, 1.0)).all():
        return (
            f"{name} does not compute {given.predictions_name}, which holds only 0 and 1, as labels do: give what the "
            "model computes, such as probabilities"
        )
    reason = explain_failure(spaces, evidence, result.nearest)
    if reason is not None:
        return f"{name} gives {given.predictions_name} only if {reason}, which Kanscope does not serve"
    if not result.nearest:
        return f"{name} does not compute {given.predictions_name}: no reading of it gives finite predictions"
    compared = []
    for reading in result.nearest:
        computed = evidence.predict(evidence.build(reading), reading, evidence.windows)
        compared.append((evidence.bounds.compare(evidence.expected, computed), reading))
    off, nearest = min(compared, key=lambda pair: pair[0].relative)
    wrong = f"{off.computed:.7g} in place of {off.expected:.7g}"
    tried = f"{result.tried:,} of {result.total:,} readings tried, the nearest: {nearest.describe() or 'the only one'}"
    return (
        f"{name} does not compute {given.predictions_name}: the largest difference is {off.absolute:.3g}, at window "
        f"{off.window}, output {given.shapes.outputs[off.output]} ({wrong}), which is {describe_relative(off)}, and "
        f"{evidence.bounds.allowed[off.output] / (evidence.bounds.unit[off.output] or 1):.2g} is allowed ({tried})"
    )


def describe_relative(comparison: Comparison) -> str:
    """The relative difference in words."""
    what = "standard deviations of that output" if comparison.varies else "of the magnitude of that output"
    return f"{comparison.relative:.2g} {what}"
