"""The safetensors file that stores a `Forecaster`: the tensors of the network and of the reference windows.

A JSON document in its metadata describes them. The file is read into memory once, hashed, and checked against its
config before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from kanmodel.errors import MAX_MAGNITUDE, CheckpointError, ConfigError, check_choice, check_number
from kanmodel.files import replacing
from kanmodel.forecaster import Forecaster, Provenance, Reference
from kanmodel.network.config import ModelConfig, config_from_dict, config_to_dict, read_record
from kanmodel.network.intervals import Calibration, Intervals, Kind, forecasts_of, increment_targets, quantile_levels
from kanmodel.network.network import Network, tensor_shapes
from kanmodel.tables.skill import Skill

FORMAT_VERSION = 2
DOCUMENT_KEY = "kanscope"  # key of the JSON document in the file's metadata
MAX_BYTES = 1 << 30  # larger files are refused before they are read
MAX_HEADER_BYTES = 16 << 20
MAX_MESSAGE = 500  # characters of an error, which may quote the file
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # type and shape of each tensor of a file
_SIDES = ("below", "above")  # of intervals
T = TypeVar("T")


def save_checkpoint(model: Forecaster, path: Path) -> str:
    """Writes a checkpoint, and returns the SHA-256 of the file; an existing file is replaced atomically.

    Raises:
        CheckpointError: the file cannot be written there, or a value of the model is not finite, so that it could not
            be loaded.
    """
    tensors = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    tensors["reference.windows"] = model.reference.scaled.contiguous()
    if model.reference.targets is not None:
        tensors["reference.targets"] = torch.from_numpy(
            model.reference.targets[:, model.config.known_outputs]
        ).contiguous()
    if model.intervals is not None:
        tensors |= {f"intervals.{side}": torch.from_numpy(getattr(model.intervals, side)) for side in _SIDES}
        nodes = model.intervals.network
        of_nodes = {} if nodes is None else nodes.state_dict()
        tensors |= {f"intervals.network.{name}": tensor.contiguous() for name, tensor in of_nodes.items()}
    for name, tensor in tensors.items():
        if (problem := _refuse_values(tensor)) is not None:
            raise CheckpointError(f"cannot save {path.name}: a value of tensor {name} {problem}")
    document = {
        "format_version": FORMAT_VERSION,
        "config": config_to_dict(model.config),
        "reference_times": model.reference.times,
        **({} if model.reference.series is None else {"reference_series": model.reference.series}),
        "metrics": dict(model.metrics),
        "provenance": vars(model.provenance),
    }
    if model.tested is not None:
        document["tested"] = asdict(model.tested)
    if model.intervals is not None:
        document["intervals"] = _describe_intervals(model.intervals)
    data = save_tensors(tensors, metadata={DOCUMENT_KEY: json.dumps(document, allow_nan=False)})
    try:
        with replacing(path, prefix=f".{path.name}.") as file:
            file.write(data)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}") from error
    return hashlib.sha256(data).hexdigest()


def load_checkpoint(path: Path) -> Forecaster:
    """Reads a checkpoint, with the hash of the bytes that were read.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, of a newer format, or its tensors differ from its
            config; the message names the first difference.
    """
    return parse_file(path, parse_checkpoint, MAX_BYTES)


def identify_checkpoint(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; raises `CheckpointError` unless its header is that of a checkpoint."""

    def identify(data: bytes) -> str:
        _parse_description(data)
        return hashlib.sha256(data).hexdigest()

    return parse_file(path, identify, MAX_BYTES)


def parse_file(path: Path, parse: Callable[[bytes], T], most: int) -> T:
    """Parses a file of at most so many bytes, and names it in errors."""
    try:
        size = path.stat().st_size
        if size > most:
            raise CheckpointError(f"is larger than {most} bytes")
        with path.open("rb") as file:
            data = file.read(size)
        return parse(data)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path.name}: {getattr(error, 'strerror', error)}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} {error}"[:MAX_MESSAGE]) from error


def parse_checkpoint(data: bytes) -> Forecaster:
    """`load_checkpoint` for bytes in memory; raises the same `CheckpointError`, whose message starts with a verb."""
    config, provenance, metrics, (times, series), tested, described = _parse_description(data)
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {error}") from error
    for name, tensor in tensors.items():
        if (problem := _refuse_values(tensor)) is not None:
            raise CheckpointError(f"has a value that {problem} in tensor {name}")
    windows = tensors.pop("reference.windows")
    targets = None
    if "reference.targets" in tensors:
        targets = np.full((len(windows), len(config.outputs)), np.nan)
        targets[:, config.known_outputs] = tensors.pop("reference.targets").numpy()
    of_intervals = {name: tensors.pop(name) for name in list(tensors) if name.startswith("intervals.")}
    network = Network(config)
    network.load_state_dict(tensors)
    with _describing():
        reference = Reference(windows, config, targets, times, series)
        intervals = None if described is None else described.make(of_intervals)
        sha256 = hashlib.sha256(data).hexdigest()
        return Forecaster(network, reference, metrics, provenance, sha256, intervals, tested=tested)


def _refuse_values(tensor: Tensor) -> str | None:
    """Why the values of a tensor cannot be computed with; None if they can."""
    largest = float(tensor.abs().amax()) if tensor.numel() else 0.0
    if not isfinite(largest):
        return "is not finite"
    return f"is above {MAX_MAGNITUDE:g} in magnitude" if largest > MAX_MAGNITUDE else None


class _IntervalsRecord(NamedTuple):
    """What the document says of intervals."""

    levels: tuple[float, ...]
    kind: Any
    calibration: Calibration
    config: ModelConfig | None  # of the network of nodes

    @classmethod
    def read(cls, described: Any, config: ModelConfig) -> _IntervalsRecord:
        nodes, levels = described["config"], tuple(described["levels"])
        for number, level in enumerate(levels):
            check_number(level, f"intervals.levels[{number}]")
        of_nodes = None if nodes is None else config_from_dict(nodes)
        if of_nodes is not None:
            wanted = replace(of_nodes, targets=increment_targets(config, levels), lookback=config.lookback)
            if (of_nodes, of_nodes.features, of_nodes.horizon) != (wanted, config.features, config.horizon):
                raise ConfigError("intervals.config must have the model's features, lookback and horizon, and nodes")
        calibration = read_record(Calibration, described["calibration"], "intervals.calibration")
        check_choice(described["kind"], "intervals.kind", get_args(Kind))
        if described["kind"] == "quantiles" and not set(levels) <= set(quantile_levels(config)):
            raise ConfigError(f"intervals.levels must have quantiles among the targets, but are {list(levels)}")
        return cls(levels, described["kind"], calibration, of_nodes)

    def shapes(self, config: ModelConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of its tensors."""
        shape = len(self.levels), len(forecasts_of(config))
        of_nodes = {} if self.config is None else _network_tensors(self.config)
        return {f"intervals.{side}": ("F64", shape) for side in _SIDES} | {
            f"intervals.network.{name}": of for name, of in of_nodes.items()
        }

    def make(self, tensors: dict[str, Tensor]) -> Intervals:
        network = None
        if self.config is not None:
            network, place = Network(self.config), "intervals.network."
            network.load_state_dict(
                {name.removeprefix(place): of for name, of in tensors.items() if name.startswith(place)}
            )
        below, above = (tensors[f"intervals.{side}"].numpy() for side in _SIDES)
        return Intervals(self.levels, self.kind, below, above, self.calibration, network)


def _describe_intervals(intervals: Intervals) -> dict[str, Any]:
    config = None if intervals.network is None else config_to_dict(intervals.network.config)
    described = {"levels": intervals.levels, "kind": intervals.kind, "config": config}
    return described | {"calibration": vars(intervals.calibration)}


def _network_tensors(config: ModelConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    dtype = {"float32": "F32", "float64": "F64"}[config.dtype]
    return {name: (dtype, shape) for name, shape in tensor_shapes(config).items()}


def _parse_description(
    data: bytes,
) -> tuple[
    ModelConfig, Provenance, dict[str, float], list[tuple[str, ...] | None], Skill | None, _IntervalsRecord | None
]:
    """Config, provenance, metrics, times and series of the reference windows, skill, intervals; the tensors fit."""
    metadata, tensors = parse_header(data)
    document = _parse_document(metadata)
    with _describing():
        config = config_from_dict(document["config"])
        provenance = read_record(Provenance, document["provenance"], "provenance")
        metrics, labels = document["metrics"], [document["reference_times"], document.get("reference_series")]
        for name, value in metrics.items():
            check_number(value, f"metrics.{name}")
        labels = [None if each is None else tuple(map(str, each)) for each in labels]
        tested, described = document.get("tested"), document.get("intervals")
        skill = None if tested is None else read_record(Skill, tested, "tested")
        intervals = None if described is None else _IntervalsRecord.read(described, config)
    n_reference = _compare_tensors(tensors, config, {} if intervals is None else intervals.shapes(config))
    for what, each in zip(("time stamps", "series"), labels, strict=True):
        if each is not None and len(each) != n_reference:
            raise CheckpointError(f"has {len(each)} {what} for {n_reference} reference windows")
    return config, provenance, metrics, labels, skill, intervals


@contextmanager
def _describing() -> Iterator[None]:
    """Turns errors of the document's members into one of the checkpoint."""
    try:
        yield
    except (ConfigError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"has a document that does not describe a model: {error}") from error


def parse_header(data: bytes) -> tuple[dict[str, Any], Tensors]:
    """Metadata and tensors of a safetensors file, from its JSON header after 8 bytes of length."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > MAX_HEADER_BYTES:
        raise CheckpointError("is not a safetensors file")
    if len(data) < 8 + size:
        raise CheckpointError("is truncated: its header does not end")
    try:
        entries = json.loads(data[8 : 8 + size])
        metadata = dict(entries.pop("__metadata__", {}))
        tensors = {str(name): (str(of["dtype"]), tuple(map(int, of["shape"]))) for name, of in entries.items()}
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError("is not a safetensors file: its header is not readable") from error
    expected = 8 + size + max(ends, default=0)
    if len(data) < expected:
        raise CheckpointError(f"is truncated: it has {len(data)} of {expected} bytes")
    return metadata, tensors


def _parse_document(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Parses the JSON document in a file's metadata, and checks its format version."""
    if metadata.get(DOCUMENT_KEY) is None:
        message = "is a safetensors file of something else: it has no Kanscope document (see `kanscope import`)"
        raise CheckpointError(message)
    try:
        document = dict(json.loads(metadata[DOCUMENT_KEY]))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("has a Kanscope document that is not JSON") from error
    found = document.get("format_version")
    if found != FORMAT_VERSION:
        raise CheckpointError(f"has format version {found!r}, but this version of Kanscope reads {FORMAT_VERSION}")
    return document


def _compare_tensors(found: Tensors, config: ModelConfig, of_intervals: Tensors) -> int:
    """Raises for the first tensor that differs from the config; returns the number of reference windows, at least 1."""
    _, windows_shape = found.get("reference.windows", ("", ()))
    n_reference = windows_shape[0] if windows_shape else 0
    expected = {**_network_tensors(config), **of_intervals}
    dtype = {"float32": "F32", "float64": "F64"}[config.dtype]
    expected["reference.windows"] = (dtype, (n_reference, config.lookback, len(config.features)))
    if "reference.targets" in found:
        expected["reference.targets"] = ("F64", (n_reference, len(config.known_outputs)))
    for name, (want, shape) in expected.items():
        if name not in found:
            raise CheckpointError(f"lacks tensor {name}, which its config needs")
        if found[name] != (want, shape):
            message = f"has tensor {name} of type {found[name][0]} and shape {list(found[name][1])}"
            raise CheckpointError(f"{message}, but its config implies {want} and {list(shape)}")
    for name in found:
        if name not in expected:
            raise CheckpointError(f"has tensor {name}, which its config does not know")
    if n_reference < 1:
        raise CheckpointError("has no reference windows")
    return n_reference
