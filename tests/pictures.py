"""Reading of pictures: their groups, positions and scales."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"-?[\d.]+")


def draw(result: Any) -> ElementTree.Element:
    """The picture of a result, parsed."""
    return ElementTree.fromstring(result.svg(theme="light"))


def groups(part: ElementTree.Element, class_: str) -> list[ElementTree.Element]:
    """The groups of a class."""
    return [group for group in part.iter(f"{SVG}g") if group.get("class") == class_]


def points_of(polyline: ElementTree.Element) -> np.ndarray:
    """Positions in pixels, (2, points)."""
    return np.array([pair.split(",") for pair in polyline.get("points").split()], dtype=float).T


def scale_of(part: ElementTree.Element, axis: str) -> np.poly1d:
    """Value -> pixel, from the numbers along an axis."""
    anchor, above = ("middle", 0) if axis == "x" else ("end", 4)  # the middle of a letter is above its line
    texts = [text for text in part.iter(f"{SVG}text") if text.get("text-anchor") == anchor]
    known = [(float(text.text), float(text.get(axis)) - above) for text in texts if NUMBER.fullmatch(text.text)]
    return np.poly1d(np.polyfit(*zip(*known, strict=True), 1))
