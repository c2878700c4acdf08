"""`Backtest`: forecasts beside what came, and their errors by horizon, hour of the day and month.

Of n forecasts p with the actual values y: MAE = mean |p - y|, RMSE = sqrt(mean (p - y)^2), bias = mean (p - y). Skill
is 1 - MAE / MAE of persistence (Hyndman and Athanasopoulos 2021, "Forecasting: Principles and Practice", section 5.8):
1 for perfect forecasts, 0 for those as good as persistence, the last value that was known, and below 0 for worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause, slices
from kanmodel.data import DAY, Array, take_windows
from kanmodel.explain.result import Table, WindowsResult
from kanmodel.text import list_some, with_unit

CHUNK = 1024  # windows forecast at a time
N_HOURS = 24
COLUMNS = ("mae", "rmse", "bias", "persistence_mae", "skill", "count")


@dataclass(frozen=True)
class Outcomes:
    """Windows of a table that also holds what came: the values of a target at the times that are forecast.

    Attributes:
        target: its name in the model.
        rows: features, (n_rows, n_features), original units, in order of time; NaN where a window does not reach.
        ends: last row of each window, (n,), ascending; the windows are complete.
        actual: the target's value for each of its outputs, (n, horizon), original units; NaN where it is missing.
        persistence: the target's last value known at the window's last row, (n,); NaN where there is none, or none is
            known to have been there, since the target's column was shifted before training (`ahead` 0).
        times: of each window's last row; None if the rows have none.
        is_shifted: whether the target's column was shifted before training.
        target_times: of the rows with the actual values, (n, horizon), which is the time that is forecast unless the
            column was shifted; None likewise.
        local: the same in seconds of the local clock, (n, horizon); None if they are no dates.
        zone: the time zone of that clock; None for UTC, or times as they stand.
        within_day: whether the rows are less than a day apart, so that they have an hour of the day.
        across_gaps: number of windows that are left out for a gap in time in them or before their actual values.
        missing: number of windows that are left out for a missing value.
        missing_columns: of these, by the features with the most missing values.
    """

    target: str
    rows: Array = field(repr=False)
    ends: NDArray[np.int64]
    actual: Array
    persistence: Array
    times: tuple[str, ...] | None
    is_shifted: bool
    target_times: NDArray[np.object_] | None
    local: Array | None
    zone: str | None
    within_day: bool
    across_gaps: int
    missing: int
    missing_columns: Mapping[str, int]


@dataclass(frozen=True)
class Errors:
    """Errors of some forecasts, in the target's unit; None where there is nothing to compare.

    Attributes:
        count: number of forecasts whose actual value is known.
        mae, rmse, bias: mean absolute error, root mean squared error, and mean of forecast minus actual value.
        persistence_mae: MAE of persistence, over the forecasts for which it is known too.
        skill: 1 - MAE / MAE of persistence, both over these; None also where persistence has no error.
    """

    count: int
    mae: float | None
    rmse: float | None
    bias: float | None
    persistence_mae: float | None
    skill: float | None


def measure_errors(
    error: Array, of_persistence: Array, groups: NDArray[np.int64] | None = None, n_groups: int = 1
) -> list[Errors]:
    """The errors of the forecasts in each group.

    Args:
        error: forecast minus actual value, of any shape, in the target's unit; NaN where it is unknown.
        of_persistence: the same of persistence.
        groups: the number of the group of each forecast, of the same shape; all in one by default.
        n_groups: their number.
    """
    numbers = np.zeros(error.shape, dtype=np.int64) if groups is None else groups
    known = ~np.isnan(error)
    both = known & ~np.isnan(of_persistence)

    def sum_over(which: NDArray[np.bool_], values: Array | None = None) -> list[float]:
        weights = None if values is None else values[which]
        return list(map(float, np.bincount(numbers[which], weights, n_groups)))

    sums = (
        sum_over(known),
        sum_over(known, np.abs(error)),
        sum_over(known, error**2),
        sum_over(known, error),
        sum_over(both),
        sum_over(both, np.abs(error)),
        sum_over(both, np.abs(of_persistence)),
    )
    measured = []
    for n, absolute, squared, signed, n_both, ours, theirs in zip(*sums, strict=True):
        mae, rmse, bias = (absolute / n, (squared / n) ** 0.5, signed / n) if n else (None, None, None)
        skill = 1 - ours / theirs if theirs else None
        measured.append(Errors(int(n), mae, rmse, bias, theirs / n_both if n_both else None, skill))
    return measured


def group_times(local: Array, within_day: bool) -> dict[str, tuple[list[int | str], NDArray[np.int64]]]:
    """By ``hour`` (0 to 23), within a day, and by ``month`` (``2024-03``): the groups, and the number of that of each.

    `local` are seconds of the local clock, of any shape, as the numbers are.
    """
    months, numbers = np.unique(local.astype("datetime64[s]").astype("datetime64[M]"), return_inverse=True)
    found: dict[str, tuple[list[int | str], NDArray[np.int64]]] = {}
    found["month"] = months.astype(str).tolist(), numbers.reshape(local.shape)
    if within_day:
        hours, numbers = np.unique((local % DAY // 3600).astype(np.int64), return_inverse=True)
        found["hour"] = hours.tolist(), numbers.reshape(local.shape)
    return found


@dataclass(frozen=True, repr=False, eq=False)
class Backtest(WindowsResult):
    """Forecasts of one target over a table, beside what came and beside persistence; `times` are of their making.

    Attributes:
        unit: of the target; None if unknown.
        outputs: names of the target's outputs, in the order of `steps`.
        steps: the number in the name of each output: steps from the window's last row.
        predictions: (n, horizon), original units.
        outcomes: the windows, with actual values, persistence and times.
    """

    unit: str | None
    outputs: tuple[str, ...]
    steps: tuple[int, ...]
    predictions: Array
    outcomes: Outcomes

    @classmethod
    def of(cls, model: LoadedModel, outcomes: Outcomes) -> Backtest:
        """Forecasts each window, some at a time, so that only these are in memory; raises as `LoadedModel.predict`."""
        config, rows, ends = model.config, outcomes.rows, outcomes.ends
        names = [config.target_of(number).name for number in range(len(config.outputs))]
        numbers = [number for number, name in enumerate(names) if name == outcomes.target]
        parts = list[Array]()
        for start in slices(range(0, len(ends), CHUNK)):
            windows = take_windows(rows, ends[start : start + CHUNK], config.lookback)
            parts.append(model.predict(windows)[:, numbers])
        outputs = tuple(config.outputs[number] for number in numbers)
        steps = tuple(max(1, config.ahead) + step for step in range(config.horizon))
        return cls(
            config.target_of(numbers[0]).unit, outputs, steps, np.concatenate(parts), outcomes, times=outcomes.times
        )

    @property
    def target(self) -> str:
        """Name of the target."""
        return self.outcomes.target

    @property
    def actual(self) -> Array:
        """What came, (n, horizon); NaN where it is missing."""
        return self.outcomes.actual

    @property
    def persistence(self) -> Array:
        """The last value known at the window's last row, (n, horizon), the same for each step; NaN if there is none."""
        repeated: Array = np.broadcast_to(self.outcomes.persistence[:, None], self.predictions.shape)
        return repeated

    @cached_property
    def metrics(self) -> Errors:
        """Over all forecasts."""
        return measure_errors(self.predictions - self.actual, self.persistence - self.actual)[0]

    @cached_property
    def by(self) -> Mapping[str, Mapping[int | str, Errors]]:
        """By ``horizon`` (steps ahead), ``hour`` (0 to 23) and ``month`` (``2024-03``).

        Hour and month are those of the time that is forecast, not of the window's newest row, by the local clock of
        `zone`: an hour that is there twice as daylight saving ends counts as one hour of the day. Of a target that was
        shifted before training, they are those of the row with its value. There are none without dates, and no hours of
        rows a day or more apart.
        """
        groups: dict[str, tuple[Sequence[int | str], NDArray[np.int64]]] = {
            "horizon": (self.steps, np.broadcast_to(np.arange(len(self.steps)), self.predictions.shape)),
            "hour": ((), np.zeros(0, dtype=np.int64)),
            "month": ((), np.zeros(0, dtype=np.int64)),
        }
        if self.outcomes.local is not None:
            groups |= group_times(self.outcomes.local, self.outcomes.within_day)
        errors = self.predictions - self.actual, self.persistence - self.actual
        return {
            name: dict(zip(labels, measure_errors(*errors, numbers, len(labels)), strict=True)) if labels else {}
            for name, (labels, numbers) in groups.items()
        }

    def __len__(self) -> int:
        return len(self.predictions)

    def table(self) -> list[dict[str, Any]]:
        """A row for all forecasts, and one for each step, hour and month, with its errors."""
        rows: list[dict[str, Any]] = [{"by": "all", "value": None, **asdict(self.metrics)}]
        return rows + [
            {"by": name, "value": value, **asdict(errors)}
            for name, groups in self.by.items()
            for value, errors in groups.items()
        ]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each window and output: forecast, actual value, error and persistence, None where unknown."""
        return list(self.iterate_rows())

    def iterate_rows(self) -> Iterator[dict[str, Any]]:
        """The same, one after another."""
        of_windows = (values.tolist() for values in (self.predictions, self.actual, self.persistence))
        target_times = self.outcomes.target_times
        for number, of_steps in enumerate(zip(*of_windows, strict=True)):
            if number % CHUNK == 0:
                pause()
            time = {} if self.times is None else {"time": self.times[number]}
            for step, (prediction, actual, persistence) in enumerate(zip(*of_steps, strict=True)):
                is_known = actual == actual
                yield {
                    "window": number,
                    **time,
                    "output": self.outputs[step],
                    **({} if target_times is None else {"target_time": target_times[number, step]}),
                    "prediction": prediction,
                    "actual": actual if is_known else None,
                    "error": prediction - actual if is_known else None,
                    "persistence": persistence if persistence == persistence else None,
                }

    @property
    def left_out(self) -> str:
        """How many windows, and forecasts without an actual value, are left out, and why; empty if none are."""
        found, unknown = self.outcomes, self.predictions.size - self.metrics.count
        columns = list_some([f"{name} ({count:,})" for name, count in found.missing_columns.items()])
        reasons = {
            "windows across a gap in time": found.across_gaps,
            f"windows for missing values, of {columns}": found.missing,
            "forecasts without an actual value": unknown,
        }
        return "; ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)

    @property
    def clock(self) -> str:
        """Which clock hours and months are of, in words."""
        which = "row with the actual value" if self.outcomes.is_shifted else "time that is forecast"
        return f"{which}, in {self.outcomes.zone or 'UTC or as it stands'}"

    def _title(self) -> str:
        return f"Backtest of {with_unit(self.target, self.unit)}"

    def _facts(self) -> dict[str, str]:
        errors, times = self.metrics, self.outcomes.target_times
        of = self.outputs[0] if len(self.outputs) == 1 else f"{self.outputs[0]} to {self.outputs[-1]}"
        shown = {"forecasts": f"{errors.count:,} of {of}, from {len(self):,} windows"}
        if times is not None:
            shown["time"] = f"{times[0, 0]} to {times[-1, -1]}"
        if self.by["month"]:
            shown["hour, month" if self.by["hour"] else "month"] = f"of the {self.clock}"
        if self.left_out:
            shown["left out"] = self.left_out
        values = {"MAE": errors.mae, "RMSE": errors.rmse, "bias": errors.bias, "persistence": errors.persistence_mae}
        shown |= {name: "-" if value is None else f"{value:.4g}" for name, value in values.items()}
        shown["skill"] = "-" if errors.skill is None else f"{errors.skill:.4g}, as 1 - MAE / MAE of persistence"
        return shown

    def _tables(self) -> Sequence[Table]:
        tables = []
        for name, groups in self.by.items():
            rows = [{name: value, **asdict(errors)} for value, errors in groups.items()]
            title = "By step ahead" if name == "horizon" else f"By {name} of the {self.clock}"
            if len(rows) > 1:
                tables.append(Table(rows, [name, *COLUMNS], title, most=N_HOURS))
        return tables
