"""A file of weights and a manifest -> a network that computes the same, or several where the file leaves a choice."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.importers import efficient_kan, fast_kan, legacy_pykan, pykan
from kanmodel.importers.detect import TITLES, Format, Found, FoundKAN, FoundLSTM, find_parts, tensors_of
from kanmodel.importers.fast_kan import InvDenominator
from kanmodel.importers.manifest import Manifest
from kanmodel.importers.parts import choose_format, choose_kans, choose_lstm, lstm_keys, refuse_leftovers
from kanmodel.importers.source import Source
from kanmodel.network.chain import Network, tensor_shapes
from kanmodel.network.config import DType, Layers, ModelConfig, RecurrentConfig

Parts = tuple[Layers, dict[str, Tensor]]
PYKAN_KEYS = ("pykan_config", "mult_arity", "input_id")  # of the manifest, which no other library has


@dataclass(frozen=True)
class Assembled:
    """A network made of a file's weights.

    Attributes:
        network: with the weights loaded.
        library: what computed them.
        reading: what was taken for granted that neither file nor manifest says; empty where there is no choice.
    """

    network: Network
    library: str
    reading: str = ""


def assemble(source: Source, manifest: Manifest) -> list[Assembled]:
    """Puts the weights of a file into a network: one for each reading that only predictions can tell apart.

    Returns:
        The networks, all of the same shapes; first the one that is right where nothing proves another.

    Raises:
        CheckpointError: a key of the file is not understood, a part is not there or not clear, or something that the
            file does not say is missing in the manifest; the message begins with a verb.
    """
    first = _assemble(source, manifest, "ignored")
    if not any(key.endswith(fast_kan.INV_DENOMINATOR_KEY) for key in source.tensors):
        return [first]
    readings = [replace(first, reading=fast_kan.INV_DENOMINATORS["ignored"])]
    uses: tuple[InvDenominator, ...] = ("used", "cuda")
    for inv_denominator in uses:
        with suppress(CheckpointError, ConfigError):  # an inverse of 0 is no width, and can only be ignored
            other = _assemble(source, manifest, inv_denominator)
            if not any(_is_same(other.network, known.network) for known in readings):
                readings.append(replace(other, reading=fast_kan.INV_DENOMINATORS[inv_denominator]))
    return readings if len(readings) > 1 else [first]


def _is_same(one: Network, other: Network) -> bool:
    weights = other.state_dict()
    return one.config == other.config and all(torch.equal(t, weights[name]) for name, t in one.state_dict().items())


def _assemble(source: Source, manifest: Manifest, inv_denominator: InvDenominator) -> Assembled:
    """The network of one reading."""
    found = find_parts(source.tensors)
    lstm = choose_lstm(found, source, manifest)
    head, front = choose_kans(found, source, manifest)
    refuse_leftovers(source, found, lstm, [kan for kan in (head, front) if kan])
    library = choose_format(head, manifest)
    n_reaching = lstm.n_units if lstm else len(manifest.features)
    if manifest.readout == "flatten":
        n_reaching *= manifest.lookback
    parts = {"head": _read_head(source.tensors, found, head, library, manifest, n_reaching, inv_denominator)}
    if front:
        plain = replace(manifest, mult_arity=None, pykan_config=None, library=None)  # these are about the head
        format_ = library if library in front.formats else choose_format(front, plain)
        tensors = tensors_of(source.tensors, found, front.prefix)
        parts["front"] = _read_kan(tensors, front, format_, plain, inv_denominator)
    weights = _name_weights(source.tensors, lstm, parts)
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in weights.values()) else torch.float32
    try:
        config = _config(manifest, lstm, parts, dtype)
    except ConfigError as error:
        raise CheckpointError(f"does not fit the manifest: {error}") from error
    _compare_shapes(weights, config)
    model = Network(config)
    model.load_state_dict({name: tensor.to(dtype).contiguous() for name, tensor in weights.items()})
    return Assembled(model, TITLES[library])


def _read_head(
    tensors: Mapping[str, Tensor],
    found: Found,
    head: FoundKAN,
    format_: Format,
    manifest: Manifest,
    n_reaching: int,
    inv_denominator: InvDenominator,
) -> Parts:
    """The head, with the inputs that pykan's prune_input took away put back as edges without effect."""
    config, weights = _read_kan(tensors_of(tensors, found, head.prefix), head, format_, manifest, inv_denominator)
    n_inputs, kept = config[0].n_in, manifest.input_id
    if kept is None:
        if n_inputs < n_reaching:
            raise CheckpointError(
                f"has a head of {n_inputs} inputs at {head.prefix!r}, but {n_reaching} values reach it: if prune_input "
                "made it, give input_id, the kept ones, which are not in the file"
            )
        if n_inputs > n_reaching:
            raise CheckpointError(
                f"has a head of {n_inputs} inputs at {head.prefix!r}, but {n_reaching} values reach it"
            )
        return config, weights
    if len(kept) != n_inputs or len(set(kept)) != len(kept) or max(kept) >= n_reaching:
        raise CheckpointError(
            f"has a head of {n_inputs} inputs at {head.prefix!r}, so input_id must be as many different numbers below "
            f"{n_reaching}, but is {list(kept[:20])}"
        )
    return _restore_inputs(config, weights, kept, n_reaching)


def _restore_inputs(layers: Layers, weights: dict[str, Tensor], kept: tuple[int, ...], n_inputs: int) -> Parts:
    """Layers of all inputs that compute the same from those kept: the edges of the others are masked."""
    widened = dict(weights)
    for name in ("coef", "scale_base", "scale_spline", "mask"):
        edges = weights.get(f"0.{name}")  # (out, in, ...)
        if edges is not None:
            widened[f"0.{name}"] = edges.new_zeros(edges.shape[0], n_inputs, *edges.shape[2:])
            widened[f"0.{name}"][:, list(kept)] = edges
    grid = weights["0.grid"]
    widened["0.grid"] = grid[:1].repeat(n_inputs, 1)  # of an input without edges any grid will do
    widened["0.grid"][list(kept)] = grid
    symbolic = tuple(replace(edge, i=kept[edge.i]) for edge in layers[0].symbolic)
    return (replace(layers[0], n_in=n_inputs, symbolic=symbolic), *layers[1:]), widened


def _read_kan(
    tensors: Mapping[str, Tensor], kan: FoundKAN, format_: Format, manifest: Manifest, inv_denominator: InvDenominator
) -> Parts:
    """The reader of the library."""
    if format_ != "pykan":
        given = next((key for key in PYKAN_KEYS if getattr(manifest, key) is not None), None)
        if given is not None and not (given == "input_id" and format_ == "pykan_0_0"):
            raise CheckpointError(f"is of {TITLES[format_]}, and {given} of the manifest is about pykan 0.1 and later")
    base = _base_activation(manifest)
    if format_ == "fast_kan" or format_ == "faster_kan":
        based = any("base_linear." in key for key in tensors)
        return fast_kan.read_kan(
            tensors,
            kan.prefix,
            library=format_,
            base_activation=_needed_base(base) if based else "zero",
            denominator=manifest.denominator,
            inv_denominator=inv_denominator,
        )
    if manifest.denominator is not None:
        raise CheckpointError(f"is of {TITLES[format_]}, and denominator of the manifest is about FasterKAN")
    if format_ == "efficient_kan":
        return efficient_kan.read_kan(tensors, kan.prefix, base_activation=_needed_base(base))
    if format_ == "pykan_0_0":
        return legacy_pykan.read_kan(tensors, kan.prefix, base_activation=_needed_base(base))
    return pykan.read_kan(
        tensors,
        kan.prefix,
        base_activation=_needed_base(base),
        mult_arity=manifest.mult_arity,
        config=manifest.pykan_config,
    )


def _base_activation(manifest: Manifest) -> str | None:
    """What manifest and pykan_config say of the base, which must not contradict each other."""
    given, config = manifest.base_activation, manifest.pykan_config
    if config is None:
        return given
    if given not in (None, config.base_activation):
        raise CheckpointError(
            f"has the base_activation {given} by the manifest, {config.base_activation} by {config.name}"
        )
    return config.base_activation


def _needed_base(base: str | None) -> str:
    if base is None:
        raise CheckpointError(
            "does not say what is added to the splines: give base_activation, silu by default, or pykan_config"
        )
    return base


def _name_weights(
    tensors: Mapping[str, Tensor], lstm: FoundLSTM | None, parts: Mapping[str, Parts]
) -> dict[str, Tensor]:
    weights = {}
    if lstm is not None:
        weights = {f"recurrent.{name}": tensors[key] for key, name in lstm_keys(tensors, lstm.prefix).items()}
    return weights | {f"{part}.{name}": t for part, (_, kan) in parts.items() for name, t in kan.items()}


def _config(manifest: Manifest, lstm: FoundLSTM | None, parts: Mapping[str, Parts], dtype: torch.dtype) -> ModelConfig:
    if lstm is None and manifest.readout is None and manifest.lookback != 1:
        raise ConfigError(
            f"a KAN without LSTM reads one step, but lookback is {manifest.lookback}: give readout, the last step, "
            "their mean, or flatten for all of them"
        )
    return ModelConfig(
        features=manifest.features,
        targets=manifest.targets,
        lookback=manifest.lookback,
        horizon=manifest.horizon,
        head=parts["head"][0],
        recurrent=None
        if lstm is None
        else RecurrentConfig("lstm", lstm.hidden_size, lstm.num_layers, lstm.bidirectional, lstm.bias),
        front=parts["front"][0] if "front" in parts else (),
        readout=manifest.readout or "last",
        dtype=cast(DType, str(dtype).removeprefix("torch.")),
    )


def _compare_shapes(weights: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Refuses the first tensor that is not what the network has, before the network takes memory."""
    expected = tensor_shapes(config)
    for name, shape in expected.items():
        if name not in weights:
            raise CheckpointError(f"lacks the tensor that is {name} of the network")
        if tuple(weights[name].shape) != shape:
            raise CheckpointError(f"has {name} of shape {list(weights[name].shape)}, not {list(shape)}")
    for name in weights:
        if name not in expected:
            raise CheckpointError(f"has {name}, which its other tensors do not fit")
