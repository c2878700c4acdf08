"""Own implementations of the functions that torch and NumPy pickles call: tensors and arrays as views of file bytes.

The names are those that torch and NumPy write into their pickles; none is looked up in torch or NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.machine import HASH_MODULUS, Function
from kanmodel.importers.placeholders import GlobalName, Placeholder, name_reference, refuse_hidden

MAX_TENSORS = 1 << 16
MAX_REPEATED = 1 << 20  # values of a tensor that repeats its storage, as expand does
MAX_DIMENSIONS = 16
TENSOR_NAMES = tuple(dir(torch.nn.Parameter))
STORAGE_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
UNTYPED = ("torch.storage.UntypedStorage", "torch.UntypedStorage")
DTYPES = {str(dtype): dtype for dtype in (*STORAGE_DTYPES.values(), torch.uint16, torch.uint32, torch.uint64)}
PLAIN_NUMBERS = re.compile(r"[biu]1|[iuf][248]|c8|c16")  # of NumPy's type codes


@dataclass(frozen=True, eq=False)
class Storage:
    """The values that one or more tensors of a file are views of.

    Attributes:
        dtype: of its values; uint8 if each tensor states its own.
        data: its bytes, in native byte order; they may be filled in after tensors were made.
    """

    dtype: torch.dtype
    data: memoryview

    def view(self, dtype: torch.dtype, offset: object, shape: object, stride: object) -> Tensor:
        """A tensor that is a view of this storage.

        Raises:
            CheckpointError: it would reach beyond the storage, or repeat it too often.
        """
        if not (_are_sizes(shape) and _are_sizes(stride) and len(shape) == len(stride)):
            raise CheckpointError("has a tensor whose shape or stride is not one")
        if not isinstance(offset, int) or offset < 0:
            raise CheckpointError("has a tensor whose offset is not one")
        n_stored, n_values = len(self.data) // dtype.itemsize, prod(shape)
        if n_values == 0:
            return torch.empty(shape, dtype=dtype)
        if n_values > max(n_stored, MAX_REPEATED):
            raise CheckpointError(f"has a tensor that claims {n_values} values, more than are in the file")
        if offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) >= n_stored:
            raise CheckpointError(f"has a tensor of shape {list(shape)} that reaches beyond its storage")
        return torch.frombuffer(self.data, dtype=dtype).as_strided(shape, stride, offset)


def make_storage(kind: object, n_values: object, limit: int) -> Storage:
    """A storage of zeros.

    Args:
        kind: the class that a persistent id names, such as ``torch.FloatStorage``.
        n_values: number of values.
        limit: most bytes.

    Raises:
        CheckpointError: its type is not supported, or it claims more than `limit`.
    """
    name = kind.name if isinstance(kind, GlobalName) else ""
    short = name.removeprefix("torch.").removeprefix("cuda.").removesuffix("Storage")
    dtype = torch.uint8 if name in UNTYPED else STORAGE_DTYPES.get(short)
    if dtype is None or not name.startswith("torch."):
        raise CheckpointError(f"has a storage of {name or 'no'} type, which is not of plain numbers")
    if not isinstance(n_values, int) or n_values < 0:
        raise CheckpointError("is damaged: a storage of its pickle has no size")
    if n_values * dtype.itemsize > limit:
        raise CheckpointError(f"claims a storage of {n_values} values, more than are in the file")
    return Storage(dtype, memoryview(bytearray(n_values * dtype.itemsize)))


def tensor_functions() -> Mapping[str, Function]:
    """Implementations of the functions that torch and NumPy pickles call, and of plain containers, for one file."""
    tensors = _Tensors()
    known: dict[str, Function] = {
        "torch._utils._rebuild_tensor": tensors.rebuild,
        "torch._utils._rebuild_tensor_v2": tensors.rebuild,
        "torch._utils._rebuild_tensor_v3": tensors.rebuild_typed,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch._tensor._rebuild_from_type_v2": tensors.rebuild_with_attributes,
        "torch.Size": _tuple,
        "collections.OrderedDict": _dict,
        "collections.defaultdict": lambda *_: {},
        "builtins.set": _set,
        "builtins.frozenset": _set,
        "builtins.dict": _dict,
        "builtins.bytes": lambda *values: _encode(*values) if values else b"",
        "_codecs.encode": _encode,
        "copyreg._reconstructor": _reconstruct,
        "copyreg.__newobj__": lambda kind, *arguments: Placeholder(_name_of(kind), arguments),
        "cloudpickle.cloudpickle._make_skeleton_class": _local_class,
        "ray.cloudpickle.cloudpickle._make_skeleton_class": _local_class,
    }
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray._reconstruct"] = lambda *_: Placeholder("numpy.ndarray")
        known[f"{core}.multiarray.scalar"] = _number
        known[f"{core}.numeric._frombuffer"] = _array
    return known


class _Tensors:
    """Makes the tensors of one file, and counts them."""

    def __init__(self) -> None:
        self.n_made = 0

    def rebuild(self, storage: object, offset: object, shape: object, stride: object, *rest: object) -> object:
        if not isinstance(storage, Storage):
            raise CheckpointError("has a tensor without a storage")
        return self._view(storage, storage.dtype, offset, shape, stride, rest[2:])

    def rebuild_typed(self, storage: object, offset: object, shape: object, stride: object, *rest: object) -> object:
        """The variant for dtypes without a storage class, with the dtype after requires_grad and hooks."""
        dtype = rest[2]
        found = DTYPES.get(dtype.name) if isinstance(dtype, GlobalName) else None
        if not isinstance(storage, Storage) or found is None:
            raise CheckpointError("has a tensor without a storage, or of a type that is not of plain numbers")
        return self._view(storage, found, offset, shape, stride, rest[3:])

    def rebuild_with_attributes(self, function: object, kind: object, arguments: object, state: object) -> object:
        """A tensor with attributes or of a subclass."""
        if not isinstance(arguments, tuple):
            raise CheckpointError("has a tensor that is made of nothing")
        if not isinstance(function, GlobalName) or function.name != "torch._utils._rebuild_tensor_v2":
            return Placeholder(_name_of(function), arguments)
        refuse_hidden(state, TENSOR_NAMES, "tensor")
        return self.rebuild(*arguments)

    def _view(
        self, storage: Storage, dtype: torch.dtype, offset: object, shape: object, stride: object,
        metadata: Iterable[object],
    ) -> Tensor:  # fmt: skip
        self.n_made += 1
        if self.n_made > MAX_TENSORS:
            raise CheckpointError(f"has more than {MAX_TENSORS} tensors")
        if any(metadata):  # bits that change the values, such as conj
            raise CheckpointError("has a tensor that is a lazy conjugate or negative")
        return storage.view(dtype, offset, shape, stride)


def _parameter(data: object, requires_grad: object, hooks: object, state: object = None) -> object:
    refuse_hidden(state, TENSOR_NAMES, "tensor")
    return data


def _tuple(values: object) -> object:
    return tuple(values) if isinstance(values, (list, tuple)) else Placeholder("builtins.tuple", (values,))


def _dict(pairs: object = ()) -> object:
    """An empty dictionary, to be filled later; pairs, as Python 2 gives them, are not supported."""
    return {} if isinstance(pairs, (list, tuple)) and not pairs else Placeholder("builtins.dict", (pairs,))


def _set(values: object = ()) -> object:
    """A set of strings, names and small integers; the hashes of other elements could be made to collide."""
    if isinstance(values, (list, tuple)) and all(
        isinstance(value, (str, GlobalName)) or (isinstance(value, int) and abs(value) < HASH_MODULUS)
        for value in values
    ):
        return set(values)
    return Placeholder("builtins.set", (values,))


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """The bytes that protocol 2 writes as a string."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise CheckpointError("has bytes that are not written as pickle does")
    return text.encode("latin-1")


def _name_of(kind: object) -> str:
    return kind.name if isinstance(kind, (GlobalName, Placeholder)) else type(kind).__name__


def _reconstruct(kind: object, base: object, content: object) -> Placeholder:
    """An object of protocols 0 and 1, with its items if its class derives from list or dict."""
    if isinstance(content, dict):
        return Placeholder(_name_of(kind), entries=content)
    if isinstance(content, list):
        return Placeholder(_name_of(kind), items=content)
    return Placeholder(_name_of(kind))


def _local_class(kind: object, name: object, bases: object, options: object, *rest: object) -> GlobalName:
    """A class of a notebook or script, which cloudpickle stores by value instead of by name."""
    return name_reference(options.get("__module__") if isinstance(options, dict) else None, name)


def _build_dtype(placeholder: Placeholder) -> object:
    """A NumPy dtype of plain numbers: its code is an argument, its byte order part of the state."""
    code, state = placeholder.arguments[:1], placeholder.state
    if code and isinstance(code[0], str) and PLAIN_NUMBERS.fullmatch(code[0]) and isinstance(state, tuple):
        order = state[1] if len(state) > 1 and state[1] in ("<", ">", "|") else "|"
        return np.dtype(f"{order}{code[0]}")
    return placeholder


def _build_array(placeholder: Placeholder) -> object:
    state = placeholder.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise CheckpointError("has an array of NumPy that is not one")
    _, shape, dtype, by_columns, data = state
    return _array(data, dtype, shape, "F" if by_columns else "C") if isinstance(dtype, np.dtype) else placeholder


def _array(data: object, dtype: object, shape: object, order: object) -> object:
    """An array that is a view of the pickle's bytes."""
    if not isinstance(dtype, np.dtype):
        return Placeholder("numpy.ndarray", (dtype, shape))
    if not isinstance(data, bytes) or not _are_sizes(shape) or prod(shape) * dtype.itemsize != len(data):
        raise CheckpointError("has an array of NumPy whose shape does not fit its bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _number(dtype: object, data: object) -> object:
    """A NumPy scalar, as a Python number."""
    if not isinstance(dtype, np.dtype):
        return Placeholder("numpy.generic", (dtype, data))
    if not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise CheckpointError("has a number of NumPy that does not fit its type")
    return np.frombuffer(data, dtype)[0].item()


def _are_sizes(values: object) -> TypeGuard[tuple[int, ...]]:
    if not isinstance(values, tuple) or len(values) > MAX_DIMENSIONS:
        return False
    return all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 for value in values)


BUILDERS: Mapping[str, Callable[[Placeholder], object]] = {"numpy.dtype": _build_dtype, "numpy.ndarray": _build_array}
