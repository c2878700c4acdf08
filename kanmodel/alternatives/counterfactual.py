"""Counterfactual explanations: the smallest change of a window with which its forecast reaches a goal.

After Wachter, Mittelstadt and Russell 2017 (arXiv 1711.00399). A change adds a constant to each of a few features over
chosen steps, or sets a level of a column there; its distance is the L1 norm in training standard deviations. It is
searched by `kanmodel.alternatives.search`, and checked by a forecast of the changed window.

A changed window that is much farther from its nearest neighbour among the reference windows than these are from theirs
is probably out of distribution; see `kanmodel.monitoring.trust`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kanmodel.alternatives.changeable import Goal, SearchOptions, ShiftableWindow, find_rows
from kanmodel.alternatives.search import (
    N_SETTINGS,
    Setting,
    SingleFeature,
    describe_level,
    list_settings,
    search_shifts,
)
from kanmodel.arrays import Array, steps_of_rows
from kanmodel.computing import tracked
from kanmodel.forecaster import Forecaster
from kanmodel.monitoring.trust import Neighbour, ReferenceDistances
from kanmodel.result import Table, WindowsResult
from kanmodel.text import with_unit

MARGIN = 1e-6  # tightens the goal, output standard deviations: a forecast in another batch may be rounded differently


@dataclass(frozen=True)
class Change:
    """A constant added to an input at the chosen steps, or a level that is set there.

    Attributes:
        feature: name of the input.
        label: the same for people.
        unit: its unit; None if unknown.
        shift: the constant added at each of these steps, in that unit; None of a level, or a part of the calendar.
        shift_in_std: the same in training standard deviations; of a level the sum of the mean magnitudes
            over its features.
        before: the value at the newest of these steps before the change; of a level its place.
        level: the level that is set, such as ``holiday``, ``16:00`` or ``yes``; None of a number.
        level_before: that at the newest of these steps before the change.
    """

    feature: str
    label: str
    unit: str | None
    shift: float | None
    shift_in_std: float
    before: float
    level: str | None = None
    level_before: str | None = None

    def __str__(self) -> str:
        return f"{self.label} {self.level}" if self.shift is None or self.level else f"{self.label} {self.shift:+.4g}"


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The smallest change found that makes the forecast of one window reach the goal.

    Attributes:
        prediction: the forecast of the unchanged window, the target's unit.
        reached: whether the goal is reached; if not, the rest describes the change that comes nearest.
        changes: the changed features, largest |shift_in_std| first; empty if the unchanged forecast reaches the goal.
        new_prediction: the forecast of the changed window, as `predict` returns it.
        distance: sum of |shift_in_std|.
        nearest_reference: the reference window nearest to the changed one.
        window: the changed window, (lookback, n_features), original units.
        single_features: the effect of each feature, or level, that may change, alone, in the order of the model.
    """

    prediction: float
    reached: bool
    changes: tuple[Change, ...]
    new_prediction: float
    distance: float
    nearest_reference: Neighbour
    window: Array
    single_features: tuple[SingleFeature, ...]

    @classmethod
    def of(cls, model: Forecaster, window: Array, output: int, goal: Goal, search: SearchOptions) -> Counterfactual:
        """Searches the smallest change of one window, (lookback, n_features), original units, oldest step first.

        Raises:
            DataError: features, steps or values that cannot be used.
            UnknownNameError: there is no such feature.
            NonFiniteError: a forecast is not finite.
        """
        settings = list_settings(model, window, search)
        still, std = np.zeros((1, len(model.features))), model.scaling.feature_scale
        prediction = float(ShiftableWindow(model, window, output, search).predict(still)[0])
        tight = goal.tighten(MARGIN * float(model.output_std[output]))
        forecasts = model.predict(np.stack([setting.window for setting in settings]))[:, output]
        moved, missed = np.array([np.abs(setting.change / std).sum() for setting in settings]), tight.miss(forecasts)
        order = np.lexsort((moved, missed))
        bases = [0] if goal.low <= prediction <= goal.high else [0, *order[order > 0][:N_SETTINGS].tolist()]
        singles, best = (
            dict[tuple[int, int], SingleFeature](),
            list[tuple[float, float, Setting, ShiftableWindow, Array]](),
        )
        for base in tracked(bases):
            setting, n_left = settings[base], search.max_features - len(settings[base].levels)
            shiftable, tried = ShiftableWindow(model, setting.window, output, search), still
            if n_left and (base == 0 or missed[base] > 0):
                alone, tried = search_shifts(shiftable, goal, tight, n_left)
                singles = singles or {(number, 0): single for number, single in alone.items()}
            misses, distances = goal.miss(shiftable.predict(tried)), moved[base] + np.abs(tried).sum(axis=1)
            nearest = np.lexsort((distances, misses))[0]  # the smallest that reaches it, or else the nearest to it
            best.append((float(misses[nearest]), float(distances[nearest]), setting, shiftable, tried[[nearest]]))
        for setting, forecast in zip(settings, forecasts.tolist(), strict=True):
            if len(setting.levels) == 1:
                ((of, level),) = setting.levels
                singles[of.input.numbers[0], level] = describe_level(model, setting, tight, (prediction, forecast))
        _, distance, setting, shiftable, shift = min(best, key=lambda one: one[:2])
        new_prediction, changed = float(shiftable.predict(shift)[0]), shiftable.change(shift)[0]
        by, rows = setting.change + shiftable.in_original_units(shift)[0], find_rows(model.config, search.steps)
        changes = _list_changes(model, window[rows], changed[rows], by)
        return cls(
            prediction=prediction,
            reached=goal.low <= new_prediction <= goal.high,
            changes=changes,
            new_prediction=new_prediction,
            distance=distance,
            nearest_reference=ReferenceDistances.of(model).find_neighbour(model, changed),
            window=changed,
            single_features=tuple(singles[place] for place in sorted(singles)),
        )


def _list_changes(model: Forecaster, rows: Array, changed: Array, by: Array) -> tuple[Change, ...]:
    """The changes of features by some amounts, (n_features,), of rows (n, n_features), the largest first."""
    in_std, changes = by / model.scaling.feature_scale, list[Change]()
    for one in model.inputs:
        own = list(one.numbers)
        if not by[own].any():
            continue
        shift, moved = (None, float(np.abs(in_std[own]).sum())) if one.is_encoded else (by[own[0]], in_std[own[0]])
        before, after = (float(one.decode(each[-1])) for each in (rows, changed))
        levels = (one.write(after), one.write(before)) if one.levels else (None, None)
        shift = None if shift is None else float(shift)
        changes.append(Change(one.name, one.label, one.unit, shift, float(moved), before, *levels))
    return tuple(sorted(changes, key=lambda change: -abs(change.shift_in_std)))


@dataclass(frozen=True, repr=False, eq=False)
class Counterfactuals(WindowsResult):
    """A counterfactual of one output for each window.

    Attributes:
        output: name of the output.
        unit: of its forecasts; None if unknown.
        steps: the first and the last step that change; 0 is the newest.
        goal: the range that the forecasts must reach.
        counterfactuals: in the order of the windows.
    """

    output: str
    unit: str | None
    steps: tuple[int, int]
    goal: Goal
    counterfactuals: tuple[Counterfactual, ...]

    @classmethod
    def of(
        cls, model: Forecaster, windows: Array, output: int, goal: Goal, search: SearchOptions, **source: Any
    ) -> Counterfactuals:
        """The counterfactual of each of some windows, (n, lookback, n_features), with their `source`.

        Raises as `Counterfactual.of`.
        """
        config = model.config
        steps = steps_of_rows(find_rows(config, search.steps), config.lookback)
        found = tuple(Counterfactual.of(model, window, output, goal, search) for window in tracked(windows))
        unit = config.target_of(output).unit
        return cls(config.outputs[output], unit, steps, goal, found, origin=model.origin, **source)

    def __len__(self) -> int:
        return len(self.counterfactuals)

    def __iter__(self) -> Iterator[Counterfactual]:
        return iter(self.counterfactuals)

    def __getitem__(self, window: int) -> Counterfactual:
        return self.counterfactuals[window]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window."""
        return [
            {
                "window": window,
                "prediction": one.prediction,
                "reached": one.reached,
                "new_prediction": one.new_prediction,
                "distance": one.distance,
                "changes": ", ".join(map(str, one.changes)),
                "nearest_reference": one.nearest_reference.index,
                "nearest_distance": one.nearest_reference.distance,
                "typical_distance": one.nearest_reference.typical,
            }
            for window, one in enumerate(self)
        ]

    def _title(self) -> str:
        return f"What would change {with_unit(self.output, self.unit)}"

    def _tables(self) -> list[Table]:
        rows = self.table()
        singles = ((n, vars(single)) for n, one in enumerate(self) for single in one.single_features)
        alone = [{"window": n} | single | {"feature": single["label"]} for n, single in singles]
        for row in alone:
            del row["label"]
        return [
            Table(rows, list(rows[0])[:6], in_html=False),
            Table(rows, list(rows[0]), in_text=False),
            *([Table(alone, list(alone[0]), "One feature alone", in_text=False)] if alone else []),
        ]
