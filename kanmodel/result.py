"""Base classes of results, which render them as HTML pages, in notebooks and as pictures.

Several threads share one result, so all of them are read-only, with the arrays and dictionaries in them: see
`make_read_only`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache, cached_property, singledispatch
from inspect import isfunction
from operator import is_
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kanmodel import html, text
from kanmodel.arrays import ReadOnlyDict
from kanmodel.errors import DataError, ExportError, checked
from kanmodel.forecaster import Forecaster, ReferenceSpan
from kanmodel.tables.inputs import Inputs
from kanmodel.tables.skill import Skill
from kanmodel.text import Row, printable

Theme = Literal["light", "dark", "auto"]
_FIXED = frozenset({str, int, float, bool, type(None), bytes, ReadOnlyDict})  # types of what is read-only as it is


def make_read_only(value: Any) -> Any:
    """The value with read-only views of the arrays in it, tuples for lists, and dictionaries that cannot be changed.

    Arrays that the caller holds stay as they are. Dataclasses get such members in place, models are left alone.
    """
    kind: Any = type(value)
    if kind in _FIXED:
        return value
    if isinstance(value, np.ndarray):
        if value.flags.writeable:
            value = value.view()
            value.setflags(write=False)
    elif isinstance(value, list | tuple):
        members = value if _FIXED.issuperset(map(type, value)) else tuple(map(make_read_only, value))
        if isinstance(value, tuple) and all(map(is_, members, value)):
            return value
        return kind(*members) if hasattr(kind, "_fields") else tuple(members)
    elif names := _members_of(kind):
        members = value.__dict__
        for name in names:  # only what changes is set, since threads share what is read-only already
            if (frozen := make_read_only(members[name])) is not members[name]:
                members[name] = frozen
    elif isinstance(value, Mapping):
        return ReadOnlyDict(zip(value, map(make_read_only, value.values()), strict=True))
    elif isinstance(value, set):
        return frozenset(value)
    return value


@cache
def _members_of(kind: Any) -> tuple[str, ...]:
    """The names of a dataclass's public members; none of a model."""
    if issubclass(kind, Forecaster) or not is_dataclass(kind):
        return ()
    return tuple(of.name for of in fields(kind) if not of.name.startswith("_"))


def _then_read_only(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda result: make_read_only(compute(result))


@singledispatch
def draw(result: object, theme: Theme, **options: Any) -> bytes:
    """The picture of a result, SVG; `kanmodel.show` registers one for each type that has one, with its options."""
    raise NotImplementedError(f"a {type(result).__name__} has no picture")


@dataclass(frozen=True)
class Table:
    """Some columns of the rows of a result, in order; in HTML it is folded below its title, if it has one.

    It is shown in text and in HTML, unless `in_text` or `in_html` is false; in text at most `most` rows of it.
    """

    rows: Sequence[Row]
    columns: Sequence[str]
    title: str | None = None
    in_text: bool = True
    in_html: bool = True
    most: int = text.N_ROWS

    def markup(self) -> str:
        """The table as HTML."""
        table = html.write_table(self.rows, self.columns)
        return html.fold(self.title, table) if self.title else table


class Result(ABC):
    """A result that notebooks display, and that can be written as an HTML page.

    A subclass has a title and, as far as it has any, facts and tables, from which its text and its HTML are made. The
    arguments of its public methods are checked, see `kanmodel.errors`; what its properties cache is read-only.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, member in list(vars(cls).items()):
            if isfunction(member) and not name.startswith("_"):
                setattr(cls, name, checked(member))
            elif isinstance(member, cached_property):
                member.func = _then_read_only(member.func)

    @checked
    def html(self, path: str | Path | None = None, *, theme: Theme = "auto") -> str:
        """A self-contained HTML page without scripts.

        Args:
            path: a file to write it to as well.
            theme: ``light``, ``dark``, or ``auto``, which follows the reader's settings.

        Raises:
            UnknownNameError: a theme that does not exist.
            ExportError: the file cannot be written.
        """
        return _give(html.write_page(self._title(), self._body(theme, html.inline_picture), theme), path)

    def _repr_html_(self) -> str:
        return html.write_piece(self._body("auto", html.image_of))

    def __repr__(self) -> str:
        return self._text()

    @abstractmethod
    def _title(self) -> str:
        """The title, in plain text."""

    def _facts(self) -> Mapping[str, str]:
        """Names and values, one pair per line."""
        return {}

    def _tables(self) -> Sequence[Table]:
        """The tables, in the order of HTML and of text."""
        return ()

    def _picture(self, theme: Theme) -> str | None:
        """The picture, if there is one."""
        return None

    def _body(self, theme: Theme, show: Callable[[str], str]) -> str:
        """The markup, with pictures in a theme as `show` embeds them."""
        picture = self._picture(theme)
        return (show(picture) if picture else "") + self._details() + self._note()

    def _details(self) -> str:
        """Markup below the picture: the title if there is no picture, facts and tables."""
        heading = "" if isinstance(self, Pictured) else html.write_heading(self._title())
        tables = "".join(table.markup() for table in self._tables() if table.in_html)
        return heading + (html.write_facts(facts) if (facts := self._facts()) else "") + tables

    def _note(self) -> str:
        """Markup at the end."""
        return ""

    def _text(self) -> str:
        """Title, facts and tables as plain text."""
        facts, tables = self._facts(), [table for table in self._tables() if table.in_text]
        lines = [printable(self._title()), *([text.write_facts(facts)] if facts else [])]
        return "\n".join(lines + [text.write_table(table.rows, table.columns, table.most) for table in tables])


@dataclass(frozen=True, repr=False, eq=False)
class ModelResult(Result):
    """A result of a model, whose pages and pictures end with their source.

    Attributes:
        origin: the model's name and the beginning of its checkpoint's hash; empty if a `Model` did not give the result.
        skill: of the model, of a result that tells reasons; else None. If it is red or amber, the result opens with it.
        model_inputs: of the model, in whose terms features are told, where the result is about them.
    """

    origin: str = field(default="", kw_only=True)
    skill: Skill | None = field(default=None, kw_only=True)
    model_inputs: Inputs = field(default_factory=lambda: Inputs(()), kw_only=True)

    def __post_init__(self) -> None:
        make_read_only(self)

    @property
    def source(self) -> str:
        """The model, its checkpoint, and the time of the windows, as far as they are known."""
        return ", ".join(filter(None, (self.origin, self._period())))

    def _period(self) -> str:
        """The time of the windows; empty if unknown."""
        return ""

    @property
    def caution(self) -> str:
        """What is read before any reason; empty if the skill does not ask for it."""
        return "" if self.skill is None or not self.skill.is_doubtful else self.skill.reason

    def _body(self, theme: Theme, show: Callable[[str], str]) -> str:
        return (html.write_prose(self.caution) if self.caution else "") + super()._body(theme, show)

    def _text(self) -> str:
        return "\n".join(filter(None, (self.caution, super()._text())))

    def _note(self) -> str:
        return html.write_prose(self.source.replace("`", "'")) if self.source else ""


@dataclass(frozen=True, repr=False, eq=False)
class GlobalResult(ModelResult):
    """A result on the reference windows, which it states at its end.

    Attributes:
        reference: number and time span of the reference windows.
    """

    reference: ReferenceSpan = field(kw_only=True)

    def _period(self) -> str:
        return f"reference: {replace(self.reference, unlike_training=())}"

    def _note(self) -> str:
        return html.write_prose(f"Reference: {self.reference}") + super()._note()

    def __repr__(self) -> str:
        return f"{self._text()}\nReference: {self.reference}"


def name_window(number: int, times: Sequence[str] | None, series: Sequence[str] | None) -> dict[str, Any]:
    """The first columns of the row of a window: ``window``, and as far as they are known ``time`` and ``series``."""
    known = {"time": times, "series": series}
    return {"window": number, **{name: of[number] for name, of in known.items() if of is not None}}


class Pictured(ModelResult):
    """A result that has a picture."""

    @property
    def _undrawn(self) -> str | None:
        """Why there is no picture; None if there is one."""
        return None

    def svg(self, path: str | Path | None = None, *, theme: Theme = "auto", **options: Any) -> str:
        """The picture, as SVG; arguments are those of `html`, and the options of its drawing, such as ``scale="own"``.

        With the theme ``auto`` it is light where the viewer does not support the reader's settings.

        Raises:
            DataError: there is no picture, with the reason: windows of several series, or without times.
            UnknownNameError: a theme that does not exist.
            ExportError: the file cannot be written.
        """
        if self._undrawn is not None:
            raise DataError(self._undrawn)
        return _give(draw(self, theme, **options).decode(), path)

    def _picture(self, theme: Theme) -> str | None:
        return draw(self, theme).decode() if self._undrawn is None else None


@dataclass(frozen=True, repr=False, eq=False)
class WindowsResult(Pictured):
    """A result on some windows, with a picture.

    Attributes:
        times: of the newest row of each window, (n,); None unless the windows are those of a data frame with times.
        series: of each window, (n,); None of one series, or unless the windows are those of a data frame.
    """

    times: tuple[str, ...] | None = field(default=None, kw_only=True)
    series: tuple[str, ...] | None = field(default=None, kw_only=True)

    @property
    def _is_of_one_series(self) -> bool:
        return len(set(self.series or ())) <= 1

    def _period(self) -> str:
        if not self.times:
            return ""
        first, last = self.times[0], self.times[-1]
        return f"window of {first}" if len(self.times) == 1 else f"windows of {first} to {last}"


def _give(content: str, path: str | Path | None) -> str:
    if path is not None:
        try:
            Path(path).write_text(content, encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ExportError(f"cannot write {path}: {error}") from error
    return content
