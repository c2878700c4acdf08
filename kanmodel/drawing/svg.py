"""SVG as a tree of elements; the serialiser escapes all text, so a name with markup stays text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from math import isfinite
from xml.etree.ElementTree import Element, SubElement, tostring

from kanmodel.drawing.style import STYLE, Theme, attributes_of
from kanmodel.errors import NonFiniteError

MAX_LABEL = 22  # most characters of a name in a picture; its title has the full name
# Characters that XML does not allow, and bidirectional controls.
_NOT_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]")


def new_picture(width: float, height: float, title: str, description: str, role: str) -> Element:
    """An empty picture with a background, which scales to the available space.

    Args:
        width: default width in pixels.
        height: default height in pixels.
        title: its title.
        description: text alternative for screen readers.
        role: its WAI-ARIA role.
    """
    size = {"width": width, "height": height, "viewBox": f"0 0 {width:g} {height:g}"}
    root = add(None, "svg", xmlns="http://www.w3.org/2000/svg", class_="kanscope", role=role, **size)
    add(root, "title", title)
    add(root, "desc", description)
    add(root, "rect", class_="paper", width=width, height=height)
    return root


def add(parent: Element | None, tag: str, text: str | None = None, /, **attributes: object) -> Element:
    """Adds an element to another, or creates a root.

    Args:
        parent: the parent element; None for a root.
        tag: its name.
        text: its text.
        **attributes: ``data_node`` becomes ``data-node``, and ``class_`` ``class``; None is left out.

    Raises:
        NonFiniteError: a number is not finite.
    """
    named = {_name(name): _write(value) for name, value in attributes.items() if value is not None}
    element = Element(tag, named) if parent is None else SubElement(parent, tag, named)
    if text is not None:
        element.text = _clean(text)
    return element


def add_group(parent: Element, label: str, **attributes: object) -> Element:
    """A group with a label, which is its tooltip and is read by screen readers."""
    group = add(parent, "g", role="img", aria_label=label.replace("\n", "; "), **attributes)
    add(group, "title", label)
    return group


def add_name(parent: Element, name: str, length: int, **attributes: object) -> Element:
    """A text of at most `length` characters; a longer name has the full name as its title."""
    text = add(parent, "text", shorten(name, length), **attributes)
    if len(name) > length:
        add(text, "title", name)
    return text


def write_points(xs: Sequence[float], ys: Sequence[float]) -> str:
    """Formats positions for the attribute ``points``.

    Raises:
        NonFiniteError: a position is not finite.
    """
    require_finite(sum(xs) + sum(ys))
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in zip(xs, ys, strict=True))


def shorten(text: str, length: int = MAX_LABEL) -> str:
    """Shortens a text in the middle to at most `length` characters, because long names often differ at the end."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[-end:]}"


def serialise(root: Element, theme: Theme) -> bytes:
    """The document in UTF-8, in the colours of a theme; an element's own attributes override its classes."""
    for element in root.iter():
        for name, value in attributes_of(element.get("class", ""), theme).items():
            if name not in element.attrib:
                element.set(name, value)
    if theme == "auto":
        add(root, "style", STYLE)
    return tostring(root, encoding="unicode").encode()


@cache
def _name(attribute: str) -> str:
    return attribute.rstrip("_").replace("_", "-")


def _write(value: object) -> str:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, float):
        require_finite(value)
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value).lower() if isinstance(value, bool) else str(value)


def require_finite(value: float) -> None:
    """Ensures that a picture contains no NaN or infinity.

    Raises:
        NonFiniteError: the value is not finite.
    """
    if not isfinite(value):
        raise NonFiniteError("the picture must be finite, but a result of the model is not")


def _clean(text: str) -> str:
    """The text without characters that XML does not allow."""
    return text if text.isprintable() else _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)
