"""POST /v1/models/{model}:windows: the windows of the rows of a table, as every other operation cuts them."""

from dataclasses import replace
from math import isnan

import numpy as np
from fastapi import Response

from kanmodel.tables.encoding import Rows
from kanmodel.tables.windows import Windows, actual_outputs
from service.answers.members import head_of
from service.answers.windows import CutRequest, CutResponse, LeftOut
from service.operations.route import MODEL, Call, Operation
from service.operations.windows import CheckedWindows, check_values
from service.wire.bodies import PARSED, most_windows, parse_windows, validate_request
from service.wire.errors import invalid_value
from service.wire.json import HELD_NUMBER_BYTES, answer_json
from service.wire.windows import UNREAD, Given, is_absent, read_windows


def choose_windows(given: Given, cut: Windows, ends: list[int]) -> Given:
    """Those of the windows whose newest row is one of some, by their numbers in the table as it was given."""
    numbers = np.flatnonzero(np.isin(find_ends(cut), ends))
    found = cut.choose(numbers)
    chosen = given._replace(windows=given.windows[numbers], times=found.times, filled=found.filled, series=found.series)
    return chosen._replace(cut=found)


def find_ends(cut: Windows) -> Rows:
    """The newest row of each window, (n,), by its number in the table as it was given; of a wide one in each column."""
    rows, melted = cut.table.order[cut.ends], cut.table.cell_names.melted
    return rows if melted is None else rows % melted[2]


def describe_cut(call: Call, asked: CutRequest, checked: CheckedWindows) -> CutResponse:
    """The answer."""
    given = checked.given
    answer: CutResponse = {
        **head_of(call.served),
        "outputs": list(call.served.model.outputs),
        **checked.describe(),  # type: ignore[typeddict-item]
    }
    if asked.echo:
        answer["instances"] = given.windows.tolist()
    if (cut := given.cut) is not None:
        answer["ends"] = find_ends(cut).tolist()
        missing = cut.missing
        left = LeftOut(across_gaps=cut.across_gaps, missing=missing.windows, missing_columns=missing.worst)
        answer["left_out"] = left
        if any(cut.table.has):
            rows = actual_outputs(cut).tolist()
            answer["actual"] = [[None if isnan(value) else value for value in row] for row in rows]
    return answer


@Operation("POST", f"{MODEL}:windows", "predictions", "read", CutResponse, body=CutRequest)
async def cut_windows(call: Call) -> Response:
    """Cuts the windows of a series, as every operation on windows does, with times, rows and what came after them.

    A series may have the columns of the targets, of which `actual` is. With `"gaps": "skip"` windows with a missing
    value are left out too.
    """
    model, limits = call.served.model, call.limits
    limits = replace(limits, texts=limits.texts + len(model.config.targets))
    body = await call.read_body()

    def answer() -> Response:
        document = parse_windows(body, limits)
        asked = validate_request(CutRequest, document, unread=UNREAD)
        given = read_windows(document, model, limits, targets=True)
        if not is_absent(asked.ends):
            if given.cut is None:
                raise invalid_value("ends", "must be given only with a series")
            given = choose_windows(given, given.cut, asked.ends or [])
        call.state.windows = len(given.windows)
        checked = check_values(given, call.served)
        call.count_warnings(checked.counts)
        return answer_json(describe_cut(call, asked, checked))

    lookback, n_features = model.config.window_shape
    n_values = min(most_windows(body, model), limits.cut) * (lookback * n_features + len(model.outputs))
    return await call.submit(answer, PARSED * len(body) + n_values * HELD_NUMBER_BYTES)
