"""Reads a request body within its limits, parses it once, and validates everything but the arrays."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from threading import local
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import orjson
import simdjson
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from kanmodel.model import Model
from service.settings import Settings
from service.wire.errors import BodyTooLargeError, MediaTypeError, SlowBodyError, unusable, unusable_members
from service.wire.headers import IS_WHOLE, find_header
from service.wire.json import JSON, format_path
from service.wire.scanning import count_bytes, find_byte, find_path, refuse_non_finite

if TYPE_CHECKING:
    from service.work.budget import Claim

Small = TypeVar("Small", bound=BaseModel)
LARGE = 64 << 10  # bytes up to which a body is not charged; `max_concurrent` bounds their number
KEPT = 512 << 10  # bytes of a text up to which its parser is reused; its buffers take ten times as much
_OTHERS = 10_000  # values, and lists, besides the windows
_NAMED = 16  # strings about one feature, step or output: names of members and values, in every place that takes them
_STRINGS = 1_000  # others
_TOO_LARGE = "number is infinity"  # how orjson's message of a number out of the range of a double begins

# The bytes that determine nesting: an opening bracket is 1, a closing one -1 as a signed byte.
_QUOTE = 2
_MARKS = bytes.maketrans(b'[{]}"', bytes([1, 1, 255, 255, _QUOTE]))
_of_thread = local()
_UNMARKED = bytes(set(range(256)) - set(b'[{]}"'))


async def read_body(request: Request, settings: Settings, held: Claim, media_types: Sequence[str] = (JSON,)) -> bytes:
    """Reads the body of a request, counting its bytes as they arrive.

    FastAPI's `max_body_size` would answer in plain text instead of with our error.

    Args:
        request: the request.
        settings: `max_body_bytes` and `body_timeout`.
        held: the memory budget of the request, to which a large body is charged.
        media_types: accepted media types; an empty one accepts a body without Content-Type.

    Raises:
        MediaTypeError: another media type, or a compressed body.
        BodyTooLargeError: the body is larger than `max_body_bytes`.
        OverloadedError: the memory budget is used up at the moment.
        SlowBodyError: the body did not arrive within `body_timeout`.
    """
    _refuse_other_media(request.scope, media_types)
    length = find_header(request.scope, b"content-length") or ""
    if length.isdecimal() and int(length) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    chunks: list[bytes] = []
    n_bytes = n_held = 0
    is_whole = False
    try:
        # A body that arrived together with the headers needs no timeout.
        is_there = request.scope["state"].get(IS_WHOLE, False)
        async with nullcontext() if is_there else asyncio.timeout(settings.body_timeout):
            while not is_whole:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunks.append(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                n_bytes += len(chunks[-1])
                if n_bytes > settings.max_body_bytes:
                    raise _too_large(settings.max_body_bytes)
                if n_bytes > max(n_held, LARGE):
                    held.grow(2 * (n_bytes - n_held))  # the chunks, and the joined copy
                    n_held = n_bytes
    except TimeoutError:
        reason = f"the body did not arrive within {settings.body_timeout:g} seconds (body_timeout)"
        raise SlowBodyError(reason) from None
    return b"".join(chunks)


@dataclass(frozen=True)
class Limits:
    """Limits on the contents of a body, checked before it is parsed.

    Attributes:
        depth: deepest nesting, `max_json_depth`.
        windows: most windows, `max_windows`.
        window_shape: lookback and number of features of the model.
        outputs: number of outputs of the model.
    """

    depth: int
    windows: int
    window_shape: tuple[int, int]
    outputs: int = 1

    @property
    def values(self) -> int:
        """Most numbers: those of `windows` windows, and some for the other members."""
        lookback, n_features = self.window_shape
        return (self.windows + 1) * lookback * n_features + _OTHERS

    @property
    def lists(self) -> int:
        """Most lists and objects: those of `windows` windows in either form, and some for the other members."""
        return (self.windows + 1) * (max(self.window_shape) + 1) + _OTHERS

    @property
    def strings(self) -> int:
        """Most strings, names of members included: so many lists of names, and mappings, can a request have."""
        return _NAMED * (sum(self.window_shape) + self.outputs) + _STRINGS


def find_limits(model: Model, settings: Settings) -> Limits:
    """The limits of a request to a model."""
    config = model.config
    return Limits(settings.max_json_depth, settings.max_windows, config.window_shape, len(config.outputs))


def most_windows(data: bytes, model: Model) -> int:
    """An upper bound on the windows in a body: each value takes at least a digit and a separator."""
    lookback, n_features = model.config.window_shape
    return len(data) // (2 * lookback * n_features) + 1


def parse_windows(data: bytes, limits: Limits) -> dict[str, Any]:
    """Parses a body whose ``instances`` become an array if they are valid windows.

    Otherwise they stay lists, in which the invalid values are then located.

    Args:
        data: the body.
        limits: see `find_limits`.

    Raises:
        DataError: as `parse_object`.
    """
    _refuse_hopeless(data, limits)
    plain = _parse_plain(data, limits)
    return _require_object(_parse(data, limits.depth)) if plain is None else plain


def _parse_plain(data: bytes, limits: Limits) -> dict[str, Any] | None:
    """Fast path: the object if its instances are valid windows and its only lists; otherwise None.

    No simdjson object may outlive this function: while one does, the parser cannot be reused.
    """
    lookback, n_features = limits.window_shape
    try:
        document: Any = _find_parser(data).parse(data)
        instances = document["instances"]
        numbers = np.frombuffer(instances.as_buffer(of_type="d"), dtype=np.float64)  # first, as lists alone have it
        n = len(instances)
        steps = {len(window) for window in instances}
        features = {len(step) for window in instances for step in window}
        names = list(document)
        # items() would convert the instances too
        members = {name: _plain(document[name]) for name in names if name != "instances"}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return None
    # Without other lists, only objects can nest deeper.
    plain = names == ["instances"] or (
        count_bytes(data, ":") == 1 + _count_members(members) and count_bytes(data, "{") <= limits.depth
    )
    plain = plain and count_bytes(data, "[") == 1 + n + n * lookback
    if (steps, features) != ({lookback}, {n_features}) or not plain:
        return None
    return {"instances": numbers.reshape(n, lookback, n_features), **members}


def _find_parser(data: bytes) -> simdjson.Parser:
    """A parser for a text: the thread's own, with its buffers allocated, unless the text is large."""
    if len(data) > KEPT:
        return simdjson.Parser()
    if not hasattr(_of_thread, "parser"):
        _of_thread.parser = simdjson.Parser()
    parser: simdjson.Parser = _of_thread.parser
    return parser


def _plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, simdjson.Object) else value


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {max_bytes} bytes (max_body_bytes)")


def parse_object(data: bytes, limits: Limits) -> dict[str, Any]:
    """Parses a body that must be a JSON object.

    Raises:
        DataError: the body is not JSON, is nested too deep, contains NaN, infinity or a name twice in one object,
            exceeds a limit, or is not an object.
    """
    return _require_object(parse_json(data, limits))


def parse_json(data: bytes, limits: Limits) -> Any:
    """Parses any JSON; refuses what `parse_object` does, apart from other values than objects."""
    _refuse_hopeless(data, limits)
    return _parse(data, limits.depth)


def _require_object(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise unusable("body", "must be a JSON object")
    return document


def _refuse_hopeless(data: bytes, limits: Limits) -> None:
    """Refuses a body of a wrong size by counting characters, before a parser makes objects and blocks other requests.

    What has few strings has few names and members, so whatever reads them later is quick.
    """
    can_exceed = len(data) > 3 * limits.strings  # a string has two quotes, and a comma or colon after it
    if can_exceed and (n_strings := count_bytes(data, '"') // 2) > limits.strings:
        position = find_byte(data, '"', 2 * limits.strings)
        _refuse_depth(data[:position], limits.depth)
        reason = f"a request to this model has at most {limits.strings} names and strings, and the body has {n_strings}"
        raise unusable(find_path(data, position), f"is one too many: {reason}")
    if len(data) <= LARGE:
        return
    n_values, n_lists = count_bytes(data, ","), count_bytes(data, "[") + count_bytes(data, "{")
    shape = ", ".join(map(str, limits.window_shape))
    for n, most, what in ((n_values, limits.values, "values"), (n_lists, limits.lists, "lists and objects")):
        if n > most:
            reason = f"holds {n} {what}, more than {limits.windows} instances (max_windows) of [{shape}] have"
            raise unusable("body", reason)
    refuse_non_finite(data, limits.depth)


def _parse(data: bytes, max_depth: int) -> Any:
    _refuse_depth(data, max_depth)
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        refuse_non_finite(data, max_depth)
        if error.msg.startswith(_TOO_LARGE):
            place = find_path(data, len(error.doc[: error.pos].encode()))
            raise unusable(place, "must be finite: the number is out of the range of a double", "not_finite") from None
        raise unusable("body", f"must be JSON: {error}", "invalid_json") from None
    if count_bytes(data, ":") != _count_members(document):  # colons in strings, or members that replaced others
        _refuse_repeated(json.loads(data, object_pairs_hook=_Members, parse_int=float), ())
    return document


def _count_members(value: Any) -> int:
    """The members of an object, and of the objects in it or in its lists of objects."""
    if type(value) is dict:
        return len(value) + sum(map(_count_members, value.values()))
    return sum(map(_count_members, value)) if type(value) is list and value and type(value[0]) is dict else 0


class _Members(dict[str, Any]):
    """An object with the first name that it repeats."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        twice = (name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        self.repeated = next(twice, None) if len(self) < len(pairs) else None


def _refuse_repeated(value: Any, parts: tuple[str | int, ...]) -> None:
    if isinstance(value, _Members):
        if value.repeated is not None:
            raise unusable(format_path([*parts, value.repeated]), "is given twice")
        for name, item in value.items():
            _refuse_repeated(item, (*parts, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, list | dict):
                _refuse_repeated(item, (*parts, index))


def validate_request(cls: type[Small], document: Mapping[str, Any], unread: Collection[str]) -> Small:
    """Validates the members of a request other than its arrays, and refuses unknown ones.

    Args:
        cls: the model of the request.
        document: the parsed body.
        unread: members that are read elsewhere, by numpy; they keep their defaults here.

    Raises:
        DataError: a member is unknown or invalid.
    """
    small = {name: value for name, value in document.items() if name not in unread}
    try:
        return cls.model_validate(small)
    except ValidationError as error:
        raise unusable_members(error.errors(include_url=False, include_input=False)) from None


def _refuse_other_media(scope: Scope, media_types: Sequence[str]) -> None:
    content_type = find_header(scope, b"content-type") or ""
    if content_type.split(";")[0].strip().lower() not in media_types:
        raise MediaTypeError(f"Content-Type must be {' or '.join(filter(None, media_types))}")
    encoding = find_header(scope, b"content-encoding")
    if encoding is not None and encoding.strip().lower() != "identity":
        raise MediaTypeError(
            "the body must not be compressed, so there must be no Content-Encoding",
            headers={"Accept-Encoding": "identity"},
            code="unsupported_encoding",
        )


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
        raise unusable("body", f"must be nested at most {max_depth} deep (max_json_depth)", "limit_exceeded")
