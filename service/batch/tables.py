"""Reads a whole csv or parquet file into arrays; errors name the row and column of a bad cell.

Rows are counted as in a spreadsheet: the header of a csv is row 1. A parquet file has no header, so its first row of
data is row 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kanmodel.data import Array
from kanmodel.errors import DataError, Problem, UnknownNameError
from kanmodel.training.tables import MISSING, PARTS, Columns, Labels

N_LISTED = 20  # bad cells that one error names; the message counts all of them
BOOLEANS = {"false": 0.0, "true": 1.0}  # text, case-insensitive
DISORDER = "is earlier than the row above it, but rows must be ordered from oldest to newest"


@dataclass(frozen=True)
class File:
    """A table, not yet parsed.

    Attributes:
        frame: its columns; text if the file is a csv.
        first_row: number of the first row of data, counted as in a spreadsheet.
    """

    frame: pl.DataFrame
    first_row: int


def read_training_frame(path: Path, columns: Columns) -> dict[str, Any]:
    """Reads columns by name, in the form that `kanmodel.train` takes; missing numbers are NaN.

    Args:
        path: ``.csv``, ``.csv.gz`` or ``.parquet``; rows oldest first.
        columns: roles of the columns.

    Returns:
        The columns that have a role; if no features are named, all: those without a number as they are.

    Raises:
        DataError: the file cannot be read, is empty, or has a bad cell, which the message names.
        UnknownNameError: a column does not exist.
    """
    file = read_file(path)
    for name in (*columns.targets, *(columns.features or ()), *columns.special):
        if name not in file.frame.columns:
            raise UnknownNameError(f"{path.name} has no column {name!r}, but has {', '.join(file.frame.columns)}")
    frame: dict[str, Any] = {}
    features = columns.features or [name for name in file.frame.columns if name not in columns.no_features]
    if (
        not columns.features
    ):  # a column that has words besides numbers is read as numbers, so that the words are reported
        frame = {name: np.fromiter(file.frame[name].to_list(), dtype=object) for name in features}
        features = [name for name in features if parse_numbers(file.frame[name]).is_not_nan().any()]
    names = list(dict.fromkeys((*features, *columns.targets)))
    if names:
        frame |= dict(zip(names, _numbers(file, names, may_lack=True).T, strict=True))
    segment = _labels(file, columns.segment)
    if columns.segment is not None:
        frame[columns.segment] = segment
    if columns.split is not None:
        frame[columns.split] = _split(file, columns.split)
    if columns.time is not None:
        _text(file, columns.time)
        _refuse_disorder(file, columns.time, segment)
        frame[columns.time] = file.frame[columns.time].to_numpy()
    return frame


def read_columns(path: Path, names: Sequence[str]) -> Array:
    """Reads numeric columns of a file, (n_rows, len(names)).

    Raises:
        DataError: as `read_training_frame`, or a cell is empty.
        UnknownNameError: a column does not exist.
    """
    file = read_file(path)
    for name in names:
        if name not in file.frame.columns:
            raise UnknownNameError(f"{path.name} has no column {name!r}, but has {', '.join(file.frame.columns)}")
    return _numbers(file, names)


def read_file(path: Path) -> File:
    """Reads a file without parsing its cells.

    Raises:
        DataError: it cannot be read as csv or parquet, has no rows, or has two columns with the same name.
    """
    try:
        if path.suffix == ".parquet":
            file = File(pl.read_parquet(path), first_row=1)
        elif path.name.endswith((".csv", ".csv.gz")):
            _refuse_repeated_names(path)
            file = File(pl.read_csv(path, infer_schema=False), first_row=2)
        else:
            raise DataError(f"{path.name} must end in .csv, .csv.gz or .parquet")
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path.name} is empty") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"cannot read {path.name}: {first_line(error)}") from error
    if file.frame.is_empty():
        raise DataError(f"{path.name} has a header, but no rows")
    return file


def _refuse_repeated_names(path: Path) -> None:
    header = pl.read_csv(path, infer_schema=False, has_header=False, n_rows=1).row(0)
    repeated = sorted({str(name) for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path.name} has more than one column {repeated[0]!r}")


def first_line(error: Exception) -> str:
    """The first line of an error of polars or the operating system."""
    text = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return text.split(" (os error")[0].rstrip(".")


def parse_numbers(column: pl.Series) -> pl.Series:
    """Parses the cells of a column to float64; null where a cell is not a number. Booleans are 0 and 1."""
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        if numbers.null_count() == column.null_count():
            return numbers
        booleans = text.str.to_lowercase().replace_strict(BOOLEANS, default=None, return_dtype=pl.Float64)
        return numbers.fill_null(booleans)
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return column.cast(pl.Float64, strict=False)
    return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)


def _numbers(file: File, names: Sequence[str], may_lack: bool = False) -> Array:
    """(n_rows, len(names)); raises if a cell is not a finite number, unless `may_lack` and it is missing."""
    parsed = [parse_numbers(file.frame[name]).to_numpy().astype(np.float64) for name in names]
    values: Array = np.stack(parsed, axis=1)
    wrong = ~np.isfinite(values)
    if may_lack:
        wrong &= ~np.stack([_is_missing(file.frame[name]) for name in names], axis=1)
    bad = np.argwhere(wrong)
    if len(bad):
        problems = [
            Problem(_place(file, row, names[column]), describe_cell(file.frame[names[column]][int(row)]))
            for row, column in bad[:N_LISTED]
        ]
        more = f" ({len(bad)} such cells in all)" if len(bad) > 1 else ""
        raise DataError(f"{problems[0].path} {problems[0].message}{more}", problems)
    return values


def _is_missing(column: pl.Series) -> NDArray[np.bool_]:
    """Whether each cell is empty, or a word for a missing value."""
    missing = column.is_null()
    if column.dtype == pl.String:
        missing |= column.str.strip_chars().str.to_lowercase().is_in(MISSING).fill_null(True)
    elif column.dtype.is_float():
        missing |= column.is_nan().fill_null(True)
    return missing.to_numpy()


def _place(file: File, row: int, column: str) -> str:
    return f"row {row + file.first_row}, column {column}"


def describe_cell(cell: object) -> str:
    """Why a cell is not a finite number."""
    return "is empty" if cell is None else f"must be a finite number, but is {' '.join(str(cell).split())[:40]!r}"


def _text(file: File, name: str) -> pl.Series:
    """A column as text; raises if a cell is empty or not a single value."""
    if file.frame[name].dtype.is_nested():
        raise DataError(f"column {name} holds {file.frame[name].dtype}, not text")
    column = file.frame[name].cast(pl.String)
    empty = column.is_null().arg_max()
    if column.has_nulls() and empty is not None:
        raise DataError(f"{_place(file, empty, name)} is empty")
    return column


def _labels(file: File, name: str | None) -> Labels | None:
    return None if name is None else _text(file, name).to_numpy().astype(str)


def _split(file: File, name: str | None) -> Labels | None:
    labels = _labels(file, name)
    if name is None or labels is None:
        return None
    unknown = np.flatnonzero(~np.isin(labels, PARTS))
    if len(unknown):
        row = int(unknown[0])
        raise DataError(f"{_place(file, row, name)} must be one of {', '.join(PARTS)}, but is {str(labels[row])!r}")
    return labels


def _refuse_disorder(file: File, name: str, segment: Labels | None) -> None:
    """Raises unless the rows of each segment are oldest first, if times are numbers, dates or ISO 8601."""
    row = find_disorder(file.frame[name], segment)
    if row is not None:
        raise DataError(f"{_place(file, row, name)} {DISORDER}")


def find_disorder(times: pl.Series, segment: Labels | None) -> int | None:
    """The first row that is earlier than the one above it in its segment; None if none is, or without order."""
    numbers = parse_numbers(times)
    if not numbers.has_nulls():
        times = numbers
    elif times.dtype == pl.String and not times.str.contains(r"^\d{4}-\d\d-\d\d").all():
        return None
    back = (times.shift(-1) < times).fill_null(False).to_numpy()[:-1]  # the next row is older
    if segment is not None:
        back &= segment[1:] == segment[:-1]
    rows = np.flatnonzero(back)
    return int(rows[0]) + 1 if len(rows) else None
