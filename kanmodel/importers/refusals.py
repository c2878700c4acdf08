"""Errors of an import's search: no reading fits the predictions, or several different functions do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kanmodel.errors import CheckpointError
from kanmodel.importers.comparison import describe_relative
from kanmodel.importers.given import Given
from kanmodel.importers.search.evidence import Evidence
from kanmodel.importers.search.functions import Match
from kanmodel.importers.search.searching import Result
from kanmodel.importers.search.space import INPUTS, OUTPUT, Reading, Space
from kanmodel.importers.search.unsupported import explain_failure

FAR = 5.0  # distance, in standard deviations, of windows that are certainly not in the same units


def refuse_mixed_units(name: str, given: Given, found: Reading, evidence: Evidence) -> None:
    """Raises if the reference windows are not in the units of the check's windows.

    This is assumed if they are near the windows of the check in the other units, and far from them in the same.
    """
    if given.inputs is None or given.inputs is given.reference:
        return
    units = found.chosen[INPUTS]
    checked = evidence.to_model(given.inputs, units).flatten(0, 1)
    spread = checked.std(dim=0, correction=0).clamp(min=1e-3)

    def distance(units: str) -> float:
        """Largest distance of the means of reference and check, in standard deviations of a feature."""
        reference = evidence.to_model(given.reference, units).flatten(0, 1)
        return float(((reference.mean(dim=0) - checked.mean(dim=0)).abs() / spread).max())

    other = "scaled" if units == "original" else "original"
    same = distance(units)
    if same > FAR and distance(other) < same / FAR:
        words = {"scaled": "scaled", "original": "in original units"}
        raise CheckpointError(
            f"{name} was found by windows of the check that are {words[units]}, but {given.reference_name} seems to be "
            f"{words[other]}: give both in the same units"
        )


def find_undecided(result: Result) -> list[tuple[Match, float]]:
    """Other functions that fit as well as the first, and how far from the mean windows distinguish them."""
    pairs = zip(result.matches, result.apart, strict=True)
    return [(match, apart.stretch) for match, apart in pairs if apart.stretch is not None]


def describe_apart(reading: Reading, first: Reading, stretch: float) -> str:
    """Describes another function, and the windows that would distinguish it from the first."""
    described, spread = reading.describe(), f"{stretch:g} times as far from their mean"
    if set(reading.differs_from(first)) == {OUTPUT}:
        return f"{described}, which only predictions of another sign or size would tell, as for values {spread}"
    return f"{described}, which windows with values {'mixed anew' if stretch == 1 else spread} would tell"


def refuse_ambiguous(name: str, given: Given, result: Result, strict: bool) -> None:
    """Raises if several functions give the predictions and differ on a known window, or, if strict, anywhere."""
    undecided = find_undecided(result)
    if strict and (undecided or result.left_out):
        first = result.matches[0].reading
        others = "; ".join(describe_apart(match.reading, first, stretch) for match, stretch in undecided[:5])
        raise CheckpointError(
            f"{name} can be read as {len(undecided) + 1 + result.left_out} functions that all give "
            f"{given.predictions_name}: {first.describe()}; {others or 'and more'}: add such windows to the check, or "
            "say in the manifest which it is"
        )
    for match, apart in zip(result.matches, result.apart, strict=True):
        if apart.material:
            fitting = "; ".join(match.reading.describe() for match in result.matches[:5])
            raise CheckpointError(
                f"{name} can be read as {len(result.matches)} functions that all give {given.predictions_name}: "
                f"{fitting}; the first and [{match.reading.describe()}] differ by {apart.difference:.2g} standard "
                f"deviations at window {apart.window} of {given.reference_name}: add the model's prediction for it to "
                "the check, or say in the manifest which it is"
            )


def describe_mismatch(name: str, given: Given, evidence: Evidence, spaces: Sequence[Space], result: Result) -> str:
    """Why no reading gives the predictions: the nearest reading, and what would explain the difference."""
    if np.isin(evidence.expected, (0.0, 1.0)).all():
        return (
            f"{name} does not compute {given.predictions_name}, which holds only 0 and 1, as labels do: give what the "
            "model computes, such as probabilities"
        )
    reason = explain_failure(spaces, evidence, result.nearest)
    if reason is not None:
        return f"{name} gives {given.predictions_name} only if {reason}, which Kanscope does not serve"
    if not result.nearest:
        return f"{name} does not compute {given.predictions_name}: no reading of it gives finite predictions"
    compared = []
    for reading in result.nearest:
        computed = evidence.predict(evidence.build(reading), reading, evidence.windows)
        compared.append((evidence.bounds.compare(evidence.expected, computed), reading))
    off, nearest = min(compared, key=lambda pair: pair[0].relative)
    wrong = f"{off.computed:.7g} in place of {off.expected:.7g}"
    tried = f"{result.tried:,} of {result.total:,} readings tried, the nearest: {nearest.describe() or 'the only one'}"
    return (
        f"{name} does not compute {given.predictions_name}: the largest difference is {off.absolute:.3g}, at window "
        f"{off.window}, output {given.shapes.outputs[off.output]} ({wrong}), which is {describe_relative(off)}, and "
        f"{evidence.bounds.allowed[off.output] / (evidence.bounds.unit[off.output] or 1):.2g} is allowed ({tried})"
    )
