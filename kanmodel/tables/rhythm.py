"""`TimeColumn`: the rhythm of a table's rows, in which `ahead` is counted: a fixed time, days, open days, or months.

Days and months are those of the local calendar. Where some weekdays never have rows, as of exchanges, the next row is
one step. Of many series of days, up to three days without a row are no gap, since a shop may be closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError, Positive, check_config, check_number, quote
from kanmodel.tables.instants import DAY, find_zone, from_local, to_local

Unit = Literal["second", "day", "month", "month end"]
MAX_STEP = 1.5  # usual steps; a longer one is a gap
ROUNDING = 1e-3  # of a step: instants that differ by less are the same
ALIGNED = 0.1  # of a step, by which rows after a gap may differ from those before it and still be in step
EVERY_DAY = "1111111"
MIN_ROWS = 10  # of days, to tell that a weekday never has rows
RARE = 0.2  # of the rows of a usual weekday: one with fewer is closed
CLOSED = 3.5  # days from row to row of one of many series, as of a shop that was closed, that are no gap
FAR = 1 << 24  # steps between rows that are not in step with each other


def _check_weekdays(value: object, place: str) -> None:
    if not isinstance(value, str) or len(value) != 7 or set(value) - {"0", "1"} or "1" not in value:
        raise ConfigError(f"{place} must be 7 digits, 1 for a weekday that has rows, but is {quote(value)}")


@dataclass(frozen=True)
class TimeColumn:
    """The time stamps of the rows that a forecaster was trained on, and their rhythm.

    Attributes:
        name: the column's name.
        step: usual time from row to row, in `unit`, or in that of a column of numbers.
        max_step: longest step that is not a gap, in usual steps; of open days in weeks.
        dated: whether the column has dates; else numbers.
        unit: of `step`: ``second``, or ``day``, ``month`` or ``month end`` of the local calendar.
        weekdays: of days, which have rows, from Monday: ``1111100`` for business days.
        at: of days and months, the time of day, seconds after midnight of the local clock.
        zone: name of the time zone of local times and of the calendar; None for UTC, or times as they stand.
    """

    name: str
    step: Positive
    max_step: Positive
    dated: bool
    unit: Unit = "second"
    weekdays: Annotated[str, _check_weekdays] = EVERY_DAY
    at: Annotated[float, check_number] = 0.0
    zone: str | None = None

    def __post_init__(self) -> None:
        check_config(self)
        if self.zone is not None:
            find_zone(self.zone)
        if self.unit != "second" and not (self.dated and float(self.step).is_integer() and 0 <= self.at < DAY):
            raise ConfigError(f"time has steps of {self.step} {self.unit}s at {self.at} seconds after midnight")

    @classmethod
    def of(
        cls, name: str, instants: Array, series: Any, dated: bool, max_step: float = MAX_STEP, zone: str | None = None
    ) -> TimeColumn | None:
        """The rhythm of rows at instants in seconds, (n_rows,), by the label of each row's series, or of one for None.

        `dated` says whether they are dates. None if no row follows another.
        """
        codes = np.zeros(len(instants)) if series is None else np.unique(series, return_inverse=True)[1]
        order = np.lexsort((instants, codes))  # rows that are not in order of time are refused elsewhere
        instants, follows = instants[order], np.diff(codes[order]) == 0
        steps = np.diff(instants)[follows]
        if not len(steps):
            return None
        usual = float(np.median(steps))
        fixed = cls(name, usual or 1.0, max_step, dated, zone=zone)
        if not dated or usual < 0.8 * DAY:
            return fixed
        local = to_local(instants, zone)
        at = float(np.median(local % DAY))
        if (np.abs((local - at + DAY / 2) % DAY - DAY / 2) > DAY / 12).mean() > ROUNDING:
            return fixed  # rows are at any time of the day
        days = np.floor((local - at) / DAY + 0.5)
        months, of_month = _months(days)
        is_end = _months(days + 1)[1] == 0
        between = np.diff(days)[follows]
        if np.median(between) >= 28 and (is_end.all() or (of_month == of_month[0]).all()):
            step = max(float(np.median(np.diff(months)[follows])), 1.0)
            return cls(name, step, max_step, True, "month end" if is_end.all() else "month", EVERY_DAY, at, zone)
        counts, weekdays = np.bincount(((days + 3) % 7).astype(int), minlength=7), EVERY_DAY
        is_open = counts > RARE * np.median(counts[counts > 0])
        if np.median(between) == 1 and len(days) >= MIN_ROWS and 2 <= is_open.sum() < 7 and between.max() > 1:
            weekdays = "".join(np.where(is_open, "1", "0"))
        if not follows.all() and np.median(between) == 1 and weekdays == EVERY_DAY:
            max_step = max(max_step, CLOSED)
        return cls(name, float(np.median(between)), max_step, True, "day", weekdays, at, zone)

    @property
    def is_open_days(self) -> bool:
        """Whether some weekdays have no rows, so that the next row is one step, whatever lies between."""
        return self.unit == "day" and self.weekdays != EVERY_DAY

    def count_steps(self, instants: Array) -> Array:
        """Steps from each instant to the next, (n_rows - 1,), in seconds ascending; of open days weeks."""
        if self.unit == "second":
            return np.diff(instants) / self.step
        days = self._days(instants)
        if self.unit == "day":
            return np.diff(days) / (7 if self.is_open_days else self.step)
        steps: Array = np.diff(_months(days)[0]) / self.step
        return steps

    def is_gap(self, steps: Array) -> NDArray[np.bool_]:
        """Whether each of `count_steps` is a gap."""
        return steps > self.max_step * (1 + 1e-9)

    def is_short(self, steps: Array) -> NDArray[np.bool_]:
        """Whether each of `count_steps` is shorter than the usual one by as large a factor as a gap is longer."""
        return steps < (0 if self.is_open_days else 1 / self.max_step)

    def number(self, instants: Array, is_first: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The position of each row in the rhythm, and its run, two numbers that never fall from row to row.

        Positions of rows of one series differ by the steps between them, those of two series by more than any window.
        A run ends where a gap begins, or a series.
        """
        position, run = np.zeros((2, len(instants)), dtype=np.int64)
        if len(instants) < 2:
            return position, run
        steps = self.count_steps(instants)
        is_gap = self.is_gap(steps) | is_first[1:]
        whole = np.maximum(np.ceil(steps - 0.5), 1.0)
        if self.is_open_days:
            days = self._days(instants).astype("datetime64[D]")
            n_open = np.maximum(np.busday_count(days[:-1], days[1:], weekmask=self.weekdays), 1)
            whole = np.where(is_gap, n_open.astype(np.float64), 1.0)
        away = is_first[1:] | (is_gap & (np.abs(steps - np.rint(steps)) > ALIGNED) & (self.unit == "second"))
        np.cumsum(np.where(away, FAR, np.minimum(whole, FAR)), out=position[1:])
        np.cumsum(is_gap, out=run[1:])
        return position, run

    def later(self, instants: Array, steps: Any) -> Array:
        """The instants so many steps later, (n,); `steps` is a number, or one of each."""
        if self.unit == "second":
            fixed: Array = instants + steps * self.step
            return fixed
        days = self._days(instants)
        if self.is_open_days:
            dates = days.astype("datetime64[D]")
            days = np.busday_offset(dates, steps, roll="backward", weekmask=self.weekdays).astype(np.float64)
        elif self.unit == "day":
            days = days + steps * self.step
        else:
            months, of_month = _months(days)
            later = (months + steps * self.step).astype(np.int64)
            first = later.astype("datetime64[M]").astype("datetime64[D]").astype(np.float64)
            length = (later + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.float64) - first
            days = first + (length - 1 if self.unit == "month end" else np.minimum(of_month, length - 1))
        at: Array = from_local(days * DAY + self.at, self.zone)
        return at

    def local(self, instants: Array) -> Array:
        """Seconds of the local clock; any shape."""
        return to_local(instants, self.zone)

    @property
    def seasons(self) -> dict[str, int]:
        """Steps of a day, a week and a year, of those that are whole numbers of them, and at least two."""
        if not self.dated:
            return {}
        if self.is_open_days:
            return {"week": self.weekdays.count("1")}
        if self.unit in ("month", "month end"):
            found = {"year": 12 / self.step}
        else:
            steps = (1.0 if self.unit == "second" else DAY) * self.step
            found = {"day": DAY / steps, "week": 7 * DAY / steps}
            found |= {"year": float(round(365.25 * DAY / steps))} if steps >= DAY * (1 - ROUNDING) else {}
        whole = {name: round(of) for name, of in found.items() if abs(of - round(of)) <= ROUNDING * of}
        return {name: steps for name, steps in whole.items() if steps >= 2}

    def describe_steps(self, steps: int) -> str:
        """So many steps in words: ``36 hours``, ``3 business days``, or ``12 steps`` of a column of numbers."""
        count, name = steps * self.step, self.unit.removesuffix(" end")
        if not self.dated or (self.is_open_days and self.weekdays != "1111100"):
            count, name = float(steps), "open day" if self.dated else "step"
        elif self.is_open_days:
            name = "business day"
        elif self.unit == "second":
            for name, seconds in (("day", DAY), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0)):
                if steps * self.step % seconds == 0 and (name != "day" or steps * self.step >= 2 * DAY):
                    count = steps * self.step / seconds
                    break
        return f"{count:g} {name}{'' if count == 1 else 's'}"

    @property
    def usual_step(self) -> str:
        """`step` in words; of a column of numbers the number."""
        return self.describe_steps(1) if self.dated else f"{self.step:g}"

    @property
    def within_day(self) -> bool:
        """Whether rows are less than a day apart, so that they have an hour of the day."""
        return self.dated and self.unit == "second" and self.step < 0.8 * DAY

    def _days(self, instants: Array) -> Array:
        """Numbers of local days since 1970 that rows are of."""
        return np.floor((self.local(instants) - self.at) / DAY + 0.5)


def _months(days: Array) -> tuple[Array, Array]:
    """Months since 1970 of days since 1970, and the days of the month from 0."""
    dates = days.astype(np.int64).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    of_month = (dates - months.astype("datetime64[D]")).astype(np.float64)
    return months.astype(np.int64).astype(np.float64), of_month
