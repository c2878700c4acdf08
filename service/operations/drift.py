"""GET /v1/models/{model}/drift: whether inputs moved, whether the model uses what moved, whether errors are worse."""

import sqlite3
from datetime import UTC, datetime
from functools import partial
from socket import gethostname
from time import time
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.errors import DataError, quote
from kanmodel.model import Model
from kanmodel.monitoring import drift as core
from kanmodel.structure.importance import Importance
from kanmodel.tables.instants import read_duration, read_instants
from kanmodel.tables.statistics.differences import Change
from kanmodel.tables.statistics.tally import Tally
from service.models.registry import Served
from service.operations.members import Interval, UnitOf, VersionQuery, about, describe
from service.operations.outcomes import find_monitor
from service.operations.reference import OnReference, describe_span
from service.operations.route import MODEL, Call, Operation
from service.telemetry.history import HOUR
from service.telemetry.monitor import Monitor, watched_output
from service.wire.errors import NotReadyError, invalid_value
from service.wire.json import answer_json
from service.work.sampling import count_reference

Question = TypeAliasType("Question", Literal["inputs", "use", "errors"])
Known = Annotated[float | None, about("Null if unknown.")]
OfReference = Annotated[float | None, about("The same on the reference windows; null if unknown.")]
OfChange = Annotated[Interval | None, about("Interval of the change, 95 %; null of fewer than 8 hours with any.")]
PValue = Annotated[
    float | None, about("Adjusted for the number of statistics of the question; null if unknown.", ge=0, le=1)
]


class DriftQuery(VersionQuery):
    """Since when."""

    since: str = "24h"
    """A duration before now, such as `24h`, `7d` or `4w`, or a time as in ISO 8601; whole hours count."""
    false_alarms: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Rate of false alarms of each question. By default, and at least, the lowest that the spans can hold: 0.01, or
    1 / (spans + 1) if that is larger, of the spans of the reference windows that are as long as the time since. The
    verdicts state it."""


class DriftVerdict(TypedDict):
    """The answer to one question."""

    question: Question
    """`inputs`: did they move; `use`: does the model use what moved; `errors`: are they worse."""
    alarm: Annotated[bool | None, about("Whether something is beyond chance; null if that is unknown.")]
    p_value: Annotated[float | None, about("The smallest of the question; null likewise.", ge=0, le=1)]
    false_alarms: Known
    """Rate at which the question has an alarm though nothing has changed: the one asked for, or 1 / (spans + 1) if
    that is larger."""
    spans: Annotated[int, about("Spans of the reference windows, as long as the time since, that do not overlap.")]
    missing: Annotated[str, about("Why the answer is unknown; else empty.")]


class FeatureDrift(TypedDict):
    """A feature at the newest step of each window."""

    feature: Annotated[str, about("Its name.")]
    unit: UnitOf
    psi: Annotated[float, about("Population stability index, on bins of the reference windows.", ge=0)]
    mean: Annotated[float | None, about("Mean of the feature, in its unit; null if there is no forecast.")]
    mean_reference: OfReference
    shift: Annotated[float | None, about("The change of the mean, in the feature's unit; null if unknown.")]
    interval: OfChange
    distance: Annotated[float | None, about("Wasserstein distance of the binned values, in the feature's unit.")]
    p_value: PValue
    moved: Annotated[bool | None, about("Whether it moved beyond chance; null if unknown.")]


class UseDrift(TypedDict):
    """What the model uses of a name: an outermost group, or a feature in none."""

    name: Annotated[str, about("The group or the feature.")]
    share: Annotated[float | None, about("Of all names' mean |contribution|; null if nothing is explained.")]
    share_reference: OfReference
    interval: OfChange
    effect: Annotated[float | None, about("The change of its mean contribution, in the target's unit; null likewise.")]
    effect_interval: OfChange
    p_value: PValue
    moved: Annotated[bool | None, about("Whether share or effect moved beyond chance; null if unknown.")]


class DriftEffect(TypedDict):
    """The change of the mean forecast that the inputs explain, in the target's unit."""

    forecast: Annotated[float | None, about("Mean of all forecasts; null if there is none.")]
    forecast_reference: OfReference
    interval: OfChange
    total: Annotated[float | None, about("Sum of the effects; null if nothing is explained.")]
    unit: UnitOf
    data: Annotated[dict[str, float], about("The effects by name, of which this is the sum; empty if unknown.")]


class DriftErrors(TypedDict):
    """Errors of the forecasts since then whose outcomes are known, in the target's unit."""

    known: Annotated[int, about("Forecasts with an outcome.")]
    mae: Annotated[float | None, about("Mean absolute error.")]
    mae_reference: OfReference
    interval: OfChange
    bias: Annotated[float | None, about("Mean of forecast minus outcome.")]
    bias_reference: OfReference
    bias_interval: OfChange


class DriftCoverage(TypedDict):
    """How many outcomes the intervals of a level hold, of forecasts that were asked for with intervals."""

    level: Annotated[float, about("Nominal coverage.")]
    covered: Annotated[float | None, about("Share of the outcomes that they hold.")]
    covered_reference: OfReference
    interval: OfChange


class DriftResponse(OnReference):
    """What changed from the reference windows to the forecasts since then."""

    output: Annotated[str, about("Name of the output that is watched.")]
    host: Annotated[str, about("Name of the host that has counted this; other replicas have counted others.")]
    since: Annotated[str, about("Start of the first hour that was asked for.")]
    counted_since: Annotated[str | None, about("Start of the first hour of which this host has counts; null of none.")]
    forecasts: Annotated[int, about("Number of forecasts since then.")]
    explained: Annotated[int, about("Of these, drawn at random, explained.")]
    verdicts: Annotated[list[DriftVerdict], about("Of each question.")]
    inputs: Annotated[list[FeatureDrift], about("By feature, in the order of the model.")]
    use: Annotated[list[UseDrift], about("By outermost group, and feature in none.")]
    unused: Annotated[list[str], about("Features that moved, while the model's use of them did not.")]
    ndcg: float | None
    """Normalised discounted cumulative gain of the order of the shares, with those of the reference as gains: 1 for
    the same order. Null if nothing is explained."""
    effect: DriftEffect
    errors: DriftErrors | None
    """Null if no outcome is known."""
    coverage: Annotated[list[DriftCoverage], about("By level, ascending; empty without intervals.")]


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
    errors, effect, schema = found.errors, found.effect, found.schema

    def ends(change: Change) -> Any:
        return None if change.interval is None else [*change.interval]

    answer: DriftResponse = {
        **describe_span(served),
        "output": schema.output,
        "host": gethostname(),
        "since": _write_hour(first),
        "counted_since": None if first_counted is None else _write_hour(first_counted),
        "forecasts": found.forecasts,
        "explained": found.explained,
        "verdicts": [describe(DriftVerdict, one) for one in found.verdicts.values()],
        "inputs": [
            describe(
                FeatureDrift,
                one,
                feature=one.name,
                mean=one.mean.now,
                mean_reference=one.mean.reference,
                interval=ends(one.mean),
            )
            for one in found.inputs
        ],
        "use": [
            describe(
                UseDrift,
                one,
                share=one.share.now,
                share_reference=one.share.reference,
                interval=ends(one.share),
                effect_interval=ends(one.contribution),
            )
            for one in found.use
        ],
        "unused": [*found.unused],
        "ndcg": found.ndcg,
        "effect": {
            "forecast": effect.forecast.now,
            "forecast_reference": effect.forecast.reference,
            "interval": ends(effect.forecast),
            "total": effect.total,
            "unit": schema.unit,
            "data": {one.name: one.effect for one in found.use if one.effect is not None},
        },
        "errors": None,
        "coverage": [],
    }
    if errors is not None:
        answer["errors"] = {
            "known": errors.known,
            "mae": errors.mae.now,
            "mae_reference": errors.mae.reference,
            "interval": ends(errors.mae),
            "bias": errors.bias.now,
            "bias_reference": errors.bias.reference,
            "bias_interval": ends(errors.bias),
        }
        answer["coverage"] = [
            {"level": level, "covered": one.now, "covered_reference": one.reference, "interval": ends(one)}
            for level, one in errors.coverage.items()
        ]
    return answer
