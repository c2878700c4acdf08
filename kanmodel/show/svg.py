"""SVG as a tree of elements with escaped texts, and the scales and axes of plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, isfinite, log10
from textwrap import wrap
from xml.etree import ElementTree

import numpy as np

from kanmodel.arrays import Array
from kanmodel.errors import NonFiniteError
from kanmodel.result import Theme
from kanmodel.show.style import STYLE, attributes_of
from kanmodel.text import abbreviate, abbreviate_words, printable

WIDTH, MARGIN = 760.0, 24.0  # of most pictures
SOURCE, LINE, LETTER = 20.0, 14.0, 6.0  # heights of the source and of a second line; width of a letter, roughly
TICK_STEPS = (1, 2, 5, 10)  # distances of ticks, times a power of ten
OTHER_STEPS = (8, 6, 5, 4, 3, 2, 1, 0.5)  # of which the first that leaves two ticks is taken, where these leave one
TINY = 1e-300  # shorter scales have no ticks


class Element(ElementTree.Element):
    """An element of a picture, with its tag, text and attributes.

    The attribute ``data_node`` becomes ``data-node``, and ``class_`` ``class``; None is left out. Raises NonFiniteError
    if a number is not finite. A `look` is one or more classes of `style.LOOKS`.
    """

    __slots__ = ()  # a picture has thousands of them

    def __init__(self, tag: str, text: str | None = None, /, **attributes: object) -> None:
        super().__init__(tag, {_name(name): _write(value) for name, value in attributes.items() if value is not None})
        if text is not None:
            self.text = _clean(text)

    def add(self, tag: str, text: str | None = None, /, **attributes: object) -> Element:
        """Adds an element."""
        element = Element(tag, text, **attributes)
        self.append(element)
        return element

    def add_text(self, text: str, x: float, y: float, look: str | None = None) -> Element:
        """Adds a text on a line at y."""
        return self.add("text", text, x=x, y=y, class_=look)

    def add_rect(self, look: str, x: float, y: float, width: float, height: float, **attributes: object) -> Element:
        """Adds a rectangle from its upper left corner."""
        return self.add("rect", class_=look, x=x, y=y, width=width, height=height, **attributes)

    def add_bar(self, look: str, start: float, end: float, y: float, height: float, least: float = 0.0) -> Element:
        """Adds a horizontal bar between two positions in any order, and at least so long."""
        low, high = sorted((start, end))
        return self.add_rect(look, low, y, max(high - low, least), height)

    def add_circle(self, look: str, x: float, y: float, r: float) -> Element:
        """Adds a circle around a centre."""
        return self.add("circle", class_=look, cx=x, cy=y, r=r)

    def add_path(self, look: str, d: str, **attributes: object) -> Element:
        """Adds a path of commands."""
        return self.add("path", class_=look, d=d, **attributes)

    def add_line(self, look: str, xs: Sequence[float], ys: Sequence[float], **attributes: object) -> Element:
        """Adds a line through positions; raises as `require_finite`."""
        require_finite(sum(xs) + sum(ys))
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in zip(xs, ys, strict=True))
        return self.add("polyline", class_=look, points=points, **attributes)

    def add_group(self, label: str, **attributes: object) -> Element:
        """Adds a group with a label, which is its tooltip and is read by screen readers."""
        group = self.add("g", role="img", aria_label=label.replace("\n", "; "), **attributes)
        group.add("title", label)
        return group

    def add_heading(
        self, heading: str, caption: str, n_heading: int = 80, n_caption: int = 200, look: str = "muted"
    ) -> None:
        """Adds a heading and a caption below it, of at most so many characters, with the whole text as title."""
        for whole, length, y, of_line in ((heading, n_heading, 36.0, "heading"), (caption, n_caption, 57.0, look)):
            text = self.add_text(abbreviate_words(whole, length), MARGIN, y, of_line)
            if len(whole) > length:
                text.add("title", whole)

    def add_rules(self, x: Scale, top: float, bottom: float, unit: str | None) -> None:
        """Adds the x axis of a bar chart: a vertical rule for each tick, and the unit."""
        for value in x.ticks():
            self.add_path("rule", f"M{x.at(value):.2f} {top}V{bottom}")
            self.add_text(f"{value:g}", x.at(value), bottom + 16, "middle muted")
        if unit:
            self.add_text(unit, x.end + 12, bottom + 16, "muted")

    def add_levels(self, y: Scale, left: float, right: float, count: int = 6, is_labelled: bool = True) -> None:
        """Adds the y axis of a plot: a horizontal rule for each tick, with its value on the left."""
        for value in y.ticks(count):
            self.add_path("rule", f"M{left:.2f} {y.at(value):.2f}H{right:.2f}")
            if is_labelled:
                self.add_text(f"{value:g}", left - 8, y.at(value) + 4, "end muted")

    def add_whisker(self, x: Scale, interval: Sequence[float], y: float) -> None:
        """Adds the line of an interval (low, high) on a bar whose middle is at y."""
        self.add_path("whisker", f"M{x.at(interval[0]):.2f} {y:g}H{x.at(interval[1]):.2f}")

    def add_step(self, x: Scale, start: float, end: float, y: float, row: float, bar: float) -> None:
        """Adds a step of a waterfall: the bar of a row that begins at y, and a line down to the bar of the next."""
        above = (row - bar) / 2
        self.add_bar(look_of(end - start), x.at(start), x.at(end), y + above, bar, least=0.5)
        self.add_path("axis", f"M{x.at(end):.2f} {y + above + bar}v{row - bar}")

    def serialise(self, theme: Theme) -> bytes:
        """The document in UTF-8, in the colours of a theme; an element's own attributes override its classes."""
        for element in self.iter():
            for name, value in attributes_of(element.get("class", ""), theme).items():
                if name not in element.attrib:
                    element.set(name, value)
        if theme == "auto":
            self.add("style", STYLE)
        return ElementTree.tostring(self, encoding="unicode").encode()


def new_picture(
    width: float, height: float, heading: str, description: str, source: str = "", n_caption: int = 200
) -> Element:
    """A picture with a heading, and with a description as caption, of at most so many characters."""
    picture = new_canvas(width, height, heading, description, source)
    picture.add_heading(heading, description, n_caption=n_caption)
    return picture


def new_canvas(
    width: float, height: float, title: str, description: str, source: str = "", is_image: bool = False
) -> Element:
    """A background, by default of this width and height in pixels, with title and description for screen readers.

    A line below has the source, if it is known: model, checkpoint and time. The WAI-ARIA role of an image would hide
    the elements from screen readers.
    """
    n_letters = int((width - 2 * MARGIN) / LETTER)
    lines = wrap(abbreviate(source, 3 * n_letters - 20), n_letters, break_on_hyphens=False)
    whole = height + (SOURCE + LINE * (len(lines) - 1) if lines else 0.0)
    role = "img" if is_image else "graphics-document document"
    size = {"width": width, "height": whole, "viewBox": f"0 0 {width:g} {whole:g}"}
    canvas = Element("svg", xmlns="http://www.w3.org/2000/svg", class_="kanscope", role=role, **size)
    canvas.add("title", title)
    canvas.add("desc", description)
    canvas.add("rect", class_="paper", width=width, height=whole)
    for number, line in enumerate(lines):
        canvas.add_text(line, MARGIN, height + SOURCE - 8 + LINE * number, "muted").add("title", source)
    return canvas


def enclose(xs: Sequence[float], lower: Sequence[float], upper: Sequence[float]) -> str:
    """The path around the area between two lines, at positions; raises as `require_finite`."""
    require_finite(sum(lower) + sum(upper))
    around = [*zip(xs, lower, strict=True), *reversed([*zip(xs, upper, strict=True)])]
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in around) + "Z"


def require_finite(value: float) -> None:
    """Raises NonFiniteError for NaN and infinity, so that a picture contains none."""
    if not isfinite(value):
        raise NonFiniteError("the picture must be finite, but a result of the model is not")


def fold_rest(names: Sequence[str], magnitudes: Array, most: int) -> list[tuple[str, list[int]]]:
    """What has a bar, with the numbers of what is in it: `most`, the largest first, and the rest if more than one."""
    order: list[int] = np.argsort(-magnitudes, kind="stable").tolist()
    rest = order[most:] if len(order) > most + 1 else []
    named = [(names[number], [number]) for number in order[: len(order) - len(rest)]]
    return [*named, (f"{len(rest)} more features", rest)] if rest else named


def look_of(change: float) -> str:
    """The class of a bar that raises or lowers a forecast."""
    return "rise" if change > 0 else "fall"


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


def _clean(text: str) -> str:
    """The text, which may have several lines, without characters that XML does not allow."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


@dataclass(frozen=True)
class Scale:
    """A linear map from values, `low` to a larger `high`, to pixels, `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def all_at(self, values: Array | Sequence[float]) -> list[float]:
        """The pixels of values."""
        return [self.at(value) for value in np.asarray(values).tolist()]

    def ticks(self, count: int = 6) -> list[float]:
        """At most `count` + 1 round values, evenly spaced, and at least two."""
        rough = (self.high - self.low) / count
        power = 10.0 ** floor(log10(rough))
        usual = next(factor * power for factor in TICK_STEPS if factor * power >= rough * (1 - 1e-9))
        ticks = list[float]()
        for step in (usual, *(factor * power for factor in OTHER_STEPS)):
            multiples = range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)
            ticks = [number * step for number in multiples]
            if len(ticks) > 1:
                break
        return ticks


def scale_over(values: Iterable[float], start: float, end: float, margin: float = 0.0) -> Scale:
    """The scale from the smallest value, at pixel `start`, to the largest; if they are equal, around that value.

    The margin is added on either side, as a share of the length. Raises as `require_finite`.
    """
    known = [float(value) for value in values]
    require_finite(sum(known))
    low, high = min(known), max(known)
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, TINY):
        around = size if size > TINY else 1.0
        low, high = low - around, high + around
    beyond = margin * (high - low)
    return Scale(low - beyond, high + beyond, start, end)
