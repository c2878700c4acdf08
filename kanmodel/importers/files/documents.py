"""The files beside the weights, read without running code and within bounds of memory.

Documents are YAML or JSON without tags, merges or repeated keys. Arrays are named ``a.npy``, ``a.npz:key``,
``a.json:/json/pointer``, or as a table, which the caller reads.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from kanmodel.arrays import Array, refuse_non_finite
from kanmodel.checkpoint import MAX_BYTES
from kanmodel.errors import CheckpointError, ConfigError, DataError
from kanmodel.tables.windows import read_numbers
from kanmodel.text import printable

MAX_DOCUMENT_BYTES = 1 << 22
MAX_JSON_BYTES = 1 << 28
MAX_NAMES_BYTES = 1 << 20
TABLES = (".csv", ".csv.gz", ".parquet")  # names of arrays with named columns
TOLERANCE = 1e-4  # of the check, in standard deviations of each output
ARRAYS = {
    "inputs": ("eval", "windows", "inputs", "x", "X"),
    "predictions": ("predictions", "outputs", "y_pred", "preds", "forecasts"),
    "reference": ("reference", "reference_windows"),
    "reference_targets": ("reference_targets", "reference_target"),
    "targets": ("targets", "target", "eval_target", "eval_targets", "y"),  # of the windows of the check
}  # names in a file of windows, the usual one first
NEEDED = {
    "inputs": "windows of the predictions, (n, lookback, n_features)",
    "predictions": "the model's own forecasts for these windows, (n, n_outputs)",
}

# (file, columns) -> (n_rows, len(columns)), rows oldest first; the model core itself reads no tables
TableReader = Callable[[Path, Sequence[str]], Array]


def read_bounded(path: Path, limit: int) -> bytes:
    """Reads a file of at most `limit` bytes; raises `CheckpointError`, with a message that starts with a verb."""
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


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Puts the name of a file before the errors of reading it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{name} is not text in UTF-8") from error
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{name} {error}") from error


def refuse_repeated(n_different: int, keys: Iterable[object]) -> None:
    """Raises `CheckpointError` for a key that occurs more than once in a mapping."""
    names = list(map(str, keys))
    if len(names) != n_different:
        ((repeated, _),) = Counter(names).most_common(1)  # the first, if they are equal only as values
        raise CheckpointError(f"has the key {repeated[:80]!r} more than once")


def read_document(path: Path) -> dict[str, Any]:
    """The mapping in a ``.yaml``, ``.yml`` or ``.json`` file; raises `CheckpointError` for other or unsafe content."""
    with naming(path.name):
        text = read_bounded(path, MAX_DOCUMENT_BYTES).decode("utf-8")
        if path.suffix == ".json":
            document = _parse_json(text)
        else:
            from kanmodel.importers.files.plain_yaml import parse_yaml  # here, since few imports need yaml

            document = parse_yaml(text)
        if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
            raise CheckpointError("is not a mapping of names to values")
    return document


def _parse_json(text: str) -> Any:
    def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        refuse_repeated(len(dict(pairs)), [key for key, _ in pairs])
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unrepeated)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is not JSON: {error}") from error


def read_array(folder: Path, name: str, columns: Sequence[str], read_table: TableReader | None) -> Array:
    """Reads one array in float64: a path in a folder, followed by a colon and the key or JSON pointer.

    Of a table the named columns are read, (n_rows, len(columns)); `read_table` is None if there is no reader. Raises
    `CheckpointError` if it does not exist, needs code to be run, claims more than its file holds, or is not finite.
    """
    try:
        with naming(name):
            if name.endswith(TABLES):
                if read_table is None:
                    raise CheckpointError("is a table, which only the command line reads: give .npy, .npz or .json")
                array = read_table(folder / name, columns)
            elif name.endswith(".npy"):
                array = _parse_npy(read_bounded(folder / name, MAX_BYTES))
            elif found := re.fullmatch(r"(.*?\.(npz|json)):(.*)", name, re.DOTALL):
                array = (_read_npz if found[2] == "npz" else _read_json)(folder / found[1], found[3])
            else:
                forms = "array.npy, file.npz:key, file.json:/json/pointer, or a table"
                raise CheckpointError(f"is not the name of an array: {forms}")
        refuse_non_finite(array, name)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    return array


@contextmanager
def _open_npz(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[str]]]:
    """An archive of arrays, with their names."""
    data = read_bounded(path, MAX_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield archive, [printable(name.removesuffix(".npy")) for name in archive.namelist()]
    except CheckpointError:
        raise
    except Exception as error:  # zipfile and zlib raise whatever a damaged archive leads to
        raise CheckpointError(f"is not a readable .npz of NumPy: {str(error)[:160]}") from error


def _read_npz(path: Path, key: str) -> Array:
    with _open_npz(path) as (archive, names):
        if key not in names:
            raise CheckpointError(f"does not exist: {path.name} has {', '.join(names)[:200]}")
        member = archive.getinfo(f"{key}.npy")
        if member.file_size > MAX_BYTES:
            raise CheckpointError(f"would unpack to {member.file_size} bytes, more than {MAX_BYTES}")
        return _parse_npy(archive.read(member))


def _parse_npy(data: bytes) -> Array:
    """Parses an array of numbers; its header is checked against the number of bytes before anything is allocated."""
    stream, known = io.BytesIO(data), np.lib.format
    headers = {(1, 0): known.read_array_header_1_0, (2, 0): known.read_array_header_2_0}
    try:
        version = known.read_magic(stream)
        if version not in headers:
            raise ValueError(f"format version {version}")
        shape, _, dtype = headers[version](stream)
        if dtype.kind not in "fiu":
            raise CheckpointError(f"holds values of type {dtype}, not numbers")
        if prod(shape) * dtype.itemsize != len(data) - stream.tell():
            raise CheckpointError(f"claims the shape {list(shape)}, but has {len(data) - stream.tell()} bytes")
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), dtype=np.float64)
    except (ValueError, TypeError, EOFError, OverflowError, SyntaxError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"is not a .npy array of numbers ({str(error).splitlines()[0][:120]})") from error


def _read_json(path: Path, pointer: str) -> Array:
    """The array at a JSON pointer (RFC 6901) of a file."""
    value = _parse_json(read_bounded(path, MAX_JSON_BYTES).decode("utf-8", "replace"))
    if pointer and not pointer.startswith("/"):
        raise CheckpointError("has a JSON pointer that does not begin with /")
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(step) if isinstance(value, list) and step.isdecimal() else step]
        except (IndexError, KeyError, TypeError, ValueError):
            exists = ", ".join(value)[:200] if isinstance(value, dict) else f"a {type(value).__name__}"
            raise CheckpointError(f"does not exist: at {step[:80]!r} there is {exists}") from None
    return read_numbers(value, f"{path.name}:{pointer}")


def read_windows_file(path: Path) -> dict[str, Any]:
    """The keys of a manifest that name arrays, from the arrays' names in a .npz; paths are absolute.

    Raises `CheckpointError` if it lacks windows or predictions, with the names that are accepted.
    """
    with naming(path.name), _open_npz(path) as (_, names):
        found = {key: next((name for name in known if name in names), None) for key, known in ARRAYS.items()}
        for key, meaning in NEEDED.items():
            if found[key] is None:
                wanted, *others = ARRAYS[key]
                has = ", ".join(names)[:200] or "nothing"
                raise CheckpointError(f"lacks {wanted}: {meaning} (or as {', '.join(others)}); it has {has}")
    at = {key: f"{path.resolve()}:{name}" for key, name in found.items() if name}
    targets = at.get("reference_targets" if "reference" in at else "targets")
    check = {"inputs": at["inputs"], "outputs": at["predictions"], "tolerance": TOLERANCE}
    keys: dict[str, Any] = {"reference": at.get("reference", at["inputs"]), "check": check}
    return keys | ({"reference_targets": targets} if targets else {})


def read_names(path: Path) -> list[Any]:
    """Names of columns, one per line, with the unit after a comma; blank lines and those starting with # are skipped.

    Raises `CheckpointError` if the file cannot be read, or has no name.
    """
    with naming(path.name):
        lines = map(str.strip, read_bounded(path, MAX_NAMES_BYTES).decode("utf-8").splitlines())
        columns = [line.partition(",") for line in lines if line and not line.startswith("#")]
        if not columns:
            raise CheckpointError("has no name: write one per line")
    return [{"name": name.strip(), "unit": unit.strip() or None} if comma else name for name, comma, unit in columns]
