"""SVG as a tree of elements with escaped texts, and the scales and axes of plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, isfinite, log10
from textwrap import wrap
from xml.etree.ElementTree import Element, tostring

from kanmodel.arrays import Array
from kanmodel.errors import NonFiniteError
from kanmodel.result import Theme
from kanmodel.show.style import STYLE, attributes_of
from kanmodel.text import abbreviate, abbreviate_words, printable

MARGIN = 24.0
SOURCE, LINE, LETTER = 20.0, 14.0, 6.0  # heights of the source and of its second line; width of a letter, roughly
TICK_STEPS = (1, 2, 5, 10)  # distances of ticks, times a power of ten
OTHER_STEPS = (8, 6, 5, 4, 3, 2, 1, 0.5)  # of which the first that leaves two ticks is taken, where these leave one
TINY = 1e-300  # shorter scales have no ticks


class Part(Element):
    """An element of a picture, with its tag, text and attributes.

    The attribute ``data_node`` becomes ``data-node``, and ``class_`` ``class``; None is left out. Raises NonFiniteError
    if a number is not finite.
    """

    __slots__ = ()  # a picture has thousands of them

    def __init__(self, tag: str, text: str | None = None, /, **attributes: object) -> None:
        super().__init__(tag, {_name(name): _write(value) for name, value in attributes.items() if value is not None})
        if text is not None:
            self.text = _clean(text)

    def add(self, tag: str, text: str | None = None, /, **attributes: object) -> Part:
        """Adds an element."""
        part = Part(tag, text, **attributes)
        self.append(part)
        return part

    def add_group(self, label: str, **attributes: object) -> Part:
        """Adds a group with a label, which is its tooltip and is read by screen readers."""
        group = self.add("g", role="img", aria_label=label.replace("\n", "; "), **attributes)
        group.add("title", label)
        return group

    def add_heading(self, heading: str, caption: str, n_heading: int = 80, n_caption: int = 200) -> Part:
        """Adds a heading and a caption below it, of at most so many characters, with the whole text as title."""
        for name, length, y, class_ in ((heading, n_heading, 36.0, "heading"), (caption, n_caption, 57.0, "muted")):
            text = self.add("text", abbreviate_words(name, length), x=MARGIN, y=y, class_=class_)
            if len(name) > length:
                text.add("title", name)
        return text

    def add_rules(self, x: Scale, top: float, bottom: float, unit: str | None) -> None:
        """Adds the x axis of a bar chart: a vertical rule for each tick, and the unit."""
        for value in x.ticks():
            at = x.at(value)
            self.add("path", class_="rule", d=f"M{at:.2f} {top}V{bottom}")
            self.add("text", f"{value:g}", x=at, y=bottom + 16, class_="middle muted")
        if unit:
            self.add("text", unit, x=x.end + 12, y=bottom + 16, class_="muted")

    def add_levels(self, y: Scale, left: float, right: float, count: int = 6, is_labelled: bool = True) -> None:
        """Adds the y axis of a plot: a horizontal rule for each tick, with its value on the left."""
        for value in y.ticks(count):
            self.add("path", class_="rule", d=f"M{left:.2f} {y.at(value):.2f}H{right:.2f}")
            if is_labelled:
                self.add("text", f"{value:g}", x=left - 8, y=y.at(value) + 4, class_="end muted")

    def serialise(self, theme: Theme) -> bytes:
        """The document in UTF-8, in the colours of a theme; an element's own attributes override its classes."""
        for part in self.iter():
            for name, value in attributes_of(part.get("class", ""), theme).items():
                if name not in part.attrib:
                    part.set(name, value)
        if theme == "auto":
            self.add("style", STYLE)
        return tostring(self, encoding="unicode").encode()


def new_picture(
    width: float,
    height: float,
    title: str,
    description: str,
    source: str = "",
    role: str = "graphics-document document",
) -> Part:
    """An empty picture with a background, by default of this width and height in pixels; it scales to its space.

    A line below has the source, if it is known: model, checkpoint and time. The description is for screen readers.
    The WAI-ARIA role ``img`` would hide the parts from them.
    """
    n_letters = int((width - 2 * MARGIN) / LETTER)
    lines = wrap(abbreviate(source, 3 * n_letters - 20), n_letters, break_on_hyphens=False)
    whole = height + (SOURCE + LINE * (len(lines) - 1) if lines else 0.0)
    size = {"width": width, "height": whole, "viewBox": f"0 0 {width:g} {whole:g}"}
    picture = Part("svg", xmlns="http://www.w3.org/2000/svg", class_="kanscope", role=role, **size)
    picture.add("title", title)
    picture.add("desc", description)
    picture.add("rect", class_="paper", width=width, height=whole)
    for number, line in enumerate(lines):
        y = height + SOURCE - 8 + LINE * number
        picture.add("text", line, x=MARGIN, y=y, class_="muted").add("title", source)
    return picture


def write_points(xs: Sequence[float], ys: Sequence[float]) -> str:
    """Formats positions for the attribute ``points``; raises as `require_finite`."""
    require_finite(sum(xs) + sum(ys))
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in zip(xs, ys, strict=True))


def enclose(xs: Sequence[float], lower: Sequence[float], upper: Sequence[float]) -> str:
    """The path around the area between two lines, at positions; raises as `require_finite`."""
    require_finite(sum(lower) + sum(upper))
    around = [*zip(xs, lower, strict=True), *reversed([*zip(xs, upper, strict=True)])]
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in around) + "Z"


def write_amount(value: float, unit: str | None) -> str:
    """``1.59 K``, and ``52340 MW`` rather than ``5.23e+04 MW``."""
    amount = f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
    return f"{amount} {unit}" if unit else amount


def write_change(value: float, unit: str | None) -> str:
    """``+1.59 K``."""
    return f"{'+' if value > 0 else ''}{write_amount(value, unit)}"


def require_finite(value: float) -> None:
    """Raises NonFiniteError for NaN and infinity, so that a picture contains none."""
    if not isfinite(value):
        raise NonFiniteError("the picture must be finite, but a result of the model is not")


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

    def all_at(self, values: Array) -> list[float]:
        """The pixels of values."""
        return [self.at(value) for value in values.tolist()]

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
