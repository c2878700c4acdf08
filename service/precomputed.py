"""Answers that are the same each time, kept as the bytes that leave: plain and compressed, with an ETag."""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from fastapi import Request, Response

MIN_COMPRESSED = 1024  # bytes from which compression pays
LEVEL = 6  # of gzip
VARY = "Accept, Accept-Encoding, Authorization"
KEPT = ("content-type", "content-security-policy")  # headers of an answer that are its body's


@dataclass(frozen=True)
class Answer:
    """One answer, ready to leave.

    Attributes:
        body: plain.
        headers: that belong to the body, its media type among them.
        compressed: by gzip; empty where that does not pay.
        etag: hash of the plain body.
    """

    body: bytes
    headers: Mapping[str, str]
    compressed: bytes = field(init=False)
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        worth = len(self.body) >= MIN_COMPRESSED
        object.__setattr__(self, "compressed", gzip.compress(self.body, LEVEL, mtime=0) if worth else b"")
        object.__setattr__(self, "etag", hashlib.sha256(self.body).hexdigest()[:32])

    @classmethod
    def of(cls, response: Response) -> Answer:
        """What a handler has answered."""
        headers = {name: response.headers[name] for name in KEPT if name in response.headers}
        return cls(bytes(response.body), headers)

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.body) + len(self.compressed)

    def respond(self, request: Request) -> Response:
        """The answer to a request: nothing new where the client has it, compressed where it takes that."""
        compress = bool(self.compressed) and takes_gzip(request.headers.get("accept-encoding", ""))
        etag = f'"{self.etag}-gzip"' if compress else f'"{self.etag}"'
        headers = {"ETag": etag, "Vary": VARY, "Cache-Control": "no-cache"}
        if names_etag(request.headers.get("if-none-match", ""), etag):
            return Response(status_code=304, headers=headers)
        headers.update(self.headers)
        if compress:
            headers["Content-Encoding"] = "gzip"
        return Response(self.compressed if compress else self.body, headers=headers)


class AnswerCache:
    """The last answers by key. Belongs to one event loop, so it needs no lock.

    Args:
        size: bytes that are kept; beyond them, what is unused for longest goes.
    """

    def __init__(self, size: int) -> None:
        self._size, self._used = size, 0
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()

    def get(self, key: Hashable) -> Answer | None:
        """The answer of a key, if it is there."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def keep(self, key: Hashable, answer: Answer) -> None:
        """Keeps an answer as long as there is room."""
        replaced = self._answers.pop(key, None)
        self._used += answer.size - (replaced.size if replaced else 0)
        self._answers[key] = answer
        while self._used > self._size:
            _, dropped = self._answers.popitem(last=False)
            self._used -= dropped.size


@lru_cache
def takes_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip (RFC 9110, section 12.5.3)."""
    for part in accept_encoding.lower().split(","):
        coding, _, quality = part.replace(" ", "").partition(";q=")
        if coding in ("gzip", "*"):
            return quality.strip("0.") != "" or quality == ""
    return False


def names_etag(if_none_match: str, etag: str) -> bool:
    """Whether a client has what an ETag stands for (RFC 9110, section 13.1.2)."""
    named = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return etag in named or "*" in named
