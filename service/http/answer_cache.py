"""Answers that are the same each time, kept as the bytes that leave: plain and compressed, with an ETag."""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.error_answers import send_error
from service.http.errors import RequestError
from service.http.negotiation import takes_gzip
from service.http.security import require_scope

RawHeaders = list[tuple[bytes, bytes]]
MIN_COMPRESSED = 1024  # bytes from which compression pays
LEVEL = 6  # of gzip
COMMON = [(b"vary", b"Accept, Accept-Encoding, Authorization"), (b"cache-control", b"no-cache")]
KEPT = (b"content-type", b"content-security-policy")  # headers of an answer that are its body's


@dataclass(frozen=True)
class Form:
    """The plain or the compressed form of an answer.

    Attributes:
        body: what is sent.
        etag: its name, in quotes.
        headers: what is sent before it.
    """

    body: bytes
    etag: bytes
    headers: RawHeaders


@dataclass(frozen=True)
class Answer:
    """One answer, ready to leave.

    Attributes:
        plain: as it is.
        compressed: by gzip; None where that does not pay.
    """

    plain: Form
    compressed: Form | None

    @classmethod
    def of(cls, response: Response) -> Answer:
        """What a handler has answered."""
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
        """Bytes that it takes."""
        return len(self.plain.body) + (len(self.compressed.body) if self.compressed else 0)

    def choose(self, headers: Mapping[bytes, bytes]) -> tuple[int, RawHeaders, bytes]:
        """Status, headers and body for a client: compressed where it takes that, nothing where it has it."""
        takes = self.compressed is not None and takes_gzip(headers.get(b"accept-encoding", b"").decode("latin-1"))
        form = self.compressed if takes and self.compressed else self.plain
        if names_etag(headers.get(b"if-none-match", b""), form.etag):
            return 304, [(b"etag", form.etag), *COMMON], b""
        return 200, form.headers, form.body


@dataclass(frozen=True)
class _Known:
    """An answer with what belongs to it.

    Attributes:
        answer: the answer.
        route: the route that it is of, for metrics and the log.
        told: of which model it is, for the log.
    """

    answer: Answer
    route: Any
    told: Mapping[str, Any] = field(default_factory=dict)


class AnswerCache:
    """The last answers by path, query and Accept. Belongs to one event loop, so it needs no lock.

    Once the models are others, so may be the answers: all of them go, and with them what they held in memory.

    Args:
        size: bytes that are kept; beyond them, what is unused for longest goes.
        index: gives the models that answers are about: another object once they are others.
    """

    def __init__(self, size: int, index: Callable[[], object]) -> None:
        self._size, self._used = size, 0
        self._find_index = index
        self._index = index()  # the models that all answers were computed from
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()

    def get(self, scope: Scope) -> Answer | None:
        """The answer to a request, if it is there; the scope is told what it is about."""
        self._follow_models()
        key = _key(scope)
        known = self._known.get(key)
        if known is None:
            return None
        self._known.move_to_end(key)
        scope["route"] = known.route
        scope.setdefault("state", {}).update(known.told)
        return known.answer

    def keep(self, scope: Scope, answer: Answer, index: object) -> None:
        """Keeps the answer to a request, computed from the models of an index, while they and the room are there."""
        self._follow_models()
        if index is not self._index:
            return
        key, state = _key(scope), scope.get("state", {})
        replaced = self._known.pop(key, None)
        self._used += answer.size - (replaced.answer.size if replaced else 0)
        told = {name: state[name] for name in ("model", "checkpoint") if name in state}
        self._known[key] = _Known(answer, scope.get("route"), told)
        while self._used > self._size:
            _, dropped = self._known.popitem(last=False)
            self._used -= dropped.answer.size

    def _follow_models(self) -> None:
        if self._index is not self._find_index():
            self._index = self._find_index()
            self._known.clear()
            self._used = 0


class Precomputed:
    """Middleware that sends what is known, before anything looks for a route.

    Args:
        app: what answers all else.
        cache: what is known.
    """

    def __init__(self, app: ASGIApp, cache: AnswerCache) -> None:
        self._app, self._cache = app, cache

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        answer = None
        if scope["type"] == "http" and scope["method"] == "GET":
            headers = dict(scope["headers"])
            if b"x-request-timeout" not in headers:  # which its route must look at
                answer = self._cache.get(scope)
        if answer is None:
            await self._app(scope, receive, send)
            return
        try:
            require_scope(scope["state"], "read")
        except RequestError as error:
            await send_error(error, scope, receive, send)
            return
        status, answered, body = answer.choose(headers)
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": body})


def _form(body: bytes, etag: bytes, headers: RawHeaders) -> Form:
    length = (b"content-length", str(len(body)).encode())
    return Form(body, etag, [*headers, length, (b"etag", etag), *COMMON])


def _key(scope: Scope) -> Hashable:
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return scope["path"], scope["query_string"], accept


def names_etag(if_none_match: bytes, etag: bytes) -> bool:
    """Whether a client has what an ETag stands for (RFC 9110, section 13.1.2)."""
    named = [part.strip().removeprefix(b"W/") for part in if_none_match.split(b",")]
    return etag in named or b"*" in named
