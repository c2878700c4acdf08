"""Import of a file of weights, verified by the original model's predictions: ``from_file``, or with a manifest.

``describe_file``: the contents of the file, and a manifest filled in as far as they determine it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch

from kanmodel.arrays import Array
from kanmodel.checkpoint import Forecaster, Provenance, Reference
from kanmodel.errors import CheckpointError, ConfigError, checked
from kanmodel.importers.documents import TOLERANCE, TableReader, naming
from kanmodel.importers.exported import Program, open_file
from kanmodel.importers.from_torch import Asked, read_network, unchanged
from kanmodel.importers.layers import find_parts
from kanmodel.importers.manifest import LIBRARIES, NONE, Manifest, Statement
from kanmodel.importers.parts import AnyPart, Metadata, Part, RecurrentPart
from kanmodel.importers.refusals import describe_mismatch, refuse_ambiguous, refuse_mixed_units
from kanmodel.importers.samples import (
    N_REFERENCE,
    Comparison,
    Samples,
    make_samples,
    read_samples,
    refuse_fractions,
    refuse_weak,
    state_call,
)
from kanmodel.importers.search import Progress, Result, find_reading
from kanmodel.importers.source import Source
from kanmodel.importers.structure import INPUTS, OUTPUT, PREDICTIONS, READOUT, UNIT_WORDS, find_structure
from kanmodel.network.chain import Network
from kanmodel.network.config import Groups
from kanmodel.tables.columns import Column
from kanmodel.tables.statistics.choose import choose_evenly

PROGRAM = "a program of torch.export"
MEANINGS = {
    "base": "base_activation: the activation added to the basis",
    "library": "library: the keys fit fast-kan and FasterKAN",
    "mult_arity": "mult_arity: the number of factors of its product nodes",
    "denominator": "denominator: the divisor of FasterKAN up to 14 May 2024, 0.33 by default",
    "inv_denominator": "what its inv_denominator does",
    "waves": "whether cosines or sines come first",
    "hats": "the sign of its wavelets",
    "parameter": "the parameter of its polynomials",
    "function": "the function of its edges",
    "weight1": "whether its weight1 is used",
}  # of the choices that a part leaves open


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
) -> Forecaster:
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
    stated = state_call(features, outputs, scaling, horizon, groups, integer, fixed, ahead)
    samples = make_samples(stated, windows, targets, predictions, tolerance)
    return import_weights(open_file(Path(path)), stated, samples, strict=strict).model


@dataclass(frozen=True)
class Imported:
    """An imported model, ready to save, predict and explain.

    Attributes:
        model: ready to save, predict and explain.
        name: its name in the manifest, or that of the file.
        found: the reading of the file that was found, in words; empty if it left nothing open.
        comparison: the largest difference from the check; None without one.
        result: that reading, and other functions that fit all given windows as well; of a program, which leaves nothing
            open, none.
    """

    model: Forecaster
    name: str
    found: str
    comparison: Comparison | None
    result: Result = field(default_factory=partial(Result, ()))


def import_checkpoint(
    file: Path,
    manifest: Manifest,
    read_table: TableReader | None = None,
    progress: Progress | None = None,
    strict: bool = False,
) -> Imported:
    """Converts a file of weights and its manifest to a model.

    The check determines what neither of them states: the reading of the file that gives its predictions. `progress` is
    called with the numbers of readings tried and of all; `read_table` reads csv and parquet files; `strict` as in
    `from_file`. Raises `CheckpointError`, naming the place, if the file cannot be used or no reading passes the check.
    """
    samples = read_samples(manifest, read_table)
    imported = import_weights(open_file(file), manifest, samples, progress, strict)
    return replace(imported, name=manifest.name or imported.name)


def import_weights(
    source: Source, stated: Statement, samples: Samples, progress: Progress | None = None, strict: bool = False
) -> Imported:
    """`import_checkpoint` with the file and the samples in memory."""
    refuse_weak(samples, stated.place)
    if source.program is not None:
        with naming(source.name):
            return _import_program(source, source.program, stated, samples)
    with naming(source.name):
        structure = find_structure(source, stated)
        try:
            result = find_reading(structure, samples, progress)
            if not result.matches:
                raise CheckpointError(describe_mismatch(samples, structure.spaces(samples.shapes), result))
            network = samples.build(result.found)
        except (
            CheckpointError,
            ConfigError,
        ) as error:  # a doubt about keys, but masks, is the first reason of a refusal
            masks = all(not bool(torch.isfinite(source.tensors[key]).all()) for key in structure.unused)
            problem = (
                str(error) if masks else f"{structure.doubt}{'' if source.adapter else ' (from_torch may read it)'}"
            )
            raise CheckpointError(f"{problem}{source.adapter}") from error
        if samples.has_check:
            refuse_ambiguous(samples, result, strict)
        refuse_mixed_units(samples, result.found)
    chosen = result.found.chosen
    described, comparison = result.found.describe(), result.comparison
    provenance = replace(
        Provenance.now("import", verified=samples.has_check),
        library=f"{structure.library}{', ' if described else ''}{described}, read by kanscope {version('kanscope')}",
        not_told_apart=tuple(match.reading.describe() for match in result.undecided),
        unused=structure.unused,
    )
    units = chosen[INPUTS], chosen[PREDICTIONS]
    model = _with_reference(source.name, network, stated, samples, units, comparison, provenance)
    return Imported(model, Path(source.name).stem, described, comparison, result)


def _import_program(source: Source, program: Program, stated: Statement, samples: Samples) -> Imported:
    """A model of a program, whose check decides alone whether windows and predictions are scaled."""
    space = stated.space
    if stated.is_scaled and space is None and not samples.has_check:
        raise CheckpointError(f"lacks a check, without which {stated.place} must say its space, scaled or original")
    spaces = (space,) if space else ("scaled", "original") if stated.is_scaled else ("scaled",)
    windows = samples.inputs if samples.has_check else samples.reference
    program.measure(windows.shape[1:])
    tried: list[tuple[Comparison | None, tuple[str, str], Array, Array]] = []
    for of_inputs, of_predictions in product(spaces, spaces):
        read = samples.to_model(windows, of_inputs).numpy()
        with unchanged(program):
            expected = Asked(program).forecast(read)
        if expected.shape[1] != len(samples.shapes.outputs):
            raise CheckpointError(
                f"forecasts {expected.shape[1]} values for a window, where {len(samples.shapes.outputs)} are named"
            )
        own = samples.from_model(torch.from_numpy(expected), of_predictions)
        compared = samples.bounds.compare(samples.predictions, own) if samples.has_check else None
        tried.append((compared, (of_inputs, of_predictions), read, expected))
    comparison, units, read, expected = min(tried, key=lambda each: each[0].relative if each[0] else 0.0)
    if comparison is not None and not comparison.matches:
        raise CheckpointError(
            f"does not compute {samples.predictions_name}: it gives {comparison.computed:.7g} in place of "
            f"{comparison.expected:.7g} at window {comparison.window}, which is {comparison.describe_relative()} off"
        )
    network, tracer, found = read_network(Asked(program), read, samples.shapes, expected)
    provenance = replace(
        Provenance.now("import", verified=samples.has_check),
        library=f"{tracer.library}, {PROGRAM}, read by kanscope {version('kanscope')}",
        unused=tracer.unused,
    )
    words = [f"{what} {UNIT_WORDS[of]}" for what, of in zip((INPUTS, PREDICTIONS), units, strict=True)]
    described = ", ".join([PROGRAM, *(words if len(tried) > 1 else [])])
    model = _with_reference(source.name, network, stated, samples, units, comparison or found, provenance)
    return Imported(model, Path(source.name).stem, described, comparison)


def _with_reference(
    name: str,
    network: Network,
    stated: Statement,
    samples: Samples,
    units: tuple[str, str],
    comparison: Comparison | None,
    provenance: Provenance,
) -> Forecaster:
    """The model of a network whose windows and predictions are in some units, with its reference windows."""
    of_inputs, of_predictions = units
    if of_inputs == "original" or not stated.is_scaled:
        refuse_fractions(samples.reference, samples.shapes.features, samples.reference_name)
    if comparison is not None:
        of = comparison
        provenance = replace(provenance, difference=of.absolute, relative_difference=of.relative)
    kept = choose_evenly(len(samples.reference), N_REFERENCE) if samples.reference_name == "windows" else slice(None)
    windows = samples.to_model(samples.reference[kept], of_inputs).to(getattr(torch, network.config.dtype))
    targets = None if samples.targets is None else samples.targets[kept]
    if targets is not None and of_predictions == "scaled":
        targets = targets * samples.scaling.output_scale + samples.scaling.output_mean
    model = Forecaster(network, Reference(windows, targets), {}, provenance)
    if not bool(torch.isfinite(model.reference_outputs).all()):
        place = f"a window of {samples.reference_name}"
        raise CheckpointError(f"{name} has a forecast that is not finite for {place}")
    return model


@dataclass(frozen=True)
class DescribedPart:
    """A part that was found.

    Attributes:
        place: prefix of its keys.
        library: the library of its layers.
        sizes: in words.
        open: choices that its weights leave open, options by name.
    """

    place: str
    library: str
    sizes: str
    open: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Description:
    """The contents of a file of weights.

    Attributes:
        file: its name.
        container: key of the training dictionary that contained the weights; None for a bare state_dict.
        prefix: removed from every key, such as ``module.``.
        dtypes: types in the file.
        n_tensors: number of tensors.
        has_modules: whether the file is a whole model, whose modules determine more than weights do.
        parts: in the order of the file.
        unknown: keys that belong to no part, for which the import would be refused.
        missing: what the file leaves open, one sentence each.
        found: what the check determined of that; None without a check.
        undecided: other functions that fit the check, and which windows would distinguish them.
        manifest: in yaml, with the known values and blanks for the rest.
    """

    file: str
    container: str | None
    prefix: str
    dtypes: tuple[str, ...]
    n_tensors: int
    has_modules: bool
    parts: tuple[DescribedPart, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    found: str | None
    undecided: tuple[str, ...]
    manifest: str


def describe_file(path: Path, imported: Imported | None = None, known: Manifest | None = None) -> Description:
    """Describes a file of weights, and the result of its import; raises as `open_file` and `find_parts`."""
    source, known = open_file(path), known or Manifest()
    with naming(source.name):
        parts, recurrents = find_parts(source.tensors, Metadata(known, source.module))
    every: list[AnyPart] = [*recurrents, *parts]
    used = {key for part in every for key in part.keys}
    missing = ["features, targets and reference windows"]
    missing += ["readout: what the head reads of the steps, the last or their mean"] if recurrents else []
    missing.append("activations: between its parts, and at the output")
    for name in dict.fromkeys(name for part in parts for name in part.open):
        places = ", ".join(repr(part.place) for part in parts if name in part.open)
        missing.append(f"{MEANINGS[name]} ({places})")
    missing += [f"pykan_config: it {part.problem}" for part in parts if part.problem]
    missing = missing[:1] if source.program is not None else missing  # which leaves nothing open
    return Description(
        file=source.name,
        container=source.container,
        prefix=source.prefix,
        dtypes=source.dtypes,
        n_tensors=len(source.tensors),
        has_modules=source.module is not None,
        parts=tuple(DescribedPart(part.place, part.library, part.description, part.open) for part in every),
        unknown=tuple(key for key in source.tensors if key not in used),
        missing=tuple(missing),
        found=imported.found if imported else None,
        undecided=imported.result.describe_undecided() if imported else (),
        manifest=_found_manifest(imported, known, parts)
        if imported and imported.result.matches
        else _blank_manifest(source, parts, recurrents),
    )


def _library(parts: Sequence[Part]) -> str | None:
    """The only library in a manifest that the parts may be of; None if there are several, or none."""
    found = {name for part in parts for name, titles in LIBRARIES.items() if part.library in titles}
    return found.pop() if len(found) == 1 else None


def _blank_manifest(source: Source, parts: Sequence[Part], recurrents: Sequence[RecurrentPart]) -> str:
    """A manifest in which what the file leaves open is to be filled in, or a comment; keys in the README's order."""
    n_inputs, library = recurrents[0].n_in if recurrents else parts[0].n_in if parts else 0, _library(parts)
    lines = [
        f"name: {json.dumps(Path(source.name).stem)}",
        f"library: {library}" if library else "",
        f"features:  # {n_inputs} names, or {{name, unit}}, in the order of the inputs; or those of the scaling",
        f"targets:  # {parts[-1].n_out if parts else 'outputs'} / horizon names, or {{name, unit}}",
        "# lookback: 24  # steps of a window; those of the windows by default",
        "horizon: 1",
        "# ahead: 1  # steps from a window's end to the first forecast, of targets whose past is a feature",
        "# readout, activations, base_activation and space are found by the check, or may be given:",
        "# readout: last",
        "# base_activation: silu",
        "# activations: {fc.0: relu}  # before the part at fc.0",
        "# output_function: none",
        "mult_arity:" if any("mult_arity" in part.open for part in parts) else "",
        "pykan_config:  # the *_config.yml of saveckpt" if any(part.problem for part in parts) else "",
        "# input_id: [0, 2, 3]  # inputs that prune_input kept"
        if any(part.library == "pykan" for part in parts)
        else "",
        "scaling: scaler.json  # or null: {feature_names, mean, std, target_names, target_mean, target_std}",
        "reference: windows.npz:reference  # (N, lookback, n_features), 128 windows or more",
        "# reference_targets: windows.npz:reference_target",
        "# the tolerance is in standard deviations of each output; without a check nothing is found or verified",
        "check: {inputs: windows.npz:eval, outputs: windows.npz:predictions, tolerance: 1.0e-4}",
    ]
    return "".join(f"{line}\n" for line in lines if line)


def _found_manifest(imported: Imported, known: Manifest, parts: Sequence[Part]) -> str:
    """The manifest that states what an import found; keys in the README's order."""
    config, chosen = imported.model.config, imported.result.found.chosen
    before = {name.removeprefix("before "): chosen[name] for name in chosen if name.startswith("before ")}
    activations = {place: option for place, option in before.items() if option != NONE}
    entries: dict[str, Any] = {
        "name": json.dumps(imported.name),
        "library": chosen.get("library") or _library(parts),
        "features": _list(config.features),
        "targets": _list(config.targets),
        "lookback": config.lookback,
        "horizon": config.horizon,
        "ahead": config.ahead or None,
        "readout": chosen[READOUT],
        "base_activation": chosen.get("base"),
        "activations": json.dumps(activations) if activations else None,
        "output_function": chosen[OUTPUT],
        "mult_arity": chosen.get("mult_arity"),
    }
    if known.is_scaled:
        scaling = {
            "mean": [column.mean for column in config.features],
            "std": [column.std for column in config.features],
            "target_mean": [column.mean for column in config.targets],
            "target_std": [column.std for column in config.targets],
        }
        entries["scaling"] = json.dumps(scaling)
        entries["space"] = chosen[INPUTS] if chosen[INPUTS] == chosen[PREDICTIONS] else None
    entries["reference"] = json.dumps(known.reference)
    entries["reference_targets"] = json.dumps(known.reference_targets) if known.reference_targets else None
    entries["check"] = json.dumps(asdict(known.check)) if known.check else None
    return "".join(f"{key}: {value}\n" for key, value in entries.items() if value is not None)


def _list(columns: Sequence[Column]) -> str:
    return json.dumps([{"name": c.name, "unit": c.unit} if c.unit else c.name for c in columns], ensure_ascii=False)
