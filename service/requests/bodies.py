"""A request's body: read within bounds, and parsed once."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import numpy as np
import orjson
import simdjson
from fastapi import Request
from starlette.datastructures import Headers

from kanmodel.errors import Problem
from kanmodel.windows import N_LISTED
from service.errors import BodyTooLargeError, MediaTypeError, unusable, unusable_values
from service.paths import non_finite_places


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body of a JSON request, counted while it arrives.

    Raises:
        MediaTypeError: it is not JSON, or compressed.
        BodyTooLargeError: it is larger than `max_bytes`.
    """
    _refuse_other_media(request.headers)
    length = request.headers.get("content-length", "")
    data = bytearray()
    if not (length.isdecimal() and int(length) > max_bytes):
        async for chunk in request.stream():
            data += chunk
            if len(data) > max_bytes:
                break
        else:
            return bytes(data)
    raise BodyTooLargeError(f"the body is larger than {max_bytes} bytes")


def parse_windows(data: bytes, window_shape: tuple[int, int]) -> dict[str, Any]:
    """The JSON object that a body holds, its ``instances`` as an array where they are plainly windows of the shape.

    Where they are not, they are lists, in which the place of what is wrong can be found.

    Args:
        data: the body.
        window_shape: lookback and number of features.

    Raises:
        DataError: as `parse_object`.
    """
    lookback, n_features = window_shape
    try:
        document: Any = simdjson.Parser().parse(data)
        instances = document["instances"]
        n = len(instances)
        steps = {len(window) for window in instances}
        features = {len(step) for window in instances for step in window}
        numbers = np.frombuffer(instances.as_buffer(of_type="d"), dtype=np.float64)
        members = {name: _plain(value) for name, value in document.items() if name != "instances"}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return parse_object(data)
    # With no list beside them nothing is nested deeper, nor hidden in a second member of that name.
    if (steps, features) != ({lookback}, {n_features}) or data.count(b"[") != 1 + n + n * lookback:
        return parse_object(data)
    return {"instances": numbers.reshape(n, lookback, n_features), **members}


def _plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, simdjson.Object) else value


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object that a body holds.

    Raises:
        DataError: it is not JSON, holds NaN or an infinity, or is another value than an object.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        _refuse_non_finite_numbers(data)
        raise unusable("body", f"must be JSON: {error}") from None
    if not isinstance(document, dict):
        raise unusable("body", "must be a JSON object")
    return document


def _refuse_other_media(headers: Headers) -> None:
    content_type = headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise MediaTypeError(f"Content-Type must be application/json, but is {content_type!r}")
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise MediaTypeError(
            f"the body must not be compressed, but Content-Encoding is {encoding!r}",
            headers={"Accept-Encoding": "identity"},
        )


def _refuse_non_finite_numbers(data: bytes) -> None:
    """Names the NaNs and infinities of a body that is JSON but for them; Python's own parser reads those."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    places = islice(non_finite_places(document), N_LISTED + 1)
    # A name may hold half a surrogate pair, which no answer could.
    problems = [Problem(path.encode(errors="replace").decode() or "body", "must be finite") for path in places]
    if problems:
        raise unusable_values(problems, "are not finite")
