"""`Changes`: why a forecast differs from the one some steps before, row by row in time.

Both windows are explained from the same baseline. A row of the table lies in both, at another step of each, or in one:

    F(x_t) - F(x_(t - ago)) = sum over rows and features of C_t(row, feature) - C_(t - ago)(row, feature)

where C is a contribution (0 for a row that is not in the window), up to the residuals of both explanations. New rows
are those of the newer window alone, gone rows those of the earlier one alone. The others have aged: their values are
the same, but older, and beside other rows; values that were filled in a gap that has closed since are others too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.attribution.explanation import Explanation
from kanmodel.attribution.ledger import sum_groups
from kanmodel.errors import DataError
from kanmodel.result import Table, WindowsResult, name_window
from kanmodel.text import with_unit

_PARTS = ("new", "aged", "gone")


@dataclass(frozen=True, repr=False, eq=False)
class Changes(WindowsResult):
    """The changes of n forecasts since the ones `ago` steps before, in the target's unit.

    Attributes:
        output, earlier_output: the outputs of the newer and of the earlier forecasts.
        unit: of the target; None if unknown.
        features: their names.
        ago: steps from an earlier window to the newer one.
        predictions, earlier_predictions: the newer and the earlier forecasts, (n,).
        contributions: to the change, (n, lookback + ago, n_features), of rows from the oldest of the earlier window to
            the newest of the newer one.
        baseline_change: the rest of the change: the difference of the two outputs for the baseline.
        error: estimated error of the contributions: the sum of those of both explanations, (n,).
        converged: whether both explanations have, (n,).
    """

    output: str
    earlier_output: str
    unit: str | None
    features: tuple[str, ...]
    ago: int
    predictions: Array
    earlier_predictions: Array
    contributions: Array
    baseline_change: float
    error: Array
    converged: NDArray[np.bool_]

    @classmethod
    def of(cls, newer: Explanation, earlier: Explanation, ago: int, **about: Any) -> Changes:
        """The changes from explanations of windows to those of the windows `ago` steps later."""
        n, lookback, n_features = newer.steps.shape
        contributions = np.zeros((n, lookback + ago, n_features))
        contributions[:, ago:] = newer.steps
        contributions[:, :lookback] -= earlier.steps
        return cls(
            output=newer.output,
            earlier_output=earlier.output,
            unit=newer.unit,
            features=newer.features,
            ago=ago,
            predictions=newer.predictions,
            earlier_predictions=earlier.predictions,
            contributions=contributions,
            baseline_change=newer.baseline_prediction - earlier.baseline_prediction,
            error=newer.error + earlier.error,
            converged=newer.converged & earlier.converged,
            origin=newer.origin,
            model_inputs=newer.model_inputs,
            **about,
        )

    @property
    def change(self) -> Array:
        """The newer forecasts minus the earlier ones, (n,)."""
        difference: Array = self.predictions - self.earlier_predictions
        return difference

    @property
    def by_feature(self) -> Array:
        """Contributions to the change of each feature, over all rows, (n, n_features)."""
        return self._sum_rows(slice(None))

    @property
    def new(self) -> Array:
        """Those of the rows of the newer window alone, (n, n_features)."""
        return self._sum_rows(slice(-self._n_apart, None))

    @property
    def gone(self) -> Array:
        """Those of the rows of the earlier window alone, (n, n_features)."""
        return self._sum_rows(slice(self._n_apart))

    @property
    def aged(self) -> Array:
        """Those of the rows of both windows, (n, n_features)."""
        return self.by_feature - self.new - self.gone

    @property
    def _n_apart(self) -> int:
        """Number of rows of a window that the other one does not have."""
        lookback: int = self.contributions.shape[1] - self.ago
        return min(self.ago, lookback)

    def _sum_rows(self, rows: slice) -> Array:
        total: Array = self.contributions[:, rows].sum(axis=1)
        return total

    def __len__(self) -> int:
        return len(self.predictions)

    def table(self) -> list[dict[str, Any]]:
        """A row for each forecast and feature, with the contributions of new, aged and gone rows to its change."""
        columns = {name: getattr(self, name) for name in _PARTS} | {"contribution": self.by_feature}
        rows = []
        for number in range(len(self)):
            figures = {
                "prediction": float(self.predictions[number]),
                "earlier_prediction": float(self.earlier_predictions[number]),
                "change": float(self.change[number]),
                "error": float(self.error[number]),
                "converged": bool(self.converged[number]),
            }
            named = name_window(number, self.times, self.series)
            for place, feature in enumerate(self.features):
                parts = {name: float(values[number, place]) for name, values in columns.items()}
                rows.append(named | {"feature": feature} | parts | figures)
        return rows

    def _title(self) -> str:
        since = f"{self.ago} steps before" if self.ago > 1 else "the step before"
        return f"Change{'s' if len(self) > 1 else ''} of {with_unit(self.output, self.unit)} since {since}"

    def _facts(self) -> dict[str, str]:
        against = {} if self.output == self.earlier_output else {"against": self.earlier_output}
        against |= {"difference for the baseline": f"{self.baseline_change:+.4g}"} if against else {}
        if len(self) > 1:
            return {"forecasts": str(len(self)), **against, "converged": f"{int(self.converged.sum())} of {len(self)}"}
        return {
            **({"time": self.times[0]} if self.times else {}),
            "change": f"{self.change[0]:+.4g}, from {self.earlier_predictions[0]:.4g} to {self.predictions[0]:.4g}",
            **against,
            "error": f"{self.error[0]:.2g}",
            "converged": "yes" if self.converged[0] else "no",
        }

    def _tables(self) -> list[Table]:
        if len(self) == 1:
            merged = self.model_inputs.merge_rows(self.table(), ["contribution", *_PARTS])
            rows = sorted(merged, key=lambda row: -abs(row["contribution"]))
            return [Table(rows, ["feature", "contribution", *_PARTS], "By feature")]
        shown = self.model_inputs.merge(self.features)
        largest = np.abs(sum_groups(self.by_feature, shown.values())).argmax(axis=1).tolist()
        names = [*shown]
        rows = [
            {"forecast": self.times[number] if self.times else number, "change": change, "most by": names[most]}
            for number, (change, most) in enumerate(zip(self.change.tolist(), largest, strict=True))
        ]
        return [Table(rows, ["forecast", "change", "most by"], "Forecast by forecast")]


def refuse_unlinked(windows: Array, ago: int) -> None:
    """Raises `DataError` unless windows (n, lookback, n_features) each begin a step after the one before, n > `ago`."""
    if len(windows) <= ago:
        raise DataError.at("windows", f"must be at least {ago + 1}, but there are {len(windows)}")
    linked = (windows[1:, :-1] == windows[:-1, 1:]).all(axis=(1, 2))
    if not linked.all():
        number = int(np.flatnonzero(~linked)[0]) + 1
        raise DataError.at(f"windows[{number}]", "must begin with the second row of the window before it")
