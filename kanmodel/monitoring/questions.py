"""The questions of this room: drift between two spans of time, and trust in windows."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from kanmodel.attribution.comparison import match_outputs
from kanmodel.errors import DataError, check_lowest
from kanmodel.forecaster import Forecaster
from kanmodel.monitoring.drift import Drift
from kanmodel.monitoring.tallies import EXPLAINED
from kanmodel.monitoring.trust import Trust
from kanmodel.question import Question, SeriesNames, Windows
from kanmodel.tables.table import Gaps
from kanmodel.tables.windows import name_windows, read_all_windows


@dataclass(frozen=True)
class TrustQuestion(Question[Trust]):
    """How unlike the reference windows each window is, by what, and whether its forecast can be relied on.

    A window that overlaps in time with reference windows is near to these anyway. Without windows, those are
    the reference windows, each compared with those of other blocks.

    Attributes:
        windows: in any form of `Windows`, original units; None for the reference windows.
        last: of a data frame, how many windows, as in `predict`.
        gaps: what is done with a gap in time among their rows, as in `predict`.
    """

    windows: Windows | None = None
    _: KW_ONLY
    last: int | str | None = None
    gaps: Gaps = "error"

    def answer(self, model: Forecaster) -> Trust:
        """The trust in each window."""
        if self.windows is None:
            return Trust.of(model)
        given, of_table = model.read(self.windows, self.last, self.gaps)
        return Trust.of(model, given, **name_windows(of_table))


@dataclass(frozen=True)
class DriftQuestion(Question[Drift]):
    """Whether inputs moved, whether the model uses what moved, and whether errors are worse, beyond chance.

    The forecasts and explanations of two spans of time are compared, and what differs with what differs between
    spans of the reference that are as long as the current side.

    Attributes:
        reference: a data frame, or a mapping of name to column, as in `backtest`, with the target's column where
            actual values are known; or windows in any other form of `Windows`, in order of time.
        current: likewise, such as the last days.
        output: its name; None for the first. A bound or a width has no errors.
        against: the model that served the reference, whose effects are divided into a data part and a model part;
            None for this one.
        false_alarms: rate at which each question may have an alarm though nothing has changed. By default the
            lowest that the reference can hold, and at least 0.01: a reference with n spans as long as the current
            side can hold 1 / (n + 1), so 0.2 with four, and 0.01 with 99. Below that a warning says which is used.
        explained: at most how many windows of the reference are explained, chosen evenly and no denser than those
            of the current side, which are up to 256, or a 32nd of this. Each is explained to 0.02 standard
            deviations of the output, since verdicts need means.
        gaps: whether windows across a gap in time are left out, or a gap is an error (``"error"``).
        series: which of many series, as in `predict`.
    """

    reference: Any
    current: Any
    output: str | None = None
    _: KW_ONLY
    against: Forecaster | None = None
    false_alarms: float | None = None
    explained: int = EXPLAINED
    gaps: Gaps = "skip"
    series: SeriesNames = None

    def answer(self, model: Forecaster) -> Drift:
        """The drift of the current side from the reference."""
        check_lowest("explained", self.explained, 1)
        if self.false_alarms is not None and not 0 < self.false_alarms < 1:
            raise DataError.at("false_alarms", f"must lie between 0 and 1, but is {self.false_alarms}")
        holder, number = model.find_output(self.output)
        served, origin = None, model.origin_against(self.against or model)
        if self.against is not None:
            other, _ = self.against.find_output(self.output or holder.outputs[number])
            served = other, match_outputs(holder, other, number)
        before, now = (
            read_all_windows(model.config.table, given, path, self.gaps, self.series)
            for path, given in (("reference", self.reference), ("current", self.current))
        )
        model.warn_of_new_series(now)
        return Drift.between(holder, number, before, now, served, self.explained, self.false_alarms, origin)
