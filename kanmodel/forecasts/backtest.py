"""`Backtest`: forecasts beside what came, and their errors by horizon, series, hour of the day, month and week.

Each window holds what was known when its forecast was due: `kanmodel.tables`. Errors are those of
`kanmodel.tables.statistics.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.attribution.explanation import name_columns
from kanmodel.computing import pause
from kanmodel.errors import DataError
from kanmodel.forecaster import Forecaster
from kanmodel.forecasts.calibration import Adaptation, columns_of, predict_parts, track
from kanmodel.network.intervals import forecasts_of
from kanmodel.result import Table, WindowsResult, name_window
from kanmodel.tables.instants import read_instants
from kanmodel.tables.statistics.differences import known_or_none
from kanmodel.tables.statistics.errors import (
    COLUMNS,
    SIMPLE_FORECASTS,
    Errors,
    find_season,
    group_times,
    measure_errors,
    measure_intervals,
)
from kanmodel.tables.windows import CHUNK, Missing, Windows
from kanmodel.text import list_some, with_unit

N_HOURS = 24
N_NAMED = 3  # series in text


@dataclass(frozen=True, repr=False, eq=False)
class Backtest(WindowsResult):
    """Forecasts of one target over a table, beside what came and beside simpler forecasts; `times` are of their making.

    Attributes:
        target, unit: its name and unit; None for an unknown unit.
        outputs: names of the target's outputs, in the order of `steps`.
        steps: the number in the name of each output: steps from the window's last row.
        predictions: (n, horizon), original units.
        actual: what came, (n, horizon); NaN where it is missing.
        persistence: the last value known at the window's last row, (n, horizon), the same for each step; NaN if there
            is none, or none is known to have been there, since the target's column was shifted before training.
        seasonal_naive: the latest value known then a whole number of seasons before, (n, horizon); NaN if none is.
        season: its steps, and what they are: ``(24, "day")``; None if no season is known.
        is_shifted: whether the target's column was shifted before training.
        target_times: of the rows with the actual values, (n, horizon), which is the time that is forecast unless the
            column was shifted; None without times.
        local: the same in seconds of the local clock, (n, horizon); None if they are no dates.
        zone: the time zone of that clock; None for UTC, or times as they stand.
        within_day: whether the rows are less than a day apart, so that they have an hour of the day.
        across_gaps, missing: the windows that are left out for a gap in time in them, and for a missing value.
        in_training: number of windows in the time of the training, whose errors are not those of new rows; None if
            that time is unknown.
        tested: mean absolute errors on the test part of the training, by name: of the ``model``, and of the simple
            forecasts that it was measured beside, such as ``ridge``; empty if they are unknown, or of several targets.
        levels: nominal coverages of the intervals, ascending; empty if the target has none.
        lower, upper: bounds, (n_levels, n, horizon), original units; NaN before a given adaptation.
        adaptation: the factors of the intervals after all outcomes, as JSON; None unless they were adapted.
    """

    target: str
    unit: str | None
    outputs: tuple[str, ...]
    steps: tuple[int, ...]
    predictions: Array
    actual: Array
    persistence: Array
    seasonal_naive: Array
    season: tuple[int, str] | None
    is_shifted: bool
    target_times: NDArray[np.object_] | None
    local: Array | None
    zone: str | None
    within_day: bool
    across_gaps: int
    missing: Missing
    in_training: int | None = field(default=None, kw_only=True)
    tested: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    levels: tuple[float, ...] = field(default=(), kw_only=True)
    lower: Array = field(default_factory=lambda: np.zeros((0, 0, 0)), kw_only=True)
    upper: Array = field(default_factory=lambda: np.zeros((0, 0, 0)), kw_only=True)
    adaptation: Mapping[str, Any] | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, model: Forecaster, windows: Windows, target: str, adapt: bool | Mapping[str, Any] = False) -> Backtest:
        """Forecasts each window, some at a time, so that only these are in memory; arguments as of `BacktestQuestion`.

        Raises:
            DataError: intervals cannot be adapted, since there are none, it is unknown when outcomes come, there are
                many series, or the adaptation does not fit.
            NonFiniteError: a forecast is not finite.
        """
        config, time = model.config, windows.table.spec.time
        number = windows.table.spec.targets.index(target)
        numbers = [output for output in range(len(config.outputs)) if config.target_of(output).name == target]
        actual, about = windows.actual(number), dict[str, Any]()
        if adapt is not False and model.intervals is None:
            raise DataError.at(
                "adapt", "needs intervals, but the model has none: train it with intervals, or calibrate it"
            )
        if model.intervals is None or (adapt is False and not set(numbers) <= set(forecasts_of(config))):
            predictions = np.concatenate([model.predict(part)[:, numbers] for part in windows.parts()])
        else:
            kept, predicted = columns_of(model, target), predict_parts(model, windows.parts())
            predictions, increments = predicted[0][:, numbers], np.stack(predicted[1:])[..., kept]
            scale = config.scaling.output_scale[numbers]
            if adapt is False:
                factors = np.stack([model.intervals.below, model.intervals.above])[:, :, None, kept]
            else:
                residuals = (actual - predictions) / scale
                factors, about["adaptation"] = _adapt(model, windows, target, residuals, increments, adapt)
            below, above = np.cumsum(factors * increments, axis=1) * scale
            about |= {"levels": model.levels, "lower": predictions - below, "upper": predictions + above}
        season, naive = _find_season(model, windows, number, actual)
        times = [windows.target_times(step) for step in range(windows.horizon)]
        return cls(
            target=target,
            unit=config.target_of(numbers[0]).unit,
            outputs=tuple(config.outputs[number] for number in numbers),
            steps=windows.steps,
            predictions=predictions,
            actual=actual,
            persistence=np.repeat(windows.persistence(number)[:, None], windows.horizon, axis=1),
            seasonal_naive=naive,
            season=season,
            is_shifted=not config.ahead,
            target_times=np.array(times, dtype=object).T if times[0] else None,
            local=windows.local(),
            zone=time.zone if time else None,
            within_day=time is not None and time.within_day,
            across_gaps=windows.across_gaps,
            missing=windows.missing,
            in_training=_count_in_training(model, windows),
            tested=_find_tested(model),
            origin=model.origin,
            **windows.named,
            **about,
        )

    @cached_property
    def metrics(self) -> Errors:
        """Over all forecasts."""
        return self._measure()[0]

    @cached_property
    def by(self) -> Mapping[str, Mapping[int | str, Errors]]:
        """By ``horizon`` (steps ahead), ``series``, ``hour`` (0 to 23), ``month`` (``2024-03``) and ``week``.

        Series are those with the largest errors first. A week is named by its Monday.

        Hour, month and week are those of the time that is forecast, not of the window's newest row, by the local clock
        of `zone`: an hour that is there twice as daylight saving ends counts as one hour of the day. Of a target that
        was shifted before training, they are those of the row with its value. There are none without dates, and no
        hours and weeks of rows a day or more apart.
        """
        shape = self.predictions.shape
        groups: dict[str, tuple[Sequence[int | str], NDArray[np.int64]]] = {
            "horizon": (self.steps, np.broadcast_to(np.arange(len(self.steps)), shape))
        }
        if self.local is not None:
            groups |= group_times(self.local, self.within_day)
        if self.series is not None:
            names, numbers = np.unique(np.array(self.series, dtype=object), return_inverse=True)
            groups["series"] = names.tolist(), np.broadcast_to(numbers[:, None], shape)
        found: dict[str, dict[int | str, Errors]] = {name: {} for name in ("horizon", "hour", "month", "week")}
        for name, (labels, numbers) in groups.items():
            found[name] = dict(zip(labels, self._measure(numbers, len(labels)), strict=True))
        if self.series is not None:
            found["series"] = dict(sorted(found["series"].items(), key=lambda item: -(item[1].mae or 0.0)))
        return found

    def _measure(self, groups: NDArray[np.int64] | None = None, n_groups: int = 1) -> list[Errors]:
        """The errors of the forecasts, and of their intervals, in each group."""
        forecasts = self.predictions, self.persistence, self.seasonal_naive
        ours, of_persistence, of_season = (each - self.actual for each in forecasts)
        measured = measure_errors(ours, of_persistence, of_season, groups, n_groups)
        if not self.levels:
            return measured
        intervals = measure_intervals(self.levels, self.lower, self.upper, self.actual, groups, n_groups)
        return [replace(one, intervals=of_levels) for one, of_levels in zip(measured, intervals, strict=True)]

    def __len__(self) -> int:
        return len(self.predictions)

    def table(self) -> list[dict[str, Any]]:
        """A row for all forecasts, and one for each step, hour, month and week, with its errors."""
        groups: dict[str, Mapping[Any, Errors]] = {"all": {None: self.metrics}, **self.by}
        return [
            {"by": name, "value": value, **errors.row()} for name, of in groups.items() for value, errors in of.items()
        ]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each window and output: forecast, actual value, error, persistence, bounds; None if unknown."""
        return list(self.iterate_rows())

    def iterate_rows(self) -> Iterator[dict[str, Any]]:
        """The same, one after another."""
        of_windows = (values.tolist() for values in (self.predictions, self.actual, self.persistence))
        bounds = [
            (name, bound)
            for level, *of_level in zip(self.levels, self.lower, self.upper, strict=True)
            for name, bound in zip(name_columns(level), of_level, strict=True)
        ]
        for number, of_steps in enumerate(zip(*of_windows, strict=True)):
            if number % CHUNK == 0:
                pause()
            window = name_window(number, self.times, self.series)
            for step, (prediction, actual, persistence) in enumerate(zip(*of_steps, strict=True)):
                row = {**window, "output": self.outputs[step]}
                if self.target_times is not None:
                    row["target_time"] = self.target_times[number, step]
                row |= {"prediction": prediction, "actual": known_or_none(actual)}
                row |= {"error": known_or_none(prediction - actual), "persistence": known_or_none(persistence)}
                yield row | {name: known_or_none(bound[number, step].item()) for name, bound in bounds}

    @property
    def left_out(self) -> str:
        """How many windows, and forecasts without an actual value, are left out, and why; empty if none are."""
        unknown = self.predictions.size - self.metrics.count
        columns = list_some([f"{name} ({count:,})" for name, count in self.missing.worst.items()])
        reasons = {
            "windows across a gap in time": self.across_gaps,
            f"windows for missing values, of {columns}": self.missing.windows,
            "forecasts without an actual value": unknown,
        }
        return "; ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)

    @property
    def clock(self) -> str:
        """Which clock hours and months are of, in words."""
        which = "row with the actual value" if self.is_shifted else "time that is forecast"
        return f"{which}, in {self.zone or 'UTC or as it stands'}"

    def _title(self) -> str:
        return f"Backtest of {with_unit(self.target, self.unit)}"

    def _facts(self) -> dict[str, str]:
        errors, times = self.metrics, self.target_times
        of = self.outputs[0] if len(self.outputs) == 1 else f"{self.outputs[0]} to {self.outputs[-1]}"
        shown = {"forecasts": f"{errors.count:,} of {of}, from {len(self):,} windows"}
        if times is not None:
            ends = (times[0, 0], times[-1, -1]) if self.series is None else (min(times[:, 0]), max(times[:, -1]))
            shown["time"] = f"{ends[0]} to {ends[1]}"
        if self.series is not None:
            of_series = [f"{name} ({of.mae:.4g})" for name, of in self.by["series"].items() if of.mae is not None]
            shown["series"] = f"{len(self.by['series']):,}; largest MAE of {list_some(of_series, N_NAMED)}"
        if self.by["month"]:
            shown["hour, month" if self.by["hour"] else "month"] = f"of the {self.clock}"
        if self.in_training:
            which = "all" if self.in_training == len(self) else f"{self.in_training:,} of {len(self):,}"
            shown["training"] = f"{which} windows lie in the time of the training: errors on new rows may be larger"
        if self.left_out:
            shown["left out"] = self.left_out
        values = {"MAE": errors.mae, "RMSE": errors.rmse, "bias": errors.bias, "persistence": errors.persistence_mae}
        shown |= {name: "-" if value is None else f"{value:.4g}" for name, value in values.items()}
        if self.season is not None and errors.seasonal_naive_mae is not None:
            steps, name = self.season
            shown["seasonal naive"] = f"{errors.seasonal_naive_mae:.4g}, the value a {name} before ({steps} steps)"
        if len(self.tested) > 1:
            beside = ", ".join(f"{name} {mae:.4g}" for name, mae in self.tested.items() if name != "model")
            shown["test part"] = f"MAE {self.tested['model']:.4g} beside {beside}, when it was trained"
        shown["skill"] = "-" if errors.skill is None else f"{errors.skill:.4g}, as 1 - MAE / MAE of persistence"
        for each in errors.intervals:
            if each.covered is not None:
                outside = f"{each.below:.1%} below, {each.above:.1%} above"
                sizes = f"mean width {each.width:.4g}, Winkler score {each.winkler:.4g}"
                shown[f"interval {each.level:g}"] = f"covers {each.covered:.1%}, {outside}; {sizes}"
        if self.adaptation is not None:
            shown["adapted"] = f"by {self.adaptation['outcomes']:,} actual values, in the order of time"
        return shown

    def _tables(self) -> Sequence[Table]:
        tables = []
        for name, groups in self.by.items():
            rows = [{name: value, **errors.row()} for value, errors in groups.items()]
            title = {"horizon": "By step ahead", "series": "By series, the largest errors first"}.get(name)
            title = title or f"By {name} of the {self.clock}"
            if len(rows) > 1:
                columns = [*COLUMNS, *(f"{of}@{level:g}" for level in self.levels for of in ("covered", "winkler"))]
                tables.append(Table(rows, [name, *columns], title, most=N_HOURS))
        return tables


def _find_tested(model: Forecaster) -> dict[str, float]:
    """See `Backtest.tested`."""
    order = ("ridge", "lightgbm", "seasonal_naive", "persistence")
    known = {"model": model.metrics.get("test_mae")}
    known |= {SIMPLE_FORECASTS[name]: model.metrics.get(f"{name}_mae") for name in order}
    if known["model"] is None or len(model.config.targets) > 1:
        return {}
    return {name: mae for name, mae in known.items() if mae is not None}


def _count_in_training(model: Forecaster, windows: Windows) -> int | None:
    """Number of windows in the time of the training; None if it, or that of the rows, is unknown."""
    origin, spec = model.provenance, windows.table.spec
    if origin.fitted_from is None or origin.fitted_to is None or spec.time is None or windows.table.instants is None:
        return None
    ends = [origin.fitted_from, origin.fitted_to]
    (first, last), _ = read_instants(ends, lambda _: "the time of the training", spec.time.zone)
    at = windows.table.instants[windows.ends]
    return int(((first <= at) & (at <= last)).sum())


def _find_season(
    model: Forecaster, windows: Windows, target: int, actual: Array
) -> tuple[tuple[int, str] | None, Array]:
    """The season that training has found, or else the best one here, with its seasonal naive forecasts."""
    time = windows.table.spec.time
    seasons = {} if time is None else time.seasons
    if (known := model.metrics.get("season")) is not None:
        seasons = {name: steps for name, steps in seasons.items() if steps == known} or {"season": int(known)}
    naive = {steps: windows.seasonal_naive(target, steps) for steps in seasons.values()}

    def measure(steps: int) -> float:
        missed = np.abs(naive[steps] - actual)
        return float(missed[np.isfinite(missed)].mean()) if np.isfinite(missed).any() else np.nan

    found = find_season(seasons, measure)
    if found is None:
        return None, np.full(actual.shape, np.nan)
    return (found[1], found[0]), naive[found[1]]


def _adapt(
    model: Forecaster,
    windows: Windows,
    target: str,
    residuals: Array,
    increments: Array,
    adapt: bool | Mapping[str, Any],
) -> tuple[Array, dict[str, Any]]:
    """Factors of each window, (2, n_levels, n, horizon), NaN before a given adaptation, and the new adaptation.

    `residuals`, (n, horizon), and `increments`, (2, n_levels, n, horizon), are in model units.
    """
    config = model.config
    if windows.series is not None and len(set(windows.series)) > 1:
        raise DataError.at("adapt", "follows one series in the order of time: name it (series)")
    if not config.ahead:
        raise DataError.at("adapt", f"needs to know when outcomes come: the checkpoint lacks how far {target} is ahead")
    start = Adaptation.of(model, target)
    if isinstance(adapt, Mapping):
        start = Adaptation.read(adapt, model, target, "adaptation")
    n_known = _count_until(windows, start.last)
    values = np.concatenate([np.stack([-residuals, residuals])[:, None], increments], axis=1)
    values[:, 0, :n_known] = np.nan
    delays = config.ahead + np.arange(config.horizon)
    before = np.array([[start.below, start.above], [start.average_below, start.average_above]])
    rows = windows.table.position[windows.ends]
    tracked, (factors, averages) = track(model.levels, rows, delays, values, before)
    if n_known:
        tracked[rows < rows[n_known - 1] + delays[-1]] = np.nan
    known = ~np.isnan(values[0, 0])
    last = windows.times[np.flatnonzero(known.any(axis=1))[-1]] if windows.times and known.any() else start.last
    n_outcomes = start.outcomes + int(known.sum())
    (below, above), (of_below, of_above) = factors.tolist(), averages.tolist()
    adapted = below, above, of_below, of_above
    found = Adaptation(start.checkpoint, target, start.levels, *adapted, n_outcomes, last)
    return np.moveaxis(tracked, 0, 2), found.document()


def _count_until(windows: Windows, last: str | None) -> int:
    """Number of windows that end at a time or before it; 0 if it or their times are None."""
    if last is None or windows.times is None:
        return 0
    if last in windows.times:
        return windows.times.index(last) + 1
    zone = windows.table.spec.time.zone if windows.table.spec.time else None
    of_all, _ = read_instants([*windows.times, last], lambda row: "adaptation.last", zone)
    return int(np.searchsorted(of_all[:-1], of_all[-1], "right"))
