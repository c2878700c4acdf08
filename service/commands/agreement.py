"""Field-by-field comparison of a saved answer with a recomputed one, within a numerical tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from kanmodel.model import Model

AGREEMENT = 1e-6  # tolerance, in standard deviations
# May differ: the name under which the model is served, and the versions of the libraries that computed the numbers.
NAMES = ("model_name", "version", "receipt.versions")
_ABSENT = object()


@dataclass(frozen=True)
class Pair:
    """The values of one field in both answers.

    Attributes:
        place: path of the field, such as ``explanations[0].contributions.temp_c``.
        saved: its value in the saved answer.
        repeated: its value in the recomputed answer.
        deviations: their distance in standard deviations; inf if they differ and are not numbers.
    """

    place: str
    saved: Any
    repeated: Any
    deviations: float

    @property
    def agrees(self) -> bool:
        """Whether the values are equal within the tolerance."""
        return self.deviations <= AGREEMENT


def pair_answers(saved: Mapping[str, Any], repeated: Mapping[str, Any], model: Model) -> Iterator[Pair]:
    """Yields every field of two answers except `NAMES`; a field that one of them lacks counts as different.

    Distances are in standard deviations of the output on the reference windows; for the baseline, in the smallest
    standard deviation of a feature. Fields that follow from the request alone must be equal.

    Args:
        saved: the saved answer, as parsed JSON.
        repeated: the recomputed answer.
        model: provides the standard deviations.
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
    """Rows of numbers; each column has its own scale."""
    yield from _pair_lengths(saved, repeated, place)
    for number, (before, now) in enumerate(zip(saved, repeated, strict=False)):
        yield from _pair_lengths(before, now, f"{place}[{number}]")
        for column, (one, other, scale) in enumerate(zip(before, now, scales, strict=False)):
            yield from _pair(one, other, f"{place}[{number}][{column}]", scale)


def _pair(saved: Any, repeated: Any, place: str, scale: float | None) -> Iterator[Pair]:
    """Args: scale: standard deviation that floats are measured in; None where they must be equal."""
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
