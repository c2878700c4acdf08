"""Arguments of `Model.what_if` and `Model.counterfactual`, checked and converted from names to indices."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from kanmodel.data import rows_of_steps
from kanmodel.errors import DataError, UnknownNameError, quote
from kanmodel.explain.shifts import Goal
from kanmodel.explain.what_if import Shift
from kanmodel.network.config import ModelConfig


def find_features(config: ModelConfig, names: Sequence[str] | str | None) -> list[int]:
    """Indices of features, in the given order; of all features if `names` is None.

    Raises:
        DataError: there is no name, or one is repeated.
        UnknownNameError: there is no such feature.
    """
    known = config.feature_names
    if names is None:
        return list(range(len(known)))
    given = [names] if isinstance(names, str) else list(names)
    if not given:
        raise DataError.at("features", "must name at least one feature")
    for number, name in enumerate(given):
        if name not in known:
            raise UnknownNameError(f"there is no feature {quote(name)}; the features are {', '.join(known)}")
        if name in given[:number]:
            raise DataError.at(f"features[{number}]", "is given twice")
    return [known.index(name) for name in given]


def find_steps(config: ModelConfig, steps: Sequence[int] | None) -> slice:
    """The rows from a first to a last step, inclusive, 0 the newest; all rows if `steps` is None.

    Raises:
        DataError: `steps` is not two such numbers.
    """
    oldest = 1 - config.lookback
    if steps is None:
        return rows_of_steps(oldest, 0, config.lookback)
    if len(steps) != 2 or not oldest <= steps[0] <= steps[1] <= 0:
        raise DataError.at(
            "steps", f"must be a first and a last step from {oldest}, the oldest, to 0, but is {quote(list(steps))}"
        )
    return rows_of_steps(steps[0], steps[1], config.lookback)


def make_shift(shift: Sequence[float] | Shift | None) -> Shift | None:
    """The shift to add: from, to and number of points, 21 by default.

    Raises:
        DataError: `shift` has another form.
    """
    if shift is None or isinstance(shift, Shift):
        return shift
    if len(shift) not in (2, 3):
        raise DataError.at("shift", f"must be from, to and number of points, but is {quote(shift)}")
    if len(shift) == 3 and shift[2] != int(shift[2]):
        raise DataError.at("shift.points", f"must be a whole number from 2, but is {quote(shift[2])}")
    return Shift(float(shift[0]), float(shift[1]), *(int(points) for points in shift[2:]))


def make_goal(at_least: float | None, at_most: float | None, between: Sequence[float] | None) -> Goal:
    """The range that the forecast must reach.

    Raises:
        DataError: not exactly one of the three is given, or `between` is not two numbers.
    """
    bounds = {"at_least": at_least, "at_most": at_most, "between": between}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    if len(given) != 1:
        what = f"has {' and '.join(given)}" if given else "is empty"
        raise DataError.at("target", f"{what}: give one of at_least, at_most and between")
    ((name, bound),) = given.items()
    numbers = [float(number) for number in (bound if isinstance(bound, Collection) else [bound])]
    if len(numbers) != (2 if name == "between" else 1):
        raise DataError.at(f"target.{name}", f"must be two numbers, but is {quote(bound)}")
    return Goal(-np.inf if name == "at_most" else numbers[0], np.inf if name == "at_least" else numbers[-1])
