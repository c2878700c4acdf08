"""POST /v1/models/{model}:backtest: forecasts over a table beside what came, and their errors."""

from dataclasses import replace
from typing import Any

from fastapi import Response

from kanmodel.forecasts.backtest import Backtest
from kanmodel.tables.columns import column_of
from kanmodel.tables.table import Selection
from kanmodel.tables.windows import Windows, read_table
from service.answers.forecasts import (
    BacktestDetail,
    BacktestRequest,
    BacktestResponse,
    RowInterval,
    SeasonInfo,
)
from service.answers.forms import describe, describe_all, describe_one
from service.answers.members import head_of
from service.answers.windows import LeftOut
from service.models.registry import Served
from service.operations.route import MODEL, Call, Operation
from service.operations.windows import warn_of_new
from service.telemetry.observation import span
from service.wire.bodies import PARSED, parse_windows, validate_request
from service.wire.connections import while_connected
from service.wire.errors import invalid_value
from service.wire.json import HELD_NUMBER_BYTES, JSON, encode_json
from service.wire.windows import is_absent, read_cells, read_whole

N_MEMBERS = 8  # of a row of the answer, without bounds
N_ARRAYS = 8  # of each feature and output over the rows, while they are read and compared


def describe_backtest(served: Served, found: Backtest, detail: BacktestDetail = "errors") -> BacktestResponse:
    """The answer."""

    def describe_row(row: dict[str, Any]) -> Any:
        bounds = [(level, row.pop(f"lower@{level:g}"), row.pop(f"upper@{level:g}")) for level in found.levels]
        intervals = [RowInterval(level=level, lower=lower, upper=upper) for level, lower, upper in bounds]
        return {**row, "intervals": intervals} if intervals else row

    by: dict[str, Any] = {"series": []} | {
        name: [{name: value, **describe_one(errors)} for value, errors in groups.items()]
        for name, groups in found.by.items()
    }
    for step, output in zip(by["horizon"], found.outputs, strict=True):
        step["output"] = output
    missing, season = found.missing, found.season
    return describe(
        BacktestResponse,
        found,
        **head_of(served),
        windows=len(found),
        left_out=LeftOut(across_gaps=found.across_gaps, missing=missing.windows, missing_columns=missing.worst),
        season=None if season is None else SeasonInfo(steps=season[0], name=season[1]),
        metrics=describe_one(found.metrics, coverage=None),
        by=by,
        coverage=describe_all(found.metrics.intervals) or None,
        rows=[describe_row(row) for row in found.iterate_rows()] if detail == "rows" else None,
        warnings=None,
    )


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
        last = read_whole(document.get("last"))
        table, places = read_cells(rows, config, limits, "series", last, (column,))
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
