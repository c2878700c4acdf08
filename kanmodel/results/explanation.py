"""`Explanation`: the contributions of each feature at each step to the forecasts of some windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kanmodel import html
from kanmodel.drawing.explanation import draw_explanation
from kanmodel.drawing.forecast import Forecast
from kanmodel.drawing.style import Theme
from kanmodel.errors import DataError, IncompleteError, Problem
from kanmodel.explain.alternatives.effects import Effects
from kanmodel.explain.paths.grouping import Segments, resolve_segments, sum_groups, sum_segments
from kanmodel.explain.paths.layers import LedgerLayer
from kanmodel.explain.paths.ledger import Ledger
from kanmodel.network.config.groups import Grouping, Groups, resolve_groups
from kanmodel.results.result import Pictured
from kanmodel.scaling import Array
from kanmodel.text import with_unit, write_facts, write_table
from kanmodel.windows import N_LISTED

_EFFECTS = ("removed", "alone", "together")
_OF_WINDOW = ("window", "prediction", "largest contribution", "residual", "error", "converged")


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(Pictured):
    """Contributions of each feature at each step to the forecasts of one output for n windows, in the target's unit.

    Completeness: the contributions of a window sum to its prediction minus the baseline's, up to its residual. They
    divide that change among the features; `effects` state what the forecast loses without each feature, and what each
    does alone. If the three differ, the feature interacts with others.

    Attributes:
        output: name of the output.
        unit: of predictions and contributions; None if unknown.
        features: names of the features.
        predictions: (n,).
        baseline_prediction: forecast for the baseline; for ``reference`` the mean over the baselines.
        baseline: what the windows were compared with, (lookback, n_features), original units.
        contributions: (n, n_features), the signed sum over the steps.
        steps: (n, lookback, n_features), oldest step first.
        layers: contributions of all nodes and edges, in the order of the data.
        error: largest estimated error of any contribution, (n,).
        residual: largest violation of completeness in any layer (convergence delta), (n,).
        tolerance: accepted error and residual.
        converged: whether both are within the tolerance, and no node jumps along the path, (n,).
        path_nodes: nodes of the integration path, (n,).
        standard_error: of each contribution, (n, n_features), for the baseline ``reference``; else None.
        groups: features that are summed, by the name of their group; empty if there are none.
        segments: first and last step of those that are summed, by name, 0 the newest, each step of the window in one;
            empty if there are none.
        effects: effects of removing each feature, and of each alone, (n, n_features); None if not requested.
        effects_by_group: the same for the entries of `contributions_by_group`, in its shape; None without groups too.
        step_effects: the same for each step of each feature, (n, lookback, n_features); None if not requested.
    """

    output: str
    unit: str | None
    features: tuple[str, ...]
    predictions: Array
    baseline_prediction: float
    baseline: Array
    contributions: Array
    steps: Array
    layers: tuple[LedgerLayer, ...]
    error: Array
    residual: Array
    tolerance: float
    converged: NDArray[np.bool_]
    path_nodes: NDArray[np.int64]
    standard_error: Array | None = None
    groups: Groups = field(default_factory=dict)
    segments: Segments = field(default_factory=dict)
    effects: Effects | None = None
    effects_by_group: Effects | None = None
    step_effects: Effects | None = None

    @classmethod
    def of(
        cls,
        ledger: Ledger,
        features: tuple[str, ...],
        unit: str | None,
        groups: Groups,
        segments: Segments,
    ) -> Explanation:
        """A ledger with names, unit, groups and segments."""
        same = {name: getattr(ledger, name) for name in (f.name for f in fields(cls)) if hasattr(ledger, name)}
        named = {"features": features, "unit": unit, "contributions": ledger.features}
        return cls(**same | named | {"groups": groups, "segments": segments})

    @cached_property
    def grouping(self) -> Grouping:
        """The groups with the indices of their features, and the features without a group."""
        return resolve_groups(self.groups, self.features)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the contributions by group: the groups, then the features without a group."""
        return self.grouping.names

    @cached_property
    def contributions_by_group(self) -> Array:
        """Contributions of each group, (n, n_names), or with segments (n, n_names, n_segments).

        Over top-level groups, features without a group and segments they sum to those of the features.
        """
        if not self.segments:
            return sum_groups(self.contributions, self.grouping.members)
        rows = list(resolve_segments(self.segments, self.steps.shape[1]).values())
        return sum_groups(sum_segments(self.steps, rows), self.grouping.members).swapaxes(1, 2)

    def __len__(self) -> int:
        return len(self.predictions)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[window] for window in range(len(self)))

    def __getitem__(self, window: int | slice) -> Explanation:
        """One window as an explanation of length 1, or a slice of windows."""
        if isinstance(window, slice):
            chosen = window
        else:
            number = range(len(self))[window]  # raises IndexError, and supports negative indices
            chosen = slice(number, number + 1)
        layers = tuple(
            replace(
                layer,
                nodes=None if layer.nodes is None else layer.nodes[chosen],
                edges=None if layer.edges is None else layer.edges[chosen],
            )
            for layer in self.layers
        )
        return replace(
            self,
            predictions=self.predictions[chosen],
            contributions=self.contributions[chosen],
            steps=self.steps[chosen],
            layers=layers,
            error=self.error[chosen],
            residual=self.residual[chosen],
            converged=self.converged[chosen],
            path_nodes=self.path_nodes[chosen],
            standard_error=None if self.standard_error is None else self.standard_error[chosen],
            effects=None if self.effects is None else self.effects[chosen],
            effects_by_group=None if self.effects_by_group is None else self.effects_by_group[chosen],
            step_effects=None if self.step_effects is None else self.step_effects[chosen],
        )

    def require_completeness(self, output_std: float, first: int = 0) -> None:
        """Raises if a residual is larger than F(x) - F(x0) and than the standard deviation of the output.

        Args:
            output_std: standard deviation of the output on the reference windows.
            first: index of the first window, for the message.

        Raises:
            IncompleteError: a window has such a residual.
        """
        change = np.abs(self.predictions - self.baseline_prediction)
        absurd = np.flatnonzero(self.residual > np.maximum(change, output_std))
        if not len(absurd):
            return
        worst = absurd[0]
        message = (
            f"has values too far out to be explained: its contributions miss the change of {change[worst]:.3g} "
            f"by {self.residual[worst]:.3g}"
        )
        places = [Problem(f"instances[{first + window}]", message) for window in absurd[:N_LISTED]]
        raise IncompleteError(f"{places[0].path} {message}", places)

    def table(self, by: Literal["feature", "group"] = "feature") -> list[dict[str, Any]]:
        """A row for each window and feature, features in the model's order; values of the window are repeated.

        Args:
            by: ``group`` for a row for each of `group_names` instead, and for each segment if there are any.
        """
        return [
            {
                "window": window,
                **entry,
                "prediction": float(self.predictions[window]),
                "baseline_prediction": self.baseline_prediction,
                "residual": float(self.residual[window]),
                "error": float(self.error[window]),
                "converged": bool(self.converged[window]),
            }
            for window in range(len(self))
            for entry in (self._by_feature(window) if by == "feature" else self._by_group(window))
        ]

    def _by_feature(self, window: int) -> list[dict[str, Any]]:
        names = [{"feature": name} for name in self.features]
        return _join(names, self.contributions[window], self.effects, window)

    def _by_group(self, window: int) -> list[dict[str, Any]]:
        names = [{"group": name} for name in self.group_names]
        if self.segments:
            names = [name | {"segment": segment} for name in names for segment in self.segments]
        return _join(names, self.contributions_by_group[window], self.effects_by_group, window)

    def _effects_of_bars(self, whole: list[int]) -> tuple[Array | None, Array | None]:
        """`removed` and `alone` of the waterfall's bars; None if they were not measured."""
        effects = self.effects if not self.is_grouped else None if self.segments else self.effects_by_group
        return (None, None) if effects is None else (effects.removed[0][whole], effects.alone[0][whole])

    def svg(self, path: str | Path | None = None, *, theme: Theme = "auto") -> str:
        """The waterfall of one window, and below it the heat map of contributions by feature and step.

        Top-level groups replace their features, and segments replace steps.

        Args:
            path: a file to write it to as well.
            theme: ``light``, ``dark``, or ``auto``, which follows the reader's settings.

        Raises:
            DataError: there are several windows, or none.
        """
        if len(self) != 1:
            raise DataError(f"a waterfall shows one window, but there are {len(self)}: take one, as e[0]")
        return super().svg(path, theme=theme)

    def _picture(self, theme: Theme) -> str | None:
        return super()._picture(theme) if len(self) == 1 else None

    def _draw(self, theme: Theme) -> bytes:
        whole = list(self.grouping.whole)
        forecast = Forecast(
            self.output,
            self.unit,
            [self.group_names[number] for number in whole],
            self.baseline_prediction,
            float(self.predictions[0]),
            sum_groups(self.contributions[0], self.grouping.members)[whole],
            sum_groups(self.steps[0], self.grouping.members)[:, whole],
            self.segments,
            *self._effects_of_bars(whole),
        )
        return draw_explanation(forecast, theme)

    def _title(self) -> str:
        windows = "" if len(self) == 1 else f" for {len(self)} windows"
        return f"Explanation of {with_unit(self.output, self.unit)}{windows}"

    def _details(self) -> str:
        if len(self) == 1:
            table = html.write_table(_order(self.table()), ["feature", "contribution", *self._effect_columns])
            shown = html.write_facts(self._facts()) + html.fold("All contributions", table)
            if self.is_grouped:
                grouped = html.write_table(_order(self.table("group")), self._columns)
                shown += html.fold("Contributions by group", grouped)
            return shown
        facts = {
            "baseline": f"{self.baseline_prediction:.4g}",
            "converged": f"{int(self.converged.sum())} of {len(self)}",
        }
        return (
            html.write_heading(self._title())
            + html.write_facts(facts)
            + html.write_table(self._means(), ["feature", *self._mean_columns])
            + html.fold("Window by window", html.write_table(self._windows(), list(_OF_WINDOW)))
        )

    @property
    def _mean_columns(self) -> list[str]:
        return ["mean |contribution|", "mean contribution", *(f"mean |{name}|" for name in _EFFECTS if self.effects)]

    def _means(self) -> list[dict[str, Any]]:
        """A row for each feature, by the mean magnitude of its contributions."""
        if not len(self):
            return []
        magnitudes = np.abs(self.contributions).mean(axis=0)
        means = [magnitudes, self.contributions.mean(axis=0)]
        if self.effects is not None:
            means += [np.abs(getattr(self.effects, name)).mean(axis=0) for name in _EFFECTS]
        return [
            {"feature": self.features[number]}
            | {column: float(values[number]) for column, values in zip(self._mean_columns, means, strict=True)}
            for number in np.argsort(-magnitudes, kind="stable").tolist()
        ]

    def _windows(self) -> list[dict[str, Any]]:
        """A row for each window."""
        largest = np.abs(self.contributions).argmax(axis=1)
        values = (
            range(len(self)),
            self.predictions.tolist(),
            (self.features[feature] for feature in largest.tolist()),
            self.residual.tolist(),
            self.error.tolist(),
            self.converged.tolist(),
        )
        return [dict(zip(_OF_WINDOW, row, strict=True)) for row in zip(*values, strict=True)]

    def _facts(self) -> dict[str, str]:
        """Facts about one window besides its contributions."""
        return {
            "prediction": f"{self.predictions[0]:.4g}",
            "baseline": f"{self.baseline_prediction:.4g}",
            "residual": f"{self.residual[0]:.2g}, error {self.error[0]:.2g}, tolerance {self.tolerance:.2g}",
            "converged": "yes" if self.converged[0] else "no",
        }

    def __repr__(self) -> str:
        if len(self) != 1:
            return (
                f"{self._title()}, baseline {self.baseline_prediction:.4g}\n{write_table(self._windows(), _OF_WINDOW)}"
            )
        rows = _order(self.table("group" if self.is_grouped else "feature"))
        return f"{self._title()}\n{write_facts(self._facts())}\n{write_table(rows, self._columns)}"

    @property
    def is_grouped(self) -> bool:
        """Whether there are groups or segments."""
        return bool(self.groups or self.segments)

    @property
    def _columns(self) -> list[str]:
        """Columns of the table of one window."""
        named = ["group" if self.is_grouped else "feature", *(["segment"] if self.segments else [])]
        return [*named, "contribution", *self._effect_columns]

    @property
    def _effect_columns(self) -> list[str]:
        return list(_EFFECTS) if self.effects is not None else []


def _join(
    names: list[dict[str, Any]], contributions: Array, effects: Effects | None, window: int
) -> list[dict[str, Any]]:
    """Rows of one window: names, contributions, and effects if there are any."""
    columns = {"contribution": contributions}
    if effects is not None:
        columns |= {name: getattr(effects, name)[window] for name in _EFFECTS}
    values = zip(*(column.ravel().tolist() for column in columns.values()), strict=True)
    return [name | dict(zip(columns, row, strict=True)) for name, row in zip(names, values, strict=True)]


def _order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Largest contributions first."""
    return sorted(rows, key=lambda row: -abs(row["contribution"]))
