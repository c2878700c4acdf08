"""Checks of typed values in a document; error messages start with the key."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.importers.pykan_config import is_count
from kanmodel.network.checks import check_text

MAX_PATH = 4096  # characters of a text, which may be a path


def refuse_unknown(document: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Raises for the first unknown key, listing the known ones."""
    for key in document:
        if key not in known:
            raise CheckpointError(f"{place} has the unknown key {str(key)[:80]!r}; there are {', '.join(known)}")


def text(value: Any, place: str) -> str:
    """A non-empty, printable text."""
    try:
        check_text(value, place, MAX_PATH)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if not value:
        raise CheckpointError(f"{place} must not be empty")
    return str(value)


def optional_text(value: Any, place: str) -> str | None:
    """A text, or None for null."""
    return None if value is None else text(value, place)


def choice(value: Any, allowed: Sequence[str], place: str) -> str:
    """One of a few words."""
    if value not in allowed:
        raise CheckpointError(f"{place} must be {' or '.join(allowed)}, but is {reprlib.repr(value)}")
    return str(value)


def flag(value: Any, place: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise CheckpointError(f"{place} must be true or false, but is {reprlib.repr(value)}")
    return value


def count(value: Any, place: str) -> int:
    """A whole number from 1."""
    if not is_count(value) or value < 1:
        raise CheckpointError(f"{place} must be a whole number from 1, but is {reprlib.repr(value)}")
    return int(value)


def counts(value: Any, place: str) -> tuple[int, ...]:
    """A list of whole numbers from 0."""
    if not isinstance(value, list) or not value or not all(map(is_count, value)):
        raise CheckpointError(f"{place} must be a list of whole numbers from 0, but is {reprlib.repr(value)}")
    return tuple(value)


def number(value: Any, place: str) -> float:
    """A finite number."""
    if type(value) not in (int, float) or not isfinite(value):
        raise CheckpointError(f"{place} must be a finite number, but is {reprlib.repr(value)}")
    return float(value)


def positive(value: Any, place: str) -> float:
    """A finite number above 0."""
    if not number(value, place) > 0:
        raise CheckpointError(f"{place} must be above 0, but is {value}")
    return float(value)


def numbers(value: Any, length: int, place: str) -> tuple[float, ...]:
    """A list of finite numbers."""
    if not isinstance(value, list) or len(value) != length:
        raise CheckpointError(f"{place} must be a list of {length} numbers, but is {reprlib.repr(value)}")
    return tuple(number(item, f"{place}[{position}]") for position, item in enumerate(value))


def mapping(value: Any, place: str) -> dict[str, Any]:
    """A mapping."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{place} must be a mapping, but is {reprlib.repr(value)}")
    return value
