"""Cached answers: encoded, plain and compressed, with an ETag; cleared when the served models change."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from cachetools import LRUCache
from fastapi import Response
from starlette.types import Scope

from service.wire.headers import takes_gzip

RawHeaders = list[tuple[bytes, bytes]]
MIN_COMPRESSED = 1024  # smallest body in bytes that is compressed
LEVEL = 6  # of gzip
COMMON = [(b"vary", b"Accept, Accept-Encoding, Authorization"), (b"cache-control", b"no-cache")]
KEPT = (b"content-type", b"content-security-policy")  # headers that describe the body
OVERHEAD = 2048  # bytes of an entry besides its bodies and its key: objects, headers, the cache's own


@dataclass(frozen=True)
class Form:
    """The plain or the compressed representation of an answer."""

    body: bytes
    etag: bytes
    headers: RawHeaders  # that describe the body


@dataclass(frozen=True)
class Answer:
    """An encoded answer; `compressed`, by gzip, is None for a small body."""

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
            compressed = Form(gzip.compress(body, LEVEL, mtime=0), b'"%s-gzip"' % name, coded)
        return cls(Form(body, b'"%s"' % name, headers), compressed)

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
        length = (b"content-length", b"%d" % len(form.body))
        return 200, [*form.headers, length, (b"etag", form.etag), *COMMON], form.body


def names_etag(if_none_match: bytes, etag: bytes) -> bool:
    """Whether If-None-Match matches an ETag (RFC 9110, section 13.1.2)."""
    named = [part.strip().removeprefix(b"W/") for part in if_none_match.split(b",")]
    return etag in named or b"*" in named


class Answers:
    """An LRU cache of answers by path, query and media type, of `size` bytes. It belongs to one event loop: no lock.

    It is cleared when the served models change, after which `find_index` returns a different object; that also frees
    the models that the answers refer to.
    """

    def __init__(self, size: int, find_index: Callable[[], object]) -> None:
        self._find_index = find_index
        self._index = find_index()  # the models that all answers were computed from
        # Answers with their sizes in bytes, and with their routes and models for metrics and the log.
        self._cached: LRUCache[Hashable, tuple[Answer, int, Any, dict[str, Any]]] = LRUCache(size, itemgetter(1))

    def get(self, scope: Scope, media_type: str) -> Answer | None:
        """The cached answer to a request, if any; its route and model are noted in the scope."""
        self._follow_models()
        cached = self._cached.get(key_of(scope, media_type))
        if cached is None:
            return None
        answer, _, scope["route"], of_model = cached
        scope.setdefault("state", {}).update(of_model)
        return answer

    def keep(self, scope: Scope, media_type: str, index: object, answer: Answer) -> None:
        """Caches the answer to a request, unless the models it was computed from are no longer served."""
        self._follow_models()
        if index is not self._index:
            return
        key, state = key_of(scope, media_type), scope.get("state", {})
        of_model = {name: state[name] for name in ("model", "checkpoint") if name in state}
        of_key = 4 * len(key[0]) + len(key[1]) + len(key[2])  # a character of a path takes up to 4
        n_bytes = answer.size + of_key + OVERHEAD
        self._cached.pop(key, None)
        if n_bytes <= self._cached.maxsize:
            self._cached[key] = answer, n_bytes, scope.get("route"), of_model

    def _follow_models(self) -> None:
        if self._index is not self._find_index():
            self._index = self._find_index()
            self._cached.clear()


def key_of(scope: Scope, media_type: str) -> tuple[str, bytes, str]:
    """What tells an answer from others, as long as the same models are served."""
    return scope["path"], scope["query_string"], media_type
