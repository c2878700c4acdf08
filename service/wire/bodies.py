"""Reads a request body within its limits, parses it once, and validates everything but the arrays.

A parser holds the GIL until it is done, a tenth of a second for 8 MB, and allocates what it reads. So a large body is
refused by its counts of strings, values and lists, which numpy finds without the GIL: whatever is parsed, and read
later, is as small as a valid request. Why a body is no valid JSON is found out by a second, lenient parser.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from math import prod
from threading import local
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import orjson
import simdjson
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from kanmodel.data import N_LISTED
from kanmodel.errors import Problem
from kanmodel.model import Model
from service.settings import Settings
from service.wire.errors import NOT_FINITE, RequestError, invalid_members, invalid_value, invalid_values
from service.wire.headers import IS_WHOLE, find_header
from service.wire.json import JSON, format_path, non_finite_places

if TYPE_CHECKING:
    from service.work.budget import Claim

Small = TypeVar("Small", bound=BaseModel)
LARGE = 64 << 10  # bytes up to which a body is not charged; `max_concurrent` bounds their number
KEPT = 512 << 10  # bytes of a text up to which its parser is reused; its buffers take ten times as much
_OTHERS = 10_000  # values, and lists, besides the windows
_NAMED = 16  # strings about one feature, step or output: names of members and values, in every place that takes them
_STRINGS = 1_000  # others
_DIGITS = 300  # of an integer within the range of a double, whatever they are
_of_thread = local()

# The bytes that determine nesting: an opening bracket is 1, a closing one -1 as a signed byte.
_QUOTE = 2
_MARKS = bytes.maketrans(b'[{]}"', bytes([1, 1, 255, 255, _QUOTE]))
_UNMARKED = bytes(set(range(256)) - set(b'[{]}"'))


async def read_body(request: Request, settings: Settings, held: Claim, media_types: Sequence[str] = (JSON,)) -> bytes:
    """Reads the body of a request, counting its bytes as they arrive; `held` is charged for a large one.

    An empty one of the media types accepts a body without Content-Type. FastAPI's `max_body_size` would answer in plain
    text instead of with our error.

    Raises:
        RequestError: another media type, a compressed body, or one larger than `max_body_bytes` or slower than
            `body_timeout`.
        DataError: its memory exceeds the limit even without other requests.
        OverloadedError: too little memory is free at the moment.
    """
    content_type = find_header(request.scope, b"content-type") or ""
    if content_type.split(";")[0].strip().lower() not in media_types:
        message = f"Content-Type must be {' or '.join(filter(None, media_types))}"
        raise RequestError(message, code="unsupported_media_type")
    encoding = find_header(request.scope, b"content-encoding")
    if encoding is not None and encoding.strip().lower() != "identity":
        message = "the body must not be compressed, so there must be no Content-Encoding"
        raise RequestError(message, headers={"Accept-Encoding": "identity"}, code="unsupported_encoding")
    most = settings.max_body_bytes
    length = find_header(request.scope, b"content-length") or ""
    if length.isdecimal() and int(length) > most:
        raise _too_large(most)
    chunks: list[bytes] = []
    n_bytes = n_held = 0
    is_whole = False
    try:
        # A body that arrived together with the headers needs no timeout.
        is_there = request.scope["state"].get(IS_WHOLE, False)
        async with nullcontext() if is_there else asyncio.timeout(settings.body_timeout):
            while not is_whole:
                received = await request.receive()
                if received["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunks.append(received.get("body", b""))
                is_whole = not received.get("more_body", False)
                n_bytes += len(chunks[-1])
                if n_bytes > most:
                    raise _too_large(most)
                if n_bytes > max(n_held, LARGE):
                    held.grow(2 * (n_bytes - n_held))  # the chunks, and the joined copy
                    n_held = n_bytes
    except TimeoutError:
        message = f"the body did not arrive within {settings.body_timeout:g} seconds (body_timeout)"
        raise RequestError(message, code="body_timeout") from None
    return b"".join(chunks)


def _too_large(most: int) -> RequestError:
    return RequestError(f"the body is larger than {most} bytes (max_body_bytes)", code="body_too_large")


@dataclass(frozen=True)
class Limits:
    """Limits on the contents of a body, checked before it is parsed."""

    depth: int  # of nesting, `max_json_depth`
    windows: int  # `max_windows`
    window_shape: tuple[int, int]  # lookback and number of features of the model
    outputs: int = 1  # of the model
    table_shape: tuple[int, int] = (0, 0)  # rows and columns of a window as a table, if the model reads one

    @property
    def values(self) -> int:
        """Most numbers: those of `windows` windows, and some for the other members."""
        return (self.windows + 1) * max(prod(self.window_shape), prod(self.table_shape)) + _OTHERS

    @property
    def lists(self) -> int:
        """Most lists and objects: those of `windows` windows in either form, and some for the other members."""
        return (self.windows + 1) * (max(self.window_shape) + 1) + _OTHERS

    @property
    def strings(self) -> int:
        """Most strings, names of members included: so many lists of names, and mappings, can a request have."""
        named = _NAMED * (sum(self.window_shape) + self.outputs) + _STRINGS
        return named + self.windows * prod(self.table_shape)  # of which each cell may be one


def find_limits(model: Model, settings: Settings) -> Limits:
    """The limits of a request to a model."""
    config, table_shape = model.config, (0, 0)
    if config.encoding is not None:  # the columns, and the times
        table_shape = (config.lookback + config.encoding.reach, len(config.encoding.names) + 1)
    return Limits(settings.max_json_depth, settings.max_windows, config.window_shape, len(config.outputs), table_shape)


def most_windows(data: bytes, model: Model) -> int:
    """An upper bound on the windows in a body: each value takes at least a digit and a separator."""
    lookback, n_columns = model.config.window_shape
    if model.config.encoding is not None:
        n_columns = min(n_columns, len(model.config.encoding.names))
    return len(data) // (2 * lookback * n_columns) + 1


def parse_windows(data: bytes, limits: Limits) -> dict[str, Any]:
    """As `parse_object`, but ``instances`` become an array if they are valid windows.

    Otherwise they stay lists, in which the invalid values are then located.
    """
    _refuse_counts(data, limits)
    return _parse_plain(data, limits) or _require_object(_parse(data, limits.depth))


def parse_object(data: bytes, limits: Limits) -> dict[str, Any]:
    """Parses a body that must be a JSON object; see `find_limits`.

    Raises:
        DataError: the body is not JSON, is nested too deep, contains NaN, infinity or a name twice in one object,
            exceeds a limit, or is not an object.
    """
    return _require_object(parse_json(data, limits))


def parse_json(data: bytes, limits: Limits) -> Any:
    """Parses any JSON; raises as `parse_object`, apart from other values than objects."""
    _refuse_counts(data, limits)
    return _parse(data, limits.depth)


def _require_object(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise invalid_value("body", "must be a JSON object")
    return document


def _refuse_counts(data: bytes, limits: Limits) -> None:
    """Refuses what holds more strings, values or lists than a valid request, before a parser makes objects of them."""
    if len(data) > LARGE:
        shape = ", ".join(map(str, limits.window_shape))
        n_values, n_lists = _count(data, ","), _count(data, "[") + _count(data, "{")
        for n, most, what in ((n_values, limits.values, "values"), (n_lists, limits.lists, "lists and objects")):
            if n > most:
                of = f"{limits.windows} instances (max_windows) of [{shape}]"
                raise invalid_value("body", f"holds {n} {what}, more than {of} have")
    can_exceed = len(data) > 3 * limits.strings  # a string has two quotes, and a comma or colon after it
    if can_exceed and (n := _count(data, '"') // 2) > limits.strings:
        _refuse_depth(data, limits.depth)
        of = f"the {limits.strings} of a request to this model"
        raise invalid_value("body", f"holds {n} names and strings, more than {of}")


def _count(data: bytes, byte: str) -> int:
    """Counts a byte: in large data faster than `bytes.count`, and without the GIL."""
    if len(data) <= LARGE:
        return data.count(byte.encode())
    return int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == ord(byte)))


def _refuse_depth(data: bytes, max_depth: int) -> None:
    """Refuses deep nesting before parsing; a body with few brackets needs no check."""
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    unescaped = data.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = np.frombuffer(unescaped.translate(_MARKS, _UNMARKED), np.int8)
    quotes = marks == _QUOTE
    outside = np.cumsum(quotes, dtype=np.uint8) % 2 == 0  # outside strings; overflow of 8 bits keeps the parity
    depths = np.cumsum(marks * (outside & ~quotes), dtype=np.int32)
    if depths.max() > max_depth:
        raise invalid_value("body", f"must be nested at most {max_depth} deep (max_json_depth)", "limit_exceeded")


def _parse_plain(data: bytes, limits: Limits) -> dict[str, Any] | None:
    """Fast path: the object if its instances are valid windows and its only lists; otherwise None.

    No simdjson object may outlive this function: while one does, the parser cannot be reused.
    """
    lookback, n_features = limits.window_shape
    if len(data) > KEPT:
        parser = simdjson.Parser()
    else:  # the thread's own, whose buffers are allocated
        parser = _of_thread.parser = getattr(_of_thread, "parser", None) or simdjson.Parser()
    try:
        document: Any = parser.parse(data)
        instances = document["instances"]
        numbers = np.frombuffer(instances.as_buffer(of_type="d"), dtype=np.float64)  # first, as lists alone have it
        n = len(instances)
        steps = {len(window) for window in instances}
        features = {len(step) for window in instances for step in window}
        names = list(document)
        others = [(name, document[name]) for name in names if name != "instances"]  # items() would convert all
        members = {name: one.as_dict() if isinstance(one, simdjson.Object) else one for name, one in others}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return None
    # Without other lists, only objects can nest deeper.
    plain = names == ["instances"] or (
        _count(data, ":") == 1 + _count_members(members) and _count(data, "{") <= limits.depth
    )
    plain = plain and _count(data, "[") == 1 + n + n * lookback
    if (steps, features) != ({lookback}, {n_features}) or not plain:
        return None
    return {"instances": numbers.reshape(n, lookback, n_features), **members}


def _parse(data: bytes, max_depth: int) -> Any:
    _refuse_depth(data, max_depth)
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        _refuse_non_finite(data)
        raise invalid_value("body", f"must be JSON: {error}", "invalid_json") from None
    if _count(data, ":") != _count_members(document):  # colons in strings, or members that replaced others
        _refuse_repeated(json.loads(data, object_pairs_hook=tuple, parse_int=float))
    return document


def _refuse_non_finite(data: bytes) -> None:
    """Refuses NaN, infinity and numbers out of the range of a double, naming the first; any other text may pass."""
    try:
        document = json.loads(data, parse_int=lambda digits: float(digits) if len(digits) > _DIGITS else 0)
        paths = list(islice(non_finite_places(document), N_LISTED + 1))
    except (ValueError, RecursionError):
        return
    if paths:
        n = f"more than {N_LISTED}" if len(paths) > N_LISTED else len(paths)
        names = [path.encode(errors="replace").decode() or "body" for path in paths]
        raise invalid_values([Problem(name, NOT_FINITE) for name in names], n, "are not finite")


def _count_members(value: Any) -> int:
    """The members of an object, and of the objects in it or in its lists of objects."""
    if type(value) is dict:
        return len(value) + sum(map(_count_members, value.values()))
    return sum(map(_count_members, value)) if type(value) is list and value and type(value[0]) is dict else 0


def _refuse_repeated(value: Any, parts: tuple[str | int, ...] = ()) -> None:
    """Refuses a name that stands twice in an object, which is a tuple of its members here."""
    if isinstance(value, tuple):
        n_members = Counter(name for name, _ in value)
        if len(n_members) < len(value):
            twice = next(name for name, n in n_members.items() if n > 1)
            raise invalid_value(format_path([*parts, twice]), "is given twice")
    for key, item in value if isinstance(value, tuple) else enumerate(value):
        if isinstance(item, tuple | list):
            _refuse_repeated(item, (*parts, key))


def validate_request(cls: type[Small], document: Mapping[str, Any], unread: Collection[str] = ()) -> Small:
    """Validates the members of a request, or raises DataError; those `unread`, read elsewhere, keep their defaults."""
    small = {name: value for name, value in document.items() if name not in unread}
    try:
        return cls.model_validate(small)
    except ValidationError as error:
        raise invalid_members(error.errors(include_url=False, include_input=False)) from None
