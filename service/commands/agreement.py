"""Two answers to one question, value by value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from kanmodel.checkpoint import LoadedModel
from service.schemas.explanations import ExplainResponse

AGREEMENT = 1e-6  # standard deviations by which a number may differ


@dataclass(frozen=True)
class Pair:
    """A value of one answer, and that of the other.

    Attributes:
        place: where both are, such as ``explanations[0].contributions.temp_c``.
        saved: the value of the first.
        repeated: the value of the second.
        deviations: how far apart they are, in standard deviations; inf where anything but a number differs.
    """

    place: str
    saved: Any
    repeated: Any
    deviations: float

    @property
    def agrees(self) -> bool:
        """Whether the two pass for one."""
        return self.deviations <= AGREEMENT


def pair_answers(saved: ExplainResponse, repeated: ExplainResponse, model: LoadedModel) -> Iterator[Pair]:
    """Every value of two answers but what names the model and its file.

    Numbers are measured in standard deviations of their output on the reference windows, those of the baseline in the
    smallest of a feature.

    Args:
        saved: an answer.
        repeated: another.
        model: gives the standard deviations.
    """
    for name in ("output", "unit"):
        yield from _pair(saved[name], repeated[name], name, 1.0)
    yield from _pair(saved["baseline"], repeated["baseline"], "baseline", float(model.scaling.feature_scale.min()))
    std = dict(zip(model.config.outputs, model.output_std.tolist(), strict=True))
    for number, both in enumerate(zip(saved["predictions"], repeated["predictions"], strict=False)):
        for column, (one, other, scale) in enumerate(zip(*both, std.values(), strict=False)):
            yield from _pair(one, other, f"predictions[{number}][{column}]", scale)
    yield from _pair_lengths(saved["explanations"], repeated["explanations"], "explanations")
    explanations = zip(saved["explanations"], repeated["explanations"], strict=False)
    for number, (before, now) in enumerate(explanations):
        yield from _pair(before, now, f"explanations[{number}]", std[now["output"]])


def _pair(saved: Any, repeated: Any, place: str, scale: float) -> Iterator[Pair]:
    if isinstance(saved, dict) and isinstance(repeated, dict):
        for name in saved | repeated:
            yield from _pair(saved.get(name), repeated.get(name), f"{place}.{name}", scale)
    elif isinstance(saved, list) and isinstance(repeated, list):
        yield from _pair_lengths(saved, repeated, place)
        for number, (one, other) in enumerate(zip(saved, repeated, strict=False)):
            yield from _pair(one, other, f"{place}[{number}]", scale)
    elif isinstance(saved, float) and isinstance(repeated, float):
        yield Pair(place, saved, repeated, abs(saved - repeated) / scale)
    else:
        yield Pair(place, saved, repeated, 0.0 if saved == repeated else inf)


def _pair_lengths(saved: list[Any], repeated: list[Any], place: str) -> Iterator[Pair]:
    if len(saved) != len(repeated):
        yield Pair(f"the length of {place}", len(saved), len(repeated), inf)
