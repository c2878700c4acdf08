"""SVG as a tree of elements; the serialiser escapes all text, so a name with markup stays text.

Axes of a plot: the scale from values to pixels, and the ticks.

Texts of pictures: labels of nodes and edges, the fidelity of pruning, the shape of an edge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, isfinite, log10
from xml.etree.ElementTree import Element, SubElement, tostring

from kanmodel.data import Array
from kanmodel.errors import NonFiniteError
from kanmodel.explain.curves import EdgeCurve
from kanmodel.explain.result import Theme
from kanmodel.explain.structure import label_of
from kanmodel.explain.topology import NetworkGraph, TopologyEdge, TopologyNode
from kanmodel.show.style import STYLE, attributes_of

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


STEPS = (1, 2, 5, 10)  # distances of ticks, times a power of ten
TINY = 1e-300  # shorter scales have no ticks


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels.

    Attributes:
        low: smallest value.
        high: largest value, above `low`.
        start: pixel of `low`.
        end: pixel of `high`.
    """

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
        """At most `count` + 1 round values, evenly spaced."""
        rough = (self.high - self.low) / count
        power = 10.0 ** floor(log10(rough))
        step = next(factor * power for factor in STEPS if factor * power >= rough * (1 - 1e-9))
        return [number * step for number in range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)]


def scale_over(values: Iterable[float], start: float, end: float, margin: float = 0.0) -> Scale:
    """The scale from the smallest to the largest value; if they are equal, a scale around that value.

    Args:
        values: the values to include.
        start: pixel of the smallest.
        end: pixel of the largest.
        margin: added on either side, as a share of the length.

    Raises:
        NonFiniteError: a value is not finite.
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


N_NAMED = 3  # features of a profile


def tell_node(node: TopologyNode, unit: str | None) -> str:
    """Name, contribution, and profile of a node, one per line."""
    profile = ", ".join(f"{share:.0%} {name}" for name, share in list(node.profile.items())[:N_NAMED])
    return _join_lines(node.label, *tell_worth(node, unit), profile)


def tell_edge(edge: TopologyEdge, curve: EdgeCurve | None, unit: str | None) -> str:
    """Ends, contribution and shape of an edge, one per line."""
    share = "" if edge.share is None else f"{edge.share:.1%} of the unit's profile"
    return _join_lines(name_edge(edge), share, *tell_worth(edge, unit), tell_shape(curve) if curve else "")


def name_edge(edge: TopologyEdge) -> str:
    """``lstm 3 → head 1:0``."""
    return f"{label_of(edge.source)} → {label_of(edge.target)}"


def tell_worth(part: TopologyNode | TopologyEdge, unit: str | None) -> list[str]:
    """Contribution with its interval, backward score, and whether it is pruned, as far as known."""
    worth = []
    if part.contribution is not None:
        worth.append(f"mean |contribution| {write_amount(part.contribution, unit)}")
        if part.interval is not None:
            worth[-1] += " (95 % interval {:.3g} to {:.3g})".format(*part.interval)
    if part.scores is not None:
        worth.append(f"backward score {part.scores['backward']:.3g}")
    if isinstance(part, TopologyEdge) and part.masked:
        worth.append("masked in the checkpoint")
    elif not part.kept:
        worth.append("pruned")
    return worth


def tell_shape(curve: EdgeCurve) -> str:
    """The verdict on the function of an edge."""
    line = f"a straight line has an R2 of {curve.line.r2:.3f} where the data lies"
    outside = curve.support.outside_grid or 0.0
    return {
        "linear": f"linear: {line}",
        "curved": f"curved: {line}",
        "flat": "flat: it moves what it enters by less than 1 %",
        "base_only": f"outside the grid lies {outside:.0%} of the data, where only the base acts",
    }[curve.shape]


def tell_cost(topology: NetworkGraph, unit: str | None) -> str:
    """The number of kept edges, and the fidelity with these."""
    edges, cost = topology.kan_edges, topology.fidelity
    kept = (
        f"{sum(edge.kept for edge in edges)} of {len(edges)} edges keep an R2 of {cost.r2:.3f} against the full model"
    )
    if cost.mae is None or cost.mae_full is None:
        return f"{kept}."
    return f"{kept}; the mean absolute error goes from {cost.mae_full:.3g} to {write_amount(cost.mae, unit)}."


def write_amount(value: float, unit: str | None) -> str:
    """``1.59 K``."""
    return f"{value:.3g} {unit}" if unit else f"{value:.3g}"


def write_change(value: float, unit: str | None) -> str:
    """``+1.59 K``."""
    return f"{'+' if value > 0 else ''}{write_amount(value, unit)}"


def _join_lines(*lines: str) -> str:
    return "\n".join(filter(None, lines))
