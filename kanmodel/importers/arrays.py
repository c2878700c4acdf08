"""Arrays beside the weights: those that a manifest names, ``windows.npz``, and files of names.

A manifest names ``a.npy``, ``a.npz:key``, ``a.json:/json/pointer``, or a table that the caller reads.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from kanmodel.checkpoint import MAX_BYTES
from kanmodel.data import Array, refuse_non_finite
from kanmodel.errors import CheckpointError, DataError
from kanmodel.importers.documents import parse_json
from kanmodel.importers.source import read_bounded
from kanmodel.text import printable

MAX_JSON_BYTES = 1 << 28
TABLES = (".csv", ".csv.gz", ".parquet")
TOLERANCE = 1e-4  # of the check, in standard deviations of each output
MAX_NAMES_BYTES = 1 << 20
INPUTS = ("eval", "windows", "inputs", "x", "X")
PREDICTIONS = ("predictions", "outputs", "y_pred", "preds", "forecasts")
REFERENCE = ("reference", "reference_windows")
REFERENCE_TARGETS = ("reference_targets", "reference_target")
TARGETS = ("targets", "target", "eval_target", "eval_targets", "y")  # of the windows of the check

# (file, columns) -> (n_rows, len(columns)), rows oldest first; the model core itself reads no tables
TableReader = Callable[[Path, Sequence[str]], Array]


def is_table(name: str) -> bool:
    """Whether the name of an array is that of a table, which has named columns."""
    return name.endswith(TABLES)


def read_array(folder: Path, name: str, columns: Sequence[str], read_table: TableReader | None) -> Array:
    """Reads one array.

    Args:
        folder: folder that its path is relative to.
        name: path, followed by a colon and the key or JSON pointer.
        columns: names of a table's columns; not used for other arrays.
        read_table: reads tables; None if there is no reader.

    Returns:
        The array in float64; (n_rows, len(columns)) for a table.

    Raises:
        CheckpointError: it does not exist, is not readable without running code, claims more than its file holds, or
            is not an array of finite numbers.
    """
    try:
        array = _read(folder, name, columns, read_table)
        refuse_non_finite(array, name)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    except CheckpointError as error:
        raise CheckpointError(printable(f"{name} {error}")) from error
    return array


def _read(folder: Path, name: str, columns: Sequence[str], read_table: TableReader | None) -> Array:
    if is_table(name):
        if read_table is None:
            raise CheckpointError("is a table, which only the command line reads: give .npy, .npz or .json")
        return read_table(folder / name, columns)
    if name.endswith(".npy"):
        return _parse_npy(read_bounded(folder / name, MAX_BYTES))
    for suffix, read in ((".npz", _read_npz), (".json", _read_json)):
        path, colon, key = name.partition(f"{suffix}:")
        if colon:
            return read(folder / f"{path}{suffix}", key)
    raise CheckpointError("is not the name of an array: array.npy, file.npz:key, file.json:/json/pointer, or a table")


def _read_npz(path: Path, key: str) -> Array:
    data = read_bounded(path, MAX_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if key not in names:
                raise CheckpointError(f"does not exist: {path.name} has {', '.join(names)[:200]}")
            member = archive.getinfo(f"{key}.npy")
            if member.file_size > MAX_BYTES:
                raise CheckpointError(f"would unpack to {member.file_size} bytes, more than {MAX_BYTES}")
            return _parse_npy(archive.read(member))
    except CheckpointError:
        raise
    except Exception as error:  # zipfile and zlib raise whatever a damaged archive leads to
        raise CheckpointError(f"is not readable: {str(error)[:160]}") from error


def _parse_npy(data: bytes) -> Array:
    """Parses an array of numbers; its header is checked against the number of bytes before anything is allocated."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"format version {version}")
        shape, _, dtype = read_header(stream)
        if dtype.kind not in "fiu":
            raise CheckpointError(f"holds values of type {dtype}, not numbers")
        if prod(shape) * dtype.itemsize != len(data) - stream.tell():
            raise CheckpointError(f"claims the shape {list(shape)}, but has {len(data) - stream.tell()} bytes")
        array = np.load(io.BytesIO(data), allow_pickle=False)
        return np.asarray(array, dtype=np.float64)
    except (ValueError, TypeError, EOFError, OverflowError, SyntaxError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"is not a .npy array of numbers ({str(error).splitlines()[0][:120]})") from error


def _read_json(path: Path, pointer: str) -> Array:
    value = parse_json(read_bounded(path, MAX_JSON_BYTES).decode("utf-8", "replace"))
    for step in _steps(pointer):
        value = _follow(value, step)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise CheckpointError("is a list whose rows differ in length") from error
    if array.dtype.kind not in "fiu":
        raise CheckpointError("is not an array of numbers")
    return array.astype(np.float64)


def _steps(pointer: str) -> list[str]:
    """The steps of a JSON pointer (RFC 6901)."""
    if pointer and not pointer.startswith("/"):
        raise CheckpointError("has a JSON pointer that does not begin with /")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _follow(value: Any, step: str) -> Any:
    if isinstance(value, dict) and step in value:
        return value[step]
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    exists = ", ".join(value)[:200] if isinstance(value, dict) else f"a {type(value).__name__}"
    raise CheckpointError(f"does not exist: at {step[:80]!r} there is {exists}")


def read_windows_file(path: Path) -> dict[str, Any]:
    """The keys of a manifest that name arrays, from the arrays' names in the file; paths are absolute.

    Raises:
        CheckpointError: it is not a .npz, or lacks windows or predictions; the message lists the accepted names.
    """
    names = _names(path)

    def find(wanted: Sequence[str], meaning: str) -> str:
        found = next((name for name in wanted if name in names), None)
        if found is None:
            raise CheckpointError(
                f"{path.name} lacks {wanted[0]}: {meaning} (or as {', '.join(wanted[1:])}); it has "
                f"{', '.join(names)[:200] or 'nothing'}"
            )
        return found

    inputs = find(INPUTS, "windows of the predictions, (n, lookback, n_features)")
    predictions = find(PREDICTIONS, "the model's own forecasts for these windows, (n, n_outputs)")
    reference = next((name for name in REFERENCE if name in names), inputs)
    targets = next((name for name in (TARGETS if reference == inputs else REFERENCE_TARGETS) if name in names), None)

    def at(name: str) -> str:
        return f"{path.resolve()}:{name}"

    found: dict[str, Any] = {
        "reference": at(reference),
        "check": {"inputs": at(inputs), "outputs": at(predictions), "tolerance": TOLERANCE},
    }
    return found if targets is None else found | {"reference_targets": at(targets)}


def read_names(path: Path) -> list[Any]:
    """Names of columns, one per line, with the unit after a comma; blank lines and those starting with # are skipped.

    Raises:
        CheckpointError: it cannot be read, or has no name.
    """
    try:
        text = read_bounded(path, MAX_NAMES_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path.name} is not text in UTF-8") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} {error}") from error
    lines = [line.strip() for line in text.splitlines()]
    columns: list[Any] = []
    for line in lines:
        if line and not line.startswith("#"):
            name, comma, unit = line.partition(",")
            columns.append({"name": name.strip(), "unit": unit.strip() or None} if comma else line)
    if not columns:
        raise CheckpointError(f"{path.name} has no name: write one per line")
    return columns


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(read_bounded(path, MAX_BYTES))) as archive:
            return [printable(name.removesuffix(".npy")) for name in archive.namelist()]
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} {error}") from error
    except Exception as error:  # zipfile raises whatever a damaged archive leads to
        raise CheckpointError(f"{path.name} is not a .npz of NumPy: {printable(str(error))[:160]}") from error
