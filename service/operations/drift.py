"""GET /v1/models/{model}/drift: whether inputs moved, whether the model uses what moved, whether errors are worse."""

import sqlite3
from datetime import UTC, datetime
from functools import partial
from socket import gethostname
from time import time

from fastapi import Response

from kanmodel.errors import DataError, quote
from kanmodel.model import Model
from kanmodel.monitoring import drift as core
from kanmodel.structure.importance import Importance
from kanmodel.tables.instants import read_duration, read_instants
from kanmodel.tables.statistics.tally import Tally
from service.answers.forecasts import DriftCoverage, DriftQuery, DriftResponse
from service.answers.forms import describe, describe_all, describe_one
from service.models.registry import Served
from service.operations.outcomes import find_monitor
from service.operations.reference import describe_span
from service.operations.route import MODEL, Call, Operation
from service.telemetry.history import HOUR
from service.telemetry.monitor import Monitor, watched_output
from service.wire.errors import NotReadyError, invalid_value
from service.wire.json import answer_json
from service.work.sampling import count_reference


@Operation("GET", f"{MODEL}/drift", "models", "explain", DriftResponse, query=DriftQuery)
async def get_drift(call: Call) -> Response:
    """What has changed since the reference windows: inputs, what the model uses of them, and errors, by the hour.

    Counted is what `:predict`, `:explain` and infer have forecast on this host, in all processes that share the file of
    the setting `monitor`; a random share of it is explained. Errors need `:outcomes`, and stand with the hour of their
    forecast, on the host that got the outcome. Over several replicas the counters of /metrics add up.
    """
    served, monitor = call.served, find_monitor(call)
    first = read_since(call.query.since, time())
    output = served.model.outputs[watched_output(served.model)]
    importance = await call.find(Model.importance, output)
    compare = partial(_compare, monitor, served, importance, first, call.query.false_alarms)
    try:
        answer = await call.submit(compare)
    except sqlite3.Error as error:
        raise NotReadyError(f"the hours cannot be read now: {error}", headers={"Retry-After": "60"}) from error
    return answer_json(answer)


def read_since(given: str, now: float) -> int:
    """The number of the first hour since 1970, of a duration before now, in seconds, or a time."""
    if (seconds := read_duration(given)) is not None:
        return int(max(now - seconds, -HOUR) // HOUR) + 1  # a duration may be infinite, of hundreds of digits
    try:
        (instant,), dated = read_instants([given], lambda _: "since")
    except DataError:
        dated = False
    if not dated:
        raise invalid_value("since", f"must be a duration such as 24h or 7d, or a time, but is {quote(given)}")
    if instant > now:
        raise invalid_value("since", f"must be in the past, but is {quote(given)}")
    return max(0, int(instant // HOUR))


def _compare(
    monitor: Monitor, served: Served, importance: Importance, first: int, false_alarms: float | None
) -> DriftResponse:
    counter = monitor.counter_of(served)
    monitor.flush()
    hours = monitor.history.read(counter.of, first)
    current = Tally.join([*hours.values()] or [counter.of.empty()])
    reference = count_reference(served.model, counter, importance)
    length = _match_length(served.model, len(reference), time() - first * HOUR, len(current))
    found = core.Drift.of(counter.watched, reference, current, length=length, false_alarms=false_alarms)
    return describe_drift(served, found, first, min(hours, default=None))


def _write_hour(hour: int) -> str:
    return datetime.fromtimestamp(hour * HOUR, UTC).isoformat(timespec="minutes").replace("+00:00", "Z")


def _match_length(model: Model, n: int, seconds: float, n_hours: int) -> int:
    """How many of `n` reference windows span so many seconds; without dates as many as there are hours."""
    times = model.reference.times
    if times is None or model.config.time is None or not model.config.time.dated or n < 2:
        return n_hours
    instants, _ = read_instants([times[0], times[-1]], lambda _: "times", model.config.time.zone)
    return max(1, min(n, round(seconds / max(float(instants[1] - instants[0]) / (n - 1), 1e-9))))


def describe_drift(served: Served, found: core.Drift, first: int, first_counted: int | None) -> DriftResponse:
    """The answer about the hours from `first`, since 1970, of which the first that has counts may be later."""
    levels = {} if found.errors is None else found.errors.coverage
    effects = {one.name: one.effect for one in found.use if one.effect is not None}
    return describe(
        DriftResponse,
        found,
        **describe_span(served),
        output=found.schema.output,
        host=gethostname(),
        since=_write_hour(first),
        counted_since=None if first_counted is None else _write_hour(first_counted),
        verdicts=describe_all([*found.verdicts.values()]),
        effect=describe_one(found.effect, unit=found.schema.unit, data=effects),
        coverage=[
            describe(DriftCoverage, one, level=level, covered=one.now, covered_reference=one.reference)
            for level, one in levels.items()
        ],
    )
