"""csv and parquet files -> frames, a bounded number of rows at a time."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import polars as pl

from kanmodel.errors import DataError, UnknownNameError
from service.batch.tables import first_line

ENDINGS = (".csv", ".csv.gz", ".parquet")
BLOCK_BYTES = 4 << 20  # bytes of a csv that are parsed together
MAX_ROW_BYTES = 4 * BLOCK_BYTES
SLICE_VALUES = 1 << 20  # values of a parquet file that are read together


@dataclass(frozen=True)
class Frame:
    """Some rows of one file.

    Attributes:
        frame: the requested columns; text if the file is a csv.
        file: the name of the file.
        first_row: number of the first row in the file, counted as in a spreadsheet: the header of a csv is row 1.
        read: bytes of the file up to the last row.
    """

    frame: pl.DataFrame
    file: str
    first_row: int
    read: int


def find_files(table: Path) -> list[Path]:
    """The files of a table, in the order of their names.

    Raises:
        DataError: there are none.
    """
    if not table.exists():
        raise DataError(f"cannot read {table}: it does not exist")
    if not table.is_dir():
        if not table.name.endswith(ENDINGS):
            raise DataError(f"{table.name} must end in {', '.join(ENDINGS)}, or be a folder of such files")
        return [table]
    files = sorted(
        path for path in table.iterdir() if path.name.endswith(ENDINGS) and not path.name.startswith((".", "_"))
    )
    if not files:
        raise DataError(f"{table} has no file that ends in {', '.join(ENDINGS)}")
    return files


def has_column(table: Path, name: str) -> bool:
    """Whether the first file of a table has a column."""
    path = find_files(table)[0]
    with _naming(path):
        return name in _read_schema(path)


def read_types(path: Path, columns: Sequence[str]) -> list[pl.DataType]:
    """The types of a file's columns; in a csv all are text.

    Raises:
        DataError: it cannot be read.
        UnknownNameError: a column does not exist.
    """
    with _naming(path):
        schema = _read_schema(path)
    for name in columns:
        if name not in schema:
            raise UnknownNameError(f"{path.name} has no column {name!r}, but has {', '.join(schema)}")
    return [schema[name] for name in columns]


def read_frames(path: Path, columns: Sequence[str], width: int) -> Iterator[Frame]:
    """Yields the rows of a file, frame by frame.

    Args:
        path: the file.
        columns: the columns to read.
        width: values per row, which determines the number of rows per frame.

    Raises:
        DataError: the file cannot be read; frames that were read before the error have been yielded.
    """
    frames = _read_parquet(path, columns, width) if path.suffix == ".parquet" else _read_csv(path, columns)
    while True:
        with _naming(path):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns errors of reading into a DataError that names the file."""
    try:
        yield
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path.name} is empty") from error
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path.name}: {first_line(error)}") from error


def _read_schema(path: Path) -> dict[str, pl.DataType]:
    if path.suffix == ".parquet":
        return dict(pl.read_parquet_schema(path))
    with _open_csv(path) as (_, file):
        return dict.fromkeys(_read_header(file, path), pl.String())


def _read_parquet(path: Path, columns: Sequence[str], width: int) -> Iterator[Frame]:
    table = pl.scan_parquet(path).select(columns)
    size, n_rows = path.stat().st_size, table.select(pl.len()).collect().item()
    step = max(1, SLICE_VALUES // width)
    for first in range(0, n_rows, step):
        read = size * min(first + step, n_rows) // n_rows
        yield Frame(table.slice(first, step).collect(), path.name, first + 1, read)


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Frame]:
    row = 2
    with _open_csv(path) as (raw, file):
        schema = dict.fromkeys(_read_header(file, path), pl.String)
        for block in _cut_blocks(file, path):
            frame = pl.read_csv(block, has_header=False, schema=schema).select(columns)
            yield Frame(frame, path.name, row, raw.tell())
            row += len(frame)


@contextmanager
def _open_csv(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The file as it is on disk, and its decompressed content."""
    with path.open("rb") as raw:
        yield raw, cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw


def _read_header(file: IO[bytes], path: Path) -> list[str]:
    line = file.readline(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8)
    if not line.strip():
        raise DataError(f"{path.name} is empty")
    names = [str(name) for name in pl.read_csv(line, infer_schema=False, has_header=False).row(0)]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{path.name} has more than one column {repeated!r}")
    return names


def _cut_blocks(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Splits the text at ends of rows: at line breaks outside quotes."""
    rest = b""
    while data := file.read(BLOCK_BYTES):
        rest += data
        end = _find_end(rest)
        if end:
            yield rest[:end]
            rest = rest[end:]
        elif len(rest) > MAX_ROW_BYTES:
            raise DataError(
                f"cannot read {path.name}: a row has more than {MAX_ROW_BYTES} bytes, or its quotes do not close"
            )
    if rest:
        yield rest


def _find_end(text: bytes) -> int:
    """Where the last complete row ends; 0 if there is none."""
    end = text.rfind(b"\n") + 1
    n_quotes = text.count(b'"', 0, end)
    while n_quotes % 2:  # this line break is inside quotes: try the one before them
        quote = text.rfind(b'"', 0, end)
        end = text.rfind(b"\n", 0, quote) + 1
        n_quotes -= 1 + text.count(b'"', end, quote)
    return end
