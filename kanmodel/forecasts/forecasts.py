"""`Forecasts`: forecasts with their prediction intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kanmodel import html
from kanmodel.arrays import Array
from kanmodel.attribution.explanation import name_columns
from kanmodel.errors import DataError, quote, refuse_unknown
from kanmodel.forecaster import Forecaster
from kanmodel.network.intervals import forecasts_of, name_forecast
from kanmodel.result import Table, WindowsResult
from kanmodel.tables.statistics.errors import covered
from kanmodel.tables.windows import Windows
from kanmodel.text import list_some, with_unit

N_ENDS = 5  # forecasts at either end that text and HTML list


@dataclass(frozen=True, repr=False, eq=False)
class Forecasts(WindowsResult):
    """Forecasts of n windows with an interval at each level, in original units.

    Attributes:
        outputs: names of the forecasts: the model's outputs, but of a target with quantiles only the target itself or
            its median.
        targets: the name of the target that each forecasts, without a quantile.
        units: of each; None if unknown.
        levels: nominal coverages, ascending.
        predictions: (n, n_outputs).
        lower, upper: bounds, (n_levels, n, n_outputs).
        actual: what came, (n, n_outputs), NaN where there is no value yet; None unless the windows are those of a data
            frame with a target's column.
        target_times: for which each forecast is, (n, n_outputs), as the table writes times; None without times, and if
            the target's column was shifted before training.
        instants: the same in seconds since 1970, UTC, or in the unit of the time column, (n, n_outputs); None without
            times.
        zone: name of the time zone of local times; None for UTC, or times as they stand.
    """

    outputs: tuple[str, ...]
    targets: tuple[str, ...]
    units: tuple[str | None, ...]
    levels: tuple[float, ...]
    predictions: Array
    lower: Array
    upper: Array
    actual: Array | None = None
    target_times: NDArray[np.object_] | None = None
    instants: Array | None = None
    zone: str | None = None

    @classmethod
    def of(
        cls,
        model: Forecaster,
        windows: Array,
        levels: Literal["all"] | Sequence[float],
        of_table: Windows | None = None,
    ) -> Forecasts:
        """The forecasts of windows (n, lookback, n_features), original units, oldest step first.

        With those of a table, also the times that are forecast and what came.

        Raises:
            DataError: a window does not fit, or the model has no intervals, or none at one of the levels.
            NonFiniteError: a forecast or a bound is not finite.
        """
        chosen, config = choose_levels(model, levels), model.config
        predictions, lower, upper = model.predict_bounds(windows)
        kept, at = list(forecasts_of(config)), [model.levels.index(level) for level in chosen]
        about: dict[str, Any] = {}
        if of_table is not None:
            outcomes = [of_table.outcome(*model.target_place(config.outputs[output])) for output in kept]
            unknown = np.full(len(windows), np.nan)
            for name, kind in (("actual", np.float64), ("instants", np.float64), ("target_times", object)):
                if any(name in of for of in outcomes):
                    columns = [np.asarray(of.get(name, unknown), dtype=kind) for of in outcomes]
                    about[name] = np.stack(columns, axis=1)
            about |= of_table.named | {"zone": outcomes[0].get("zone")}
        return cls(
            tuple(config.outputs[output] for output in kept),
            tuple(name_forecast(config.target_of(output).name) for output in kept),
            tuple(config.target_of(output).unit for output in kept),
            chosen,
            predictions[:, kept],
            lower[at],
            upper[at],
            **about,
            origin=model.origin,
        )

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def width(self) -> Array:
        """Upper bound minus lower bound, (n_levels, n, n_outputs)."""
        width: Array = self.upper - self.lower
        return width

    @property
    def covered(self) -> Array | None:
        """Whether each interval holds the actual value, (n_levels, n, n_outputs), NaN where it is unknown.

        None if `actual` is.
        """
        return None if self.actual is None else covered(self.lower, self.upper, self.actual)

    @property
    def coverage(self) -> Mapping[float, float]:
        """The share of the known actual values that the intervals hold, by level; empty if none is known."""
        covered = self.covered
        if covered is None or np.isnan(covered).all():
            return {}
        shares = np.nanmean(covered, axis=(1, 2)).tolist()
        return dict(zip(self.levels, shares, strict=True))

    def table(self) -> list[dict[str, Any]]:
        """A row for each window and output: ``time`` or ``window``, ``prediction``, ``lower@0.8``, ``upper@0.8``.

        Of many series also `series`.
        With a target's column also `actual`, NaN where there is no value yet, and ``covered@0.8``, None there.
        """
        covered, rows = self.covered, list[dict[str, Any]]()
        for n, output in np.ndindex(self.predictions.shape):
            row: dict[str, Any] = {} if self.series is None else {"series": self.series[n]}
            row |= {"window": n} if self.times is None else {"time": self.times[n]}
            row["output"] = self.outputs[output]
            if self.target_times is not None:
                row["target_time"] = self.target_times[n, output]
            row |= {"unit": self.units[output], "prediction": float(self.predictions[n, output])}
            if self.actual is not None:
                row["actual"] = float(self.actual[n, output])
            for level, *bounds in zip(self.levels, self.lower[:, n, output], self.upper[:, n, output], strict=True):
                row |= zip(name_columns(level), map(float, bounds), strict=True)
            if covered is not None:
                for level, held in zip(self.levels, covered[:, n, output], strict=True):
                    row[f"covered@{level:g}"] = None if np.isnan(held) else bool(held)
            rows.append(row)
        return rows

    @property
    def _undrawn(self) -> str | None:
        if self._is_of_one_series:
            return None
        return "a picture shows one series, but these forecasts are of several: name it (series)"

    def _title(self) -> str:
        named = [with_unit(name, unit) for name, unit in zip(self.outputs, self.units, strict=True)]
        return f"Forecasts of {list_some(named)} with intervals"

    def _facts(self) -> dict[str, str]:
        facts = {}
        if self.predictions.size > 2 * N_ENDS:
            facts["forecasts"] = f"{self.predictions.size:,}, here the first {N_ENDS} and the last {N_ENDS}"
        if self.actual is not None and (coverage := self.coverage):
            known = int((~np.isnan(self.actual)).sum())
            held = ", ".join(f"{100 * share:.3g} % at {level:g}" for level, share in coverage.items())
            facts["covered"] = f"{held}, of {known:,} actual values"
        return facts

    def _details(self) -> str:
        return html.write_heading(self._title()) + super()._details()

    def _tables(self) -> list[Table]:
        rows = self.table()
        rows = [*rows[:N_ENDS], *rows[-N_ENDS:]] if len(rows) > 2 * N_ENDS else rows
        return [Table(rows, [name for name in rows[0] if not name.startswith("covered")] if rows else [])]


def choose_levels(
    model: Forecaster, levels: Literal["all"] | Sequence[float], path: str = "intervals"
) -> tuple[float, ...]:
    """The given levels of a model's intervals, ascending; errors name them by their `path`."""
    known = model.levels
    if not known:
        raise DataError.at(path, "must not be given, as the model has none: train it with intervals, or calibrate it")
    if isinstance(levels, str):
        refuse_unknown(path, levels, ("all",))
        return known
    chosen = np.asarray(levels, dtype=np.float64).reshape(-1).tolist()
    for number, level in enumerate(chosen):
        if level not in known:
            there = f"one of {', '.join(f'{p:g}' for p in known)}"
            raise DataError.at(f"{path}[{number}]", f"must be {there}, the levels of the model, but is {quote(level)}")
    if not chosen:
        raise DataError.at(path, "is empty")
    return tuple(sorted(set(chosen)))
