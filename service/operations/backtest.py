"""POST /v1/models/{model}:backtest: forecasts over a table beside what came, and their errors."""

from dataclasses import replace
from typing import Annotated, Any, Literal, NotRequired, cast

from fastapi import Response
from pydantic import ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.forecasts.backtest import Backtest
from kanmodel.tables.columns import column_of
from kanmodel.tables.statistics.errors import Errors
from kanmodel.tables.table import Selection
from kanmodel.tables.windows import Windows, read_table
from service.models.registry import Served
from service.operations.members import Adaptation, Answer, Closed, UnitOf, about, describe, head_of
from service.operations.route import MODEL, Call, Operation
from service.operations.windows import DataWarning, Gaps, Last, Series, warn_of_new
from service.telemetry.observation import span
from service.wire.bodies import PARSED, parse_windows, validate_request
from service.wire.connections import while_connected
from service.wire.errors import invalid_value
from service.wire.json import HELD_NUMBER_BYTES, JSON, encode_json
from service.wire.windows import is_absent, read_cells

N_MEMBERS = 8  # of a row of the answer, without bounds
N_ARRAYS = 8  # of each feature and output over the rows, while they are read and compared
BacktestDetail = TypeAliasType("BacktestDetail", Literal["errors", "rows"])
Mean = Annotated[float | None, about("In the target's unit; null if nothing can be compared.")]


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


class Skill(TypedDict):
    """How much better the forecasts are than simpler ones: 1 - MAE / MAE of those."""

    persistence: float | None
    """Than the last value known at the window's last row: 1 perfect, 0 as good, below 0 worse. Null if no such value is
    known, as of a target that was shifted before training, or none of them has an error."""


class ErrorsInfo(TypedDict):
    """Errors of some forecasts."""

    count: Annotated[int, about("Number of forecasts whose actual value is known.")]
    mae: Mean
    rmse: Mean
    bias: Annotated[float | None, about("Mean of forecast minus actual value; null if nothing can be compared.")]
    persistence_mae: Mean
    seasonal_naive_mae: Annotated[float | None, about("MAE of the seasonal naive forecast; null if none is known.")]
    skill: Skill


class IntervalInfo(TypedDict):
    """How the intervals of one level fit what came; null where nothing can be compared."""

    level: Annotated[float, about("Nominal coverage.")]
    count: Annotated[int, about("Number of forecasts with an interval whose actual value is known.")]
    covered: Annotated[float | None, about("Share of the actual values inside.")]
    below: Annotated[float | None, about("Share of those below the lower bound.")]
    above: Annotated[float | None, about("Share of those above the upper bound.")]
    width: Annotated[float | None, about("Mean width, in the target's unit.")]
    winkler: Annotated[float | None, about("Winkler score (mean interval score), in the target's unit.")]


Coverage = Annotated[list[IntervalInfo], about("Of the intervals, by level; absent without them.")]


class GroupErrors(ErrorsInfo):
    """Errors of a part of the forecasts."""

    coverage: NotRequired[Coverage]


class HorizonErrors(GroupErrors):
    """Errors of one output."""

    horizon: Annotated[int, about("Steps from the window's last row.")]
    output: Annotated[str, about("Name of the output.")]


class SeriesErrors(GroupErrors):
    """Errors of one series."""

    series: Annotated[str, about("Its name.")]


class HourErrors(GroupErrors):
    """Errors of one hour of the day."""

    hour: Annotated[int, about("Of the time that is forecast, 0 to 23.")]


class MonthErrors(GroupErrors):
    """Errors of one month."""

    month: Annotated[str, about("Of the time that is forecast, such as `2024-03`.")]


class WeekErrors(GroupErrors):
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


class LeftOut(TypedDict):
    """Windows of the series that are not compared."""

    across_gaps: Annotated[int, about("Windows with a gap in time in them, or before their actual values.")]
    missing: Annotated[int, about("Windows with a missing value.")]
    missing_columns: Annotated[dict[str, int], about("Of these, by the features with the most missing values.")]


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
    metrics: ErrorsInfo
    by: ErrorsBy
    coverage: NotRequired[Coverage]
    adaptation: NotRequired[Adaptation]
    """With `adapt`: the factors of the intervals after all outcomes, for the next backtest."""
    rows: NotRequired[Annotated[list[BacktestRow], about("With `detail` rows: window by window, then output.")]]
    warnings: NotRequired[Annotated[list[DataWarning], about("Of series that training did not have, if any.")]]


def describe_backtest(served: Served, found: Backtest, detail: BacktestDetail = "errors") -> BacktestResponse:
    """The answer."""

    def errors_of(errors: Errors) -> ErrorsInfo:
        return describe(ErrorsInfo, errors, skill=Skill(persistence=errors.skill))

    def coverage_of(errors: Errors) -> Any:
        return {"coverage": [describe(IntervalInfo, each) for each in errors.intervals]} if errors.intervals else {}

    def describe_row(row: dict[str, Any]) -> Any:
        bounds = [(level, row.pop(f"lower@{level:g}"), row.pop(f"upper@{level:g}")) for level in found.levels]
        intervals = [RowInterval(level=level, lower=lower, upper=upper) for level, lower, upper in bounds]
        return {**row, "intervals": intervals} if intervals else row

    by: Any = {"series": []} | {
        name: [{name: value, **errors_of(errors), **coverage_of(errors)} for value, errors in groups.items()]
        for name, groups in found.by.items()
    }
    for step, output in zip(by["horizon"], found.outputs, strict=True):
        step["output"] = output
    answer: BacktestResponse = {
        **head_of(served),  # type: ignore[typeddict-item]
        "target": found.target,
        "unit": found.unit,
        "outputs": list(found.outputs),
        "windows": len(found),
        "in_training": found.in_training,
        "left_out": LeftOut(
            across_gaps=found.across_gaps, missing=found.missing.windows, missing_columns=found.missing.worst
        ),
        "zone": found.zone,
        "season": None if found.season is None else SeasonInfo(steps=found.season[0], name=found.season[1]),
        "metrics": errors_of(found.metrics),
        "by": by,
    }
    if found.levels:
        answer |= coverage_of(found.metrics)
    if found.adaptation is not None:
        answer["adaptation"] = cast(Adaptation, found.adaptation)
    if detail == "rows":
        answer["rows"] = [describe_row(row) for row in found.iterate_rows()]
    return answer


@Operation("POST", f"{MODEL}:backtest", "predictions", "read", BacktestResponse, body=BacktestRequest)
async def backtest(call: Call) -> Response:
    """Forecasts from every row of a table, and compares with what came, which the table also has.

    Windows across a gap in time, or with a missing value, are left out and counted, and so are forecasts whose actual
    value is missing. Of a model with intervals, the answer has their coverage, and with `adapt` they follow what came.
    """
    served, config = call.served, call.served.model.config
    settings, encoding, n_bounds = call.parts.settings, config.table.encoding, 2 * len(served.model.levels)
    n_columns, of_row = len(encoding.names) + 1, 8 * N_ARRAYS * (len(config.features) + config.horizon * (1 + n_bounds))
    body = await call.read_body()
    n_read = PARSED * len(body) + of_row * (body.count(b",") // n_columns + 1)

    def read() -> tuple[BacktestRequest, Windows]:
        most_rows = settings.max_body_bytes // (2 * n_columns)  # as a body can hold
        limits = replace(call.limits, rows=most_rows, texts=n_columns + 1)
        document = parse_windows(body, limits)
        if is_absent(document.get("series")):
            raise invalid_value("series", "is missing: give the rows of a table")
        asked = validate_request(BacktestRequest, document, unread=("series", "last"))
        names = [target.name for target in config.targets]
        if asked.target is None and len(names) > 1:
            raise invalid_value("target", f"is missing; the targets are {', '.join(names)}")
        if asked.target is not None and asked.target not in names:
            raise invalid_value("target", f"is unknown; the targets are {', '.join(names)}")
        target, rows = asked.target or names[0], document["series"]
        column = target
        if isinstance(rows, dict):
            columns = {column_of(name, rows) for name in names}
            column = column_of(target, rows)
            others = columns - {column, *encoding.names}
            rows = {name: cells for name, cells in rows.items() if name not in others}
        last = document.get("last")
        table, places = read_cells(rows, config, limits, "series", last, column)
        chosen = Selection(last, is_ordered=True)
        return asked, read_table(config.table, table, places, chosen, asked.gaps, target)

    with span("parse"):
        asked, windows = await call.submit(read, n_read)
    n_windows, n_forecasts = len(windows), len(windows) * windows.horizon
    call.state.windows = n_windows
    if n_windows > (most := settings.max_path_nodes):
        reason = f"would take {n_windows} forecasts, of at most {most} (max_path_nodes): send fewer rows"
        raise invalid_value("series", reason, "limit_exceeded")
    n_bytes = of_row * len(windows.rows)
    n_bytes += (N_MEMBERS + 2 * n_bounds) * n_forecasts * HELD_NUMBER_BYTES if asked.detail == "rows" else 0

    def compute() -> bytes:
        found = served.model.backtest(windows, asked.target, adapt=asked.adaptation or asked.adapt)
        answer = describe_backtest(served, found, asked.detail)
        if new := [name for name in windows.table.new if name in (windows.series or ())]:
            answer["warnings"] = warn_of_new(new, windows.series or ())
        return encode_json(answer)

    described = await while_connected(call, call.submit(compute, n_bytes))
    return Response(described, media_type=JSON)
