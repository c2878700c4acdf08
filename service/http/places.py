"""Paths of values in a JSON document, such as ``instances[0][3][2]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite


def format_path(parts: Sequence[str | int]) -> str:
    """``("columns", "temp_c", 0)`` -> ``columns.temp_c[0]``."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".")


def all_finite(value: object) -> bool:
    """Whether a document of dicts and lists contains neither NaN nor infinity."""
    kind = type(value)
    if kind is float:
        return isfinite(value)  # type: ignore[arg-type]
    if kind is dict:
        return all(map(all_finite, value.values()))  # type: ignore[attr-defined]
    if kind is list:
        return all(map(all_finite, value))  # type: ignore[call-overload]
    return True


def non_finite_places(document: object) -> Iterator[str]:
    """Paths of NaN and infinity in a document, in reading order, at any depth."""
    stack: list[tuple[tuple[str | int, ...], object]] = [((), document)]
    while stack:
        parts, value = stack.pop()
        if isinstance(value, float) and not isfinite(value):
            yield format_path(parts)
        elif isinstance(value, dict):
            stack.extend(((*parts, key), item) for key, item in reversed(value.items()))
        elif isinstance(value, list):
            stack.extend(((*parts, index), item) for index, item in reversed(list(enumerate(value))))
