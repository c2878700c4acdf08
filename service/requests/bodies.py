"""A request's body: read within bounds, parsed once, its small members validated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import orjson
import simdjson
from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import Headers

from kanmodel.errors import Problem
from kanmodel.windows import N_LISTED
from service.http.answers import JSON
from service.http.errors import BodyTooLargeError, MediaTypeError, SlowBodyError, problem_of, unusable, unusable_values
from service.http.places import non_finite_places
from service.schemas.closed import Closed
from service.settings import Settings

Model = TypeVar("Model", bound=Closed)

# What decides how deep JSON is nested: a bracket that opens is 1, one that closes -1 as a signed byte.
_QUOTE = 2
_MARKS = bytes.maketrans(b'[{]}"', bytes([1, 1, 255, 255, _QUOTE]))
_UNMARKED = bytes(set(range(256)) - set(b'[{]}"'))


async def read_body(request: Request, settings: Settings, media_types: Sequence[str] = (JSON,)) -> bytes:
    """The body of a request, counted while it arrives.

    FastAPI's `max_body_size` would put an answer in plain text in the place of our error.

    Args:
        request: the request.
        settings: what is too large and too slow.
        media_types: those that it may have; an empty one is that of a body which does not say.

    Raises:
        MediaTypeError: it is of another media type, or compressed.
        BodyTooLargeError: it is larger than `max_body_bytes`.
        SlowBodyError: it did not arrive within `body_timeout`.
    """
    _refuse_other_media(request.headers, media_types)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    data = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for chunk in request.stream():
                data += chunk
                if len(data) > settings.max_body_bytes:
                    raise _too_large(settings.max_body_bytes)
    except TimeoutError:
        message = f"the body did not arrive within {settings.body_timeout:g} seconds (body_timeout)"
        raise SlowBodyError(message) from None
    return bytes(data)


def parse_windows(data: bytes, window_shape: tuple[int, int], max_depth: int) -> dict[str, Any]:
    """The JSON object that a body holds, its ``instances`` as an array where they are plainly windows of the shape.

    Where they are not, they are lists, in which the place of what is wrong can be found.

    Args:
        data: the body.
        window_shape: lookback and number of features.
        max_depth: deepest nesting.

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
        names = list(document)
        members = {name: _plain(document[name]) for name in names if name != "instances"}  # items() would read them all
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return parse_object(data, max_depth)
    # With no list beside them nothing is nested deeper.
    plain = len({*names}) == len(names) and _count(data, "[") == 1 + n + n * lookback and _count(data, "{") <= max_depth
    if (steps, features) != ({lookback}, {n_features}) or not plain:
        return parse_object(data, max_depth)
    return {"instances": numbers.reshape(n, lookback, n_features), **members}


def _count(data: bytes, mark: str) -> int:
    return int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == ord(mark)))  # faster than bytes.count


def _plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, simdjson.Object) else value


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {max_bytes} bytes (max_body_bytes)")


def parse_object(data: bytes, max_depth: int) -> dict[str, Any]:
    """The JSON object that a body holds.

    Raises:
        DataError: it is not JSON, nested deeper than `max_depth`, holds NaN or an infinity, or is another value than
            an object.
    """
    _refuse_depth(data, max_depth)
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        _refuse_non_finite_numbers(data)
        raise unusable("body", f"must be JSON: {error}", "invalid_json") from None
    if not isinstance(document, dict):
        raise unusable("body", "must be a JSON object")
    return document


def validate_request(cls: type[Model], document: Mapping[str, Any], unread: Collection[str]) -> Model:
    """The small members of a request, and a refusal of unknown ones.

    Args:
        cls: the model of the request.
        document: the parsed body.
        unread: members that are read elsewhere, at numpy's pace, and stay at their defaults here.

    Raises:
        DataError: a member is unknown, or another value than it must be.
    """
    small = {name: value for name, value in document.items() if name not in unread}
    try:
        return cls.model_validate(small)
    except ValidationError as error:
        raise unusable_values([problem_of(details) for details in error.errors()]) from None


def _refuse_other_media(headers: Headers, media_types: Sequence[str]) -> None:
    content_type = headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() not in media_types:
        raise MediaTypeError(f"Content-Type must be {' or '.join(filter(None, media_types))}")
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise MediaTypeError(
            "the body must not be compressed, so there must be no Content-Encoding",
            headers={"Accept-Encoding": "identity"},
            code="unsupported_encoding",
        )


def _refuse_depth(data: bytes, max_depth: int) -> None:
    """Refuses deeper nesting before a parser meets it; a body with few brackets needs no look."""
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    unescaped = data.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = np.frombuffer(unescaped.translate(_MARKS, _UNMARKED), np.int8)
    quotes = marks == _QUOTE
    outside = np.cumsum(quotes, dtype=np.uint8) % 2 == 0  # of strings; 8 bits keep what is even and odd
    depths = np.cumsum(marks * (outside & ~quotes), dtype=np.int32)
    if depths.max() > max_depth:
        raise unusable("body", f"must be nested at most {max_depth} deep (max_json_depth)", "limit_exceeded")


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
