"""A file as a trainer saved it -> its tensors, without running anything that it holds.

A file of `torch.save` is a pickle, and a pickle is a program. torch reads it with `weights_only`, which calls functions
of its own alone; some of those take as much memory as the file asks for. So the file is looked through first: it may
name a few functions only, and claim no more than it holds. Nothing widens what torch allows.
"""

from __future__ import annotations

import io
import pickletools  # nosec B403 # it lists what a pickle would do, and does none of it
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from kanmodel.checkpoint import DOCUMENT_KEY, MAX_BYTES
from kanmodel.errors import CheckpointError

MAX_TENSOR_BYTES = 1 << 28  # of all weights together
ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first of the pickles that torch before 1.6 wrote
LEGACY_PICKLES = 5  # magic number, version, system, the object itself, and the keys of its storages
MAX_OPCODES = 1 << 20  # of one pickle: they are looked through one by one
MAX_KEY = 200  # characters of a tensor's name

NESTED_KEYS = ("state_dict", "model_state_dict", "model")  # where training dictionaries keep the weights
COMMON_PREFIXES = ("module.", "model.", "_orig_mod.")  # of DataParallel, Lightning and torch.compile
ADVICE = "save model.state_dict() alone"

# What a file of tensors, numbers and names needs. bytearray and FloatTensor, which torch allows, take any size at once.
ALLOWED_GLOBALS = re.compile(
    r"torch \w+Storage|torch (float|bfloat|int|uint|complex)\d+|torch bool|torch (Size|device)|torch\.nn\.parameter "
    r"Parameter|torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state)|torch\.storage UntypedStorage|"
    r"collections (OrderedDict|Counter|defaultdict)|(__builtin__|builtins) (set|complex|dict)|_codecs encode"
)
INTEGERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "STRING")
REFERENCES = ("GET", "BINGET", "LONG_BINGET")
MEMO = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
WIDENED = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


@dataclass(frozen=True)
class Source:
    """The weights of a file.

    Attributes:
        name: the file's name.
        tensors: contiguous and finite, float32 or float64, by key; a prefix that all keys share is taken off.
        container: key of the training dictionary that held them; None for a bare state_dict.
        prefix: what was taken off every key, such as ``module.``.
        dtypes: the types in the file, such as ``float16``.
    """

    name: str
    tensors: Mapping[str, Tensor]
    container: str | None
    prefix: str
    dtypes: tuple[str, ...]


def open_source(path: Path) -> Source:
    """Reads the weights of a file.

    Args:
        path: what `torch.save` or safetensors wrote: a state_dict, or a training dictionary that holds one.

    Raises:
        CheckpointError: the file needs code to be read, is damaged, claims more than it holds, or holds no state_dict
            of finite floating-point tensors.
    """
    try:
        data = read_bounded(path, MAX_BYTES)
        container, entries = _find_state_dict(_read_object(data))
        dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in entries.values()})
        tensors = _compact(entries)
    except CheckpointError as error:
        raise CheckpointError(printable(f"{path.name} {error}")) from error
    except Exception as error:  # what the file holds may have any attribute, such as a tensor whose numel is a number
        message = f"{path.name} holds objects that are not what they say: {_first_line(error)}"
        raise CheckpointError(printable(message)) from error
    prefix = _common_prefix(tensors)
    tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return Source(path.name, tensors, container, prefix, tuple(dtypes))


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a file; refused beyond `limit`."""
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


def unpacked_bytes(archive: zipfile.ZipFile) -> int:
    """What the members of an archive take, as its directory says; no member gives more when it is read."""
    return sum(member.file_size for member in archive.infolist())


def _read_object(data: bytes) -> object:
    if data.startswith(ZIP_START):
        data = _repack_zip(data)
    elif data.startswith(LEGACY_START):
        _refuse_unsafe_legacy(data)
    elif data[8:9] == b"{":
        return _read_safetensors(data)
    elif data.startswith(b"\x80"):
        raise CheckpointError(f"is a pickle, which can run any code, and not a file of torch.save: {ADVICE}")
    else:
        raise CheckpointError("is neither a file of torch.save nor of safetensors")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # of every kind, where a file is damaged in a place that no one foresaw
        raise CheckpointError(f"is damaged, or not a file of torch.save ({_first_line(error)})") from error


def _read_safetensors(data: bytes) -> dict[str, Tensor]:
    try:
        if f'"{DOCUMENT_KEY}":' in data[: int.from_bytes(data[:8], "little") + 8].decode("utf-8", "replace"):
            raise CheckpointError("is a checkpoint of Kanscope already: there is nothing to import")
        return load_safetensors(data)
    except (SafetensorError, OverflowError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"is neither a file of torch.save nor of safetensors ({_first_line(error)})") from error


def _repack_zip(data: bytes) -> bytes:
    """Refuses an archive that would unpack to more than it is, is damaged, or whose pickle is not plain.

    Returns:
        The same members written anew, so that torch reads what was looked at here: of an archive with two directories
        its reader takes the other one.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise CheckpointError("is damaged: it has two members of the same name")
            if unpacked_bytes(archive) > len(data):
                raise CheckpointError(
                    f"would unpack to {unpacked_bytes(archive)} bytes from {len(data)}, but torch.save packs nothing"
                )
            if any(name.split("/")[-1] == "constants.pkl" for name in names):
                raise CheckpointError(f"is a TorchScript archive, which is code: {ADVICE}")
            damaged = archive.testzip()
            if damaged is not None:
                raise CheckpointError(f"is damaged: the checksum of {damaged} does not fit")
            pickles = [name for name in names if name.endswith("data.pkl")]
            if len(pickles) != 1:
                raise CheckpointError("is a zip archive, but not one of torch.save")
            _refuse_code(_opcodes(io.BytesIO(archive.read(pickles[0]))))
            repacked = io.BytesIO()
            with zipfile.ZipFile(repacked, "w") as plain:
                for name in names:
                    plain.writestr(name, archive.read(name))
            return repacked.getvalue()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"is damaged: {_first_line(error)}") from error
    except Exception as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"is damaged: {_first_line(error)}") from error


def _refuse_unsafe_legacy(data: bytes) -> None:
    """Refuses a file from before torch 1.6 that names code or whose storages claim more values than it has bytes."""
    stream, claims = io.BytesIO(data), dict[object, int]()
    for pickle in range(LEGACY_PICKLES):
        opcodes = list(_opcodes(stream))
        _refuse_code(opcodes)
        for storage, size in _claims(opcodes):
            key = storage if isinstance(storage, str) else (pickle, storage)
            claims[key] = max(size, claims.get(key, 0))
    claimed = sum(claims.values())
    if claimed > len(data):
        raise CheckpointError(f"claims {claimed} values, but has {len(data)} bytes")


Opcode = tuple[str, Any]


def _opcodes(stream: io.BytesIO) -> Iterator[Opcode]:
    """The instructions of one pickle, which none of them runs."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == MAX_OPCODES:
                raise CheckpointError(f"is a pickle of more than {MAX_OPCODES} instructions")
            yield opcode.name, argument
    except CheckpointError:
        raise
    except Exception as error:  # pickletools raises whatever the bytes lead to
        raise CheckpointError(f"is damaged: its pickle cannot be read ({_first_line(error)})") from error


def _refuse_code(opcodes: Iterable[Opcode]) -> None:
    for name, argument in opcodes:
        if name == "GLOBAL" and not ALLOWED_GLOBALS.fullmatch(str(argument)):
            code = str(argument).replace(" ", ".")[:80]
            raise CheckpointError(f"needs code to be run, {code}, and Kanscope reads tensors alone: {ADVICE}")
        if name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            raise CheckpointError(f"needs code to be run, and Kanscope reads tensors alone: {ADVICE}")


def _claims(opcodes: list[Opcode]) -> Iterator[tuple[object, int]]:
    """The storages of a pickle of torch before 1.6, each by its key with its number of values.

    A storage is a tuple that ends in key, device, number and None. It stands right before the instruction that takes
    it, since pickle never refers back to a number. Tensors may share a storage; one whose key is not spelled out counts
    for itself, by its position.
    """
    written = [opcode for opcode in opcodes if opcode[0] not in MEMO]
    for position, (name, _) in enumerate(written):
        if name not in ("BINPERSID", "PERSID"):
            continue
        before = written[max(position - 3, 0) : position]
        if [kind for kind, _ in before[1:]] != ["NONE", "TUPLE"] or before[0][0] not in INTEGERS:
            raise CheckpointError("is damaged: a storage of its pickle has no size")
        if before[0][1] < 0:
            raise CheckpointError("is damaged: a storage of its pickle has a negative size")
        key, device = written[max(position - 5, 0)], written[max(position - 4, 0)]
        spelled = key[0] in TEXTS and device[0] in (*TEXTS, *REFERENCES)
        yield str(key[1]) if spelled else position, int(before[0][1])


def _find_state_dict(found: object) -> tuple[str | None, dict[str, Tensor]]:
    """The state_dict of a file, and the key that it was under."""
    if isinstance(found, Tensor):
        raise CheckpointError("holds one tensor and no state_dict (pykan's cache_data is one: import its state)")
    if not isinstance(found, Mapping):
        raise CheckpointError(f"holds a {type(found).__name__} and no state_dict")
    nested = [key for key in NESTED_KEYS if isinstance(found.get(key), Mapping)]
    if len(nested) > 1:
        raise CheckpointError(f"holds more than one state_dict: {', '.join(nested)}")
    container = nested[0] if nested else None
    entries = found[nested[0]] if nested else found
    if not entries or not any(isinstance(value, Tensor) for value in entries.values()):
        raise CheckpointError(f"holds no state_dict: neither itself nor its {', '.join(NESTED_KEYS)} is one")
    for key, value in entries.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"has a {type(value).__name__} at {str(key)[:80]!r} of its state_dict, not a tensor")
        if len(key) > MAX_KEY or not key.isprintable():
            raise CheckpointError(f"has a tensor whose key is not a name: {key[:80]!r}")
    return container, dict(entries)


def _compact(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that hold their own values and nothing else; half precision is widened.

    pykan's coefficients are views into the workspace of its least squares, 27 times their size.
    """
    for key, tensor in entries.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise CheckpointError(f"has a tensor that is not dense at {key}")
        if tensor.dtype not in (torch.float32, torch.float64, *WIDENED):
            raise CheckpointError(f"has tensor {key} of type {str(tensor.dtype).removeprefix('torch.')}, not of floats")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"has tensor {key} that claims {tensor.numel()} values, more than are in the file")
    size = sum(tensor.numel() * tensor.element_size() for tensor in entries.values())
    if size > MAX_TENSOR_BYTES:
        raise CheckpointError(f"has weights of {size} bytes, more than {MAX_TENSOR_BYTES}")
    compact = {}
    for key, tensor in entries.items():
        dtype = WIDENED.get(tensor.dtype, tensor.dtype)
        compact[key] = torch.empty(tensor.shape, dtype=dtype).copy_(tensor.detach())
        if not bool(torch.isfinite(compact[key]).all()):
            raise CheckpointError(f"has a value that is not finite in tensor {key}")
    return compact


def _common_prefix(tensors: Mapping[str, Tensor]) -> str:
    """What wrappers have put before every key."""
    prefix = ""
    while True:
        for common in COMMON_PREFIXES:
            if all(key.startswith(prefix + common) for key in tensors):
                prefix += common
                break
        else:
            return prefix


def _first_line(error: Exception) -> str:
    """The beginning of a message, without its advice to run code."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "weights_only refuses it" if "weights_only" in text or "Weights only" in text else text[:160]


def printable(text: str) -> str:
    """A text that writes nothing but its characters into a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
