"""Scans the text of a large body with numpy, which releases the GIL, before it is parsed.

A parser holds the GIL until it is done, a tenth of a second for 8 MB, and allocates what it reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from math import isfinite
from re import compile

import numpy as np
from numpy.typing import NDArray

from kanmodel.data import N_LISTED
from kanmodel.errors import Problem
from service.wire.errors import unusable_values
from service.wire.json import format_path

_NUMBER = compile(rb"-?(?:NaN|Infinity|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
_PARTS_OF_NUMBERS = b"-+.0123456789"
N_SEARCHED = 1000  # places that may hold a number that is not finite; a parser finds the others

Positions = NDArray[np.int64]


def count_bytes(data: bytes, byte: str) -> int:
    """Counts a byte; faster than `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == ord(byte)))


def find_byte(data: bytes, byte: str, number: int) -> int:
    """The position of a byte that is `number` of its kind, from 0."""
    return int(np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord(byte))[number])


def refuse_non_finite(data: bytes, max_depth: int) -> None:
    """Refuses NaN and infinity, which are not JSON, naming the first of them.

    Args:
        data: the text.
        max_depth: deepest nesting that is searched.

    Raises:
        DataError: there are any.
    """
    if not (b"N" in data or b"I" in data or _has_large_exponent(data)):
        return
    text = _Text(data)
    if text.depths.max(initial=0) > max_depth:
        return
    paths = list(islice(map(text.find_path, _find_non_finite(text)), N_LISTED + 1))
    if paths:
        problems = [Problem(path, "must be finite") for path in paths]
        n = f"more than {N_LISTED}" if len(problems) > N_LISTED else len(problems)
        raise unusable_values(problems, n, "are not finite")


def find_path(data: bytes, position: int) -> str:
    """The path of the value at a position of a text, such as ``features[17]``."""
    return _Text(data[: position + 1]).find_path(position)


class _Text:
    """A JSON text with the positions of its structure.

    Args:
        data: the text.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.plain = data.replace(rb"\\", b"  ").replace(rb"\"", b"  ")  # every quote left delimits a string
        self.bytes = np.frombuffer(self.plain, dtype=np.uint8)
        inside = np.cumsum(self.bytes == ord('"'), dtype=np.uint8) & 1  # overflow of 8 bits keeps the parity
        self.outside = inside == 0
        opens = ((self.bytes == ord("[")) | (self.bytes == ord("{"))) & self.outside
        closes = ((self.bytes == ord("]")) | (self.bytes == ord("}"))) & self.outside
        self.depths = np.cumsum(opens.view(np.int8) - closes.view(np.int8), dtype=np.int32)
        self._find_openings: Callable[[int], Positions] = cache(lambda depth: self._at(opens, depth))
        self._find_commas = cache(lambda depth: self._at(self.find(","), depth))
        self._find_colons = cache(lambda depth: self._at(self.find(":"), depth))

    def find(self, byte: str) -> NDArray[np.bool_]:
        """A mask of a byte outside strings."""
        found: NDArray[np.bool_] = (self.bytes == ord(byte)) & self.outside
        return found

    def find_path(self, position: int) -> str:
        """The path of the value at a position, such as ``instances[0][3][2]``; ``body`` if it is the whole."""
        parts: list[str | int] = []
        for depth in range(int(self.depths[position]), 0, -1):
            start = _last_before(self._find_openings(depth), position)
            if self.plain[start : start + 1] == b"[":
                commas = self._find_commas(depth)
                parts.append(int(np.searchsorted(commas, position) - np.searchsorted(commas, start)))
            else:
                parts.append(self._read_name(_last_before(self._find_colons(depth), position)))
            position = start
        return format_path(parts[::-1]).encode(errors="replace").decode() or "body"

    def _at(self, marks: NDArray[np.bool_], depth: int) -> Positions:
        return np.flatnonzero(marks & (self.depths == depth))

    def _read_name(self, colon: int) -> str:
        """The member name before a colon; empty if there is none, as in a text that is not JSON."""
        end = self.plain.rfind(b'"', 0, max(colon, 0))
        start = self.plain.rfind(b'"', 0, max(end, 0))
        try:
            return str(json.loads(self.data[start : end + 1]))
        except ValueError:
            return ""


def _has_large_exponent(data: bytes) -> bool:
    text = np.frombuffer(data, dtype=np.uint8)
    return len(_find_large_exponents(text, (text | 32) == ord("e"))) > 0


def _find_large_exponents(text: NDArray[np.uint8], letters: NDArray[np.bool_]) -> Positions:
    """Positions of the e and E, given as a mask, that seem to precede an exponent of three digits."""
    last = len(text) - 1
    found = np.flatnonzero(letters[:-3])
    first = found + 1 + (text[found + 1] == ord("+"))
    digits = [text[np.minimum(first + n, last)] - ord("0") < 10 for n in range(3)]  # bytes below the digits wrap around
    large: Positions = found[digits[0] & digits[1] & digits[2]]
    return large


def _find_non_finite(text: _Text) -> Iterator[int]:
    """Positions of NaN, Infinity and numbers too large for a double, in order."""
    letters = ((text.bytes | 32) == ord("e")) & text.outside
    large = _find_large_exponents(text.bytes, letters)
    found = text.find("N") | text.find("I")
    found[large] = True
    for position in np.flatnonzero(found)[:N_SEARCHED].tolist():
        start = position
        while start and text.plain[start - 1] in _PARTS_OF_NUMBERS:
            start -= 1
        number = _NUMBER.match(text.plain, start)
        if number is not None and number.end() > position and not isfinite(float(number[0])):
            yield start


def _last_before(positions: Positions, position: int) -> int:
    index = int(np.searchsorted(positions, position)) - 1
    return int(positions[index]) if index >= 0 else 0
