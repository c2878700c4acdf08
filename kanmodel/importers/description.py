"""``describe_file``: the contents of a file of weights, and a manifest filled in as far as they determine it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kanmodel.errors import CheckpointError
from kanmodel.importers.anatomy import TORCH
from kanmodel.importers.assembly import NONE
from kanmodel.importers.facts import facts_of
from kanmodel.importers.importing import Imported
from kanmodel.importers.libraries import LIBRARIES, AnyPart, Part, RecurrentPart, find_parts
from kanmodel.importers.manifest import Manifest
from kanmodel.importers.search.space import OUTPUT, READOUT
from kanmodel.importers.source import Source, open_source
from kanmodel.network.config import Column


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
        prefix: prefix that was removed from every key, such as ``module.``.
        dtypes: types in the file.
        n_tensors: number of tensors.
        has_modules: whether the file is a whole model, whose modules determine more than weights do.
        parts: the parts that were found, in the order of the file.
        unknown: keys that belong to no part, for which the import would be refused.
        missing: what the file leaves open, one sentence each.
        found: what the check determined of that; None without a check.
        undecided: other functions that fit the check, and which windows would distinguish them.
        manifest: a manifest in yaml, with the known values and blanks for the rest.
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


NOTHING = Manifest("the manifest", Path(), (), (), None, 1, "")


def describe_file(path: Path, imported: Imported | None = None, known: Manifest = NOTHING) -> Description:
    """Describes a file of weights.

    Args:
        path: the file.
        imported: the result of its import.
        known: the manifest of that import.

    Raises:
        CheckpointError: as `open_source` and `find_parts`.
    """
    source = open_source(path)
    tensors = {**source.tensors, **source.integers}
    try:
        parts, recurrents = find_parts(tensors, facts_of(source.module, known, 1 << 16))
    except CheckpointError as error:
        raise CheckpointError(f"{source.name} {error}") from error
    every: list[AnyPart] = [*parts, *recurrents]
    used = {key for part in every for key in part.keys}
    return Description(
        file=source.name,
        container=source.container,
        prefix=source.prefix,
        dtypes=source.dtypes,
        n_tensors=len(tensors),
        has_modules=source.module is not None,
        parts=tuple(
            [DescribedPart(part.place, part.library, part.description, {}) for part in recurrents]
            + [DescribedPart(part.place, part.library, part.description, part.open) for part in parts]
        ),
        unknown=tuple(key for key in tensors if key not in used),
        missing=tuple(_missing(parts, recurrents)),
        found=imported.reading if imported else None,
        undecided=imported.undecided if imported else (),
        manifest=_manifest(source, parts, recurrents, imported, known),
    )


def _missing(parts: Sequence[Part], recurrents: Sequence[RecurrentPart]) -> list[str]:
    """What the weights leave open."""
    missing = ["features, targets and reference windows"]
    if recurrents:
        missing.append("readout: what the head reads of the steps, the last or their mean")
    missing.append("activations: between its parts, and at the output")
    meanings = {
        "base": "base_activation: the activation added to the basis",
        "library": "library: the keys fit fast-kan and FasterKAN",
        "mult_arity": "mult_arity: the number of factors of its product nodes",
        "denominator": "denominator: the divisor of FasterKAN up to 14 May 2024, 0.33 by default",
        "inv_denominator": "what its inv_denominator does",
        "waves": "whether cosines or sines come first",
        "hats": "the sign of its wavelets",
        "weight1": "whether its weight1 is used",
    }
    for name in dict.fromkeys(name for part in parts for name in part.open):
        places = ", ".join(repr(part.place) for part in parts if name in part.open)
        missing.append(f"{meanings[name]} ({places})")
    return missing + [f"pykan_config: it {part.problem}" for part in parts if part.problem]


def _manifest(
    source: Source,
    parts: Sequence[Part],
    recurrents: Sequence[RecurrentPart],
    imported: Imported | None,
    known: Manifest,
) -> str:
    """A manifest with the keys in the order of the README; unknown keys have no value."""
    kans = [part for part in parts if part.library not in TORCH]
    libraries = {name for part in kans for name, titles in LIBRARIES.items() if part.library in titles}
    chosen = imported.found.chosen if imported else {}
    lines = [f"name: {json.dumps(imported.name if imported else Path(source.name).stem)}"]
    if "library" in chosen or len(libraries) == 1:
        lines.append(f"library: {chosen.get('library') or next(iter(libraries))}")
    lines += _columns(parts, recurrents, imported, known)
    lines += _found(imported, chosen, kans)
    arities = any("mult_arity" in part.open for part in kans)
    lines += [f"mult_arity: {chosen['mult_arity']}"] if "mult_arity" in chosen else ["mult_arity:"] if arities else []
    if any(part.problem for part in parts):
        lines.append("pykan_config:  # the *_config.yml of saveckpt")
    if imported is None and any(part.library == "pykan" for part in parts):
        lines.append("# input_id: [0, 2, 3]  # inputs that prune_input kept")
    lines += _arrays(imported, known)
    return "\n".join(lines) + "\n"


def _columns(
    parts: Sequence[Part], recurrents: Sequence[RecurrentPart], imported: Imported | None, known: Manifest
) -> list[str]:
    if imported is not None:
        config = imported.model.config
        return [
            f"features: {_list(config.features)}",
            f"targets: {_list(config.targets)}",
            f"lookback: {config.lookback}",
            f"horizon: {config.horizon}",
        ]
    n_inputs = recurrents[0].n_in if recurrents else parts[0].n_in if parts else 0
    return [
        f"features:  # {n_inputs} names, or {{name, unit}}, in the order of the inputs; or those of the scaling",
        f"targets:  # {parts[-1].n_out if parts else 'outputs'} / horizon names, or {{name, unit}}",
        "# lookback: 24  # steps of a window; those of the windows by default",
        "horizon: 1",
    ]


def _list(columns: Sequence[Column]) -> str:
    return json.dumps([{"name": c.name, "unit": c.unit} if c.unit else c.name for c in columns], ensure_ascii=False)


def _found(imported: Imported | None, chosen: Mapping[str, str], kans: Sequence[Part]) -> list[str]:
    """The lines that the check determines; without one a comment about them."""
    if imported is None:
        return [
            "# readout, activations, base_activation and space are found by the check, or may be given:",
            "# readout: last",
            "# base_activation: silu",
            "# activations: {fc.0: relu}  # before the part at fc.0",
            "# output_function: none",
        ]
    lines = [f"readout: {chosen[READOUT]}"]
    if "base" in chosen:
        lines.append(f"base_activation: {chosen['base']}")
    activations = {
        name.removeprefix("before "): option
        for name, option in chosen.items()
        if name.startswith("before ") and option != NONE
    }
    if activations:
        lines.append(f"activations: {json.dumps(activations)}")
    return [*lines, f"output_function: {chosen[OUTPUT]}"]


def _arrays(imported: Imported | None, known: Manifest) -> list[str]:
    if imported is None:
        return [
            "scaling: scaler.json  # or null: {feature_names, mean, std, target_names, target_mean, target_std}",
            "reference: windows.npz:reference  # (N, lookback, n_features), 128 windows or more",
            "# reference_targets: windows.npz:reference_target",
            "# the tolerance is in standard deviations of each output; without a check nothing is found or verified",
            "check: {inputs: windows.npz:eval, outputs: windows.npz:predictions, tolerance: 1.0e-4}",
        ]
    lines = []
    if known.is_scaled:
        config, chosen = imported.model.config, imported.found.chosen
        scaling = {
            "mean": [column.mean for column in config.features],
            "std": [column.std for column in config.features],
            "target_mean": [column.mean for column in config.targets],
            "target_std": [column.std for column in config.targets],
        }
        lines.append(f"scaling: {json.dumps(scaling)}")
        if chosen["inputs"] == chosen["predictions"]:
            lines.append(f"space: {chosen['inputs']}")
    lines.append(f"reference: {json.dumps(known.reference)}")
    if known.reference_targets:
        lines.append(f"reference_targets: {json.dumps(known.reference_targets)}")
    if known.check:
        check = {"inputs": known.check.inputs, "outputs": known.check.outputs, "tolerance": known.check.tolerance}
        lines.append(f"check: {json.dumps(check)}")
    return lines
