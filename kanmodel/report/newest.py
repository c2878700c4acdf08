"""What is forecast for windows that the reader gives, such as the newest of a table, and why: the top of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from kanmodel.attribution.explanation import Explanation, describe_intervals
from kanmodel.attribution.explanations import Explanations
from kanmodel.report.finding import AmountFormat, Band, Example, Finding, Panel
from kanmodel.report.summary import describe_example, fold_contributions
from kanmodel.tables.statistics.differences import known_or_none

N_SINGLE = 4  # forecasts of a window that are each named; of more the ends
N_WINDOWS = 8  # windows, as of several series, with a sentence of their own


def tell_newest(finding: Finding, found: Explanations, output: str, say: AmountFormat) -> Finding:
    """What is forecast, begun with the forecasts of all outputs, and of a single window with the reasons of one.

    Amounts of that output are written by `say`.
    """
    told = [sentence for one in islice(found, N_WINDOWS) for sentence in _tell(one, say)]
    panels, headlines = tuple[Panel, ...](), tuple[tuple[str, str], ...]()
    if len(found) > N_WINDOWS:
        told.append(f"{len(found) - N_WINDOWS} more windows are forecast.")
    elif len(found) == 1:
        chosen, example = found[output], _find_reasons(found[output])
        steps = next(of for of in _by_target(found).values() if chosen in of)
        told.append(f"The reasons of `{output}`: {describe_example(example, say)}")
        panels = (_line_up(steps), example) if len(steps) > 1 else (example,)
        headlines = ((say(example.prediction), f"is forecast as `{output}`{_when([chosen])}"),)
    rows = found.table(by="group", wide=True)
    newest = [{name: None if of != of else of for name, of in row.items()} for row in rows]  # NaN is no JSON
    answer, evidence = " ".join([*told, finding.answer]), {**finding.evidence, "newest": newest}
    return replace(finding, answer=answer, evidence=evidence, panels=panels, headlines=headlines)


def _by_target(found: Explanations) -> dict[str, list[Explanation]]:
    """The explanations of each target, in the order of their steps."""
    by_target = dict[str, list[Explanation]]()
    for target, of in zip(found.targets, found.by_output, strict=True):
        by_target.setdefault(target, []).append(of)
    return by_target


def _tell(one: Explanations, say: AmountFormat) -> Iterator[str]:
    """A sentence for each target of a window."""
    for target, of in _by_target(one).items():
        values, unit = [float(each.predictions[0]) for each in of], of[0].unit
        own = say if unit == say.unit else AmountFormat(unit, max(map(abs, values)))
        told = ", ".join(map(own, values))
        if len(values) > N_SINGLE:
            told = f"{own(min(values))} to {own(max(values))}, {own(float(np.mean(values)))} on average"
        told += f", {describe_intervals(of[0].intervals)}" if len(of) == 1 and of[0].intervals else ""
        yield f"`{target}`{f' of {one.series[0]}' if one.series else ''}{_when(of)}: {told}."


def _when(steps: Sequence[Explanation]) -> str:
    """For which times forecasts of a window are; empty without times."""
    times = dict.fromkeys(step.target_times[0] for end in (0, -1) if (step := steps[end]).target_times)
    return f" for {' to '.join(times)}" if times else ""


def _line_up(steps: Sequence[Explanation]) -> Band:
    """The forecasts of a target in a window, with their interval of the lowest level if there is one."""
    forecast = [float(each.predictions[0]) for each in steps]
    level, lower, upper = next(iter(steps[0].intervals), None), forecast, forecast
    if level is not None:
        lower, upper = ([float(each.intervals[level][side][0]) for each in steps] for side in (0, 1))
    actual = [value for value in map(_actual, steps) if value is not None]
    first, last = ((step.target_times or ("",))[0] for step in (steps[0], steps[-1]))
    return Band(
        title="The forecasts" if level is None else f"The forecasts and their {100 * level:g} % interval",
        forecast=forecast,
        lower=lower,
        upper=upper,
        actual=actual if len(actual) == len(steps) else None,
        first=first,
        last=last,
        unit=steps[0].unit,
    )


def _find_reasons(chosen: Explanation) -> Example:
    """The way from average conditions to a forecast."""
    return Example(
        title=f"{chosen.output}{_when([chosen])}",
        start=chosen.baseline_prediction,
        contributions=fold_contributions([*chosen.shown], chosen.contributions_shown[0]),
        prediction=float(chosen.predictions[0]),
        actual=_actual(chosen),
        unit=chosen.unit,
    )


def _actual(one: Explanation) -> float | None:
    """What came after a window; None if unknown."""
    return None if one.actual is None else known_or_none(float(one.actual[0]))
