"""POST /v1/models/{model}:predict: forecasts for windows."""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.monitoring.drift import DriftVerdict, Effect, ErrorDrift, InputDrift, UseDrift
from kanmodel.monitoring.trust import WindowTrust
from kanmodel.tables.statistics.errors import Errors, IntervalErrors
from service.answers.forms import Answered
from service.answers.members import Adaptation, Answer, AskAdaptation, Closed, Interval, UnitOf, VersionQuery, about
from service.answers.reference import OnReference
from service.answers.table import OF_CHANGE, OF_REFERENCE, Gaps
from service.answers.windows import AskTrust, DataWarning, Last, LeftOut, OfWindows, Series, Windows

Predictions = Annotated[
    list[list[float]], about("n x n_outputs, in the order of the model's `outputs`, original units.")
]


class PredictRequest(Windows):
    """Windows to forecast, in one of three forms."""

    intervals: list[float] | None = None
    """Levels of the prediction intervals that the answer has too, such as `[0.8, 0.95]`, of those that the model
    states. `"all"` may stand in place of the list."""
    adaptation: AskAdaptation = None
    trust: AskTrust = False
    receipts: Annotated[bool, about("Whether to add `receipts`, with which `:outcomes` are sent.", strict=True)] = False
    echo: Annotated[bool, about("Whether to add `instances`, as those that are cut from a series.", strict=True)] = (
        False
    )


class ForecastIntervals(TypedDict):
    """The prediction intervals of one level, which cover about that share of what comes."""

    level: Annotated[float, about("Nominal coverage.")]
    outputs: list[str]
    """Names of the forecasts: the `outputs`, but of a target with quantiles the target itself or its median alone."""
    lower: Annotated[list[list[float]], about("Lower bounds, n x these, original units.")]
    upper: Annotated[list[list[float]], about("Upper bounds.")]


class PredictResponse(Answer, OfWindows):
    """The forecasts of a request."""

    outputs: Annotated[list[str], about("Names of the outputs, `{target}+{step}`.")]
    predictions: Predictions
    intervals: NotRequired[Annotated[list[ForecastIntervals], about("By level, ascending; only where asked for.")]]
    logits: NotRequired[Annotated[list[list[float]], about("Logits of a classifier, n x n_outputs; absent otherwise.")]]
    receipts: NotRequired[Annotated[list[str], about("Of each instance, to send with its outcome; only if requested.")]]
    trust: NotRequired[Annotated[list[Answered[WindowTrust]], about("Of each instance; only if requested.")]]
    instances: NotRequired[list[list[list[float]]]]
    """The windows, n x lookback x n_features, original units; only with `echo`."""


LARGEST = 1e100  # actual value, in the target's unit: sums of squares stay finite


class Outcome(Closed):
    """What came after a forecast."""

    receipt: Annotated[str, about("One of the `receipts` of `:predict`, as it was.", strict=True)]
    values: dict[str, Annotated[float, Field(ge=-LARGEST, le=LARGEST, strict=True)]]
    """The actual value by the name of the output, in the target's unit: `{"load+1": 812.5}`. Outcomes are compared with
    the forecasts of one output, the first of a target or its median."""


class OutcomesRequest(Closed):
    """Outcomes of forecasts."""

    outcomes: Annotated[list[Outcome], about("At most `max_windows`.", min_length=1, fail_fast=True)]


class OutcomesResponse(Answer):
    """What became of the outcomes, each in one of three numbers."""

    output: Annotated[str, about("Name of the output whose forecasts are compared with outcomes.")]
    matched: Annotated[int, about("Outcomes that were compared with their forecast, and counted.", ge=0)]
    unknown: Annotated[int, about("Those of which the receipt is not valid here.", ge=0)]
    """It was changed, or signed with another `receipt_key`, or it is of another model, or of another version than the
    query names, or older than `monitor_hours`."""
    repeated: Annotated[int, about("Those that were counted before, and are not again.", ge=0)]
    """The process that answers remembers its last 32,768 receipts, and nothing of other processes or replicas, so each
    outcome should be sent once."""


BacktestDetail = TypeAliasType("BacktestDetail", Literal["errors", "rows"])


class BacktestRequest(Closed):
    """A table with the columns of the training, the target's among them."""

    model_config = ConfigDict(json_schema_extra={"required": ["series"]})

    series: Series | SkipJsonSchema[None] = None
    """Rows of a table, once, as in `:predict`, and the column of the target beside them, original units, null where its
    value is unknown. The times of the rows are needed if the model was trained with times."""
    target: Annotated[str | None, about("Name of the target; optional if the model has one.")] = None
    last: Last | None = None
    """Only the newest windows whose whole horizon the series has, of many those of each: so many, or those whose newest
    row is within a duration, such as `30d`, before the newest of these rows."""
    gaps: Annotated[Gaps, about("Whether windows across a gap in time are left out, or a gap is an error.")] = "skip"
    adapt: Annotated[bool, Field(strict=True)] = False
    """Whether the intervals are adapted in the order of time, each forecast's by the actual values that were known as
    it was made. The answer then has an `adaptation`. Of a model over many series give the rows of one."""
    adaptation: Adaptation | None = None
    """The `adaptation` of an answer, from which the intervals of a later series are adapted further: actual values of
    windows up to its `last` do not count again, and forecasts made before it was have no interval."""
    detail: Annotated[BacktestDetail, about("`rows` adds every forecast beside its actual value.")] = "errors"


class HorizonErrors(Answered[Errors]):
    """Errors of one output."""

    horizon: Annotated[int, about("Steps from the window's last row.")]
    output: Annotated[str, about("Name of the output.")]


class SeriesErrors(Answered[Errors]):
    """Errors of one series."""

    series: Annotated[str, about("Its name.")]


class HourErrors(Answered[Errors]):
    """Errors of one hour of the day."""

    hour: Annotated[int, about("Of the time that is forecast, 0 to 23.")]


class MonthErrors(Answered[Errors]):
    """Errors of one month."""

    month: Annotated[str, about("Of the time that is forecast, such as `2024-03`.")]


class WeekErrors(Answered[Errors]):
    """Errors of one week."""

    week: Annotated[str, about("Its Monday, such as `2024-03-04`.")]


class ErrorsBy(TypedDict):
    """Errors by parts of the forecasts; those of times are of the time that is forecast, by the clock of `zone`.

    Of a target that was shifted before training, they are those of the row with its value. There are none without
    dates, and no hours and weeks of rows a day or more apart.
    """

    horizon: list[HorizonErrors]
    series: Annotated[list[SeriesErrors], about("Largest errors first; empty of a model of one series.")]
    hour: list[HourErrors]
    month: list[MonthErrors]
    week: list[WeekErrors]


class SeasonInfo(TypedDict):
    """After how many steps the target repeats itself best."""

    steps: Annotated[int, about("Steps of a season.")]
    name: Annotated[str, about("What it is: `day`, `week`, `year`, or `season` where no calendar names it.")]


class RowInterval(TypedDict):
    """An interval of one forecast; null before a given adaptation was made."""

    level: Annotated[float, about("Nominal coverage.")]
    lower: Annotated[float | None, about("Original units.")]
    upper: Annotated[float | None, about("Original units.")]


class BacktestRow(TypedDict):
    """One forecast beside what came."""

    window: Annotated[int, about("Number of the window, from 0.")]
    time: NotRequired[Annotated[str, about("Of the window's newest row; absent without times.")]]
    series: NotRequired[Annotated[str, about("Its series; absent of a model of one series.")]]
    output: Annotated[str, about("Name of the output.")]
    target_time: NotRequired[str]
    """The time that is forecast, or of a target that was shifted before training, of the row with its value; absent
    without times."""
    prediction: Annotated[float, about("The forecast, original units.")]
    actual: Annotated[float | None, about("Null if unknown.")]
    error: Annotated[float | None, about("Forecast minus actual value; null if that is unknown.")]
    persistence: Annotated[float | None, about("The last value known at the window's last row; null if none is.")]
    intervals: NotRequired[Annotated[list[RowInterval], about("By level; absent without intervals.")]]


class BacktestResponse(Answer):
    """The errors of forecasts over a table."""

    target: Annotated[str, about("Name of the target.")]
    unit: UnitOf
    outputs: Annotated[list[str], about("Names of the target's outputs.")]
    windows: Annotated[int, about("Number of windows, each with a forecast for each output.")]
    in_training: int | None
    """Windows in the time of the training, from the first to the last that the model was fitted to, whose errors are
    not those of new rows; null if that time is unknown."""
    left_out: LeftOut
    zone: Annotated[str | None, about("Time zone of hours and months; null for UTC, or times as they stand.")]
    season: SeasonInfo | None
    """Of the seasonal naive forecast, the latest value a whole number of seasons before that was known; null if no
    season is known."""
    metrics: Annotated[Answered[Errors], about("Of all forecasts; their `coverage` stands beside them.")]
    by: ErrorsBy
    coverage: NotRequired[Annotated[list[Answered[IntervalErrors]], about("Of the intervals, by level.")]]
    adaptation: NotRequired[Adaptation]
    """With `adapt`: the factors of the intervals after all outcomes, for the next backtest."""
    rows: NotRequired[Annotated[list[BacktestRow], about("With `detail` rows: window by window, then output.")]]
    warnings: NotRequired[Annotated[list[DataWarning], about("Of series that training did not have, if any.")]]


class DriftQuery(VersionQuery):
    """Since when."""

    since: str = "24h"
    """A duration before now, such as `24h`, `7d` or `4w`, or a time as in ISO 8601; whole hours count."""
    false_alarms: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Rate of false alarms of each question. By default, and at least, the lowest that the spans can hold: 0.01, or
    1 / (spans + 1) if that is larger, of the spans of the reference windows that are as long as the time since. The
    verdicts state it."""


class DriftCoverage(TypedDict):
    """How many outcomes the intervals of a level hold, of forecasts that were asked for with intervals."""

    level: Annotated[float, about("Nominal coverage.")]
    covered: Annotated[float | None, about("Share of the outcomes that they hold.")]
    covered_reference: Annotated[float | None, about(OF_REFERENCE)]
    interval: Annotated[Interval | None, about(OF_CHANGE)]


class DriftResponse(OnReference):
    """What changed from the reference windows to the forecasts since then."""

    output: Annotated[str, about("Name of the output that is watched.")]
    host: Annotated[str, about("Name of the host that has counted this; other replicas have counted others.")]
    since: Annotated[str, about("Start of the first hour that was asked for.")]
    counted_since: Annotated[str | None, about("Start of the first hour of which this host has counts; null of none.")]
    forecasts: Annotated[int, about("Number of forecasts since then.")]
    explained: Annotated[int, about("Of these, drawn at random, explained.")]
    verdicts: Annotated[list[Answered[DriftVerdict]], about("Of each question.")]
    inputs: Annotated[list[Answered[InputDrift]], about("By feature, in the order of the model.")]
    use: Annotated[list[Answered[UseDrift]], about("By outermost group, and feature in none.")]
    unused: Annotated[list[str], about("Features that moved, while the model's use of them did not.")]
    ndcg: float | None
    """Normalised discounted cumulative gain of the order of the shares, with those of the reference as gains: 1 for
    the same order. Null if nothing is explained."""
    effect: Answered[Effect]
    errors: Answered[ErrorDrift] | None
    """Null if no outcome is known."""
    coverage: Annotated[list[DriftCoverage], about("By level, ascending; empty without intervals.")]
