"""Cacheable answers as bytes, plain and compressed, with an ETag."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.error_answers import send_error
from service.http.errors import RequestError
from service.http.negotiation import takes_gzip
from service.http.security import require_scope, scopes_of

RawHeaders = list[tuple[bytes, bytes]]
MIN_COMPRESSED = 1024  # smallest body in bytes that is compressed
LEVEL = 6  # of gzip
COMMON = [(b"vary", b"Accept, Accept-Encoding, Authorization"), (b"cache-control", b"no-cache")]
KEPT = (b"content-type", b"content-security-policy")  # headers that describe the body


@dataclass(frozen=True)
class Form:
    """The plain or the compressed representation of an answer.

    Attributes:
        body: the bytes of the body.
        etag: its ETag, quoted.
        headers: its headers.
    """

    body: bytes
    etag: bytes
    headers: RawHeaders


@dataclass(frozen=True)
class Answer:
    """An encoded answer.

    Attributes:
        plain: the uncompressed form.
        compressed: the gzip form; None for a small body.
    """

    plain: Form
    compressed: Form | None

    @classmethod
    def of(cls, response: Response) -> Answer:
        """The answer of a handler's response."""
        body = bytes(response.body)
        headers = [(name, value) for name, value in response.raw_headers if name in KEPT]
        name = hashlib.sha256(body).hexdigest()[:32].encode()
        compressed = None
        if len(body) >= MIN_COMPRESSED:
            coded = [*headers, (b"content-encoding", b"gzip")]
            compressed = _form(gzip.compress(body, LEVEL, mtime=0), b'"%s-gzip"' % name, coded)
        return cls(_form(body, b'"%s"' % name, headers), compressed)

    @property
    def size(self) -> int:
        """Its memory in bytes."""
        return len(self.plain.body) + (len(self.compressed.body) if self.compressed else 0)

    def choose(self, headers: Mapping[bytes, bytes]) -> tuple[int, RawHeaders, bytes]:
        """Status, headers and body for a client: gzip if it accepts that, 304 without a body if its ETag matches."""
        takes = self.compressed is not None and takes_gzip(headers.get(b"accept-encoding", b"").decode("latin-1"))
        form = self.compressed if takes and self.compressed else self.plain
        if names_etag(headers.get(b"if-none-match", b""), form.etag):
            return 304, [(b"etag", form.etag), *COMMON], b""
        return 200, form.headers, form.body


class Precomputed:
    """Middleware that sends cached answers before routing.

    Args:
        app: the wrapped app.
        find: returns the cached answer to a request, if any.
    """

    def __init__(self, app: ASGIApp, find: Callable[[Scope], Answer | None]) -> None:
        self._app, self._find = app, find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        answer = None
        if scope["type"] == "http" and scope["method"] == "GET":
            headers = dict(scope["headers"])
            if b"x-request-timeout" not in headers:  # the route validates these
                answer = self._find(scope)
        if answer is None:
            await self._app(scope, receive, send)
            return
        try:
            for needed in scopes_of(scope["route"].dependencies):
                require_scope(scope["state"], needed)
        except RequestError as error:
            await send_error(error, scope, receive, send)
            return
        status, answered, body = answer.choose(headers)
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": body})


def _form(body: bytes, etag: bytes, headers: RawHeaders) -> Form:
    length = (b"content-length", str(len(body)).encode())
    return Form(body, etag, [*headers, length, (b"etag", etag), *COMMON])


def names_etag(if_none_match: bytes, etag: bytes) -> bool:
    """Whether If-None-Match matches an ETag (RFC 9110, section 13.1.2)."""
    named = [part.strip().removeprefix(b"W/") for part in if_none_match.split(b",")]
    return etag in named or b"*" in named
