"""Results as plain-text tables, for terminals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import combining, east_asian_width

N_ROWS = 12  # the rest are counted
PRECISION = 4  # significant digits
MAX_CELL = 60  # characters of a text in a table
N_NAMED = 8  # names that a text lists

Row = Mapping[str, Any]

# Control characters, which a terminal may act on; line separators; bidirectional controls; surrogates; no characters.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def write_table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Some columns of a table, numbers right-aligned, at most `N_ROWS` rows.

    Args:
        rows: values by column name.
        columns: the columns to print, in order.
    """
    cells = [list(columns), *([shorten(write_value(row[column])) for column in columns] for row in rows[:N_ROWS])]
    is_number = [is_column_of_numbers(rows, column) for column in columns]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(_pad(cell, width, right) for cell, width, right in zip(line, widths, is_number, strict=True)).rstrip()
        for line in cells
    ]
    if len(rows) > N_ROWS:
        lines.append(f"… {len(rows) - N_ROWS} more")
    return "\n".join(lines)


def write_facts(facts: Mapping[str, str]) -> str:
    """Names and values, one pair per line."""
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {printable(value)}" for name, value in facts.items())


def with_unit(name: str, unit: str | None) -> str:
    """``change (K)``; long names are shortened."""
    return f"{shorten(name)} ({shorten(unit)})" if unit else shorten(name)


def write_value(value: Any) -> str:
    """A cell of a table; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.{PRECISION}g}" if isinstance(value, float) else printable(str(value))


def is_column_of_numbers(rows: Sequence[Row], column: str) -> bool:
    """Whether a column is numeric, and so right-aligned."""
    return all(isinstance(row[column], int | float | None) and not isinstance(row[column], bool) for row in rows)


def shorten(text: str) -> str:
    """Shortens a text to at most `MAX_CELL` characters."""
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


def list_some(names: Sequence[str], most: int = N_NAMED) -> str:
    """The first names and the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def printable(text: str) -> str:
    """The text with characters replaced that would affect the text around it."""
    return text if text.isprintable() else UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _width(text: str) -> int:
    """Columns that a text takes in a terminal: two for a Chinese character or an emoji, none for a combining accent."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
