"""Files of `torch.save`: zip archives, or the consecutive pickles of torch before 1.6, read without running code.

The functions that torch and NumPy pickles name are not looked up but implemented here: tensors and arrays are views of
the file's bytes.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.pickles import HASH_MODULUS, GlobalName, Placeholder, read_pickle, refuse_hidden

ZIP_START = b"PK\x03\x04"
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle, a number, without its protocol and frame
LEGACY_PROTOCOL = 1001
FOREIGN = {
    (b"ustar", 257): "is a tar archive, as torch before 0.1.10 wrote it: save it with a newer torch",
    (b"\x89HDF", 0): "is a file of Keras: with Keras on torch, torch.save(model.state_dict()) can be read",
    (b"\x80", 0): "is a pickle, which can run any code, and not a file of torch.save: save model.state_dict() alone",
}  # bytes and where they stand -> what has them
MAX_MEMBERS = 1 << 17
DIRECTORY_ENTRY = b"PK\x01\x02"
PIECE = 1 << 20  # bytes of a member that are read at a time
MAX_TENSORS = 1 << 16
MAX_REPEATED = 1 << 20  # values of a tensor that repeats its storage, as expand does
MAX_DIMENSIONS = 16
STORAGE_DTYPES = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8},
    **{"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
}
UNTYPED = ("torch.storage.UntypedStorage", "torch.UntypedStorage")
DTYPES = {str(dtype): dtype for dtype in (*STORAGE_DTYPES.values(), torch.uint16, torch.uint32, torch.uint64)}
PLAIN_NUMBERS = re.compile(r"[biu]1|[iuf][248]|c8|c16")  # of NumPy's type codes

codecs.lookup("cp437")  # imports the codec of old member names now, so that no archive makes zipfile do so


@dataclass(frozen=True, eq=False)
class Storage:
    """The values that one or more tensors of a file are views of; they may be filled in after tensors were made."""

    dtype: torch.dtype  # uint8 if each tensor states its own
    data: memoryview  # in native byte order

    def view(self, dtype: torch.dtype, offset: object, shape: object, stride: object) -> Tensor:
        """A view of this storage; raises `CheckpointError` if it would reach beyond it, or repeat it too often."""
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


def tensor_functions() -> Mapping[str, Callable[..., object]]:
    """Implementations of the functions that torch and NumPy pickles call, and of plain containers, for one file."""
    n_tensors = iter(range(MAX_TENSORS))

    def rebuild(
        storage: object, offset: object, shape: object, stride: object, *rest: object, typed: bool = False
    ) -> Tensor:
        """A tensor; a `typed` one states its dtype, which has no storage class, after requires_grad and hooks."""
        dtype = storage.dtype if isinstance(storage, Storage) else None
        if typed:
            dtype = DTYPES.get(rest[2].name) if isinstance(rest[2], GlobalName) else None
        if not isinstance(storage, Storage) or dtype is None:
            raise CheckpointError("has a tensor without a storage, or of a type that is not of plain numbers")
        if next(n_tensors, None) is None:
            raise CheckpointError(f"has more than {MAX_TENSORS} tensors")
        if any(rest[3 if typed else 2 :]):  # bits that change the values, such as conj
            raise CheckpointError("has a tensor that is a lazy conjugate or negative")
        return storage.view(dtype, offset, shape, stride)

    def rebuild_with_attributes(function: object, kind: object, arguments: object, state: object) -> object:
        if not isinstance(arguments, tuple):
            raise CheckpointError("has a tensor that is made of nothing")
        if not isinstance(function, GlobalName) or function.name != "torch._utils._rebuild_tensor_v2":
            return Placeholder(_name_of(function), arguments)
        refuse_hidden(state, torch.nn.Parameter)
        return rebuild(*arguments)

    known: dict[str, Callable[..., object]] = {
        "torch._utils._rebuild_tensor": rebuild,
        "torch._utils._rebuild_tensor_v2": rebuild,
        "torch._utils._rebuild_tensor_v3": partial(rebuild, typed=True),
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch._tensor._rebuild_from_type_v2": rebuild_with_attributes,
        "torch.Size": lambda values: (
            tuple(values) if isinstance(values, (list, tuple)) else Placeholder("builtins.tuple", (values,))
        ),
        "collections.OrderedDict": _dict,
        "collections.defaultdict": lambda *_: {},
        "builtins.set": _set,
        "builtins.frozenset": _set,
        "builtins.dict": _dict,
        "builtins.bytes": lambda *values: _encode(*values) if values else b"",  # as protocol 2 writes bytes
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


def _parameter(data: object, requires_grad: object, hooks: object, state: object = None) -> object:
    refuse_hidden(state, torch.nn.Parameter)
    return data


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
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise CheckpointError("has bytes that are not written as pickle does")
    return text.encode("latin-1")


def _name_of(kind: object) -> str:
    return kind.name if isinstance(kind, (GlobalName, Placeholder)) else type(kind).__name__


def _reconstruct(kind: object, base: object, content: object) -> Placeholder:
    """An object of protocols 0 and 1, with its items if its class derives from list or dict."""
    items, entries = content if isinstance(content, list) else [], content if isinstance(content, dict) else {}
    return Placeholder(_name_of(kind), items=items, entries=entries)


def _local_class(kind: object, name: object, bases: object, options: object, *rest: object) -> GlobalName:
    """A class of a notebook or script, which cloudpickle stores by value instead of by name."""
    return GlobalName.of(options.get("__module__") if isinstance(options, dict) else None, name)


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


def read_archive(data: bytes) -> object:
    """The object in a file of `torch.save`: plain values, tensors, and placeholders for everything else.

    Raises `CheckpointError`, starting with a verb, if it has another format, is damaged, or exceeds a limit.
    """
    if data.startswith(ZIP_START):
        return _read_zip(data)
    if data.startswith(b"\x80") and LEGACY_MAGIC in data[:32]:
        return _read_legacy(data)
    what = (what for (mark, at), what in FOREIGN.items() if data.startswith(mark, at))
    raise CheckpointError(next(what, "is neither a file of torch.save nor of safetensors"))


def open_zip(data: bytes) -> tuple[zipfile.ZipFile, set[str]]:
    """An archive that is not larger unpacked, because torch.save does not compress, and the names of its members."""
    if data.count(DIRECTORY_ENTRY) > MAX_MEMBERS:
        raise CheckpointError(f"is an archive of more than {MAX_MEMBERS} members")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # zipfile raises whatever a damaged directory leads to
        raise CheckpointError(f"is damaged: {str(error)[:120] or type(error).__name__}") from error
    members = archive.infolist()
    names = {member.filename for member in members}
    if len(names) != len(members):
        raise CheckpointError("is damaged: it has two members of the same name")
    size = sum(member.file_size for member in members)
    if size > len(data):
        raise CheckpointError(f"would unpack to {size} bytes from {len(data)}, but torch.save does not compress")
    return archive, names


def read_member(archive: zipfile.ZipFile, name: str) -> memoryview:
    """The bytes of a member, which must be neither compressed nor encrypted."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise CheckpointError(f"is damaged: it has no {name[:80]}") from None
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise CheckpointError(f"has {name[:80]} compressed or encrypted, but torch.save does neither")
    memory = memoryview(bytearray(member.file_size))
    try:
        with archive.open(member) as stream:
            for start in range(0, len(memory), PIECE):
                memory[start : start + PIECE] = stream.read(PIECE)
            stream.read(1)  # checks the checksum
    except Exception as error:  # zipfile raises whatever a damaged member leads to
        raise CheckpointError(f"is damaged at {name[:80]}: {str(error)[:120] or type(error).__name__}") from error
    return memory


def _read_zip(data: bytes) -> object:
    if b"model.weights.h5" in data:
        raise CheckpointError(FOREIGN[b"\x89HDF", 0])
    archive, names = open_zip(data)
    if any(name.split("/")[-1] == "constants.pkl" for name in names):
        raise CheckpointError("is a TorchScript archive, which is code: save model.state_dict() alone")
    pickles = [name for name in names if name.split("/")[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError("is a zip archive, but not one of torch.save")
    folder = pickles[0].removesuffix("data.pkl")
    place = f"{folder}byteorder"
    order = bytes(read_member(archive, place)) if place in names else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError("is damaged: its byte order is neither little nor big")
    storages: dict[str, Storage] = {}

    def load(key: object) -> object:
        name, dtype, n_values, _ = _parse_storage_id(key)
        if name not in storages:
            memory = read_member(archive, f"{folder}data/{name}")
            if n_values * dtype.itemsize != len(memory):
                raise CheckpointError(f"is damaged: storage {name[:80]} has {len(memory)} bytes for {n_values} values")
            storages[name] = Storage(dtype, memory)
            if order != sys.byteorder.encode():
                _swap_bytes(storages[name])
        return storages[name]

    stream = io.BytesIO(read_member(archive, pickles[0]))
    return read_pickle(stream, tensor_functions(), BUILDERS, load)


def _read_legacy(data: bytes) -> object:
    """Reads five pickles (magic number, version, system, the object, the keys of its storages) and the storages."""
    stream = io.BytesIO(data)
    _, protocol, _ = (read_pickle(stream) for _ in range(3))
    if protocol != LEGACY_PROTOCOL:
        raise CheckpointError(f"is not of the protocol {LEGACY_PROTOCOL} of torch before 1.6")
    storages: dict[str, Storage] = {}
    left = len(data)

    def load(key: object) -> object:
        nonlocal left
        if isinstance(key, tuple) and key[:1] == ("module",) and len(key) > 1 and isinstance(key[1], GlobalName):
            return key[1]  # a class, and after it its source code
        name, dtype, n_values, view = _parse_storage_id(key)
        if name not in storages:
            left -= n_values * dtype.itemsize
            if left < 0:
                raise CheckpointError(f"claims a storage of {n_values} values, more than are in the file")
            storages[name] = Storage(dtype, memoryview(bytearray(n_values * dtype.itemsize)))
        if view is None:
            return storages[name]
        (offset, size), dtype, data = view, storages[name].dtype, storages[name].data
        end = len(data) // dtype.itemsize
        if not isinstance(offset, int) or not isinstance(size, int) or not 0 <= offset <= offset + size <= end:
            raise CheckpointError("has the view of a storage that reaches beyond it")
        return Storage(dtype, data[offset * dtype.itemsize : (offset + size) * dtype.itemsize])

    found = read_pickle(stream, tensor_functions(), BUILDERS, load)
    keys = read_pickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("is damaged: the keys of its storages are not a list of names")
    if len(keys) != len(storages) or set(keys) != storages.keys():
        raise CheckpointError("is damaged: the storages of its pickle are not those that follow it")
    rest = memoryview(data)[stream.tell() :]
    for key in keys:
        storage, n_bytes = storages[key], len(storages[key].data)
        if int.from_bytes(rest[:8], "little") * storage.dtype.itemsize != n_bytes or len(rest) < 8 + n_bytes:
            raise CheckpointError(f"is damaged: storage {key[:80]} has another number of values than its pickle says")
        storage.data[:] = rest[8 : 8 + n_bytes]
        if sys.byteorder == "big":
            _swap_bytes(storage)
        rest = rest[8 + n_bytes :]
    return found


def _parse_storage_id(key: object) -> tuple[str, torch.dtype, int, tuple[Any, Any] | None]:
    """Key, dtype and number of values of a storage, and before torch 0.4 offset and size of a view of it.

    An id is ("storage", class, key, device, number of values), and of old in addition None or (key, offset, size).
    """
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage" or not isinstance(key[2], str):
        raise CheckpointError("has a persistent id that is not one of a storage of torch")
    view = key[5] if len(key) == 6 else None
    if view is not None and (not isinstance(view, tuple) or len(view) != 3):
        raise CheckpointError("is damaged: the view of a storage is not one")
    name, n_values = key[1].name if isinstance(key[1], GlobalName) else "", key[4]
    short = name.removeprefix("torch.").removeprefix("cuda.").removesuffix("Storage")
    dtype = torch.uint8 if name in UNTYPED else STORAGE_DTYPES.get(short)
    if dtype is None or not name.startswith("torch."):
        raise CheckpointError(f"has a storage of {name or 'no'} type, which is not of plain numbers")
    if not isinstance(n_values, int) or n_values < 0:
        raise CheckpointError("is damaged: a storage of its pickle has no size")
    return key[2], dtype, n_values, view and view[1:]


def _swap_bytes(storage: Storage) -> None:
    """Swaps the byte order of the values; for complex values, of each part."""
    itemsize = storage.dtype.itemsize // (2 if storage.dtype.is_complex else 1)
    if itemsize > 1 and len(storage.data):
        np.frombuffer(storage.data, f"u{itemsize}").byteswap(inplace=True)
