"""Results as plain-text tables, for terminals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, log10
from typing import Any
from unicodedata import combining, east_asian_width

from kanmodel.errors import UNPRINTABLE

N_ROWS = 12  # the rest are counted
PRECISION = 4  # significant digits
MAX_CELL = 60  # characters of a text in a table
MAX_LABEL = 22  # most characters of a name in a picture; its title has the full name
N_NAMED = 8  # names that a text lists

Row = Mapping[str, Any]


def write_table(rows: Sequence[Row], columns: Sequence[str], most: int = N_ROWS) -> str:
    """Some columns of a table, numbers right-aligned, at most so many rows."""
    are_numbers, cells, more = format_cells(rows, columns, most)
    lines = [list(columns), *([shorten(cell) for cell in line] for line in cells)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]

    def pad(text: str, width: int, right: bool) -> str:
        space = " " * (width - _width(text))
        return space + text if right else text + space

    texts = ["  ".join(map(pad, line, widths, are_numbers)).rstrip() for line in lines]
    return "\n".join([*texts, more] if more else texts)


def format_cells(rows: Sequence[Row], columns: Sequence[str], most: int) -> tuple[list[bool], list[list[str]], str]:
    """Which columns are numeric, and so right-aligned; the cells of the first rows; the number of the others."""
    kinds = int | float | None
    are_numbers = [all(isinstance(row[c], kinds) and not isinstance(row[c], bool) for row in rows) for c in columns]
    cells = [[write_value(row[column]) for column in columns] for row in rows[:most]]
    return are_numbers, cells, f"… {len(rows) - most} more" if len(rows) > most else ""


def write_facts(facts: Mapping[str, str]) -> str:
    """Names and values, one pair per line."""
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {printable(value)}" for name, value in facts.items())


def with_unit(name: str, unit: str | None) -> str:
    """``change (K)``; long names are shortened."""
    return f"{shorten(name)} ({shorten(unit)})" if unit else shorten(name)


def write_value(value: Any) -> str:
    """A cell of a table; a dash for None and NaN."""
    if value is None or value != value:
        return "-"
    return f"{value:.{PRECISION}g}" if isinstance(value, float) else printable(str(value))


def write_figure(value: float, beside: float | None = None) -> str:
    """A number for people who are not used to exponents: three significant digits, as 12,300 or 0.0123.

    Args:
        value: the number.
        beside: a larger one that has three significant digits: the number has as many decimals, `0.01` beside `1.59`.
    """
    rounded, size = float(f"{value:.3g}"), abs(float(f"{value if beside is None else beside:.3g}"))
    if not 1e-4 <= size < 1e12:
        return f"{rounded:g}"
    written = f"{value:,.{max(0, 2 - floor(log10(size)))}f}"
    return written if written.strip("-0.") else "0"


def shorten(text: str) -> str:
    """Shortens a text to at most `MAX_CELL` characters."""
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


def abbreviate(text: str, length: int = MAX_LABEL) -> str:
    """Shortens a text in the middle to at most `length` characters, because long names often differ at the end."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[-end:]}"


def list_some(names: Sequence[str], most: int = N_NAMED) -> str:
    """The first names and the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def printable(text: str) -> str:
    """The text with characters replaced that would affect the text around it."""
    return text if text.isprintable() else UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _width(text: str) -> int:
    """Columns that a text takes in a terminal: two for a Chinese character or an emoji, none for a combining accent."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
