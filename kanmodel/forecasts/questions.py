"""The question of this room: a backtest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from kanmodel.errors import refuse_unknown
from kanmodel.forecaster import Forecaster
from kanmodel.forecasts.backtest import Backtest
from kanmodel.question import Question, SeriesNames
from kanmodel.tables.table import CellNames, Gaps, Selection
from kanmodel.tables.windows import Windows, read_table


@dataclass(frozen=True)
class BacktestQuestion(Question[Backtest]):
    """Forecasts over a table beside what came: errors, bias and skill, overall and by horizon, series and time.

    Each forecast is that of its due time: cutting the table off after a window's last row, but for known columns,
    changes no bit of what it reads, and the forecast by rounding alone. Skill is 1 - MAE / MAE of persistence, the
    last value that was known. Windows with a missing value, across a gap in time, or that end where the table has
    not all rows of the horizon yet, are left out, and so are forecasts without an actual value; the result states
    how many. Of a model with intervals it has their coverage, mean width and Winkler score as well.

    Attributes:
        frame: a data frame, or a mapping of name to column, with the columns of the training, the target among
            them, and the time if the model was trained with one: the rows of the test or new ones. Of another model
            a column ``time`` or an index of dates, if there is one, has the times.
        target: its name; None for the first.
        adapt: whether the intervals are adapted in the order of time, each forecast's by the actual values that
            were known as it was made; or an `adaptation` of an earlier backtest to go on from: actual values of
            windows up to its `last` do not count again, and forecasts made before it was have no interval. Without
            times it has no `last`: give new rows alone.
        last: how many windows, those that end at the newest rows whose whole horizon the table has: a number, or a
            duration, as in `predict`. By default all.
        gaps: whether windows across a gap in time are left out, or a gap is an error (``"error"``).
        series: as in `predict`.
        places: names of the table in errors; by default those of a data frame.
    """

    frame: Any
    target: str | None = None
    _: KW_ONLY
    adapt: bool | Mapping[str, Any] = False
    last: int | str | None = None
    gaps: Gaps = "skip"
    series: SeriesNames = None
    places: CellNames | None = None

    def answer(self, model: Forecaster) -> Backtest:
        """The forecasts and their errors."""
        spec, read = model.config.table, self.frame
        target = spec.targets[0] if self.target is None else self.target
        refuse_unknown("target", target, spec.targets)
        if not isinstance(read, Windows):
            places = self.places or CellNames.of("frame", spec)
            read = read_table(spec, read, places, Selection(self.last, series=self.series), self.gaps, target)
            model.warn_of_new_series(read)
        return Backtest.of(model, read, target, self.adapt)
