"""Results as plain-text tables, for terminals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from functools import reduce
from math import floor, log10
from operator import and_
from textwrap import shorten as cut
from typing import Any
from unicodedata import combining, east_asian_width

# Control characters, which a terminal may act on; line separators; bidirectional controls; surrogates; no characters.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
N_ROWS = 12  # the rest are counted
PRECISION = 4  # significant digits
MAX_CELL = 60  # characters of a text in a table
MAX_LABEL = 22  # most characters of a name in a picture; its title has the full name
N_NAMED = 8  # names that a text lists
_WORDS = re.compile(r"[^\W_]+|[\W_]+")  # and what joins them

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


def write_markdown(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Some columns of a table as Markdown."""
    lines = [[column.replace("_", " ") for column in columns], ["---"] * len(columns)]
    lines += [[escape_markdown(write_value(row[column])) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """Escapes characters that are markup or cell separators in Markdown."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)


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


def write_amount(value: float, unit: str | None = None) -> str:
    """``1.59 K``, and ``52340 MW`` rather than ``5.23e+04 MW``."""
    amount = f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
    return f"{amount} {unit}" if unit else amount


def write_change(value: float, unit: str | None = None) -> str:
    """``+1.59 K``."""
    return f"{'+' if value > 0 else ''}{write_amount(value, unit)}"


def shorten(text: str) -> str:
    """Shortens a text to at most `MAX_CELL` characters."""
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


def capitalise(text: str) -> str:
    """The text as the beginning of a sentence; ``pH`` stays."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def abbreviate(text: str, length: int = MAX_LABEL) -> str:
    """Shortens a text in the middle to at most `length` characters, because long names often differ at the end."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[-end:]}"


def abbreviate_words(text: str, length: int) -> str:
    """Shortens a title or a sentence to at most `length` characters by its last words."""
    if len(text) <= length:
        return text
    short = cut(text, length, placeholder=" …", break_on_hyphens=False)
    return short if 2 * len(short) > length else abbreviate(text, length)


def shorten_names(names: Sequence[str], length: int) -> dict[str, str]:
    """Shortens names to at most `length` characters, at least 3, by name; if all fit, none changes.

    Words that most names have, such as the site and the unit of a sensor, are left out, the most frequent first, of
    these the longest, while the names still differ. Of what is then too long, an ellipsis replaces words without which
    the name is still the only one with all the others: those of most names first, then those in the middle, and last
    the first one, which mostly says what it is. What is longer still is cut in the middle, where names differ if they
    do at any place.
    """
    length, words = max(3, length), {name: _WORDS.findall(name) for name in names}
    counts = Counter(word for parts in words.values() for word in dict.fromkeys(parts) if word[0].isalnum())
    order = sorted(counts, key=lambda word: (-counts[word], -len(word)))
    common = [word for word in order if counts[word] > max(1, len(words) / 2)]
    parts = {name: _WORDS.findall(text) for name, text in _drop_words(words, common, length).items()}
    having: Counter[str] = Counter()  # of each word, the names that have it, a bit each
    for number, own in enumerate(parts.values()):
        having.update(dict.fromkeys(filter(str.isalnum, own), 1 << number))
    whole = {name: _elide(own, having, length) for name, own in parts.items()}
    fitted = {name: abbreviate(text, length) for name, text in whole.items()}
    by_text: dict[str, list[str]] = {}
    for name, text in fitted.items():
        by_text.setdefault(text, []).append(name)
    for alike in (alike for alike in by_text.values() if len(alike) > 1):
        for end in sorted(range(1, length - 1), key=lambda end: abs(2 * end - length + 1)):
            shorter = {name: f"{whole[name][: length - 1 - end]}…{whole[name][-end:]}" for name in alike}
            if len({*fitted.values(), *shorter.values()}) == len({*fitted.values()}) + len(alike):
                fitted |= shorter
                break
    return fitted


def _drop_words(words: Mapping[str, Sequence[str]], order: Sequence[str], length: int) -> dict[str, str]:
    """Names without some words, of which the first go first, until all fit or two would be the same."""

    def leave_out(parts: Sequence[str], left_out: Set[str]) -> str:
        """The other words, each with what stands before it."""
        kept: list[str] = []
        for before, part in zip(("", *parts), parts, strict=False):
            if part[0].isalnum() and part not in left_out:
                kept += [before, part] if kept else [part]
        return "".join(kept)

    short, dropped = {name: "".join(parts) for name, parts in words.items()}, set[str]()
    for word in order:
        if max(map(len, short.values())) <= length:
            break
        found = {name: leave_out(parts, {*dropped, word}) for name, parts in words.items()}
        if len(set(found.values())) == len(words) and all(found.values()):
            short, dropped = found, {*dropped, word}
    return short


def _elide(parts: Sequence[str], having: Mapping[str, int], length: int) -> str:
    """A name whose words give way to ellipses until it fits, but not those that tell it from all others."""
    places = [number for number, part in enumerate(parts) if part in having]
    middle, kept, text = len(parts) / 2, {*places}, "".join(parts)

    def rank(place: int) -> tuple[bool, int, float]:
        return place == places[0], -having[parts[place]].bit_count(), abs(place - middle)

    for place in sorted(places, key=rank):
        others = kept - {place}
        if len(text) <= length:
            break
        if not others or reduce(and_, (having[parts[other]] for other in others)).bit_count() > 1:
            continue
        found = ""
        for number, part in enumerate(parts):
            if number in others or {number - 1, number + 1} <= others:
                found += part
            elif part in having and not found.endswith("…"):
                found += "…"
        if 3 * len(found.strip("…")) >= length:  # else letters say more
            kept, text = others, found.strip("…")
    return text


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
