"""``describe_file``: the contents of a file of weights, and a manifest filled in as far as they determine it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kanmodel.data import Column
from kanmodel.errors import CheckpointError
from kanmodel.importers.from_file import Imported
from kanmodel.importers.layers import find_parts
from kanmodel.importers.manifest import LIBRARIES, NONE, Manifest
from kanmodel.importers.parts import AnyPart, Metadata, Part, RecurrentPart
from kanmodel.importers.source import Source, open_source
from kanmodel.importers.structure import INPUTS, OUTPUT, PREDICTIONS, READOUT

MEANINGS = {
    "base": "base_activation: the activation added to the basis",
    "library": "library: the keys fit fast-kan and FasterKAN",
    "mult_arity": "mult_arity: the number of factors of its product nodes",
    "denominator": "denominator: the divisor of FasterKAN up to 14 May 2024, 0.33 by default",
    "inv_denominator": "what its inv_denominator does",
    "waves": "whether cosines or sines come first",
    "hats": "the sign of its wavelets",
    "weight1": "whether its weight1 is used",
}  # of the choices that a part leaves open


@dataclass(frozen=True)
class DescribedPart:
    """A part that was found: prefix of its keys, library, sizes in words, and what its weights leave open."""

    place: str
    library: str
    sizes: str
    open: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Description:
    """The contents of a file of weights."""

    file: str
    container: str | None  # key of the training dictionary that contained the weights
    prefix: str  # removed from every key, such as ``module.``
    dtypes: tuple[str, ...]
    n_tensors: int
    has_modules: bool  # whether the file is a whole model, whose modules determine more than weights do
    parts: tuple[DescribedPart, ...]  # in the order of the file
    unknown: tuple[str, ...]  # keys that belong to no part, for which the import would be refused
    missing: tuple[str, ...]  # what the file leaves open, one sentence each
    found: str | None  # what the check determined of that; None without a check
    undecided: tuple[str, ...]  # other functions that fit the check, and which windows would distinguish them
    manifest: str  # in yaml, with the known values and blanks for the rest


def describe_file(path: Path, imported: Imported | None = None, known: Manifest | None = None) -> Description:
    """Describes a file of weights, and the result of its import; raises as `open_source` and `find_parts`."""
    source, known = open_source(path), known or Manifest()
    try:
        parts, recurrents = find_parts(source.tensors, Metadata(known, source.module))
    except CheckpointError as error:
        raise CheckpointError(f"{source.name} {error}") from error
    every: list[AnyPart] = [*recurrents, *parts]
    used = {key for part in every for key in part.keys}
    return Description(
        file=source.name,
        container=source.container,
        prefix=source.prefix,
        dtypes=source.dtypes,
        n_tensors=len(source.tensors),
        has_modules=source.module is not None,
        parts=tuple(DescribedPart(part.place, part.library, part.description, part.open) for part in every),
        unknown=tuple(key for key in source.tensors if key not in used),
        missing=tuple(_missing(parts, recurrents)),
        found=imported.result.found.describe() if imported else None,
        undecided=imported.result.describe_undecided() if imported else (),
        manifest=_found_manifest(imported, known, parts) if imported else _blank_manifest(source, parts, recurrents),
    )


def _library(parts: Sequence[Part]) -> str | None:
    """The only library in a manifest that the parts may be of; None if there are several, or none."""
    found = {name for part in parts for name, titles in LIBRARIES.items() if part.library in titles}
    return found.pop() if len(found) == 1 else None


def _missing(parts: Sequence[Part], recurrents: Sequence[RecurrentPart]) -> list[str]:
    """What the weights leave open."""
    missing = ["features, targets and reference windows"]
    if recurrents:
        missing.append("readout: what the head reads of the steps, the last or their mean")
    missing.append("activations: between its parts, and at the output")
    for name in dict.fromkeys(name for part in parts for name in part.open):
        places = ", ".join(repr(part.place) for part in parts if name in part.open)
        missing.append(f"{MEANINGS[name]} ({places})")
    return missing + [f"pykan_config: it {part.problem}" for part in parts if part.problem]


def _blank_manifest(source: Source, parts: Sequence[Part], recurrents: Sequence[RecurrentPart]) -> str:
    """A manifest in which what the file leaves open is to be filled in, or a comment; keys in the README's order."""
    n_inputs = recurrents[0].n_in if recurrents else parts[0].n_in if parts else 0
    lines = [f"name: {json.dumps(Path(source.name).stem)}"]
    lines += [f"library: {name}" for name in [_library(parts)] if name]
    lines += [
        f"features:  # {n_inputs} names, or {{name, unit}}, in the order of the inputs; or those of the scaling",
        f"targets:  # {parts[-1].n_out if parts else 'outputs'} / horizon names, or {{name, unit}}",
        "# lookback: 24  # steps of a window; those of the windows by default",
        "horizon: 1",
        "# readout, activations, base_activation and space are found by the check, or may be given:",
        "# readout: last",
        "# base_activation: silu",
        "# activations: {fc.0: relu}  # before the part at fc.0",
        "# output_function: none",
    ]
    lines += ["mult_arity:"] if any("mult_arity" in part.open for part in parts) else []
    lines += ["pykan_config:  # the *_config.yml of saveckpt"] if any(part.problem for part in parts) else []
    if any(part.library == "pykan" for part in parts):
        lines.append("# input_id: [0, 2, 3]  # inputs that prune_input kept")
    lines += [
        "scaling: scaler.json  # or null: {feature_names, mean, std, target_names, target_mean, target_std}",
        "reference: windows.npz:reference  # (N, lookback, n_features), 128 windows or more",
        "# reference_targets: windows.npz:reference_target",
        "# the tolerance is in standard deviations of each output; without a check nothing is found or verified",
        "check: {inputs: windows.npz:eval, outputs: windows.npz:predictions, tolerance: 1.0e-4}",
    ]
    return "\n".join(lines) + "\n"


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
