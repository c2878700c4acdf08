"""Saving and loading of checkpoints: one safetensors file <-> a loaded model.

The file contains the tensors of the network and of the reference windows, and a JSON document in its metadata. It is
read into memory once, hashed, and checked against its config before anything is allocated. It is written to a temporary
file beside it, which is renamed when complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from kanmodel.checkpoint.header import DOCUMENT_KEY, FORMAT_VERSION, compare_tensors, parse_document, parse_header
from kanmodel.checkpoint.loaded import LoadedModel, Provenance, Reference
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.files import replacing
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig
from kanmodel.network.documents import config_from_dict, config_to_dict, list_of, read_record
from kanmodel.text import printable

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
