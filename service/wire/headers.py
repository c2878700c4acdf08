"""Request headers: request ids, and content negotiation (RFC 9110, section 12.5).

They are read from the raw scope, since Starlette's mapping decodes all of them at each lookup.
"""

import random
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache

from starlette.types import Scope

from service.wire.json import PROBLEM

HEADER = "X-Request-Id"
MAX_PARSED = 1024  # bytes of a list that is parsed, on the event loop; browsers send some 200
PARSED = frozenset({b"accept", b"accept-encoding", b"if-none-match", b"cookie"})
IS_WHOLE = "is_whole"  # in a request's state: the whole body arrived together with the headers
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]  # 10 bits each
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Version, trace id, parent id and flags; neither id is all zeros. Version ff is forbidden, and only versions after 00
# may hold more than these four.
_TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


def find_header(scope: Scope, name: bytes) -> str | None:
    """The value of a header, whose name is in lower case: the first if repeated; None if absent."""
    for known, value in scope["headers"]:
        if known == name:
            text: str = value.decode("latin-1")
            return text
    return None


def disregard_long(scope: Scope) -> None:
    """Removes lists that would take long to parse; RFC 9110 allows a server to disregard each of them."""
    if any(len(value) > MAX_PARSED for _, value in scope["headers"]):
        scope["headers"] = [
            (name, value) for name, value in scope["headers"] if name not in PARSED or len(value) <= MAX_PARSED
        ]


def path_of(scope: Scope) -> str:
    """The path of a request, without that under which a proxy serves the app."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def address_of(scope: Scope) -> str:
    """The client's IP address: a proxy's, if there is one in front; empty if unknown."""
    client = scope.get("client")
    return client[0] if client else ""


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's id, else the trace id of the W3C traceparent, else a new id; invalid ones count as absent."""
    trace: bytes | None = None
    for name, value in headers:
        if name == b"x-request-id" and _GIVEN.fullmatch(value):
            return value.decode()
        if name == b"traceparent" and (traced := _TRACEPARENT.fullmatch(value)):
            trace = traced[1]
    return trace.decode() if trace else new_request_id()


def new_request_id() -> str:
    """A ULID: 48 bits of time in milliseconds, then 80 random bits, so that ids sort by time. Not a secret."""
    value = (time.time_ns() // 1_000_000) << 80 | random.getrandbits(80)  # nosec B311
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


@lru_cache
def choose_media_type(accept: str | None, offered: tuple[str, ...]) -> str | None:
    """The offered media type with the highest quality, None if `accept` allows none; None or empty allows all.

    Ties go to the more specific range, then to the first offered.
    """
    qualities = _parse_qualities(accept or "*/*")
    best = max(offered, key=lambda media_type: _rank(media_type, qualities))  # the first of equals
    return best if _rank(best, qualities)[0] > 0 else None


@lru_cache
def takes_gzip(accept_encoding: str) -> bool:
    """Whether a client accepts gzip, by its quality or else by that of ``*``."""
    qualities = _parse_qualities(accept_encoding)
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


@lru_cache
def takes_problems(accept: str) -> bool:
    """Whether a client asks for errors as problem documents (RFC 9457), by their own media type."""
    return _parse_qualities(accept).get(PROBLEM, 0.0) > 0


def _parse_qualities(header: str) -> dict[str, float]:
    """``text/*;q=0.5, */*`` -> {``text/*``: 0.5, ``*/*``: 1}; a quality that is not a number counts as 1."""
    qualities = {}
    for part in header.lower().split(","):
        name, *parameters = map(str.strip, part.split(";"))
        quality = next((given.removeprefix("q=") for given in parameters if given.startswith("q=")), "")
        try:
            qualities[name] = float(quality)
        except ValueError:
            qualities[name] = 1.0
    return qualities


def _rank(media_type: str, qualities: Mapping[str, float]) -> tuple[float, int]:
    """Quality of a media type by the most specific range that matches it, and how specific that is, 0 for none."""
    ranges = (media_type, f"{media_type.split('/')[0]}/*", "*/*")
    return next(((qualities[name], -level) for level, name in enumerate(ranges) if name in qualities), (0.0, -3))
