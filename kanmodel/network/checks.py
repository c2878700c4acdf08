"""Validation of configs: each error is one sentence that starts with the place.

Configs come from untrusted files, so both the type and the range of a value are checked.
"""

from __future__ import annotations

from collections.abc import Collection
from math import isfinite
from reprlib import repr

from kanmodel.errors import ConfigError
from kanmodel.text import UNPRINTABLE

MAX_TEXT = 200  # characters of a name
MAX_SIZE = 1 << 16  # of any count in a document: a malicious one must not exhaust the memory


def check_count(value: object, place: str, lowest: int = 1, highest: int = MAX_SIZE) -> None:
    """Checks that a value is a whole number in a range."""
    if type(value) is not int or not lowest <= value <= highest:
        raise ConfigError(f"{place} must be a whole number from {lowest} to {highest}, but is {repr(value)}")


def check_number(value: object, place: str, positive: bool = False) -> None:
    """Checks that a value is a finite number."""
    if type(value) not in (int, float) or not isfinite(value) or (positive and value <= 0):  # type: ignore[arg-type, operator]
        raise ConfigError(f"{place} must be a {'positive' if positive else 'finite'} number, but is {repr(value)}")


def check_text(value: object, place: str, longest: int = MAX_TEXT) -> None:
    """Checks that a value is text that can be shown anywhere: in labels of metrics, pictures, logs and terminals."""
    if type(value) is not str or len(value) > longest or UNPRINTABLE.search(value):
        raise ConfigError(f"{place} must be printable text of at most {longest} characters, but is {repr(value)}")


def check_flag(value: object, place: str) -> None:
    """Checks that a value is true or false."""
    if type(value) is not bool:
        raise ConfigError(f"{place} must be true or false, but is {repr(value)}")


def check_choice(value: object, place: str, choices: Collection[str]) -> None:
    """Checks that a value is one of some words."""
    if type(value) is not str or value not in choices:
        raise ConfigError(f"{place} must be one of {', '.join(choices)}, but is {repr(value)}")


def check_items(value: object, place: str, kind: type) -> None:
    """Checks that a value is a tuple with items of one type."""
    if type(value) is not tuple or any(not isinstance(item, kind) for item in value):
        raise ConfigError(f"{place} must be a list of {kind.__name__}, but is {repr(value)}")
