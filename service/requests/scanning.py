"""Looking through the text of a large body without parsing it: numpy does that beside the event loop, parsers do not.

A parser holds the interpreter for as long as it takes, a tenth of a second for 8 MB, and builds what it reads.
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

from kanmodel.errors import Problem
from kanmodel.windows import N_LISTED
from service.http.errors import unusable_values
from service.http.places import format_path

_NUMBER = compile(rb"-?(?:NaN|Infinity|[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?)")
_PARTS_OF_NUMBERS = b"-+.0123456789"

Positions = NDArray[np.int64]


def count_bytes(data: bytes, byte: str) -> int:
    """How often a byte is there; faster than `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == ord(byte)))


def refuse_non_finite(data: bytes, max_depth: int) -> None:
    """Names the first NaNs and infinities of a JSON text, which JSON does not have.

    Args:
        data: the text.
        max_depth: deepest nesting in which they are looked for.

    Raises:
        DataError: there are some.
    """
    if not any(letter in data for letter in (b"N", b"I", b"e", b"E")):
        return
    text = _Text(data)
    if text.depths.max(initial=0) > max_depth:
        return
    paths = list(islice(map(text.find_path, _find_non_finite(text)), N_LISTED + 1))
    if paths:
        problems = [Problem(path.encode(errors="replace").decode() or "body", "must be finite") for path in paths]
        raise unusable_values(problems, "are not finite")


class _Text:
    """A JSON text with the positions of its structure.

    Args:
        data: the text.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.plain = data.replace(rb"\\", b"  ").replace(rb"\"", b"  ")  # as long, its quotes all of strings
        self.bytes = np.frombuffer(self.plain, dtype=np.uint8)
        inside = np.cumsum(self.bytes == ord('"'), dtype=np.uint8) & 1  # 8 bits hold what is even and odd
        self.outside = inside == 0
        opens = ((self.bytes == ord("[")) | (self.bytes == ord("{"))) & self.outside
        closes = ((self.bytes == ord("]")) | (self.bytes == ord("}"))) & self.outside
        self.depths = np.cumsum(opens.view(np.int8) - closes.view(np.int8), dtype=np.int32)
        self._find_openings: Callable[[int], Positions] = cache(lambda depth: self._at(opens, depth))
        self._find_commas = cache(lambda depth: self._at(self.find(","), depth))
        self._find_colons = cache(lambda depth: self._at(self.find(":"), depth))

    def find(self, byte: str) -> NDArray[np.bool_]:
        """Where a byte is, outside of strings."""
        found: NDArray[np.bool_] = (self.bytes == ord(byte)) & self.outside
        return found

    def find_path(self, position: int) -> str:
        """The path of the value at a position, such as ``instances[0][3][2]``."""
        parts: list[str | int] = []
        for depth in range(int(self.depths[position]), 0, -1):
            start = _last_before(self._find_openings(depth), position)
            if self.plain[start : start + 1] == b"[":
                commas = self._find_commas(depth)
                parts.append(int(np.searchsorted(commas, position) - np.searchsorted(commas, start)))
            else:
                parts.append(self._read_name(_last_before(self._find_colons(depth), position)))
            position = start
        return format_path(parts[::-1])

    def _at(self, marks: NDArray[np.bool_], depth: int) -> Positions:
        return np.flatnonzero(marks & (self.depths == depth))

    def _read_name(self, colon: int) -> str:
        """The name before a colon; what is no name, as in a text that is no JSON at all, is empty."""
        end = self.plain.rfind(b'"', 0, max(colon, 0))
        start = self.plain.rfind(b'"', 0, max(end, 0))
        try:
            return str(json.loads(self.data[start : end + 1]))
        except ValueError:
            return ""


def _find_non_finite(text: _Text) -> Iterator[int]:
    """Positions of the numbers that are none, or too large for a double, in order."""
    letters = (text.bytes | 32) == ord("e")
    digits = (text.bytes - ord("0")) < 10  # bytes below the digits wrap around
    signed = np.flatnonzero(letters & text.outside)
    after = np.append(digits, np.zeros(4, dtype=np.bool_))
    plus = np.append(text.bytes == ord("+"), False)
    first = signed + 1 + plus[np.minimum(signed + 1, len(text.bytes))]
    large = signed[after[first] & after[first + 1] & after[first + 2]]  # an exponent of three digits
    for position in np.union1d(np.flatnonzero(text.find("N") | text.find("I")), large).tolist():
        start = position
        while start and text.plain[start - 1] in _PARTS_OF_NUMBERS:
            start -= 1
        number = _NUMBER.match(text.plain, start)
        if number is not None and number.end() > position and not isfinite(float(number[0])):
            yield start


def _last_before(positions: Positions, position: int) -> int:
    index = int(np.searchsorted(positions, position)) - 1
    return int(positions[index]) if index >= 0 else 0
