"""Files of `torch.save`: zip archives, or the consecutive pickles of torch before 1.6, read without running code."""

from __future__ import annotations

import codecs
import io
import struct
import sys
import zipfile
import zlib

import numpy as np

from kanmodel.errors import CheckpointError
from kanmodel.importers.machine import Known
from kanmodel.importers.pickles import read_pickle
from kanmodel.importers.placeholders import GlobalName
from kanmodel.importers.storages import BUILDERS, Storage, make_storage, tensor_functions

ZIP_START = b"PK\x03\x04"
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle, a number, without its protocol and frame
LEGACY_PROTOCOL = 1001
TAR_MARK, TAR_OFFSET = b"ustar", 257
MAX_MEMBERS = 1 << 17
DIRECTORY_ENTRY = b"PK\x01\x02"
LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of APPNOTE.TXT, 4.3.7; its last two are the lengths of what follows

codecs.lookup("cp437")  # imports the codec of old member names now, so that no archive makes zipfile do so


def read_archive(data: bytes) -> object:
    """Reads the object in a file of `torch.save`: plain values, tensors, and placeholders for everything else.

    Raises:
        CheckpointError: the file has another format, is damaged, or exceeds a limit; the message starts with a verb.
    """
    if data.startswith(ZIP_START):
        return _read_zip(data)
    if is_legacy(data):
        return _read_legacy(data)
    if data[TAR_OFFSET : TAR_OFFSET + len(TAR_MARK)] == TAR_MARK:
        raise CheckpointError("is a tar archive, as torch before 0.1.10 wrote it: save it with a newer torch")
    raise CheckpointError("is neither a file of torch.save nor of safetensors")


def is_legacy(data: bytes) -> bool:
    """Whether a file starts like one of torch before 1.6, which newer versions write on request."""
    return data.startswith(b"\x80") and LEGACY_MAGIC in data[:32]


class _Archive:
    """The members of a zip archive by name, as slices of its bytes, because torch.save does not compress."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        if data.count(DIRECTORY_ENTRY) > MAX_MEMBERS:
            raise CheckpointError(f"is an archive of more than {MAX_MEMBERS} members")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = archive.infolist()
        except Exception as error:  # zipfile raises whatever a damaged directory leads to
            raise CheckpointError(f"is damaged: {str(error)[:120] or type(error).__name__}") from error
        self.members = {member.filename: member for member in members}
        if len(self.members) != len(members):
            raise CheckpointError("is damaged: it has two members of the same name")
        size = sum(member.file_size for member in members)
        if size > len(data):
            raise CheckpointError(f"would unpack to {size} bytes from {len(data)}, but torch.save does not compress")

    def read(self, name: str) -> memoryview:
        """The bytes of a member, without a copy."""
        member = self.members.get(name)
        if member is None:
            raise CheckpointError(f"is damaged: it has no {name[:80]}")
        start = member.header_offset
        if not 0 <= start <= len(self.data) - LOCAL_HEADER.size or self.data[start : start + 4] != ZIP_START:
            raise CheckpointError(f"is damaged: {name[:80]} is not where its directory says")
        header = LOCAL_HEADER.unpack_from(self.data, start)
        if header[3] != zipfile.ZIP_STORED or member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise CheckpointError(f"has {name[:80]} compressed or encrypted, but torch.save does neither")
        start += LOCAL_HEADER.size + header[-2] + header[-1]
        found = self.data[start : start + member.file_size]
        if len(found) != member.file_size or zlib.crc32(found) != member.CRC:
            raise CheckpointError(f"is damaged: the checksum of {name[:80]} does not fit")
        return found


def _read_zip(data: bytes) -> object:
    archive = _Archive(data)
    if any(name.split("/")[-1] == "constants.pkl" for name in archive.members):
        raise CheckpointError("is a TorchScript archive, which is code: save model.state_dict() alone")
    pickles = [name for name in archive.members if name.split("/")[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError("is a zip archive, but not one of torch.save")
    folder = pickles[0].removesuffix("data.pkl")
    order = bytes(archive.read(f"{folder}byteorder")) if f"{folder}byteorder" in archive.members else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError("is damaged: its byte order is neither little nor big")
    storages: dict[str, Storage] = {}

    def load(key: object) -> object:
        kind, name, n_values = _parse_storage_id(key)[:3]
        storage = storages.get(name)
        if storage is None:
            found = archive.read(f"{folder}data/{name}")
            storage = storages[name] = make_storage(kind, n_values, len(found))
            if len(storage.data) != len(found):
                raise CheckpointError(f"is damaged: storage {name[:80]} has {len(found)} bytes for {n_values} values")
            storage.data[:] = found
            if order != sys.byteorder.encode():
                _swap_bytes(storage)
        return storage

    known = Known(tensor_functions(), BUILDERS, load)
    return read_pickle(io.BytesIO(archive.read(pickles[0])), known)


def _read_legacy(data: bytes) -> object:
    """Reads five pickles (magic number, version, system, the object, the keys of its storages) and the storages."""
    stream = io.BytesIO(data)
    plain = Known({}, {}, _refuse_storage)
    _, protocol, _ = (read_pickle(stream, plain) for _ in range(3))
    if protocol != LEGACY_PROTOCOL:
        raise CheckpointError(f"is not of the protocol {LEGACY_PROTOCOL} of torch before 1.6")
    storages: dict[str, Storage] = {}
    left = len(data)

    def load(key: object) -> object:
        nonlocal left
        if isinstance(key, tuple) and key[:1] == ("module",) and len(key) > 1 and isinstance(key[1], GlobalName):
            return key[1]  # a class, and after it its source code
        kind, name, n_values, view = _parse_storage_id(key)
        if name not in storages:
            storages[name] = make_storage(kind, n_values, left)
            left -= len(storages[name].data)
        return storages[name] if view is None else _slice_storage(storages[name], *view)

    found = read_pickle(stream, Known(tensor_functions(), BUILDERS, load))
    keys = read_pickle(stream, plain)
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


def _parse_storage_id(key: object) -> tuple[object, str, object, tuple[object, object] | None]:
    """Type, key and number of values of a storage, and before torch 0.4 offset and size of a view of it.

    A persistent id of torch is ("storage", type, key, device, number of values), and in the old format a sixth: None,
    or (key of the view, offset, size).
    """
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage" or not isinstance(key[2], str):
        raise CheckpointError("has a persistent id that is not one of a storage of torch")
    view = key[5] if len(key) == 6 else None
    if view is None:
        return key[1], key[2], key[4], None
    if not isinstance(view, tuple) or len(view) != 3:
        raise CheckpointError("is damaged: the view of a storage is not one")
    return key[1], key[2], key[4], (view[1], view[2])


def _slice_storage(storage: Storage, offset: object, size: object) -> Storage:
    n_values = len(storage.data) // storage.dtype.itemsize
    if not isinstance(offset, int) or not isinstance(size, int) or not 0 <= offset <= offset + size <= n_values:
        raise CheckpointError("has the view of a storage that reaches beyond it")
    itemsize = storage.dtype.itemsize
    return Storage(storage.dtype, storage.data[offset * itemsize : (offset + size) * itemsize])


def _swap_bytes(storage: Storage) -> None:
    """Swaps the byte order of the values; for complex values, of each part."""
    itemsize = storage.dtype.itemsize // (2 if storage.dtype.is_complex else 1)
    if itemsize > 1 and len(storage.data):
        np.frombuffer(storage.data, f"u{itemsize}").byteswap(inplace=True)


def _refuse_storage(key: object) -> object:
    raise CheckpointError("is damaged: a pickle of plain values has a storage")
