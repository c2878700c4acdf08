"""The header of a checkpoint file, checked against the tensors that its config implies before anything is allocated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kanmodel.errors import CheckpointError
from kanmodel.network.chain import tensor_shapes
from kanmodel.network.config import ModelConfig

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
