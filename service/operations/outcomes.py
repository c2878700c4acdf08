"""POST /v1/models/{model}:outcomes: what came after forecasts, with the receipts of these."""

import sqlite3
from collections.abc import Sequence
from functools import partial
from time import time

import numpy as np
from fastapi import Response

from kanmodel.arrays import Array
from kanmodel.errors import Problem
from kanmodel.monitoring.tallies import TallySchema
from kanmodel.tables.statistics.tally import N_BINS
from service.answers.forecasts import OutcomesRequest, OutcomesResponse
from service.answers.members import head_of
from service.operations.route import MODEL, Call, Operation
from service.telemetry.history import HOUR
from service.telemetry.monitor import Monitor, describe_counted, watched_output
from service.telemetry.receipts import Receipt
from service.wire.bodies import Limits, parse_object, validate_request
from service.wire.errors import NotReadyError, RequestError, invalid_value, invalid_values
from service.wire.json import answer_json

TALLIED = 16 * N_BINS  # bytes of a feature in a tally of one hour


def find_monitor(call: Call) -> Monitor:
    """The monitor; raises `RequestError` if it is turned off."""
    if call.parts.monitor is None:
        raise RequestError("forecasts are not counted here (monitor)", code="disabled")
    return call.parts.monitor


def sign_receipts(call: Call, predictions: Array, bounds: Sequence[Array]) -> list[str]:
    """The receipts of an answer's forecasts, (n, n_outputs), and of their lower and upper bounds, if there are any.

    These are (n_levels, n, n_forecasts) each, of which the first forecast is the one that is watched.
    """
    model, output = call.served.model, watched_output(call.served.model)
    of = describe_counted(call.served, TallySchema.of(model, output))
    n, request_id = len(predictions), call.state.request_id
    intervals = np.stack([side[:, :, 0].T for side in bounds], axis=-1) if bounds else np.empty((n, 0))
    return call.parts.receipts.sign(of, model.outputs[output], request_id, predictions[:, output], intervals)


@Operation("POST", f"{MODEL}:outcomes", "predictions", "read", OutcomesResponse, body=OutcomesRequest, is_drawn=False)
async def send_outcomes(call: Call) -> Response:
    """Takes what came after forecasts, so that errors and the coverage of intervals are known while they are served.

    An outcome brings the receipt of its forecast, which `:predict` gives if it is asked for `receipts`: it has the
    forecast and its intervals, and is valid in every process with the same setting `receipt_key`, of any version of
    the model, unless the query names one. Only counts are kept. Send each outcome once.
    """
    served, monitor = call.served, find_monitor(call)
    body = await call.read_body()
    outcomes = await call.parse(partial(_read, body, call), body)
    call.state.windows = len(outcomes)
    hours = {(one.of, one.hour) for one, _ in outcomes if one is not None}
    n_bytes = TALLIED * sum(of.n_features for of, _ in hours)
    try:
        matched, unknown, repeated = await call.submit(partial(monitor.settle, served.name, outcomes), n_bytes)
    except sqlite3.Error as error:
        raise NotReadyError(f"outcomes cannot be written now: {error}", headers={"Retry-After": "60"}) from error
    head, output = head_of(served), served.model.outputs[watched_output(served.model)]
    return answer_json(OutcomesResponse(**head, output=output, matched=matched, unknown=unknown, repeated=repeated))


def _read(body: bytes, call: Call) -> list[tuple[Receipt | None, float]]:
    """The receipts, None where it is not valid, and the actual values; raises `DataError`, which names each place."""
    settings, name, version = call.parts.settings, call.served.name, call.query.version
    oldest, most = time() // HOUR - settings.monitor_hours, settings.max_windows
    limits = Limits(settings.max_json_depth, most, (4, 4), outputs=most)  # an outcome has fewer than 16 values, strings
    asked = validate_request(OutcomesRequest, parse_object(body, limits))
    if len(asked.outcomes) > most:
        message = f"must have at most {most} outcomes (max_windows), but has {len(asked.outcomes)}"
        raise invalid_value("outcomes", message, "limit_exceeded")
    problems, found = list[Problem](), list[tuple[Receipt | None, float]]()
    for number, one in enumerate(asked.outcomes):
        place = f"outcomes[{number}]"
        try:
            receipt = call.parts.receipts.verify(one.receipt)
        except ValueError:
            problems.append(Problem(f"{place}.receipt", "must be one of the receipts of an answer"))
            continue
        if receipt is None or receipt.hour <= oldest or receipt.of[:2] != (name, version or receipt.of.version):
            found.append((None, 0))
        elif one.values.keys() != {receipt.output}:
            problems.append(Problem(f"{place}.values", f"must have what came for {receipt.output}, and nothing else"))
        else:
            found.append((receipt, one.values[receipt.output]))
    if problems:
        raise invalid_values(problems, len(problems))
    return found
