"""The questions of this room: what if, and counterfactuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from kanmodel.alternatives.changeable import Goal, SearchOptions
from kanmodel.alternatives.counterfactual import Counterfactuals
from kanmodel.alternatives.what_if import DEFAULT_POINTS, WhatIf
from kanmodel.forecaster import Forecaster
from kanmodel.question import Question, Windows
from kanmodel.tables.windows import name_windows


@dataclass(frozen=True)
class WhatIfQuestion(Question[WhatIf]):
    """Forecasts of each window with one feature changed and all others unchanged (individual response curves).

    Every number is what `predict` returns for the changed window, up to rounding. A column of levels changes as a
    whole: each level is set with the others unset.

    Attributes:
        windows: in any form of `Windows`, original units.
        features: what changes, one at a time: names of features, of columns of the table, such as ``daytype``, or
            of one level, such as ``daytype=holiday``; None for all.
        steps: the first and the last step to change, 0 the newest: ``(-5, 0)`` for six; None for all.
        shift: from, to and number of points (21 by default) of constants to add, in the feature's unit; levels have
            none. Without it the feature is set to constant values from its training minimum to its maximum, whole
            numbers if it is an integer.
        output: a bound or a width, for curves of the forecast and its bounds instead of all outputs.
        points: number of these values.
    """

    windows: Windows
    features: Sequence[str] | str | None = None
    steps: Sequence[int] | None = None
    shift: Sequence[float] | None = None
    _: KW_ONLY
    output: str | None = None
    points: int = DEFAULT_POINTS

    def answer(self, model: Forecaster) -> WhatIf:
        """The curves."""
        holder, _ = model.find_output(self.output)
        given, of_table = model.read(self.windows)
        named = name_windows(of_table)
        return WhatIf.of(holder, given, self.features, self.steps, self.shift, self.points, **named)


@dataclass(frozen=True)
class CounterfactualQuestion(Question[Counterfactuals]):
    """Searches the smallest change of each window for which its forecast reaches a goal.

    A change adds a constant to a feature at the chosen steps, or sets a level of a column there. Its size is the
    sum of the magnitudes of what is added in training standard deviations, on average over these steps. Fixed
    features do not change, integer features stay whole, and of a column of levels one stays 1 and the others 0.

    Attributes:
        windows: in any form of `Windows`, original units.
        output: its name; None for the first.
        at_least: the goal, in the target's unit; exactly one of the three must be given.
        at_most: likewise.
        between: likewise, the lowest and the highest.
        features: what may change: names of features, of columns of the table, such as ``daytype``, or of one level,
            such as ``daytype=holiday``. None for all features but the history of the targets; levels are fixed
            unless they are named here.
        steps: the first and the last step that change, 0 the newest; None for all.
        max_features: how many features may change together.
        within_training_range: whether changed values must stay within the training range of the feature.
    """

    windows: Windows
    output: str | None = None
    _: KW_ONLY
    at_least: float | None = None
    at_most: float | None = None
    between: Sequence[float] | None = None
    features: Sequence[str] | str | None = None
    steps: Sequence[int] | None = None
    max_features: int = SearchOptions.max_features
    within_training_range: bool = True

    def answer(self, model: Forecaster) -> Counterfactuals:
        """The smallest changes that were found."""
        holder, output = model.find_output(self.output)
        goal = Goal.of(self.at_least, self.at_most, self.between)
        search = SearchOptions(self.features, self.steps, self.max_features, self.within_training_range)
        given, of_table = model.read(self.windows)
        named = name_windows(of_table)
        return Counterfactuals.of(holder, given, output, goal, search, **named)
