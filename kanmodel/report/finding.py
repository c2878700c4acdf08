"""What a report finds: questions with answers, evidence and small pictures; and what all of them are found from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.errors import DataError
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import resolve_groups
from kanmodel.result import Theme, draw
from kanmodel.structure.importance import Attribution, Importance
from kanmodel.tables.inputs import MONTHS
from kanmodel.tables.instants import DAY, read_instants, to_local
from kanmodel.tables.statistics.errors import group_times
from kanmodel.text import write_figure

_OFFSET = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$")

SummaryId = Literal["skill", "forecast", "accuracy", "intervals", "drivers", "response", "limits"]
NetworkId = Literal["sparsity", "features", "independence", "opacity", "depth", "shapes", "trust"]
FindingId = Literal[SummaryId, NetworkId]
Period = Literal["month", "hour"]


@dataclass(frozen=True)
class Bars:
    """A figure of each series, hour, month or step, beside another."""

    by: Literal["step", "series"] | Period  # what the rows are of
    # `label`, `windows` and the two `figures`; a label is a number of steps, an hour, a month as ``2024-03``, or a name
    rows: Sequence[Mapping[str, Any]]
    simple: str  # what the other figure is
    axis: str  # what the labels are
    unit: str | None  # of the figures; None if unknown
    title: str = "Average miss"  # what the figure is
    figures: tuple[str, str] = ("mae", "simple_mae")  # their names in the rows

    def name(self, row: Mapping[str, Any]) -> str:
        """The label of a row in words; a month without its year if all are of the same."""
        if self.by != "month":
            return str(row["label"])
        year, month = row["label"].split("-")
        years = {each["label"].split("-")[0] for each in self.rows}
        return MONTHS[int(month) - 1] + (f" {year}" if len(years) > 1 else "")


@dataclass(frozen=True)
class Drivers:
    """How far each group or feature without a group moves the forecasts, most important first."""

    rows: Sequence[Mapping[str, Any]]  # `name`, `mean_abs_contribution`, `interval`, `share` of each
    rest: tuple[int, float]  # number and share of the others
    unit: str | None  # of the contributions; None if unknown


@dataclass(frozen=True)
class Example:
    """The waterfall of one forecast."""

    title: str  # which forecast
    start: float  # the forecast for the baseline
    contributions: Mapping[str, float]  # by name, largest first, those of the others as the last
    prediction: float  # the forecast
    actual: float | None  # the actual value; None if unknown
    unit: str | None  # of all of these; None if unknown


@dataclass(frozen=True)
class Response:
    """The change of the forecasts as a feature is shifted at all steps of the windows."""

    feature: str  # its name
    title: str  # its name for people
    label: str  # the name, shortened so that it differs from those of other responses
    feature_unit: str | None  # None if unknown
    shift: Sequence[float]  # (points,), in the feature's unit; the middle one is 0
    change: Sequence[float]  # mean change of the forecast, (points,), in the target's unit
    low: Sequence[float]  # its 10th percentile over the windows, (points,)
    high: Sequence[float]  # its 90th
    outside: Sequence[float]  # share of the windows of which a value is then outside the training range, (points,)
    unit: str | None  # the target's; None if unknown


@dataclass(frozen=True)
class Band:
    """Forecasts in the order of time with their interval and the actual values."""

    title: str  # what the interval is
    forecast: Sequence[float]  # (n,)
    lower: Sequence[float]  # (n,)
    upper: Sequence[float]  # (n,)
    actual: Sequence[float] | None  # (n,); None if unknown
    first: str  # its time; empty if unknown
    last: str  # likewise
    unit: str | None  # of all values; None if unknown


Panel = Bars | Band | Drivers | Example | Response


@dataclass(frozen=True)
class Finding:
    """A question of the report and its answer.

    Attributes:
        id: stable id of the question.
        question: the question as people ask it.
        answer: the answer in words, as Markdown with names in backticks.
        evidence: every number of the answer, and those behind it, by name, as JSON values; each question has members of
            its own. The `interactions` of `independence` are mean magnitudes of local second differences, target's
            unit: the ten largest of `screened_pairs` pairs of all features, which were screened on `screening_windows`
            reference windows (of more than 24 features, first each against all others together).
        brief: the answer in short, as the page has it; empty if the answer is short.
        panels: pictures of the evidence.
        caption: what the pictures show; empty if they say it.
        headlines: figures in large type, each with what it is.
    """

    id: FindingId
    question: str
    answer: str
    evidence: Mapping[str, Any]
    brief: str = ""
    panels: tuple[Panel, ...] = ()
    caption: str = ""
    headlines: tuple[tuple[str, str], ...] = ()

    def draw(self, theme: Theme = "auto") -> list[str]:
        """The panels as SVG."""
        return [draw(panel, theme, n_beside=len(self.panels)).decode() for panel in self.panels]


@dataclass(frozen=True)
class ReferenceTimes:
    """The times of the reference windows' last steps."""

    texts: tuple[str, ...] | None  # as the checkpoint has them; None if it has none
    local: Array | None  # seconds since 1970 by the clocks of the place, (n,); None if they are no dates
    zone: str  # its name; empty if the times have none
    forecast: Array | None  # the times that are forecast, likewise; those of the last steps where the lead is unknown
    is_ahead: bool  # whether the lead is known

    @classmethod
    def of(cls, model: Forecaster, output: int) -> ReferenceTimes:
        """Those of a model; times that cannot be read are texts."""
        config, texts, time = model.config, model.reference.times, model.config.time
        zone, is_ahead = time.zone if time else None, bool(config.ahead and time is not None and time.dated)
        try:
            instants, dated = (None, False) if texts is None else read_instants(list(texts), "times[{}]".format, zone)
        except DataError:
            instants, dated = None, False
        if instants is None or not dated or texts is None:
            return cls(texts, None, "", None, is_ahead)
        named = zone or ("UTC" if _OFFSET.search(texts[0]) else "")
        later = instants
        if time is not None and is_ahead:
            later = time.later(instants, config.ahead + output // len(config.targets))
        return cls(texts, to_local(instants, zone), named, to_local(later, zone), is_ahead)

    def name(self, window: int) -> str:
        """The time of a window's last step; empty if unknown."""
        if self.local is None:
            return f"`{self.texts[window]}`" if self.texts else ""
        at = np.datetime64(int(self.local[window]), "s").item()
        clock = f", {at:%H:%M}" if (self.local % DAY).any() else ""
        return f"{at.day} {MONTHS[at.month - 1]} {at.year}{clock}"

    @cached_property
    def groups(self) -> dict[Period, tuple[Sequence[int | str], NDArray[np.int64]]]:
        """The months and hours of `forecast` and the number of each time's, where there are two or more of them."""
        found: dict[str, Any] = {} if self.forecast is None else group_times(self.forecast, within_day=True)
        return {by: found[by] for by in get_args(Period) if by in found and len(found[by][0]) > 1}

    @property
    def span(self) -> str | None:
        """From the first to the last; None if unknown."""
        zone = f" ({self.zone})" if self.zone else ""
        return f"{self.name(0)} to {self.name(-1)}{zone}".replace("`", "") if self.texts else None

    def describe(self, period: Period) -> str:
        """What the hours or months of `forecast` are."""
        what = f"{period} that is forecast" if self.is_ahead else f"{period} in which the forecast is made"
        return f"{what} ({self.zone})" if self.zone and period == "hour" else what


@dataclass(frozen=True)
class AmountFormat:
    """Writes amounts of the target in its unit, with the decimals of the spread of what is forecast."""

    unit: str | None
    scale: float

    @classmethod
    def of(cls, model: Forecaster, output: int) -> AmountFormat:
        """That of an output; forecasts that hardly vary have the decimals of actual values, or five digits at most."""
        forecasts, actual = model.reference_predictions[:, output], model.reference.actual(output)
        least = abs(forecasts.mean()) / 100 if actual is None else actual.std()
        return cls(model.config.target_of(output).unit, float(max(model.output_std[output], least)))

    def __call__(self, value: float) -> str:
        """``1.59 K``."""
        written = write_figure(value, self.scale)
        return f"{written} {self.unit}" if self.unit else written

    def signed(self, value: float) -> str:
        """``+1.59 K``."""
        written = self(value)
        return f"+{written}" if value > 0 and write_figure(value, self.scale) != "0" else written


@dataclass(frozen=True, eq=False)
class Subject:
    """What a report is about: one output of a model, on its reference windows."""

    model: Forecaster
    importance: Importance  # of the output

    @property
    def output(self) -> int:
        """The number of the output."""
        return self.importance.output_index

    @property
    def forecasts(self) -> Array:
        """(n,), original units."""
        return self.model.reference_predictions[:, self.output]

    @property
    def actual(self) -> Array | None:
        """The actual values, (n,), original units; None if unknown."""
        return self.model.reference.actual(self.output)

    @cached_property
    def times(self) -> ReferenceTimes:
        """Of the windows."""
        return ReferenceTimes.of(self.model, self.output)

    @cached_property
    def say(self) -> AmountFormat:
        """Writes amounts of the output."""
        return AmountFormat.of(self.model, self.output)

    @cached_property
    def drivers(self) -> list[Attribution]:
        """The rows of outermost groups and of features without a group, most important first."""
        outermost = set(resolve_groups(self.model.groups, self.model.config.feature_names).parts)
        rows = [row for row in self.importance.groups or self.importance.features if row.name in outermost]
        return [replace(row, name=self.model.inputs.label(row.name)) for row in rows]

    @cached_property
    def correlated(self) -> list[tuple[tuple[str, ...], float]]:
        """Pairs of features with a correlation of 0.9 or more in magnitude, and it, the largest first.

        Features of one input, as two levels of which one always holds, are no pair: what they have in common is its.
        """
        pairs, input_of = dict[tuple[str, ...], float](), self.model.inputs.of_feature
        for row in self.importance.features:
            for partner in row.redundant_with:
                if input_of[row.name] is not input_of[partner.name]:
                    pairs.setdefault(tuple(sorted((row.name, partner.name))), partner.correlation)
        return sorted(pairs.items(), key=lambda pair: -abs(pair[1]))


def write_percent(share: float, decimals: int = 0) -> str:
    """``53 %``."""
    return f"{100 * share:.{decimals}f} %"


def quote_names(names: Iterable[str]) -> str:
    """Names in backticks, with commas between them."""
    return ", ".join(f"`{name}`" for name in names)
