"""POST /v1/models/{model}:outcomes: what came after forecasts, by their ids or times."""

import sqlite3
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import Response
from pydantic import Field

from kanmodel.errors import Problem
from kanmodel.model import Model
from service.operations.members import Answer, Closed, Whole, about, head_of
from service.operations.route import MODEL, Call, Operation
from service.telemetry.history import Place
from service.telemetry.monitor import Monitor, read_times, watched_output
from service.telemetry.observation import span
from service.wire.bodies import Limits, parse_object, read_body, validate_request
from service.wire.errors import NotReadyError, RequestError, invalid_value, invalid_values
from service.wire.json import answer_json
from service.work.jobs import PARSED_BYTE, Cost

SETTLED = Cost(1e-4, 1000)  # an outcome: reading, finding its forecast, and writing
MAX_ID = 128  # characters


class Outcome(Closed):
    """What came after a forecast."""

    id: Annotated[str, Field(min_length=1, max_length=MAX_ID, strict=True)] | None = None
    """Id of the request that asked for the forecast: `X-Request-Id` of its answer, or `id` of one under `/v2`. Give
    this or `time`."""
    instance: Annotated[Whole, about("Index of the forecast's instance in that request.", ge=0, strict=True)] = 0
    time: str | Annotated[float, Field(strict=True)] | None = None
    """Time of the window's newest row, as in `times` of an answer about a series; not the time that is forecast. It
    means the first forecast of that time by each version. Of a model over many series give an id."""
    values: dict[str, Annotated[float, Field(strict=True)]]
    """The actual value by the name of the output, in the target's unit: `{"load+1": 812.5}`. Outcomes are compared with
    the forecasts of one output, the first of a target or its median."""


class OutcomesRequest(Closed):
    """Outcomes of forecasts."""

    outcomes: Annotated[list[Outcome], about("At most `max_windows`.", min_length=1, fail_fast=True)]


class OutcomesResponse(Answer):
    """What became of the outcomes, each in one of three numbers."""

    output: Annotated[str, about("Name of the output whose forecasts are compared with outcomes.")]
    matched: Annotated[int, about("Outcomes that have found their forecast.", ge=0)]
    unknown: Annotated[int, about("Those without one.", ge=0)]
    """No forecast of that id or time is waiting: it was never made, or is no longer kept (`monitor_hours`,
    `monitor_bytes`), or another process of the service has not written it yet (`monitor_seconds`)."""
    repeated: Annotated[int, about("Those of forecasts that have an outcome already, which stays.", ge=0)]


def find_monitor(call: Call) -> Monitor:
    """The monitor; raises `RequestError` if it is turned off."""
    if call.parts.monitor is None:
        raise RequestError("forecasts are not counted here (monitor)", code="disabled")
    return call.parts.monitor


@Operation("POST", f"{MODEL}:outcomes", "predictions", "read", OutcomesResponse, body=OutcomesRequest, is_drawn=False)
async def send_outcomes(call: Call) -> Response:
    """Takes what came after forecasts, so that errors and the coverage of intervals are known while they are served.

    An outcome finds its forecast in any process of the service that shares the file of the setting `monitor`, and of
    any version of the model, unless the query names one. Each forecast has one outcome: a second one is counted as
    repeated, and changes nothing.
    """
    parts, served, monitor = call.parts, call.served, find_monitor(call)
    with parts.work.claim("forecast", place=False) as held:
        body = await read_body(call, parts.settings, held)
        most, name = parts.settings.max_windows, served.model.outputs[watched_output(served.model)]
        read = partial(_read, body, served.model, name, most, parts.settings.max_json_depth)
        with span("parse"):
            outcomes = await parts.work.run(read, "forecast", PARSED_BYTE * (3 * len(body)), deadline=call.deadline)
    call.state.windows = len(outcomes)
    settle = partial(monitor.settle, served.name, call.query.version, outcomes)
    cost = SETTLED * (10 + len(outcomes))  # never in place, as the file may wait for a disk
    try:
        counts = await parts.work.run(settle, "explanation", cost, deadline=call.deadline)
    except sqlite3.Error as error:
        raise NotReadyError(f"outcomes cannot be written now: {error}", headers={"Retry-After": "60"}) from error
    matched, unknown, repeated = counts
    head = head_of(served)
    return answer_json(OutcomesResponse(**head, output=name, matched=matched, unknown=unknown, repeated=repeated))


def _read(body: bytes, model: Model, output: str, most: int, depth: int) -> list[tuple[Place, float]]:
    """The forecasts and the actual values of a request; raises `DataError`, which names each place."""
    limits = Limits(depth, most, (4, 4), outputs=most)  # an outcome has fewer than 16 values and strings
    at = model.outputs.index(output)
    largest = float(np.finfo(np.float32).max) * float(model.scaling.output_scale[at])
    asked = validate_request(OutcomesRequest, parse_object(body, limits))
    if len(asked.outcomes) > most:
        message = f"must have at most {most} outcomes (max_windows), but has {len(asked.outcomes)}"
        raise invalid_value("outcomes", message, "limit_exceeded")
    problems, found = list[Problem](), list[tuple[Place, float]]()
    for number, one in enumerate(asked.outcomes):
        place = f"outcomes[{number}]"
        if (one.id is None) == (one.time is None):
            problems.append(Problem(place, "must have an id or a time" + (", not both" if one.id else "")))
        if one.time is not None and model.config.series is not None:
            problems.append(Problem(f"{place}.time", "is of many series: give an id and an instance"))
        if one.time is not None and "instance" in one.model_fields_set:
            problems.append(Problem(f"{place}.instance", "must be given only with an id"))
        if not one.values:
            problems.append(Problem(f"{place}.values", f"must have what came for {output}"))
        for name in one.values:
            if name != output:
                known = name in model.outputs
                reason = f"is {'not compared' if known else 'unknown'}: give what came for {output}"
                problems.append(Problem(f"{place}.values.{name}", reason))
            elif abs(one.values[name]) > largest:
                problems.append(Problem(f"{place}.values.{name}", f"must be at most {largest:.3g}"))
        if not problems:
            time = None
            if one.time is not None:
                time = float(read_times(model.config, [one.time], partial(str.format, f"{place}.time"))[0])
            found.append((Place(one.id or "", one.instance, time), one.values[output]))
    if problems:
        raise invalid_values(problems, len(problems))
    return found
