"""Request ids: in the response header, in the body of errors, and in the log."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable

HEADER = "X-Request-Id"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]  # 10 bits each
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Version, trace id, parent id and flags; neither id is all zeros. Version ff is forbidden, and only versions after 00
# may hold more than these four.
_TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's id, else the trace id of the W3C traceparent, else a new id; invalid ones count as absent.

    Args:
        headers: headers of the request, names in lower case.
    """
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
