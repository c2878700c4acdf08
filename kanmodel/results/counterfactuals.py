"""`Counterfactuals`: the smallest change found of each window for which its forecast reaches a goal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kanmodel import html
from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.alternatives.counterfactuals import Counterfactual as Found
from kanmodel.explain.alternatives.nearest import Neighbour
from kanmodel.explain.alternatives.single_features import SingleShift
from kanmodel.results.result import Result
from kanmodel.scaling import Array
from kanmodel.text import with_unit, write_table

_COLUMNS = ("window", "prediction", "reached", "new_prediction", "distance", "changes")


@dataclass(frozen=True)
class Change:
    """A constant added to a feature at the chosen steps.

    Attributes:
        feature: its name.
        unit: its unit; None if unknown.
        shift: the constant, in that unit.
        shift_in_std: the same in training standard deviations.
    """

    feature: str
    unit: str | None
    shift: float
    shift_in_std: float


@dataclass(frozen=True)
class SingleFeature:
    """The effect of changing one feature alone.

    Its range is sampled. Without a recurrent part, bounds of the forecasts then say what lies between the samples.

    Attributes:
        feature: its name.
        unit: its unit; None if unknown.
        shift: the smallest shift that reaches the goal, in that unit; None if no sample does.
        shift_in_std: the same in training standard deviations.
        proven: true if bounds prove that no shift reaches the goal whose `shift_in_std` is nearer to 0 by more than
            0.001, or none within the range if `shift` is None; up to the rounding of forecasts. False if only samples
            stand behind it, between which the goal may be reached unseen: the network has a recurrent part, or 4,096
            intervals of the range were not enough.
        best_prediction: the sampled forecast nearest to the goal.
        searched: number of samples over its range.
    """

    feature: str
    unit: str | None
    shift: float | None
    shift_in_std: float | None
    proven: bool
    best_prediction: float
    searched: int


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The smallest change found that makes the forecast of one window reach the goal.

    Attributes:
        prediction: the forecast of the unchanged window, the target's unit.
        reached: whether the goal is reached; if not, the rest describes the change that comes nearest.
        changes: the changed features, by |shift_in_std|; empty if the unchanged forecast reaches the goal.
        new_prediction: the forecast of `window`, as returned by `Model.predict`.
        distance: sum of |shift_in_std|.
        nearest_reference: the reference window nearest to the changed one.
        window: the changed window, (lookback, n_features), original units.
        single_features: the effect of each feature that may change, alone.
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
    def of(cls, model: LoadedModel, found: Found, nearest: Neighbour) -> Counterfactual:
        """The result of the search, by name."""
        features, in_std = model.config.features, found.shifts / model.scaling.feature_scale
        order = [f for f in np.argsort(-np.abs(in_std), kind="stable").tolist() if found.shifts[f]]
        return cls(
            prediction=found.prediction,
            reached=found.reached,
            changes=tuple(
                Change(features[f].name, features[f].unit, float(found.shifts[f]), float(in_std[f])) for f in order
            ),
            new_prediction=found.new_prediction,
            distance=found.distance,
            nearest_reference=nearest,
            window=found.window,
            single_features=tuple(_name(model, single) for single in found.single),
        )


@dataclass(frozen=True, repr=False, eq=False)
class Counterfactuals(Result):
    """A counterfactual for each window.

    Attributes:
        output: name of the output.
        unit: of its forecasts; None if unknown.
        steps: the first and the last step that change; 0 is the newest.
        counterfactuals: in the order of the windows.
    """

    output: str
    unit: str | None
    steps: tuple[int, int]
    counterfactuals: tuple[Counterfactual, ...]

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
                "changes": ", ".join(f"{change.feature} {change.shift:+.4g}" for change in one.changes),
                "nearest_reference": one.nearest_reference.index,
                "nearest_distance": one.nearest_reference.distance,
                "typical_distance": one.nearest_reference.typical,
            }
            for window, one in enumerate(self)
        ]

    def _title(self) -> str:
        return f"What would change {with_unit(self.output, self.unit)}"

    def _details(self) -> str:
        alone = [{"window": n, **vars(single)} for n, one in enumerate(self) for single in one.single_features]
        nearest = [*_COLUMNS, "nearest_reference", "nearest_distance", "typical_distance"]
        tables = html.write_heading(self._title()) + html.write_table(self.table(), nearest)
        return tables + (html.fold("One feature alone", html.write_table(alone, list(alone[0]))) if alone else "")

    def __repr__(self) -> str:
        return f"{self._title()}\n{write_table(self.table(), _COLUMNS)}"


def _name(model: LoadedModel, single: SingleShift) -> SingleFeature:
    feature, std = model.config.features[single.feature], float(model.scaling.feature_scale[single.feature])
    shift = None if single.shift is None else single.shift * std
    if shift is not None and feature.integer:
        shift = float(round(shift))
    found = single.shift, single.proven, single.best_prediction, single.searched
    return SingleFeature(feature.name, feature.unit, shift, *found)
