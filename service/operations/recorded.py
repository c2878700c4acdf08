"""What is recorded of an answer: forecasts with a receipt, explanations, and inputs that the settings name.

The data of events are documents of the Open Inference Protocol with a tensor for each column, since TrustyAI reads
several tensors of one shape, (n), as columns of their names.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple

import orjson

from kanmodel.arrays import Array
from service.answers.members import find_versions, hash_windows
from service.models.registry import Served
from service.operations.route import Call
from service.telemetry.chain import Event, to_text
from service.telemetry.record import REQUEST, RESPONSE, Record


class Recording(NamedTuple):
    """The record of one request."""

    record: Record
    served: Served
    request_id: str
    headers: Mapping[str, list[str]]  # that the settings name
    marks: dict[str, Any]  # further attributes of its events

    def add(
        self,
        windows: Array,
        predictions: Array,
        answer: Callable[[], dict[str, Any]] | None = None,
        intervals: Callable[[], object] | None = None,
        n_bytes: int = 0,
        first: int = 0,
    ) -> None:
        """Records forecasts of windows, (n, n_outputs) of (n, lookback, n_features), and how they are explained.

        `answer` makes an `ExplainResponse` with a receipt on the thread of the record, `intervals` those of the answer;
        both hold `n_bytes` until then. Parts of a stream are recorded one by one: `first` is a part's first window.
        """
        served = self.served
        shown = self.record.choose_features(served.name, served.checkpoint, served.model.config)
        describe = partial(self._describe, windows, predictions, answer, intervals, first, datetime.now(UTC), shown)
        n_bytes += windows.nbytes + predictions.nbytes
        self.record.put(n_bytes, 2 if shown else 1, describe)

    def _describe(
        self,
        windows: Array,
        predictions: Array,
        answer: Callable[[], dict[str, Any]] | None,
        intervals: Callable[[], object] | None,
        first: int,
        time: datetime,
        shown: Sequence[int],
    ) -> Iterator[Event]:
        served, config, record = self.served, self.served.model.config, self.record
        is_partly_shown = 0 < len(shown) < len(config.features)
        event_id, source = self.request_id, f"/v2/models/{served.name}/versions/{served.version}"
        if first:
            event_id += f".{first}"
        members = {
            "id": event_id,
            "source": source,
            "time": to_text(time),
            "inferenceservicename": served.name,
            "component": "predictor" if answer is None else "explainer",
            "metadata": json.dumps(self.headers) if self.headers else "{}",
        }
        parameters = {"checkpoint": served.checkpoint}
        if shown:
            cells = _name_cells(tuple(config.feature_names[number] for number in shown), config.lookback)
            inputs = _encode_tensors(cells, windows[..., shown].reshape(len(windows), -1))
            asked = {"id": event_id, "parameters": parameters, "inputs": inputs}
            yield record.describe(REQUEST, asked, members) | {**self.marks}
        data: dict[str, Any] = {
            "model_name": served.name,
            "model_version": served.version,
            "id": event_id,
            "parameters": parameters,
            "outputs": _encode_tensors(served.model.outputs, predictions),
        }
        if intervals is not None:
            data["intervals"] = intervals()
        if answer is not None:
            data["answer"] = answer()
            if len(shown) < len(config.features):
                _hide_inputs(data["answer"], is_partly_shown)
        else:
            data["receipt"] = {"checkpoint": served.checkpoint, "versions": find_versions()}
            if not is_partly_shown:
                data["receipt"]["input"] = hash_windows(windows)
        yield record.describe(RESPONSE, data, members) | {**self.marks}


def begin_recording(call: Call) -> Recording | None:
    """Begins to record a request; None if nothing is recorded, or another share of the requests.

    An exploration is recorded too, and marked: no header of a client may keep what it was answered out of an audit.
    """
    record = call.parts.record
    if record is None or not record.draw():
        return None
    marks = {"purpose": "explore"} if call.explores else {}
    return Recording(record, call.served, call.state.request_id, record.choose_headers(call.scope["headers"]), marks)


def _encode_tensors(names: tuple[str, ...], columns: Array) -> orjson.Fragment:
    """The tensors of the columns of an array (n, n_columns), as JSON: a dict for each takes three times as long."""
    rows = orjson.dumps(columns.T.tolist())[2:-2].split(b"],[")
    return orjson.Fragment(_encode_form(names, len(columns)) % tuple(rows))


@lru_cache
def _encode_form(names: tuple[str, ...], n: int) -> bytes:
    """The JSON of tensors of `n` values, with `%b` in place of these."""
    form = b'{"name":%b,"shape":[%d],"datatype":"FP64","data":[%%b]}'
    return b"[%b]" % b",".join(form % (orjson.dumps(name).replace(b"%", b"%%"), n) for name in names)


@lru_cache
def _name_cells(features: tuple[str, ...], lookback: int) -> tuple[str, ...]:
    """The names of the cells of a window, oldest step first: `load[-23]` to `load[0]`."""
    return tuple(f"{name}[{step}]" for step in range(1 - lookback, 1) for name in features)


def _hide_inputs(answer: dict[str, Any], is_partly_shown: bool) -> None:
    """Removes what repeats inputs from an `ExplainResponse`: warnings, times, series, and a baseline that was given.

    Where a part of the features is recorded, the hash of all goes too, as it would confirm a guess of the others.
    """
    answer["warnings"] = []
    for name in ("times", "series", "warnings_omitted"):
        answer.pop(name, None)
    for holder in (answer, answer["receipt"]):
        if (kind := holder["baseline"]["kind"]) in ("values", "instance"):
            holder["baseline"] = {"kind": kind}
    if is_partly_shown:
        del answer["receipt"]["input"]
