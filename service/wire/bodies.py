"""Reads a request body within its limits, parses it once, and validates everything but the arrays.

A parser holds the GIL until it is done, a tenth of a second for 8 MB, and allocates what it reads. So a large body is
refused by its counts of strings, values and lists, which numpy finds without the GIL: whatever is parsed, and read
later, is as small as a valid request. Why a body is no valid JSON is found out by a second, lenient parser.
"""

from __future__ import annotations

import asyncio
import json
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from threading import local
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import orjson
from fastapi import Request
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from kanmodel.arrays import N_LISTED
from kanmodel.errors import DataError, Problem
from kanmodel.model import Model
from service.settings import Settings
from service.wire.errors import NOT_FINITE, RequestError, invalid_members, invalid_value, invalid_values
from service.wire.headers import IS_WHOLE, find_header
from service.wire.json import JSON, format_path, non_finite_places

try:
    import simdjson
except ImportError:  # where it has no wheel
    simdjson = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from service.room import Deadline, Hold

Small = TypeVar("Small", bound=BaseModel)
LARGE = 64 << 10  # bytes up to which a body is not counted; `max_concurrent` bounds their number
PARSED = 16  # bytes that a byte of a request takes while it is parsed
KEPT = 512 << 10  # bytes of a text up to which its parser is reused; its buffers take ten times as much
_OTHERS = 10_000  # values, and lists, besides the windows
_NAMED = 16  # strings about one feature, step or output: names of members and values, in every place that takes them
_STRINGS = 1_000  # others
_DIGITS = 300  # of an integer within the range of a double, whatever they are
_of_thread = local()

# The bytes of structure: an opening bracket is 1, a closing one -1 as a signed byte, a colon 0.
_QUOTE = 2
_MARKS = bytes.maketrans(b'[{]}":', bytes([1, 1, 255, 255, _QUOTE, 0]))
_UNMARKED = bytes(set(range(256)) - set(b'[{]}":'))


async def read_body(
    request: Request, settings: Settings, hold: Hold, deadline: Deadline, media_types: Sequence[str] = (JSON,)
) -> bytes:
    """Reads the body of a request, once there is memory for it: until then it stays with the client.

    `hold` counts what a large one takes. An empty one of the media types accepts a body without Content-Type. FastAPI's
    `max_body_size` would answer in plain text instead of with our error.

    Raises:
        RequestError: another media type, a compressed body, or one larger than `max_body_bytes` or slower than
            `body_timeout`.
        DataError: as `Hold.take`, and likewise DeadlineError and OverloadedError.
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
    if request.scope["state"].get(IS_WHOLE, False):  # it has arrived together with the headers
        return await _receive(request, hold, deadline, most, LARGE)
    declared = int(length) if length.isdecimal() else LARGE
    if declared > LARGE:
        await hold.take(declared, deadline)
    refusals: list[Exception] = []
    try:
        async with asyncio.timeout(settings.body_timeout) as timeout:

            def give_way(refusal: Exception) -> None:
                refusals.append(refusal)
                timeout.reschedule(0)

            hold.give_way = give_way
            return await _receive(request, hold, deadline, most, max(declared, LARGE))
    except TimeoutError:
        message = f"the body did not arrive within {settings.body_timeout:g} seconds (body_timeout)"
        raise (refusals or [RequestError(message, code="body_timeout")])[0] from None
    finally:
        hold.give_way = None


async def _receive(request: Request, hold: Hold, deadline: Deadline, most: int, n_held: int) -> bytes:
    """All bytes of a body; one that turns out to be larger than `n_held` may be as large as any."""
    chunks: list[bytes] = []
    n_bytes, n_taken, is_whole = 0, n_held, False
    while not is_whole:
        received = await request.receive()
        if received["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(received.get("body", b""))
        is_whole = not received.get("more_body", False)
        n_bytes += len(chunks[-1])
        if n_bytes > most:
            raise _too_large(most)
        if n_bytes > n_taken:
            await hold.take(most - LARGE, deadline)
            n_taken = most
    if n_taken > n_held:
        hold.add(n_bytes - n_taken)
    return b"".join(chunks)


def _too_large(most: int) -> RequestError:
    return RequestError(f"the body is larger than {most} bytes (max_body_bytes)", code="body_too_large")


@dataclass(frozen=True)
class Limits:
    """Limits on the contents of a body, checked before it is parsed."""

    depth: int  # of nesting, `max_json_depth`
    windows: int  # `max_windows`
    window_shape: tuple[int, int]  # lookback and number of features of the model
    outputs: int = 1  # of the model, and columns of a wide table
    cut: int = 0  # windows of a series
    rows: int = 0  # of a series, of all together where they are many
    texts: int = 0  # columns of a series that may hold strings

    @property
    def values(self) -> int:
        """Most numbers: those of `windows` windows, and some for the other members."""
        return (self.windows + 1) * prod(self.window_shape) + self.rows * self.texts + _OTHERS

    @property
    def lists(self) -> int:
        """Most lists and objects: those of `windows` windows in either form, and some for the other members."""
        return (self.windows + 1) * (max(self.window_shape) + 1) + _OTHERS

    @property
    def strings(self) -> int:
        """Most strings besides cells, names of members included: so many lists of names, and mappings, can there be."""
        return _NAMED * (sum(self.window_shape) + self.outputs) + _STRINGS

    @property
    def cells(self) -> int:
        """Most strings that are cells of a series, of both sides of a comparison."""
        return 2 * self.rows * self.texts


def find_limits(model: Model, settings: Settings) -> Limits:
    """The limits of a request to a model."""
    config, most = model.config, settings.max_windows
    spec, series = config.table, config.series
    cut = max(1, min(most, settings.max_body_bytes // (2 * prod(config.window_shape))))  # as a body holds as instances
    span, wide = config.lookback + spec.encoding.later, () if series is None else series.columns
    rows = cut + span - 1 if series is None else cut * span
    texts = 1 if config.encoding is None else 1 + len(spec.encoding.names)
    texts += 0 if series is None else 1 + len(wide)
    outputs = len(config.outputs) + len(wide)
    return Limits(settings.max_json_depth, most, config.window_shape, outputs, cut, rows, texts)


def may_hold_series(data: bytes) -> bool:
    """Whether a body may hold a series; see `may_hold`."""
    return may_hold(data, b"series", b"r")


def may_hold(data: bytes, name: bytes, letter: bytes) -> bool:
    """Whether a body may hold a member, by a letter of its name that instances alone do not have.

    To search for a letter is quick; for the whole name it takes a fifth as long as to parse the body, and in a large
    one milliseconds, so there the letter has to do.
    """
    return b"\\" in data or (letter in data and (len(data) > KEPT or b'"%b"' % name in data))


def most_windows(data: bytes, model: Model) -> int:
    """An upper bound on the windows in a body: each value takes a separator, and at least a digit.

    Separators are counted where that is worth its time: neither of small nor of huge ones.
    """
    lookback, n_columns = model.config.window_shape
    if model.config.encoding is not None:
        n_columns = min(n_columns, len(model.config.encoding.names))
    if model.config.series is not None and model.config.series.columns:
        n_columns = 1  # each value may be the newest of a window
    n_values = _count(data, ",") + 1 if LARGE < len(data) <= KEPT else len(data) // 2
    return n_values // (n_columns if may_hold_series(data) else lookback * n_columns) + 1


def parse_windows(data: bytes, limits: Limits) -> dict[str, Any]:
    """As `parse_object`, but ``instances`` become an array if they are valid windows, and a series may hold strings.

    Otherwise they stay lists, in which the invalid values are then located.
    """
    n_strings = _refuse_counts(data, limits, limits.cells)
    document = _parse_plain(data, limits) or _require_object(_parse(data, limits.depth))
    if n_strings > limits.strings and (n := n_strings - _count_texts(document)) > limits.strings:
        raise _too_many_strings(n, limits.strings)
    return document


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


def _refuse_counts(data: bytes, limits: Limits, n_cells: int = 0) -> int:
    """Refuses what holds more strings, values or lists than a valid request, before a parser makes objects of them.

    Of the strings, `n_cells` may be cells. Returns their number; 0 where it is small.
    """
    if len(data) > LARGE:
        shape = ", ".join(map(str, limits.window_shape))
        n_values, n_lists = _count(data, ","), _count(data, "[") + _count(data, "{")
        for n, most, what in ((n_values, limits.values, "values"), (n_lists, limits.lists, "lists and objects")):
            if n > most:
                of = f"{limits.windows} instances (max_windows) of [{shape}]"
                raise invalid_value("body", f"holds {n} {what}, more than {of} have")
    if len(data) <= 3 * limits.strings:  # a string has two quotes, and a comma or colon after it
        return 0
    if (n := _count(data, '"') // 2) > (most := limits.strings + n_cells):
        _refuse_depth(data, limits.depth)
        raise _too_many_strings(n, most)
    return n


def _too_many_strings(n: int, most: int) -> DataError:
    return invalid_value("body", f"holds {n} names and strings, more than the {most} of a request to this model")


def _count_texts(document: dict[str, Any]) -> int:
    """The strings among the cells of a series, and of the other side of a comparison."""
    sides = [side.get("series") for side in (document, document.get("against")) if isinstance(side, dict)]
    columns = [column for side in sides if isinstance(side, dict) for column in side.values()]
    return sum([*map(type, column)].count(str) for column in columns if isinstance(column, list))


def _count(data: bytes, byte: str) -> int:
    """Counts a byte: in large data faster than `bytes.count`, and without the GIL."""
    if len(data) <= LARGE:
        return data.count(byte.encode())
    return int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == ord(byte)))


def _refuse_depth(data: bytes, max_depth: int) -> None:
    """Refuses deep nesting before parsing; a body with few brackets needs no check."""
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    if np.cumsum(_find_structure(data), dtype=np.int32).max(initial=0) > max_depth:
        raise invalid_value("body", f"must be nested at most {max_depth} deep (max_json_depth)", "limit_exceeded")


def _find_structure(data: bytes) -> NDArray[np.int8]:
    """The marks of brackets and colons outside strings, in their order."""
    unescaped = data.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = np.frombuffer(unescaped.translate(_MARKS, _UNMARKED), np.int8)
    quotes = marks == _QUOTE
    outside = np.cumsum(quotes, dtype=np.uint8) % 2 == 0  # overflow of 8 bits keeps the parity
    found: NDArray[np.int8] = marks[outside & ~quotes]
    return found


def _parse_plain(data: bytes, limits: Limits) -> dict[str, Any] | None:
    """Fast path: the object if its instances are valid windows and its only lists; otherwise None.

    No simdjson object may outlive this function: while one does, the parser cannot be reused.
    """
    if simdjson is None:
        return None
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
        document = orjson.loads(data.removeprefix(BOM_UTF8))  # as simdjson reads it
    except orjson.JSONDecodeError as error:
        _refuse_non_finite(data)
        raise invalid_value("body", f"must be JSON: {error}", "invalid_json") from None
    n = _count_members(document)
    if _count(data, ":") != n and np.count_nonzero(_find_structure(data) == 0) != n:  # colons of replaced members
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
