"""Whether every figure of a text is in the evidence that comes with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

_NAMES = re.compile(r"`[^`]*`")
_DATE = re.compile(r"(?:\d+ )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}(?:, \d\d:\d\d)?")
_HOUR = re.compile(r"(\d+):00")
_FIGURE = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?( %)?")


def numbers_in(value: Any) -> Iterator[float]:
    """All numbers of a JSON value."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def unfounded(text: str, evidence: Any) -> list[str]:
    """Figures of a text, outside backticks and dates, that no number of the evidence rounds to, whatever its sign."""
    known, found = [abs(number) for number in numbers_in(evidence)], []
    for match in _FIGURE.finditer(_HOUR.sub(r"\1", _DATE.sub("", _NAMES.sub("", text)))):
        shown = abs(Decimal(match[0].removesuffix(" %").replace(",", "")))
        slack = 0.5000001 * 10.0 ** int(shown.as_tuple().exponent)
        scales = (1, 100) if match[1] else (1,)
        if all(abs(scale * number - float(shown)) > slack for number in known for scale in scales):
            found.append(match[0])
    return found
