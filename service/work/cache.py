"""A cache of encoded answers, cleared when the served models change.

Cacheable answers as bytes, plain and compressed, with an ETag.

An LRU cache bounded by the total weight of its entries.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from fastapi import Response
from starlette.types import Scope

from service.wire.headers import takes_gzip

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


def _form(body: bytes, etag: bytes, headers: RawHeaders) -> Form:
    length = (b"content-length", str(len(body)).encode())
    return Form(body, etag, [*headers, length, (b"etag", etag), *COMMON])


def names_etag(if_none_match: bytes, etag: bytes) -> bool:
    """Whether If-None-Match matches an ETag (RFC 9110, section 13.1.2)."""
    named = [part.strip().removeprefix(b"W/") for part in if_none_match.split(b",")]
    return etag in named or b"*" in named


Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Value]):
    value: Value
    weight: int


class Cache(Generic[Value]):
    """Values by key. It belongs to one event loop, so it needs no lock.

    Args:
        size: largest total weight; the least recently used values are evicted beyond it.
    """

    def __init__(self, size: int) -> None:
        self._size, self._used = size, 0
        self._entries: OrderedDict[Hashable, _Entry[Value]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """The value, marked as most recently used; None if absent."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: Hashable, value: Value, weight: int) -> None:
        """Inserts or replaces a value, evicting others; one that is too large itself is not kept."""
        self._drop(key)
        self._entries[key] = _Entry(value, weight)
        self._used += weight
        while self._used > self._size:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Evicts everything."""
        self._entries.clear()
        self._used = 0

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        self._used -= entry.weight if entry else 0


OVERHEAD = 2048  # bytes of an entry besides its bodies and its key: objects, headers, the cache's own


@dataclass(frozen=True)
class _Known:
    """A cached answer with its route and model.

    Attributes:
        answer: the answer.
        route: its route, for metrics and the log.
        told: its model, for the log.
    """

    answer: Answer
    route: Any
    told: Mapping[str, Any] = field(default_factory=dict)


class Answers:
    """An LRU cache of answers by path, query and Accept. It belongs to one event loop, so it needs no lock.

    When the served models change, it is cleared, which also frees the models that the answers refer to.

    Args:
        size: capacity in bytes, keys included; the least recently used answers are evicted beyond it.
        index: returns the served models: a different object after every change.
    """

    def __init__(self, size: int, index: Callable[[], object]) -> None:
        self._find_index = index
        self._index = index()  # the models that all answers were computed from
        self._known: Cache[_Known] = Cache(size)

    def get(self, scope: Scope) -> Answer | None:
        """The cached answer to a request, if any; its route and model are noted in the scope."""
        self._follow_models()
        known = self._known.get(_key(scope))
        if known is None:
            return None
        scope["route"] = known.route
        scope.setdefault("state", {}).update(known.told)
        return known.answer

    def keep(self, scope: Scope, answer: Answer, index: object) -> None:
        """Caches the answer to a request, unless the models it was computed from are no longer served."""
        self._follow_models()
        if index is not self._index:
            return
        key, state = _key(scope), scope.get("state", {})
        told = {name: state[name] for name in ("model", "checkpoint") if name in state}
        of_key = 4 * len(key[0]) + len(key[1]) + len(key[2])  # a character of a path takes up to 4
        weight = answer.size + of_key + OVERHEAD
        self._known.put(key, _Known(answer, scope.get("route"), told), weight)

    def _follow_models(self) -> None:
        if self._index is not self._find_index():
            self._index = self._find_index()
            self._known.clear()


def _key(scope: Scope) -> tuple[str, bytes, bytes]:
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return scope["path"], scope["query_string"], accept
