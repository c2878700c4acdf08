"""Loads the tensors of a file of weights without running any code in it.

A file of `torch.save` contains a pickle, and a pickle is a program. `archives` reads it without running it; everything
but tensors and plain values is a placeholder here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from kanmodel.checkpoint import DOCUMENT_KEY, MAX_BYTES
from kanmodel.errors import CheckpointError
from kanmodel.importers.archives import ZIP_START, is_legacy, read_archive
from kanmodel.importers.modules import Module, Value, describe, is_module, read_module, simplify_entries
from kanmodel.importers.placeholders import GlobalName, Placeholder

MAX_TENSOR_BYTES = 1 << 28  # of all weights together
MAX_KEY = 200  # characters of a tensor's name

NESTED_KEYS = ("state_dict", "model_state_dict", "model")  # keys of the weights in training dictionaries
COMMON_PREFIXES = ("module.", "model.", "_orig_mod.")  # of DataParallel, Lightning and torch.compile
ADVICE = "save model.state_dict() alone"
WIDENED = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
FLOATS = (torch.float32, torch.float64, *WIDENED)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Source:
    """The weights of a file.

    Attributes:
        name: the file's name.
        tensors: contiguous and finite, float32 or float64, by key without a common prefix of wrappers.
        integers: the tensors of integers and booleans, likewise.
        container: key of the training dictionary that contained them; None for a bare state_dict.
        prefix: prefix that was removed from every key, such as ``module.``.
        dtypes: the types in the file, such as ``float16``.
        module: the module tree, if the file contains a whole model; its dotted names are the keys of the tensors.
        hyper_parameters: the model's arguments that Lightning saved; empty if there are none.
    """

    name: str
    tensors: Mapping[str, Tensor]
    integers: Mapping[str, Tensor]
    container: str | None
    prefix: str
    dtypes: tuple[str, ...]
    module: Module | None
    hyper_parameters: Mapping[str, Value]


def open_source(path: Path) -> Source:
    """Reads the weights of a file.

    Args:
        path: a file of `torch.save` or safetensors with a state_dict, a whole model, or a training dictionary that
            contains one of them.

    Raises:
        CheckpointError: the file is damaged, claims more than it contains, or has no weights that are finite tensors.
    """
    try:
        weights = _find_weights(_read_object(read_bounded(path, MAX_BYTES)))
        tensors = _compact(weights.entries)
    except CheckpointError as error:
        raise CheckpointError(printable(f"{path.name} {error}")) from error
    prefix = _common_prefix(tensors)
    named = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return Source(
        name=path.name,
        tensors={key: tensor for key, tensor in named.items() if tensor.is_floating_point()},
        integers={key: tensor for key, tensor in named.items() if not tensor.is_floating_point()},
        container=weights.container,
        prefix=prefix,
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.entries.values()})),
        module=weights.module and weights.module.at(prefix),
        hyper_parameters=weights.hyper_parameters,
    )


def read_bounded(path: Path, limit: int) -> bytes:
    """Reads a file of at most `limit` bytes."""
    try:
        if not path.is_file():
            raise CheckpointError("is not there" if not path.exists() else "is not a file")
        size = path.stat().st_size
        if size > limit:
            raise CheckpointError(f"is larger than {limit} bytes")
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise CheckpointError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read_object(data: bytes) -> object:
    if data.startswith(ZIP_START) or is_legacy(data):
        return read_archive(data)
    if data[8:9] == b"{":
        return _read_safetensors(data)
    if data.startswith(b"\x80"):
        raise CheckpointError(f"is a pickle, which can run any code, and not a file of torch.save: {ADVICE}")
    return read_archive(data)


def _read_safetensors(data: bytes) -> dict[str, Tensor]:
    try:
        if f'"{DOCUMENT_KEY}":' in data[: int.from_bytes(data[:8], "little") + 8].decode("utf-8", "replace"):
            raise CheckpointError("is a checkpoint of Kanscope already: there is nothing to import")
        return load_safetensors(data)
    except (SafetensorError, OverflowError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise CheckpointError(f"is neither a file of torch.save nor of safetensors ({reason})") from error


@dataclass(frozen=True)
class _Weights:
    """The weights found in a file: tensors by key, and the rest as in `Source`."""

    entries: dict[str, Tensor]
    container: str | None
    module: Module | None
    hyper_parameters: Mapping[str, Value]


def _find_weights(found: object) -> _Weights:
    """Finds the state_dict of a file or of its model, and the key that it is under."""
    if isinstance(found, Tensor):
        raise CheckpointError("holds one tensor and no state_dict (pykan's cache_data is one: import its state)")
    if is_module(found):
        return _find_in_module(found, None, {})
    entries = _entries_of(found)
    if entries is None:
        raise CheckpointError(f"holds {_describe_foreign(found)} and no state_dict")
    nested = [key for key in NESTED_KEYS if _entries_of(entries.get(key)) is not None or is_module(entries.get(key))]
    if len(nested) > 1:
        raise CheckpointError(f"holds more than one state_dict: {', '.join(nested)}")
    hyper_parameters = _entries_of(entries.get("hyper_parameters")) if nested else None
    simple = simplify_entries(hyper_parameters or {})
    container = nested[0] if nested else None
    weights = entries[nested[0]] if nested else found
    if is_module(weights):
        return _find_in_module(weights, container, simple)
    return _Weights(_check_state_dict(_entries_of(weights) or {}), container, None, simple)


def _find_in_module(found: object, container: str | None, hyper_parameters: Mapping[str, Value]) -> _Weights:
    module = read_module(found)
    return _Weights(_check_state_dict(module.state_dict()), container, module, hyper_parameters)


def _entries_of(found: object) -> Mapping[Any, object] | None:
    """The entries of a dictionary, or of a placeholder for a subclass of it; None for anything else."""
    if isinstance(found, Placeholder):
        return found.entries or None
    return found if isinstance(found, dict) else None


def _check_state_dict(entries: Mapping[Any, object]) -> dict[str, Tensor]:
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"holds no state_dict: neither itself nor its {', '.join(NESTED_KEYS)} is one")
    for key, value in entries.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            place = repr(key[:80]) if isinstance(key, str) else describe(key)
            raise CheckpointError(f"has {_describe_foreign(value)} at {place} of its state_dict, not a tensor")
        if len(key) > MAX_KEY or not key.isprintable():
            raise CheckpointError(f"has a tensor whose key is not a name: {key[:80]!r}")
    return tensors


def _describe_foreign(value: object) -> str:
    """Describes what is in the place of a tensor, such as the placeholder for a call."""
    if isinstance(value, (Placeholder, GlobalName)):
        return f"an object that needs code to be run, {value.name[:MAX_KEY]},"
    return describe(value)


def _compact(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors so that their storages contain only their own values; widens half precision.

    pykan's coefficients are views into the workspace of its least squares, which is 27 times as large.
    """
    for key, tensor in entries.items():
        if tensor.dtype not in (*FLOATS, *INTEGERS):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"has tensor {key} of type {kind}, which is neither of floats nor of integers")
    size = sum(tensor.numel() * WIDENED.get(tensor.dtype, tensor.dtype).itemsize for tensor in entries.values())
    if size > MAX_TENSOR_BYTES:
        raise CheckpointError(f"has weights of {size} bytes, more than {MAX_TENSOR_BYTES}")
    compact = {}
    for key, tensor in entries.items():
        dtype = WIDENED.get(tensor.dtype, tensor.dtype)
        alone = tensor.is_contiguous() and tensor.nbytes == tensor.untyped_storage().nbytes()
        compact[key] = tensor if alone and tensor.dtype == dtype else _copy(tensor, dtype)
        if not bool(torch.isfinite(compact[key]).all()):
            raise CheckpointError(f"has a value that is not finite in tensor {key}")
    return compact


def _copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(tensor.shape, dtype=dtype).copy_(tensor)


def _common_prefix(tensors: Mapping[str, Tensor]) -> str:
    """The prefix that wrappers put before every key."""
    prefix = ""
    while True:
        for common in COMMON_PREFIXES:
            if all(key.startswith(prefix + common) for key in tensors):
                prefix += common
                break
        else:
            return prefix


def printable(text: str) -> str:
    """The text without characters that a terminal acts on."""
    return "".join(character if character.isprintable() else "�" for character in text)
