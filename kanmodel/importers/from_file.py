"""Import of a file of weights, verified by the original model's predictions: ``from_file``, or with a manifest.

``describe_file``: the contents of the file, and a manifest filled in as far as they determine it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kanmodel.errors import CheckpointError, ConfigError, checked
from kanmodel.forecaster import Provenance, Reference
from kanmodel.importers.files.documents import TOLERANCE, TableReader, naming
from kanmodel.importers.files.exported import Program, open_file
from kanmodel.importers.files.manifest import LIBRARIES, NONE, Manifest, ModelSpec
from kanmodel.importers.files.source import Source
from kanmodel.importers.from_torch import Asked, read_network, unchanged
from kanmodel.importers.layers.known import find_parts
from kanmodel.importers.layers.submodules import AnySubmodule, Metadata
from kanmodel.importers.search.assembly import assemble
from kanmodel.importers.search.candidates import OPEN, Progress, Result, find_candidate
from kanmodel.importers.search.samples import (
    N_REFERENCE,
    Comparison,
    Samples,
    make_samples,
    read_samples,
    refuse_fractions,
    state_call,
)
from kanmodel.importers.search.structure import INPUTS, OUTPUT, PREDICTIONS, READOUT, TORCH, UNIT_WORDS, find_structure
from kanmodel.model import Model
from kanmodel.network.config import Groups
from kanmodel.network.network import Network
from kanmodel.tables.columns import Column
from kanmodel.tables.statistics.choose import choose_evenly

PROGRAM = "a program of torch.export"


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
    ahead: int = 0,
    groups: Groups | None = None,
    integer: Sequence[str] = (),
    fixed: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    strict: bool = False,
) -> Model:
    """Converts a file of torch.save or safetensors to a model, using the original model's predictions.

    The predictions determine everything that the file leaves open: the readout, activations, the base function of
    splines, the order of layers, and whether windows and predictions are scaled.

    Args:
        path: a state_dict, a whole module, a training or Lightning checkpoint, or a program of `torch.export.save`.
        windows: inputs, (n, lookback, n_features), oldest step first; up to 512 of them become the reference windows.
        predictions: of the model for these windows, (n, n_outputs) or (n,).
        features: names of the inputs.
        outputs: names of the outputs; by default y, or y1, y2, …
        targets: true values for these windows, (n, n_outputs) or (n,).
        scaling: ``mean`` and ``std`` of the features, ``target_mean`` and ``target_std`` of the outputs; None if the
            model takes and returns original units.
        horizon: forecast steps; by default as many as the predictions have for each output.
        ahead: steps from a window's end to the first forecast, which is the output ``{output}+{ahead}``: then tables
            with the output's column can be backtested, also if its past is a feature. 0 if that is unknown, or the
            column is already shifted.
        groups: features that belong together, ``{"hour": ["hour_sin", "hour_cos"]}``, whose contributions are summed.
        integer: features with whole numbers, which a counterfactual keeps whole.
        fixed: features that nobody can change, such as the calendar, which a counterfactual leaves unchanged.
        tolerance: in standard deviations of each output.
        strict: whether to refuse a file if several functions give the predictions. Otherwise the simplest is chosen,
            and the provenance names the others as `not_told_apart`.

    Raises:
        CheckpointError: no candidate gives the predictions, or several do that differ on a given window; the message
            states the smallest difference.
    """
    stated = state_call(features, outputs, scaling, horizon, groups, integer, fixed, ahead)
    samples = make_samples(stated, windows, targets, predictions, tolerance)
    return import_weights(open_file(Path(path)), stated, samples, strict=strict).model


@dataclass(frozen=True)
class Imported:
    """An imported model, ready to save, predict and explain."""

    model: Model
    found: str  # what the file left open and how it was decided, in words
    comparison: Comparison | None  # the largest difference from the check; None without one
    result: Result  # of the search; without matches for a program, which leaves nothing open


class Solution(NamedTuple):
    """The network that a file computes."""

    network: Network
    units: tuple[str, str]  # of the windows and of the predictions
    library: str
    described: str  # what the file left open, in words
    unused: tuple[str, ...]  # keys of its tensors
    comparison: Comparison | None  # with the check, or with a program
    result: Result = Result(())


def import_checkpoint(
    file: Path,
    manifest: Manifest,
    read_table: TableReader | None = None,
    progress: Progress | None = None,
    strict: bool = False,
) -> Imported:
    """Converts a file of weights and its manifest to a model.

    The check determines what neither of them states: the candidate that gives its predictions. `progress` is called
    with the numbers of candidates tried and of all; `read_table` reads csv and parquet files; `strict` as in
    `from_file`. Raises `CheckpointError`, naming the place, if the file cannot be used or no candidate fits.
    """
    samples = read_samples(manifest, read_table)
    return import_weights(open_file(file), manifest, samples, progress, strict)


def import_weights(
    source: Source, stated: ModelSpec, samples: Samples, progress: Progress | None = None, strict: bool = False
) -> Imported:
    """`import_checkpoint` with the file and the samples in memory."""
    samples.refuse_weak(stated.place)
    with naming(source.name):
        if source.program is not None:
            solution = _read_program(source.program, stated, samples)
        else:
            solution = _read_weights(source, stated, samples, progress, strict)
    (of_inputs, of_predictions), found, comparison = solution.units, solution.described, solution.comparison
    if of_inputs == "original" or not stated.is_scaled:
        refuse_fractions(samples.reference, samples.shapes.features, samples.reference_name)
    provenance = replace(
        Provenance.now("import", verified=samples.has_check),
        library=f"{solution.library}, read by kanscope {version('kanscope')}",
        difference=None if comparison is None else comparison.absolute,
        relative_difference=None if comparison is None else comparison.relative,
        unused=solution.unused,
        not_told_apart=tuple(match.candidate.describe() for match in solution.result.undecided),
    )
    kept = choose_evenly(len(samples.reference), N_REFERENCE) if samples.reference_name == "windows" else slice(None)
    windows = samples.to_model(samples.reference[kept], of_inputs)
    windows = windows.to(getattr(torch, solution.network.config.dtype))
    targets = None if samples.targets is None else samples.targets[kept]
    if targets is not None and of_predictions == "scaled":
        targets = samples.from_model(torch.from_numpy(targets), "original")
    reference, name = Reference(windows, solution.network.config, targets), stated.name or Path(source.name).stem
    model = Model(solution.network, reference, {}, provenance, name=name)
    if not bool(torch.isfinite(model.reference_outputs).all()):
        problem = f"has a forecast that is not finite for a window of {samples.reference_name}"
        raise CheckpointError(f"{source.name} {problem}")
    return Imported(model, found, comparison if samples.has_check else None, solution.result)


def _read_weights(
    source: Source, stated: ModelSpec, samples: Samples, progress: Progress | None, strict: bool
) -> Solution:
    structure = find_structure(source, stated)
    try:
        result = find_candidate(structure, samples, progress)
        if not result.matches:
            raise CheckpointError(result.describe_mismatch(samples))
        network = assemble(result.found.chain(), samples.shapes)
    except (CheckpointError, ConfigError) as error:
        # keys in doubt are the first reason of a refusal, but masks of 0 and -inf are in no doubt
        masks = all(not bool(torch.isfinite(source.tensors[key]).all()) for key in structure.unused)
        doubt = f"{structure.doubt}{'' if source.adapter else ' (from_torch may read it)'}"
        raise CheckpointError(f"{error if masks else doubt}{source.adapter}") from error
    if samples.has_check:
        result.refuse_ambiguous(samples, strict)
    chosen, described = result.found.chosen, result.found.describe()
    samples.refuse_mixed_units(chosen[INPUTS])
    libraries = dict.fromkeys(part.library for part in structure.parts if part.library not in TORCH)
    library = ", ".join(filter(None, [" and ".join(libraries) or "torch", described]))
    units = chosen[INPUTS], chosen[PREDICTIONS]
    return Solution(network, units, library, described, structure.unused, result.comparison, result)


def _read_program(program: Program, stated: ModelSpec, samples: Samples) -> Solution:
    """The network of a program, whose check decides alone whether windows and predictions are scaled."""
    spaces = (stated.space,) if stated.space else ("scaled", "original") if stated.is_scaled else ("scaled",)
    if len(spaces) > 1 and not samples.has_check:
        raise CheckpointError(f"lacks a check, without which {stated.place} must say its space, scaled or original")
    windows, n_outputs = samples.inputs if samples.has_check else samples.reference, len(samples.shapes.outputs)
    program.measure(windows.shape[1:])
    read = {units: samples.to_model(windows, units).numpy() for units in spaces}
    with unchanged(program):
        forecasts = {units: Asked(program).forecast(of_units) for units, of_units in read.items()}
    if (n_values := forecasts[spaces[0]].shape[1]) != n_outputs:
        raise CheckpointError(f"forecasts {n_values} values for a window, where {n_outputs} are named")
    units, compared = (spaces[0], spaces[0]), None
    if samples.has_check:
        every = list(product(spaces, spaces))
        own = [samples.from_model(torch.from_numpy(forecasts[inputs]), predictions) for inputs, predictions in every]
        comparisons = [samples.bounds.compare(samples.predictions, each) for each in own]
        compared, units = min(zip(comparisons, every, strict=True), key=lambda pair: pair[0].relative)
        if not compared.matches:
            raise CheckpointError(
                f"does not compute {samples.predictions_name}: it gives {compared.computed:.7g} in place of "
                f"{compared.expected:.7g} at window {compared.window}, which is {compared.describe_relative()} off"
            )
    network, tracer, found = read_network(Asked(program), read[units[0]], samples.shapes, forecasts[units[0]])
    words = [f"{what} {UNIT_WORDS[of]}" for what, of in zip((INPUTS, PREDICTIONS), units, strict=True)]
    described = ", ".join([PROGRAM, *(words if len(spaces) > 1 else [])])
    return Solution(network, units, f"{tracer.library}, {PROGRAM}", described, tracer.unused, compared or found)


@dataclass(frozen=True)
class DescribedSubmodule:
    """A part that was found."""

    place: str  # prefix of its keys
    library: str  # of its layers
    sizes: str  # in words
    open: Mapping[str, tuple[str, ...]]  # choices that its weights leave open, options by name


@dataclass(frozen=True)
class Description:
    """The contents of a file of weights."""

    file: str  # its name
    container: str | None  # key of the training dictionary that contained the weights; None for a bare state_dict
    prefix: str  # removed from every key, such as ``module.``
    dtypes: tuple[str, ...]  # in the file
    n_tensors: int
    has_modules: bool  # whether the file is a whole model, whose modules determine more than weights do
    parts: tuple[DescribedSubmodule, ...]  # in the order of the file
    unknown: tuple[str, ...]  # keys that belong to no part, for which the import would be refused
    missing: tuple[str, ...]  # what the file leaves open, one sentence each
    found: str | None  # what the check determined of that; None without a check
    undecided: tuple[str, ...]  # other functions that fit the check, and which windows would distinguish them
    manifest: str  # in yaml, with the known values and blanks for the rest


def describe_file(path: Path, imported: Imported | None = None, known: Manifest | None = None) -> Description:
    """Describes a file of weights, and the result of its import; raises as `open_file` and `find_parts`."""
    source = open_file(path)
    with naming(source.name):
        parts, recurrents = find_parts(source.tensors, Metadata(known or ModelSpec(), source.module))
    every: list[AnySubmodule] = [*recurrents, *parts]
    used = {key for part in every for key in part.keys}
    missing = ["features, targets and reference windows"]
    if source.program is None:  # which leaves nothing open
        missing += [OPEN[READOUT]] if recurrents else []
        missing.append("activations: between its parts, {fc.0: relu} before fc.0; and output_function")
        for name in dict.fromkeys(name for part in parts for name in part.open):
            places = ", ".join(repr(part.place) for part in parts if name in part.open)
            missing.append(f"{OPEN[name.partition(' ')[0]]} ({places})")  # of unikan's groups, function 1 and so on
        missing += [f"pykan_config: it {part.problem}" for part in parts if part.problem]
    libraries = {name for part in parts for name, titles in LIBRARIES.items() if part.library in titles}
    library = libraries.pop() if len(libraries) == 1 else None
    if imported and known and imported.result.matches:
        manifest = _found_manifest(imported, known, library)
    else:
        n_in = recurrents[0].n_in if recurrents else parts[0].n_in if parts else 0
        manifest = _blank_manifest(Path(source.name).stem, library, n_in, parts[-1].n_out if parts else 0, missing[1:])
    return Description(
        file=source.name,
        container=source.container,
        prefix=source.prefix,
        dtypes=source.dtypes,
        n_tensors=len(source.tensors),
        has_modules=source.module is not None,
        parts=tuple(DescribedSubmodule(part.place, part.library, part.description, part.open) for part in every),
        unknown=tuple(key for key in source.tensors if key not in used),
        missing=tuple(missing),
        found=imported.found if imported else None,
        undecided=imported.result.describe_undecided() if imported else (),
        manifest=manifest,
    )


def _blank_manifest(name: str, library: str | None, n_in: int, n_out: int, missing: Sequence[str]) -> str:
    """A manifest to fill in; what the check finds is a comment."""
    lines = [
        f"name: {json.dumps(name)}",
        *([f"library: {library}"] if library else []),
        f"features:  # {n_in} names, or {{name, unit}}, in the order of the inputs; or those of the scaling",
        f"targets:  # {n_out} / horizon names, or {{name, unit}}",
        "# lookback: 24  # steps of a window; those of the windows by default",
        "horizon: 1",
        "# ahead: 1  # steps from a window's end to the first forecast, of targets whose past is a feature",
        *(f"# {sentence}" for sentence in missing),
        *(["# input_id: [0, 2, 3]  # inputs that prune_input kept"] if library == "pykan" else []),
        "scaling: scaler.json  # or null: {feature_names, mean, std, target_names, target_mean, target_std}",
        "reference: windows.npz:reference  # (N, lookback, n_features), 128 windows or more",
        "# reference_targets: windows.npz:reference_target",
        "# the tolerance is in standard deviations of each output; without a check nothing is found or verified",
        "check: {inputs: windows.npz:eval, outputs: windows.npz:predictions, tolerance: 1.0e-4}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _found_manifest(imported: Imported, known: Manifest, library: str | None) -> str:
    """The manifest that states what an import found; keys in the order of the page on imports."""
    config, chosen = imported.model.config, imported.result.found.chosen
    before = {name.removeprefix("before "): chosen[name] for name in chosen if name.startswith("before ")}
    columns: dict[str, Sequence[Column]] = {"": config.features, "target_": config.targets}
    scaling = {f"{of}{key}": [getattr(c, key) for c in columns[of]] for of in columns for key in ("mean", "std")}
    features, targets = (
        [{"name": c.name, "unit": c.unit} if c.unit else c.name for c in columns[of]] for of in columns
    )
    entries = {
        "name": imported.model.name,
        "library": chosen.get("library") or library,
        "features": features,
        "targets": targets,
        "lookback": config.lookback,
        "horizon": config.horizon,
        "ahead": config.ahead or None,
        "readout": chosen[READOUT],
        "base_activation": chosen.get("base"),
        "activations": {place: option for place, option in before.items() if option != NONE} or None,
        "output_function": chosen[OUTPUT],
        "mult_arity": int(chosen["mult_arity"]) if "mult_arity" in chosen else None,
        "scaling": scaling if known.is_scaled else None,
        "space": chosen[INPUTS] if known.is_scaled and chosen[INPUTS] == chosen[PREDICTIONS] else None,
        "reference": known.reference,
        "reference_targets": known.reference_targets,
        "check": known.check and asdict(known.check),
    }
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in entries.items() if value is not None)
    return "".join(lines)
