"""What a file of weights is, read off its keys and shapes alone: LSTMs, KANs, and what is neither."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers import efficient_kan, legacy_pykan, pykan
from kanmodel.importers.layout import Layer, keys_under, shape_of

Format = Literal["pykan", "pykan_0_0", "efficient_kan", "fast_kan", "faster_kan"]
TITLES: dict[Format, str] = {
    "pykan": "pykan",
    "pykan_0_0": "pykan 0.0",
    "efficient_kan": "efficient-kan",
    "fast_kan": "fast-kan",
    "faster_kan": "FasterKAN",
}
LSTM_KEY = re.compile(r"(?:(.*)\.)?(?:weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d{1,4})(_reverse)?", re.DOTALL)
# Shortest prefix first: in fc_kan.layers.0.grid the layer's number is not the prefix's.
PYKAN_KEY = re.compile(r"(?:(.*?)\.)?act_fun\.0\.coef", re.DOTALL)
STACK = r"(?:(.*?)\.)?(?:(?:layers\.)?\d{1,4}\.)?"
EFFICIENT_KEY = re.compile(STACK + "spline_weight", re.DOTALL)
RADIAL_KEY = re.compile(STACK + r"rbf\.grid", re.DOTALL)


@dataclass(frozen=True)
class FoundLSTM:
    """An LSTM in a file.

    Attributes:
        prefix: what its keys begin with, without the dot.
        n_inputs: columns that it reads.
        hidden_size: units per direction.
        num_layers: stacked layers.
        bidirectional: whether it has a second direction.
        bias: whether its gates have biases.
    """

    prefix: str
    n_inputs: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    bias: bool

    @property
    def n_units(self) -> int:
        """Outputs a step, both directions in a row."""
        return self.hidden_size * (2 if self.bidirectional else 1)


@dataclass(frozen=True)
class FoundKAN:
    """A KAN in a file.

    Attributes:
        prefix: what its keys begin with, without the dot.
        formats: the libraries that its keys and shapes fit; more than one where they do not tell.
        layers: sizes, first layer to last.
    """

    prefix: str
    formats: tuple[Format, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Found:
    """Everything in a file.

    Attributes:
        lstms: by prefix.
        kans: by prefix.
        unknown: keys that belong to none of them.
    """

    lstms: Mapping[str, FoundLSTM]
    kans: Mapping[str, FoundKAN]
    unknown: tuple[str, ...]


def find_parts(tensors: Mapping[str, Tensor]) -> Found:
    """Looks for LSTMs and KANs.

    Raises:
        CheckpointError: a recurrent network that is not a plain LSTM, or a KAN whose shapes fit no layer; the message
            begins with a verb.
    """
    recurrent = {key: match[1] or "" for key in tensors if (match := LSTM_KEY.fullmatch(key))}
    lstms = {prefix: _find_lstm(tensors, prefix) for prefix in dict.fromkeys(recurrent.values())}
    rest = {key: tensor for key, tensor in tensors.items() if key not in recurrent}
    kans = {kan.prefix: kan for kan in _find_kans(rest)}
    unknown = [key for key in rest if not any(_is_under(key, prefix) for prefix in kans)]
    return Found(lstms, kans, tuple(unknown))


def tensors_of(tensors: Mapping[str, Tensor], found: Found, prefix: str) -> dict[str, Tensor]:
    """The tensors of the KAN at a prefix, by their whole keys, without those of parts inside it."""
    inner = [other for other in found.kans if other != prefix and _is_under(other, prefix)]
    return {
        key: tensor
        for key, tensor in tensors.items()
        if _is_under(key, prefix) and not LSTM_KEY.fullmatch(key) and not any(_is_under(key, other) for other in inner)
    }


def _is_under(key: str, prefix: str) -> bool:
    return not prefix or key.startswith(f"{prefix}.")


def _find_lstm(tensors: Mapping[str, Tensor], prefix: str) -> FoundLSTM:
    """The LSTM at a prefix; refused where it is another recurrent network."""
    start = f"{prefix}." if prefix else ""
    found = {key: t for key, t in keys_under(tensors, prefix).items() if LSTM_KEY.fullmatch(key) and "." not in key}
    rows, n_inputs = shape_of(found, "weight_ih_l0", 2, start)
    _, n_recurrent = shape_of(found, "weight_hh_l0", 2, start)
    if "weight_hr_l0" in found:
        raise CheckpointError(
            f"has an LSTM with a projection ({start}weight_hr_l0: proj_size {n_recurrent}), which is not read"
        )
    kinds = {4 * n_recurrent: "LSTM", 3 * n_recurrent: "GRU", n_recurrent: "RNN without gates"}
    kind = kinds.get(rows)
    if kind != "LSTM":
        what = f"is a {kind}" if kind else "is no LSTM"
        raise CheckpointError(
            f"has a recurrent network at {prefix!r} that {what} ({rows} rows of gates for {n_recurrent} units), and "
            "Kanscope reads LSTMs alone"
        )
    numbers = [int(match[2]) for key in found if (match := LSTM_KEY.fullmatch(key))]
    return FoundLSTM(
        prefix,
        n_inputs,
        n_recurrent,
        num_layers=max(numbers) + 1,
        bidirectional=any(key.endswith("_reverse") for key in found),
        bias=any(key.startswith("bias") for key in found),
    )


def _find_kans(tensors: Mapping[str, Tensor]) -> list[FoundKAN]:
    kans = []
    for prefix in _prefixes(tensors, PYKAN_KEY):
        coef = tensors[f"{prefix}.act_fun.0.coef" if prefix else "act_fun.0.coef"]
        old = coef.ndim == 2
        layers = legacy_pykan.outline(tensors, prefix) if old else pykan.outline(tensors, prefix)
        kans.append(FoundKAN(prefix, ("pykan_0_0" if old else "pykan",), tuple(layers)))
    radial = _prefixes(tensors, RADIAL_KEY)
    for prefix in radial:
        kans.append(FoundKAN(prefix, _radial_formats(keys_under(tensors, prefix)), _radial_layers(tensors, prefix)))
    for prefix in _prefixes(tensors, EFFICIENT_KEY):
        if prefix not in radial:  # early fast-kan has a key of this name too, which its reader refuses
            kans.append(FoundKAN(prefix, ("efficient_kan",), tuple(efficient_kan.outline(tensors, prefix))))
    return kans


def _prefixes(tensors: Mapping[str, Tensor], pattern: re.Pattern[str]) -> list[str]:
    return list(dict.fromkeys(match[1] or "" for key in tensors if (match := pattern.fullmatch(key))))


def _radial_formats(found: Mapping[str, Tensor]) -> tuple[Format, ...]:
    """fast-kan and FasterKAN: a base is the one's, an inv_denominator the other's, and neither tells nothing."""
    formats: list[Format] = []
    if not any(key.endswith("rbf.inv_denominator") for key in found):
        formats.append("fast_kan")
    if not any("base_linear." in key for key in found):
        formats.append("faster_kan")
    return tuple(formats)


def _radial_layers(tensors: Mapping[str, Tensor], prefix: str) -> tuple[Layer, ...]:
    """The sizes of fast-kan's and FasterKAN's layers, whose weights are (n_out, n_in * centres)."""
    found, start = keys_under(tensors, prefix), f"{prefix}." if prefix else ""
    places = [key.removesuffix("rbf.grid") for key in found if key.endswith("rbf.grid")]
    layers = []
    for place in sorted(places, key=lambda place: [int(digits) for digits in re.findall(r"\d+", place)]):
        (n_centres,) = shape_of(found, f"{place}rbf.grid", 1, start)
        n_out, n_columns = shape_of(found, f"{place}spline_linear.weight", 2, start)
        layers.append(Layer((start + place).rstrip("."), n_columns // n_centres, n_out, n_out, n_centres, None))
    return tuple(layers)
