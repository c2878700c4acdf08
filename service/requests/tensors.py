"""Reads tensors of the Open Inference Protocol, in JSON or as binary data after it, into windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from kanmodel.data import Array
from kanmodel.errors import Problem
from kanmodel.model import Model
from service.http.errors import unusable, unusable_values
from service.requests.arrays import Axis, read_array
from service.requests.windows import refuse_infinite_windows

INSTANCES = "instances"  # the tensor that holds all features
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Tensor:
    """An input tensor whose values are not read yet.

    Attributes:
        path: its path in the request.
        name: its name.
        datatype: the protocol's, such as ``FP32``.
        shape: its shape.
        data: its values as parsed JSON; None if absent.
        n_bytes: length of its values in the binary part; None if they are in the JSON.
    """

    path: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    n_bytes: int | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The datatype in numpy's terms, little-endian."""
        return np.dtype(self.datatype.lower().replace("fp", "float")).newbyteorder("<")


def split_body(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """Splits a body into its JSON and the binary part after it.

    Args:
        body: the body.
        header_length: value of the header with the length of the JSON; None if the body is all JSON.

    Raises:
        DataError: the header is not an integer, or more than the length of the body.
    """
    if header_length is None:
        return body, b""
    if not (header_length.isascii() and header_length.isdecimal() and len(header_length) < 20):
        raise unusable(HEADER_LENGTH, "must be a whole number of bytes")
    length = int(header_length)
    if length > len(body):
        raise unusable(HEADER_LENGTH, f"must be at most the {len(body)} bytes of the body, but is {length}")
    return body[:length], body[length:]


def read_tensors(tensors: Sequence[Tensor], binary: bytes, model: Model, max_windows: int) -> Array:
    """The windows of one tensor with all features, or of one tensor per feature, by name.

    Args:
        tensors: the inputs of a request, at least one.
        binary: the binary part of its body.
        model: the model that they must fit.
        max_windows: the limit on windows.

    Returns:
        (n, lookback, n_features), original units, oldest step first.

    Raises:
        DataError: an invalid name, shape, size or value; the error names each place.
    """
    lookback, n_features = model.config.window_shape
    first, names = tensors[0], model.config.feature_names
    by_feature = first.name != INSTANCES or (INSTANCES in names and len(first.shape) != 3)
    if by_feature or len(tensors) > 1:
        by_name = _sort_by_name(tensors, names)
        _refuse_shapes(by_name, (lookback,), max_windows)
        values = _read_values(tensors, binary)
        windows = np.stack([values[one.path] for one in by_name], axis=-1)
        refuse_infinite_windows(windows, model, [f"{one.path}.data" for one in by_name])
    else:
        _refuse_shapes(tensors, (lookback, n_features), max_windows)
        windows = _read_values(tensors, binary)[first.path]
        refuse_infinite_windows(windows, model, f"{first.path}.data")
    return windows


def _sort_by_name(tensors: Sequence[Tensor], names: Sequence[str]) -> list[Tensor]:
    """The tensors in the order of the features."""
    problems = []
    by_name: dict[str, Tensor] = {}
    for tensor in tensors:
        if tensor.name not in names:
            known = f"expected {INSTANCES} alone, or the features {', '.join(names)}"
            problems.append(Problem(f"{tensor.path}.name", f"is unknown; {known}"))
        elif tensor.name in by_name:
            problems.append(Problem(f"{tensor.path}.name", "is given twice"))
        by_name[tensor.name] = tensor
    missing = [name for name in names if name not in by_name]
    if missing and not problems:
        problems.append(Problem("inputs", f"must have one tensor for each feature, but lacks {', '.join(missing)}"))
    if problems:
        raise unusable_values(problems, len(problems))
    return [by_name[name] for name in names]


def _refuse_shapes(tensors: Sequence[Tensor], window: tuple[int, ...], max_windows: int) -> None:
    """Refuses shapes that are not those of windows, or numbers of windows that differ between tensors."""
    n = tensors[0].shape[0] if tensors[0].shape else 0
    for tensor in tensors:
        path = f"{tensor.path}.shape"
        if tensor.shape[1:] != window or not tensor.shape:
            raise unusable(path, f"must be [n, {', '.join(map(str, window))}], but is {list(tensor.shape)}")
        if not 1 <= tensor.shape[0] <= max_windows:
            message = f"must be 1 to {max_windows} (max_windows), but is {tensor.shape[0]}"
            raise unusable(f"{path}[0]", message, "limit_exceeded" if tensor.shape[0] else "invalid_value")
        if tensor.shape[0] != n:
            raise unusable(f"{path}[0]", f"must be {n} as in {tensors[0].path}, but is {tensor.shape[0]}")


def _read_values(tensors: Sequence[Tensor], binary: bytes) -> Mapping[str, Array]:
    """The values of each tensor, in its shape, by its path."""
    start = 0
    values: dict[str, Array] = {}
    for tensor in tensors:
        if tensor.n_bytes is None:
            values[tensor.path] = _read_json(tensor)
            continue
        _refuse_size(tensor, len(binary) - start)
        numbers = np.frombuffer(binary, tensor.dtype, prod(tensor.shape), start)
        with np.errstate(invalid="ignore"):  # raised by a signalling NaN
            values[tensor.path] = numbers.astype(np.float64).reshape(tensor.shape)
        start += tensor.n_bytes
    if start != len(binary):
        raise unusable("body", f"must have {start} bytes after its JSON, as its inputs say, but has {len(binary)}")
    return values


def _refuse_size(tensor: Tensor, n_left: int) -> None:
    path, expected = f"{tensor.path}.parameters.binary_data_size", prod(tensor.shape) * tensor.dtype.itemsize
    if tensor.data is not None:
        raise unusable(f"{tensor.path}.data", "and parameters.binary_data_size are both given: give one")
    if tensor.n_bytes != expected:
        what = f"the bytes of {tensor.datatype} {list(tensor.shape)}"
        raise unusable(path, f"must be {expected}, {what}, but is {tensor.n_bytes}")
    if expected > n_left:
        raise unusable(path, f"is {expected}, but the body has {n_left} more bytes after its JSON ({HEADER_LENGTH})")


def _read_json(tensor: Tensor) -> Array:
    """Values nested like the shape, or flat in row-major order."""
    path = f"{tensor.path}.data"
    if tensor.data is None:
        raise unusable(path, "is missing; give it, or parameters.binary_data_size")
    nested = isinstance(tensor.data, list) and tensor.data and isinstance(tensor.data[0], list)
    axes = [Axis(size, "items") for size in tensor.shape] if nested else [Axis(prod(tensor.shape), "values")]
    values = read_array(tensor.data, axes, path)
    if tensor.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a value that is too large becomes infinite, and is refused as such
            values = values.astype(tensor.dtype).astype(np.float64)
    else:
        _refuse_other_integers(values, tensor, path)
    return values.reshape(tensor.shape)


def _refuse_other_integers(values: Array, tensor: Tensor, path: str) -> None:
    limits = np.iinfo(tensor.dtype)
    fits = (values == np.rint(values)) & (values >= limits.min) & (values <= limits.max)
    for place in np.argwhere(~fits)[:1].tolist():
        index = "".join(f"[{number}]" for number in place)
        kind = f"a whole number from {limits.min} to {limits.max}, as it is {tensor.datatype}"
        raise unusable(f"{path}{index}", f"must be {kind}")
