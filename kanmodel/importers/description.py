"""``describe_file``: what can be read off a file of weights, and a manifest ready to be filled in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kanmodel.errors import CheckpointError
from kanmodel.importers.detect import TITLES, Found, FoundKAN, FoundLSTM, find_parts
from kanmodel.importers.source import Source, open_source


@dataclass(frozen=True)
class Description:
    """What a file of weights says of itself.

    Attributes:
        file: its name.
        container: key of the training dictionary that held the weights; None for a bare state_dict.
        prefix: what was taken off every key, such as ``module.``.
        dtypes: types in the file.
        n_tensors: how many there are.
        lstms: what was found of LSTMs.
        kans: what was found of KANs.
        unknown: keys that belong to neither, which the import would refuse.
        missing: what the file does not say, a sentence each.
        manifest: a manifest in yaml, with what the file says and blanks for the rest.
    """

    file: str
    container: str | None
    prefix: str
    dtypes: tuple[str, ...]
    n_tensors: int
    lstms: tuple[FoundLSTM, ...]
    kans: tuple[FoundKAN, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    manifest: str


def describe_file(path: Path) -> Description:
    """Reads what a file of weights says of itself.

    Raises:
        CheckpointError: as `open_source` and `find_parts`.
    """
    source = open_source(path)
    try:
        found = find_parts(source.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{source.name} {error}") from error
    lstms, kans = tuple(found.lstms.values()), tuple(found.kans.values())
    return Description(
        file=source.name,
        container=source.container,
        prefix=source.prefix,
        dtypes=source.dtypes,
        n_tensors=len(source.tensors) + len(source.integers),
        lstms=lstms,
        kans=kans,
        unknown=(*found.unknown, *source.integers),
        missing=tuple(_missing(source, found)),
        manifest=_manifest(Path(path.name).stem, lstms, kans),
    )


def nodes_of(kan: FoundKAN) -> list[int]:
    """Nodes per layer, inputs first; product nodes count as one."""
    return [kan.layers[0].n_in, *(layer.n_nodes for layer in kan.layers)]


def _multiplies(kan: FoundKAN) -> bool:
    return any(layer.n_subnodes != layer.n_nodes for layer in kan.layers)


def _missing(source: Source, found: Found) -> list[str]:
    """What no weight tells."""
    missing = ["features, targets, lookback and reference windows"]
    if found.lstms:
        missing.append("readout: whether the head sees the last step of the LSTM or the mean over the steps")
    for kan in found.kans.values():
        place = f"the KAN at {kan.prefix!r}"
        if len(kan.formats) != 1:
            fits = " and ".join(TITLES[format_] for format_ in kan.formats) or "no library"
            missing.append(f"library: the keys of {place} fit {fits}")
        if kan.formats != ("faster_kan",):
            missing.append(f"base_activation: what {place} adds to its splines")
        if _multiplies(kan):
            missing.append(f"mult_arity: {place} has more sub-nodes than nodes")
        start = f"{kan.prefix}." if kan.prefix else ""
        masks = [tensor for key, tensor in source.tensors.items() if key.startswith(f"{start}symbolic_fun.")]
        if any(mask.ndim == 2 and bool(mask.any()) for mask in masks):
            missing.append(f"pykan_config: {place} has symbolic functions, whose names are not in the file")
        units = {lstm.n_units for lstm in found.lstms.values()}
        if kan.layers and units and kan.layers[0].n_in < min(units) and kan.formats == ("pykan",):
            missing.append(f"input_id: {place} has {kan.layers[0].n_in} inputs for {min(units)} outputs of the LSTM")
    return missing


def _manifest(name: str, lstms: tuple[FoundLSTM, ...], kans: tuple[FoundKAN, ...]) -> str:
    """A manifest with the keys in the order of the README; a blank is a key without a value."""
    formats = sorted({format_ for kan in kans for format_ in kan.formats})
    head = kans[-1] if kans else None
    n_features = lstms[0].n_inputs if lstms else (nodes_of(head)[0] if head else 0)
    lines = [f"name: {json.dumps(name)}"]
    if len(formats) == 1:
        lines.append(f"library: {formats[0].removesuffix('_0_0')}")
    else:
        lines.append(f"library:  # {' or '.join(format_.removesuffix('_0_0') for format_ in formats)}")
    lines.append(_part("lstm", [lstm.prefix for lstm in lstms]))
    lines.append(_part("head", [kan.prefix for kan in kans]))
    if lstms:
        lines += ["batch_first: true", "readout:  # last or mean"]
    lines += [
        f"features:  # {n_features} names, or {{name, unit}}, in the order of the inputs; or those of the scaling",
        f"targets:  # {nodes_of(head)[-1] if head else 'outputs'} / horizon names, or {{name, unit}}",
        f"lookback:{'  # steps of a window' if lstms else ' 1'}",
        "horizon: 1",
    ]
    if formats != ["faster_kan"]:
        lines.append("base_activation:  # silu (the libraries' default), identity or zero")
    if "pykan" in formats:
        lines.append("# pykan_config: fc_kan_config.yml  # of saveckpt: symbolic names, base function, arity")
        multiplies = any(map(_multiplies, kans))
        comment = "" if multiplies else "# "
        lines.append(f"{comment}mult_arity:  # factors of the product nodes, a number or a list for every layer")
        lines.append("# input_id: [0, 2, 3]  # inputs that prune_input kept")
    if "faster_kan" in formats:
        lines.append("# denominator: 0.33  # FasterKAN up to 14 May 2024 only")
    lines += [
        "scaling: scaler.json  # or null: {feature_names, mean, std, target_names, target_mean, target_std}",
        "reference: windows.npz:reference  # (N, lookback, n_features), 128 windows or more",
        "# reference_targets: windows.npz:reference_target",
        "# the tolerance is in standard deviations of each output; without a check the checkpoint says verified: false",
        "check: {inputs: windows.npz:eval, outputs: windows.npz:predictions, tolerance: 1.0e-5}",
        "space:  # scaled or original: what reference and check are",
    ]
    return "\n".join(lines) + "\n"


def _part(part: str, prefixes: list[str]) -> str:
    if not prefixes:
        return f"{part}: null"
    if len(prefixes) == 1:
        return f"{part}: {json.dumps(prefixes[0])}"
    return f"{part}:  # one of {', '.join(map(json.dumps, prefixes))}"
