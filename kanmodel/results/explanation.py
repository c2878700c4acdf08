"""What each feature of each step added to the forecasts of some windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel import html
from kanmodel.drawing.explanation import draw_explanation
from kanmodel.drawing.forecast import Forecast
from kanmodel.drawing.style import Theme
from kanmodel.errors import DataError
from kanmodel.explain.alternatives.effects import Effects
from kanmodel.explain.paths.layers import LedgerLayer
from kanmodel.explain.paths.ledger import Ledger
from kanmodel.results.result import Pictured
from kanmodel.scaling import Array
from kanmodel.text import with_unit, write_facts, write_table

_EFFECTS = ("removed", "alone", "together")
_OF_WINDOW = ("window", "prediction", "largest contribution", "residual", "error", "converged")


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(Pictured):
    """What each feature of each step added to the forecasts of one output for n windows, in the target's unit.

    Completeness: the contributions of a window sum to its prediction minus the baseline's, up to its residual. They say
    how that change divides among the features; `effects` say, of each feature, what the forecast loses without it, and
    what it does alone. Where the three differ, a feature acts together with others.

    Attributes:
        output: name of the output.
        unit: of predictions and contributions; None where unknown.
        features: names of the features.
        predictions: (n,).
        baseline_prediction: forecast for the baseline; for ``reference`` the mean over the baselines.
        baseline: what the windows were compared with, (lookback, n_features), original units.
        contributions: (n, n_features), the signed sum over the steps.
        steps: (n, lookback, n_features), oldest step first.
        layers: what every node and edge adds, in the order of the data.
        error: largest estimated error of any contribution, (n,).
        residual: how far any layer is from completeness (convergence delta), (n,).
        tolerance: what both are compared with.
        converged: whether both are within it, and no node jumps along the path, (n,).
        path_nodes: nodes of the integration path, (n,).
        standard_error: of each contribution, (n, n_features), for the baseline ``reference``; else None.
        effects: what removing each feature does, and each alone, (n, n_features); None where not asked for.
        step_effects: the same of each step of each feature, (n, lookback, n_features); likewise.
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
    effects: Effects | None = None
    step_effects: Effects | None = None

    @classmethod
    def of(cls, ledger: Ledger, features: tuple[str, ...], unit: str | None) -> Explanation:
        """A ledger with its names and its unit."""
        same = {name: getattr(ledger, name) for name in (f.name for f in fields(cls)) if hasattr(ledger, name)}
        return cls(**same | {"features": features, "unit": unit, "contributions": ledger.features})

    def __len__(self) -> int:
        return len(self.predictions)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[window] for window in range(len(self)))

    def __getitem__(self, window: int | slice) -> Explanation:
        """One window as an explanation of length 1, or some of them."""
        if isinstance(window, slice):
            chosen = window
        else:
            number = range(len(self))[window]  # raises IndexError, and counts from the end where it is negative
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
            step_effects=None if self.step_effects is None else self.step_effects[chosen],
        )

    def table(self) -> list[dict[str, Any]]:
        """A row for each window and feature, features in the model's order; figures of the window are repeated."""
        return [
            {
                "window": window,
                "feature": feature,
                "contribution": float(self.contributions[window, number]),
                **self._effects_of(window, number),
                "prediction": float(self.predictions[window]),
                "baseline_prediction": self.baseline_prediction,
                "residual": float(self.residual[window]),
                "error": float(self.error[window]),
                "converged": bool(self.converged[window]),
            }
            for window in range(len(self))
            for number, feature in enumerate(self.features)
        ]

    def _effects_of(self, window: int, number: int) -> dict[str, float]:
        """The columns of the table that are there where effects were asked for."""
        effects = self.effects
        return {} if effects is None else {name: float(getattr(effects, name)[window, number]) for name in _EFFECTS}

    @property
    def _columns(self) -> list[str]:
        return ["feature", "contribution", *(_EFFECTS if self.effects else ())]

    def svg(self, path: str | Path | None = None, *, theme: Theme = "auto") -> str:
        """The waterfall of one window, and below it what each feature added at each step.

        Args:
            path: a file that it is written to as well.
            theme: ``light``, ``dark``, or ``auto``, which follows the reader.

        Raises:
            DataError: there are several windows, or none.
        """
        if len(self) != 1:
            raise DataError(f"a waterfall shows one window, but there are {len(self)}: take one, as e[0]")
        return super().svg(path, theme=theme)

    def _picture(self, theme: Theme) -> str | None:
        return super()._picture(theme) if len(self) == 1 else None

    def _draw(self, theme: Theme) -> bytes:
        forecast = Forecast(
            self.output,
            self.unit,
            self.features,
            self.baseline_prediction,
            float(self.predictions[0]),
            self.contributions[0],
            self.steps[0],
            None if self.effects is None else self.effects.removed[0],
            None if self.effects is None else self.effects.alone[0],
        )
        return draw_explanation(forecast, theme)

    def _title(self) -> str:
        windows = "" if len(self) == 1 else f" for {len(self)} windows"
        return f"Explanation of {with_unit(self.output, self.unit)}{windows}"

    def _details(self) -> str:
        if len(self) == 1:
            ordered = sorted(self.table(), key=lambda row: -abs(row["contribution"]))
            table = html.write_table(ordered, self._columns)
            return html.write_facts(self._facts()) + html.fold("All contributions", table)
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
        """What is known of one window beside its contributions."""
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
        ordered = sorted(self.table(), key=lambda row: -abs(row["contribution"]))
        return f"{self._title()}\n{write_facts(self._facts())}\n{write_table(ordered, self._columns)}"
