"""csv and parquet files as frames, with rows counted as in a spreadsheet (a csv's header is row 1), and as arrays."""

import codecs
import gzip
import zlib
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import polars as pl

from kanmodel.arrays import N_LISTED, Array
from kanmodel.errors import DataError, Problem, UnknownNameError
from kanmodel.tables.frames import Cells, as_cells
from kanmodel.tables.table import TableSpec
from service.batch import PLAIN, Csv

ENDINGS = (".csv", ".csv.gz", ".parquet")
BLOCK_BYTES = 4 << 20  # bytes of a csv that are parsed together, and a row more
SEPARATORS = (";", "\t", "|")  # other than a comma
MAX_ROW_BYTES = 4 * BLOCK_BYTES
SLICE_VALUES = 1 << 20  # values of a parquet file that are read together
DECIMAL_COMMA = r"^(\s*[+-]?\d*),(\d+(?:[eE][+-]?\d+)?\s*)$"
BOOLEANS = {"false": 0.0, "true": 1.0}  # text, case-insensitive


@dataclass(frozen=True)
class Frame:
    """Some rows of one file."""

    cells: pl.DataFrame  # the requested columns; text if the file is a csv
    first_row: int  # number of the first row in the file; in a parquet file from 1
    read: int  # bytes of the file up to the last row, roughly


def find_files(table: Path) -> list[Path]:
    """The file, or the files of a folder in the order of their names; raises DataError if there are none."""
    if not table.exists():
        raise DataError(f"cannot read {table}: it does not exist")
    if not table.is_dir():
        return [table]
    files = sorted(path for path in table.iterdir() if path.name.endswith(ENDINGS) and path.name[0] not in "._")
    if not files:
        raise DataError(f"{table} has no file that ends in {', '.join(ENDINGS)}")
    return files


def read_schema(
    path: Path, columns: Iterable[str] = (), single: Collection[str] = (), csv: Csv = PLAIN
) -> dict[str, pl.DataType]:
    """Names and types of all columns of a file; in a csv all are text.

    Raises DataError if it cannot be read or a `single` column holds lists, and UnknownNameError if it lacks `columns`.
    """
    if not path.name.endswith(ENDINGS):
        raise DataError(f"{path.name} must end in .csv, .csv.gz or .parquet")
    with _naming(path):
        if path.suffix == ".parquet":
            schema = dict(pl.read_parquet_schema(path))
        else:
            with _open_csv(path) as (_, _, header):
                first = pl.read_csv(header, infer_schema=False, has_header=False, separator=csv.separator)
                names = [name or "" for name in first.row(0)]
            schema = dict.fromkeys(names, pl.String())
            for name in [name for name in names if names.count(name) > 1]:
                raise DataError(f"{path.name} has more than one column {name!r}")
    for name in columns:
        if name not in schema:
            there, joined = f"{path.name} has no column {name!r}, but has {', '.join(schema)}", "".join(schema)
            other = next((mark for mark in SEPARATORS if mark in joined and path.suffix != ".parquet"), None)
            hint = f"; if {other!r} separates its columns, give --separator {other!r}" if other else ""
            raise UnknownNameError(there + hint)
    for name in schema.keys() & single:
        if schema[name].is_nested():
            raise DataError(f"column {name} of {path.name} holds {schema[name]}, not single values")
    return schema


def read_frames(path: Path, columns: Sequence[str], width: int, csv: Csv = PLAIN) -> Iterator[Frame]:
    """Yields the rows of a file, of `width` values each, a bounded number at a time; at an error, DataError."""
    with _naming(path):
        if path.suffix == ".parquet":
            table = pl.scan_parquet(path).select(columns)
            size, n_rows, step = path.stat().st_size, table.select(pl.len()).collect().item(), 1 + SLICE_VALUES // width
            for first in range(0, n_rows, step):
                yield Frame(table.slice(first, step).collect(), first + 1, size * min(first + step, n_rows) // n_rows)
            return
        row = 2
        with _open_csv(path) as (raw, file, header):
            for block in _cut_blocks(file, path):
                cells = pl.read_csv(header + block, infer_schema=False, separator=csv.separator).select(columns)
                if csv.decimal == ",":
                    cells = cells.with_columns(pl.all().str.replace(DECIMAL_COMMA, "${1}.${2}"))
                yield Frame(cells, row, raw.tell())
                row += len(cells)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns errors of reading into a DataError that names the file."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path.name}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error of polars or the operating system."""
    text = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return text.split(" (os error")[0].rstrip(".")


@contextmanager
def _open_csv(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes], bytes]]:
    """The file as it is on disk, its decompressed content after the header, and the header."""
    with path.open("rb") as raw:
        file = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
        header = file.readline(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8)
        while header.count(b'"') % 2 and len(header) < BLOCK_BYTES and (line := file.readline(BLOCK_BYTES)):
            header += line  # a name has a line break
        if not header.strip():
            raise DataError(f"{path.name} is empty")
        yield raw, file, header


def _cut_blocks(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Splits the text at ends of rows: at line breaks outside quotes."""
    block = bytearray()
    is_quoted = False
    while line := file.readline(MAX_ROW_BYTES):
        block += line
        is_quoted ^= line.count(b'"') % 2 == 1
        if len(block) > BLOCK_BYTES and line.endswith(b"\n") and not is_quoted:
            yield bytes(block)
            block.clear()
        elif len(block) > BLOCK_BYTES + MAX_ROW_BYTES:
            what = f"a row has more than {MAX_ROW_BYTES} bytes, or its quotes do not close"
            raise DataError(f"cannot read {path.name}: {what}")
    if block:
        yield bytes(block)


def parse_numbers(column: pl.Series) -> pl.Series:
    """Parses the cells of a column to float64; null where a cell is not a number. Booleans are 0 and 1."""
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        if numbers.null_count() == column.null_count():
            return numbers
        return numbers.fill_null(
            text.str.to_lowercase().replace_strict(BOOLEANS, default=None, return_dtype=pl.Float64)
        )
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return column.cast(pl.Float64, strict=False)
    return pl.repeat(None, len(column), dtype=pl.Float64, eager=True).alias(column.name)


def parse_cells(column: pl.Series) -> Cells:
    """Parses the cells of a column where they are numbers; the others stay as they are, and null is NaN."""
    numbers = parse_numbers(column)
    values = numbers.to_numpy()
    is_other = numbers.is_null() & column.is_not_null()
    return (
        np.where(is_other.to_numpy(), np.fromiter(column.to_list(), dtype=object), values) if is_other.any() else values
    )


def describe_cell(cell: object) -> str:
    """Why a cell is not a finite number."""
    return "is empty" if cell is None else f"must be a finite number, but is {' '.join(str(cell).split())[:40]!r}"


def list_texts(spec: TableSpec) -> set[str]:
    """The columns of a model's table that are read as they stand: those of its times, series and texts."""
    texts = {column.name for column in spec.encoding.columns if column.levels}
    return texts | {each.name for each in (spec.time, spec.series) if each is not None}


def as_columns(cells: pl.DataFrame, special: Container[str]) -> dict[str, Cells]:
    """Columns in the form that `Table.read` and `kanmodel.train` take: numbers where cells are, else as they are.

    Those that are `special` stay as they are, such as times and labels.
    """
    return {column.name: as_cells(column) if column.name in special else parse_cells(column) for column in cells}


def read_table(
    path: Path, names: Iterable[str] = (), special: Collection[str] = (), csv: Csv = PLAIN
) -> dict[str, Cells]:
    """Reads the columns of a file as `as_columns`.

    Raises DataError if the file cannot be read or has no rows, or a special column holds lists, and UnknownNameError if
    a column of one of the `names` does not exist.
    """
    return as_columns(_read_file(path, names, special, csv).cells, special)


def read_columns(path: Path, names: Sequence[str]) -> Array:
    """Reads numeric columns of a file, (n_rows, len(names)); raises as `read_schema`, or if a cell is no number."""
    file = _read_file(path, names)
    columns = [file.cells[name] for name in names]
    values: Array = pl.DataFrame([parse_numbers(column) for column in columns]).to_numpy(order="c")
    bad = [(int(row), columns[number]) for row, number in np.argwhere(~np.isfinite(values))]
    if bad:
        places = [(f"row {row + file.first_row}, column {column.name}", column[row]) for row, column in bad[:N_LISTED]]
        problems = [Problem(place, describe_cell(cell)) for place, cell in places]
        more = f" ({len(bad)} such cells in all)" if len(bad) > 1 else ""
        raise DataError(f"{problems[0]}{more}", problems)
    return values


def _read_file(path: Path, columns: Iterable[str], single: Collection[str] = (), csv: Csv = PLAIN) -> Frame:
    """All rows and columns of a file, of which it must have some; not parsed."""
    names = list(read_schema(path, columns, single, csv))
    frames = list(read_frames(path, names, len(names), csv))
    if not frames:
        raise DataError(f"{path.name} has a header, but no rows")
    return Frame(pl.concat([frame.cells for frame in frames]), frames[0].first_row, frames[-1].read)
