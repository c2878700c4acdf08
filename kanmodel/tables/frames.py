"""Tables in any form that people have them in, as one array of cells a column."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from numbers import Real
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array, without_mask
from kanmodel.errors import DataError, quote

Cells = np.ndarray[Any, Any]
"""A column: numbers, dates (datetime64), or objects: numbers, texts, `Category`, dates with a zone, and None."""
MISSING = ("", "na", "n/a", "#n/a", "nan", "<na>", "nat", "none", "null")  # for a missing number, case-insensitive
NO_VALUE = "no value"
WITH_COMMA = re.compile(r"\s*[+-]?\d+(,\d+)+\s*")  # a decimal mark, or separators of thousands


class Category(str):
    """A text of a column of categories, which is a level even where it looks like a number."""


def is_frame(windows: Any) -> bool:
    """Whether windows are given as a data frame, and not as an array or a mapping."""
    is_lazy = hasattr(type(windows), "columns")  # of polars, which warns if it is asked itself
    return (is_lazy or hasattr(windows, "columns")) and not isinstance(windows, Mapping)


def names_of(frame: Any) -> list[str]:
    """Names of the columns of a data frame, or of a mapping of name to column; empty of anything else."""
    if hasattr(type(frame), "collect_schema"):
        return list(frame.collect_schema().names())
    return list(frame if isinstance(frame, Mapping) else getattr(frame, "columns", ()))


def read_columns(frame: Any, wanted: Container[str] | None = None) -> dict[str, Cells]:
    """The columns of a data frame, or of a mapping of name to column, by name; of some names, only those.

    A frame is of any library that narwhals knows (pandas, polars, pyarrow, …), collected if it is lazy, or anything
    with ``.columns`` whose columns have ``.to_numpy()``.

    Raises:
        DataError: it is neither, a name is repeated or is not text, or columns differ in length.
    """
    if not isinstance(frame, Mapping):
        with suppress(nw.exceptions.DuplicateError):  # of which the names are found below
            known = nw.from_native(frame, pass_through=True)
            frame = known.collect() if isinstance(known, nw.LazyFrame) else known
        if not hasattr(frame, "columns"):
            kind = type(frame).__name__
            raise DataError(f"the table must be a data frame or a mapping of name to array, but is a {kind}")
    names = list(frame if isinstance(frame, Mapping) else frame.columns)
    names = [name for name in names if wanted is None or name in wanted]
    for name, count in Counter(names).items():
        if not isinstance(name, str):
            raise DataError(f"the name of a column must be text, but is {quote(name)}")
        if count > 1:
            raise DataError.at(name, f"is the name of {count} columns")
    data = {name: as_cells(frame[name]) for name in names}
    for name, cells in data.items():
        first = data[names[0]]
        if cells.ndim != 1 or cells.shape != first.shape:
            expected = first.shape if first.ndim == 1 else "(n,)"
            raise DataError(f"column {name} must have the shape {expected}, but has {cells.shape}")
    return data


def as_cells(values: Any) -> Cells:
    """A column as an array of cells; masked values are None, and dates with a zone keep it."""
    column = values if isinstance(values, nw.Series) else nw.from_native(values, series_only=True, pass_through=True)
    if not isinstance(column, nw.Series):
        return _as_array(column)
    dtype = column.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        return (column.cast(nw.Float64) if column.null_count() or dtype.is_decimal() else column).to_numpy()
    if isinstance(dtype, nw.Categorical | nw.Enum):
        return _objects([None if is_blank(cell) else Category(level_of(cell)) for cell in column.to_list()])
    if isinstance(dtype, nw.Date) or (isinstance(dtype, nw.Datetime) and dtype.time_zone is None):
        dates = column.to_numpy()
        return dates if dates.dtype.kind == "M" else _as_array(dates)
    return _as_array(_objects(column.to_list()))


def _objects(cells: Sequence[Any]) -> Cells:
    return np.fromiter(cells, dtype=object, count=len(cells))


def _as_array(values: Any) -> Cells:
    """An array of numbers or dates, or of objects if they are texts or mixed."""
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    values = without_mask(values)
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        return _objects(list(values))
    if array.dtype.kind in "US":  # numbers among the texts of a list stay numbers
        if array.ndim != 1:
            return array.astype(object)
        return _objects(list(values) if isinstance(values, list | tuple) else [str(cell) for cell in array])
    if array.dtype.kind == "O" and array.ndim == 1:
        kinds = {*map(type, cells := array.tolist())} - {type(None)}
        if kinds and kinds <= {int, float, bool}:
            return np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
    return array


def melt(data: Mapping[str, Cells], columns: Sequence[str], series: str, target: str) -> dict[str, Cells]:
    """A long table from a wide one: some columns one after another as `target`, their names as `series`."""
    long = {name: np.tile(cells, len(columns)) for name, cells in data.items() if name not in columns}
    long[series] = np.repeat(_objects(list(columns)), len(data[columns[0]]))
    long[target] = np.concatenate([data[name] for name in columns])
    return long


def read_numbers(cells: Cells) -> Array:
    """A column in float64, numbers in texts too: NaN where a value is missing, inf where it is not a finite number."""
    if cells.dtype.kind in "biuf":
        return cells.astype(np.float64)

    def read(cell: Any) -> float:
        if is_missing(cell):
            return np.nan
        try:
            is_plain = isinstance(cell, str) and cell.isascii() and "_" not in cell  # else as Python writes numbers
            return float(cell) if is_number(cell) or is_plain else np.inf
        except (ValueError, OverflowError):
            return np.inf

    return np.array([read(cell) for cell in cells.tolist()], dtype=np.float64)


def read_levels(cells: Cells, levels: Sequence[str]) -> Array:
    """The number of each cell's level: NaN where it is missing, or a word for that and no level; inf if unknown."""
    numbers = {level: float(number) for number, level in enumerate(levels)}

    def read(cell: Any) -> float:
        if is_blank(cell):
            return np.nan
        return numbers.get(level_of(cell), np.nan if is_missing(cell) else np.inf)

    return np.array([read(cell) for cell in cells.tolist()], np.float64)


def read_labels(cells: Cells, place: Callable[[int], str]) -> NDArray[np.object_]:
    """A column of labels as texts; raises `DataError` for one without a value, `place` being that of its row."""
    for row in [row for row, cell in enumerate(cells.tolist()) if is_blank(cell)]:
        raise DataError.at(place(row), "is empty")
    return _objects([level_of(cell) for cell in cells.tolist()])


def plan_levels(cells: Cells, most: int) -> tuple[tuple[str, ...], str | None]:
    """The levels of a column of texts, none of one of numbers or booleans; or why it can be neither.

    Texts that all are numbers, or words for a missing one, such as ``n/a``, are numbers, unless they are categories.
    """
    if cells.dtype.kind in "biuf":
        return (), NO_VALUE if np.isnan(cells.astype(np.float64)).all() else None
    if cells.dtype.kind != "O":
        return (), str(cells.dtype)
    known = [cell for cell in cells.tolist() if not is_blank(cell)]
    if not known:
        return (), NO_VALUE
    for cell in known:
        if not (isinstance(cell, str) or is_number(cell)):
            return (), type(cell).__name__
    if any(map(is_number, known)):
        return (), None
    numbers = read_numbers(_objects(known))
    if not np.isinf(numbers).any() and not any(isinstance(cell, Category) for cell in known):
        return (), NO_VALUE if np.isnan(numbers).all() else None
    has_comma = np.array([_has_comma(cell) for cell in known])
    if has_comma.any() and not np.isinf(numbers[~has_comma]).any():
        return (), "numbers written with a comma"
    levels = tuple(sorted({level_of(cell) for cell in known}))
    if len(levels) == 1:
        return (), "the same text in every row"
    return (levels, None) if len(levels) <= most else ((), f"{len(levels)} different texts, more than {most}")


def describe_bad(cell: Any, levels: Sequence[str] = ()) -> str:
    """What is wrong with a cell of a column of numbers, or of these levels."""
    if levels:
        return f"has the unknown level {quote(level_of(cell))}; the levels are {', '.join(levels)}"
    comma = ", a number written with a comma" if _has_comma(cell) else ""
    return f"must be a finite number or empty, but is {quote(cell)}{comma}"


def _has_comma(cell: Any) -> bool:
    return isinstance(cell, str) and not isinstance(cell, Category) and WITH_COMMA.fullmatch(cell) is not None


def level_of(cell: Any) -> str:
    """The level of a cell: its text, of a whole number without a fraction."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def is_number(cell: Any) -> bool:
    """Whether a cell is a number or a boolean."""
    return isinstance(cell, Real | Decimal | np.bool_)


def is_blank(cell: Any) -> bool:
    """Whether a cell has nothing in it: null, NaN, or a text of blanks."""
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or str(cell) in ("nan", "<NA>", "NaT")


def is_missing(cell: Any) -> bool:
    """Whether a cell has no number: it is blank, or a word for a missing value."""
    return cell is None or str(cell).strip().lower() in MISSING
