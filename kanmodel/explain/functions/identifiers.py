"""Feature names as Python identifiers, so that a formula of them can be parsed and evaluated."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import count

import sympy

RESERVED = frozenset({"numpy", *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *sympy.__all__})


def make_identifiers(names: Sequence[str]) -> list[str]:
    """A different identifier for each name: the name itself where it is one, else the nearest that is free.

    An identifier is of ASCII letters, digits and underscores, and neither a keyword nor a name that Python or sympy has
    already, such as ``lambda``, ``abs``, ``E`` or ``sin``. Accents go, other characters become underscores, a leading
    digit gets ``x`` before it, a reserved name an underscore after it, and one that is taken a number.

    Args:
        names: different names.
    """
    free = [name if _is_free(name) else None for name in names]
    taken = set(free)
    identifiers = []
    for name, kept in zip(names, free, strict=True):
        identifier = kept or next(choice for choice in _choices(name) if _is_free(choice) and choice not in taken)
        taken.add(identifier)
        identifiers.append(identifier)
    return identifiers


def _is_free(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name not in RESERVED


def _choices(name: str) -> Iterator[str]:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = re.sub(r"\W+", "_", plain, flags=re.ASCII).strip("_") or "x"
    stem = f"x{stem}" if stem[0].isdigit() else stem
    stem = f"{stem}_" if stem in RESERVED else stem
    yield stem
    yield from (f"{stem}_{number}" for number in count(2))
