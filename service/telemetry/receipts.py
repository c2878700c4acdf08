"""Receipts of forecasts: what a client was given, signed, so that whoever has the key can compare it with what came.

A receipt is a JSON array and its HMAC-SHA256 (RFC 2104), together in base64url. It is signed, not encrypted.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from time import time
from typing import NamedTuple

import orjson

from kanmodel.arrays import Array
from service.telemetry.history import HOUR, Counted

FORMAT = 1
TAG_BYTES = 32


class Receipt(NamedTuple):
    """A forecast of the output that is watched, as its client got it."""

    tag: bytes  # its HMAC
    of: Counted
    output: str
    hour: int  # in which it was made, since 1970
    forecast: float
    intervals: Sequence[tuple[float, float]]  # by level; empty if there are none
    request_id: str
    instance: int  # number of the window in the request


class Receipts:
    """Signs and verifies receipts with a key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode(errors="surrogatepass")  # of bytes in the environment that are no text

    def sign(self, of: Counted, output: str, request_id: str, forecasts: Array, intervals: Array) -> list[str]:
        """The receipts of forecasts made now, (n,), and of their intervals, (n, n_levels, 2); n_levels may be 0."""
        head = (FORMAT, of[:], output, int(time() // HOUR))
        receipts = list[str]()
        for instance, values in enumerate(zip(forecasts.tolist(), intervals.tolist(), strict=True)):
            data = orjson.dumps((*head, *values, request_id, instance))
            receipts.append(_encode(data + self._tag(data)))
        return receipts

    def verify(self, text: str) -> Receipt | None:
        """The receipt, or None if it was not signed with this key, or was changed.

        Raises ValueError: no receipt is such a text.
        """
        signed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if len(signed) <= TAG_BYTES or _encode(signed) != text:
            raise ValueError("it is too short, or not in base64url")
        data, tag = signed[:-TAG_BYTES], signed[-TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(data)):
            return None
        form, of, *others = orjson.loads(data)
        return Receipt(tag, Counted(*of), *others) if form == FORMAT else None

    def _tag(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, "sha256")


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
