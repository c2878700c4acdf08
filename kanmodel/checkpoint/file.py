"""Saving and loading of checkpoints: one safetensors file <-> a loaded model.

The file contains the tensors of the network and of the reference windows, and a JSON document in its metadata. It is
read into memory once, hashed, and checked against its config before anything is allocated. It is written to a temporary
file beside it, which is renamed when complete.

The header of a checkpoint file, checked against the tensors that its config implies before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from kanmodel.checkpoint.loaded import LoadedModel, Provenance, Reference
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.files import replacing
from kanmodel.network.chain import Network, tensor_shapes
from kanmodel.network.config import ModelConfig
from kanmodel.network.documents import config_from_dict, config_to_dict, list_of, read_record
from kanmodel.text import printable

FORMAT_VERSION = 2
DOCUMENT_KEY = "kanscope"  # key of the JSON document in the file's metadata
MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file.

    Attributes:
        metadata: strings by name.
        tensors: type and shape of every tensor.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]


def parse_header(data: bytes) -> Header:
    """Parses the JSON header: 8 bytes of length, then an entry for each tensor, and `__metadata__`."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > MAX_HEADER_BYTES:
        raise CheckpointError("is not a safetensors file")
    if len(data) < 8 + size:
        raise CheckpointError("is truncated: its header does not end")
    try:
        entries = json.loads(data[8 : 8 + size])
        metadata = dict(entries.pop("__metadata__", {}))
        tensors = {
            str(name): (str(entry["dtype"]), tuple(int(n) for n in entry["shape"])) for name, entry in entries.items()
        }
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError("is not a safetensors file: its header is not readable") from error
    expected = 8 + size + max(ends, default=0)
    if len(data) < expected:
        raise CheckpointError(f"is truncated: it has {len(data)} of {expected} bytes")
    return Header(metadata, tensors)


def parse_document(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Parses the JSON document in a file's metadata, and checks its format version."""
    text = metadata.get(DOCUMENT_KEY)
    if text is None:
        raise CheckpointError(
            "is a safetensors file of something else: it has no Kanscope document (see `kanscope import`)"
        )
    try:
        document = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("has a Kanscope document that is not JSON") from error
    version = document.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"has format version {version!r}, but this version of Kanscope reads {FORMAT_VERSION}")
    return document


def compare_tensors(found: Mapping[str, tuple[str, tuple[int, ...]]], config: ModelConfig) -> int:
    """Raises for the first tensor whose name, shape or type differs from the config.

    Returns:
        The number of reference windows, at least 1.
    """
    _, windows_shape = found.get("reference.windows", ("", ()))
    n_reference = windows_shape[0] if windows_shape else 0
    dtype = {"float32": "F32", "float64": "F64"}[config.dtype]
    expected = {name: (dtype, shape) for name, shape in tensor_shapes(config).items()}
    expected["reference.windows"] = (dtype, (n_reference, config.lookback, len(config.features)))
    if "reference.targets" in found:
        expected["reference.targets"] = ("F64", (n_reference, len(config.outputs)))
    for name, (want_dtype, want_shape) in expected.items():
        if name not in found:
            raise CheckpointError(f"lacks tensor {name}, which its config needs")
        if found[name] != (want_dtype, want_shape):
            got_dtype, got_shape = found[name]
            raise CheckpointError(
                f"has tensor {name} of type {got_dtype} and shape {list(got_shape)}, "
                f"but its config implies {want_dtype} and {list(want_shape)}"
            )
    for name in found:
        if name not in expected:
            raise CheckpointError(f"has tensor {name}, which its config does not know")
    if n_reference < 1:
        raise CheckpointError("has no reference windows")
    return n_reference


Result = TypeVar("Result")
MAX_MESSAGE = 500  # characters of an error, which may quote the file
MAX_BYTES = 1 << 30  # larger files are refused before they are read


def save_checkpoint(model: LoadedModel, path: Path) -> str:
    """Writes a checkpoint; an existing file is replaced atomically.

    Args:
        model: the model to write.
        path: the file, ``*.safetensors``.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        CheckpointError: the file cannot be written there, or a value of the model is not finite, so that it could not
            be loaded.
    """
    tensors = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    tensors["reference.windows"] = model.reference.windows.contiguous()
    if model.reference.targets is not None:
        tensors["reference.targets"] = torch.from_numpy(np.ascontiguousarray(model.reference.targets))
    for name in _find_non_finite(tensors):
        raise CheckpointError(f"cannot save {path.name}: a value of tensor {name} is not finite")
    document = {
        "format_version": FORMAT_VERSION,
        "config": config_to_dict(model.config),
        "reference_times": model.reference.times,
        "metrics": dict(model.metrics),
        "provenance": vars(model.provenance),
    }
    data = save_tensors(tensors, metadata={DOCUMENT_KEY: json.dumps(document, allow_nan=False)})
    try:
        with replacing(path, prefix=f".{path.name}.") as file:
            file.write(data)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}") from error
    return hashlib.sha256(data).hexdigest()


def load_checkpoint(path: Path) -> LoadedModel:
    """Reads a checkpoint.

    Args:
        path: the file.

    Returns:
        The model, with the hash of the bytes that were read.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, of a newer format, or its tensors differ from its
            config; the message names the first difference.
    """
    return _read(path, parse_checkpoint)


def identify_checkpoint(path: Path) -> str:
    """Reads a checkpoint without making tensors of it.

    Args:
        path: the file.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        CheckpointError: as `load_checkpoint`, as far as the header says.
    """
    return _read(path, _identify)


def parse_checkpoint(data: bytes) -> LoadedModel:
    """`load_checkpoint` for bytes in memory; error messages start with a verb."""
    config, provenance, metrics, times = _parse_description(data)
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {error}") from error
    for name in _find_non_finite(tensors):
        raise CheckpointError(f"has a value that is not finite in tensor {name}")
    windows = tensors.pop("reference.windows")
    targets = tensors.pop("reference.targets").numpy() if "reference.targets" in tensors else None
    loaded = Network(config)
    loaded.load_state_dict(tensors)
    try:
        reference = Reference(windows, targets, times)
        return LoadedModel(loaded, reference, metrics, provenance, hashlib.sha256(data).hexdigest())
    except ConfigError as error:
        raise _undescribed(error) from error


def _undescribed(error: Exception) -> CheckpointError:
    return CheckpointError(f"has a document that does not describe a model: {error}")


def _identify(data: bytes) -> str:
    _parse_description(data)
    return hashlib.sha256(data).hexdigest()


def _parse_description(data: bytes) -> tuple[ModelConfig, Provenance, dict[str, float], tuple[str, ...] | None]:
    """Config, provenance, metrics and time stamps of the reference windows, to which the tensors in the header fit."""
    header = parse_header(data)
    document = parse_document(header.metadata)
    try:
        config = config_from_dict(document["config"])
        provenance = read_record(
            Provenance, document["provenance"], "provenance", not_told_apart=list_of(), unused=list_of()
        )
        metrics = {str(name): _finite(value) for name, value in document["metrics"].items()}
        times = document["reference_times"]
        times = None if times is None else tuple(str(time) for time in times)
    except (ConfigError, KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise _undescribed(error) from error
    n_reference = compare_tensors(header.tensors, config)
    if times is not None and len(times) != n_reference:
        raise CheckpointError(f"has {len(times)} time stamps for {n_reference} reference windows")
    return config, provenance, metrics, times


def _find_non_finite(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """The names of tensors with a value that is not finite."""
    return (name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all()))


def _read(path: Path, parse: Callable[[bytes], Result]) -> Result:
    """Reads a file of bounded size, and names it in errors."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointError(f"is larger than {MAX_BYTES} bytes")
        with path.open("rb") as file:
            data = file.read(size)
        return parse(data)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path.name}: {getattr(error, 'strerror', error)}") from error
    except CheckpointError as error:
        raise CheckpointError(printable(f"{path.name} {error}"[:MAX_MESSAGE])) from error


def _finite(value: Any) -> float:
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number
