"""Comparison of two answers to one question, member by member."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from kanmodel.model import Model

AGREEMENT = 1e-6  # standard deviations by which a number may differ
# What need not be the same: what the model is called where it is served, and what computed the numbers.
NAMES = ("model_name", "version", "receipt.versions")
_ABSENT = object()


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


def pair_answers(saved: Mapping[str, Any], repeated: Mapping[str, Any], model: Model) -> Iterator[Pair]:
    """Every value of two answers but `NAMES`, whatever their members are; one that is missing in either differs.

    Numbers are measured in standard deviations of their output on the reference windows, those of the baseline in the
    smallest of a feature. What follows from the request alone must be the same.

    Args:
        saved: an answer, as the JSON that was saved.
        repeated: another.
        model: gives the standard deviations.
    """
    outputs = dict(zip(model.config.outputs, model.output_std.tolist(), strict=True))
    baseline = float(model.scaling.feature_scale.min())
    for name in dict.fromkeys((*saved, *repeated)):
        one, other = saved.get(name, _ABSENT), repeated.get(name, _ABSENT)
        if name == "baseline":
            yield from _pair(one, other, name, baseline)
        elif name == "predictions":
            yield from _pair_rows(one, other, name, list(outputs.values()))
        elif name == "explanations" and isinstance(one, list) and isinstance(other, list):
            yield from _pair_lengths(one, other, name)
            for number, (before, now) in enumerate(zip(one, other, strict=False)):
                yield from _pair(before, now, f"{name}[{number}]", outputs[now["output"]])
        else:
            yield from _pair(one, other, name, baseline if name == "receipt" else None)


def _pair_rows(saved: Any, repeated: Any, place: str, scales: list[float]) -> Iterator[Pair]:
    """Rows of numbers, each column by its own scale."""
    yield from _pair_lengths(saved, repeated, place)
    for number, (before, now) in enumerate(zip(saved, repeated, strict=False)):
        yield from _pair_lengths(before, now, f"{place}[{number}]")
        for column, (one, other, scale) in enumerate(zip(before, now, scales, strict=False)):
            yield from _pair(one, other, f"{place}[{number}][{column}]", scale)


def _pair(saved: Any, repeated: Any, place: str, scale: float | None) -> Iterator[Pair]:
    """Args: scale: that of numbers that are no whole ones by their meaning; None where they must be the same."""
    if place in NAMES:
        return
    if isinstance(saved, dict) and isinstance(repeated, dict):
        for name in dict.fromkeys((*saved, *repeated)):
            yield from _pair(saved.get(name, _ABSENT), repeated.get(name, _ABSENT), f"{place}.{name}", scale)
    elif isinstance(saved, list) and isinstance(repeated, list):
        yield from _pair_lengths(saved, repeated, place)
        for number, (one, other) in enumerate(zip(saved, repeated, strict=False)):
            yield from _pair(one, other, f"{place}[{number}]", scale)
    elif scale is not None and isinstance(repeated, float) and type(saved) in (int, float):
        yield Pair(place, saved, repeated, abs(saved - repeated) / scale)
    else:
        same = saved == repeated and isinstance(saved, bool) == isinstance(repeated, bool)
        yield Pair(place, _shown(saved), _shown(repeated), 0.0 if same else inf)


def _pair_lengths(saved: list[Any], repeated: list[Any], place: str) -> Iterator[Pair]:
    if len(saved) != len(repeated):
        yield Pair(f"the length of {place}", len(saved), len(repeated), inf)


def _shown(value: Any) -> Any:
    return "absent" if value is _ABSENT else value
