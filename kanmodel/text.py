"""Tables in plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

N_ROWS = 12  # the rest are counted
PRECISION = 4  # significant digits

Row = Mapping[str, Any]


def write_table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Some columns of a table, numbers to the right, at most `N_ROWS` rows.

    Args:
        rows: by column name.
        columns: which, in order.
    """
    cells = [list(columns), *([_write(row[column]) for column in columns] for row in rows[:N_ROWS])]
    is_number = [all(isinstance(row[column], int | float | None) for row in rows) for column in columns]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in cells
    ]
    if len(rows) > N_ROWS:
        lines.append(f"… {len(rows) - N_ROWS} more")
    return "\n".join(lines)


def write_facts(facts: Mapping[str, str]) -> str:
    """Names and what they are, a line each."""
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items())


def with_unit(name: str, unit: str | None) -> str:
    """``change (K)``."""
    return f"{name} ({unit})" if unit else name


def _write(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.{PRECISION}g}" if isinstance(value, float) else str(value)
