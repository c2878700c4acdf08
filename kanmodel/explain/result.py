"""Base classes of results, which render them as HTML pages, in notebooks and as pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import singledispatch
from inspect import isfunction
from pathlib import Path
from typing import Any, Literal

from kanmodel.checkpoint import ReferenceSpan
from kanmodel.checks import checked
from kanmodel.errors import ExportError
from kanmodel.html import image_of, inline_picture, write_page, write_piece, write_prose

Theme = Literal["light", "dark", "auto"]


@singledispatch
def draw(result: object, theme: Theme) -> bytes:
    """The picture of a result, SVG; `kanmodel.show` registers one for each type that has one."""
    raise NotImplementedError(f"a {type(result).__name__} has no picture")


class Result(ABC):
    """A result that notebooks display, and that can be written as an HTML page.

    The arguments of its public methods are checked, see `kanmodel.checks`.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, member in list(vars(cls).items()):
            if isfunction(member) and not name.startswith("_"):
                setattr(cls, name, checked(member))

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
        picture = self._picture(theme)
        shown = inline_picture(picture) if picture else ""
        return _give(write_page(self._title(), shown + self._details() + self._note(), theme), path)

    def _repr_html_(self) -> str:
        picture = self._picture("auto")
        return write_piece((image_of(picture) if picture else "") + self._details() + self._note())

    def _picture(self, theme: Theme) -> str | None:
        """The picture, if there is one."""
        return None

    @abstractmethod
    def _title(self) -> str:
        """The title, in plain text."""

    @abstractmethod
    def _details(self) -> str:
        """Markup below the picture."""

    def _note(self) -> str:
        """Markup at the end."""
        return ""


@dataclass(frozen=True, repr=False, eq=False)
class GlobalResult(Result):
    """A result on the reference windows, which states them at its end.

    Attributes:
        reference: these windows.
    """

    reference: ReferenceSpan = field(kw_only=True)

    @abstractmethod
    def _text(self) -> str:
        """The result in plain text."""

    def _note(self) -> str:
        return write_prose(f"Reference: {self.reference}")

    def __repr__(self) -> str:
        return f"{self._text()}\nReference: {self.reference}"


class Pictured(Result):
    """A result that has a picture."""

    def svg(self, path: str | Path | None = None, *, theme: Theme = "auto") -> str:
        """The picture, as SVG.

        Args:
            path: a file to write it to as well.
            theme: ``light``, ``dark``, or ``auto``, which follows the reader's settings if the viewer supports it, and
                is light otherwise.

        Raises:
            UnknownNameError: a theme that does not exist.
            ExportError: the file cannot be written.
        """
        return _give(draw(self, theme).decode(), path)

    def _picture(self, theme: Theme) -> str | None:
        return draw(self, theme).decode()


def _give(text: str, path: str | Path | None) -> str:
    if path is not None:
        try:
            Path(path).write_text(text, encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ExportError(f"cannot write {path}: {error}") from error
    return text
