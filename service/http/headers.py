"""Request headers in the raw scope: Starlette's mapping decodes all of them at each lookup."""

from __future__ import annotations

from starlette.types import Scope

MAX_PARSED = 1024  # bytes of a list that is parsed, on the event loop; browsers send some 200
PARSED = frozenset({b"accept", b"accept-encoding", b"if-none-match", b"cookie"})
IS_WHOLE = "is_whole"  # in a request's state: the whole body arrived together with the headers


def find_header(scope: Scope, name: bytes) -> str | None:
    """The value of a header, the first if repeated; None if absent.

    Args:
        scope: the scope of the request.
        name: its name, in lower case.
    """
    for known, value in scope["headers"]:
        if known == name:
            text: str = value.decode("latin-1")
            return text
    return None


def disregard_long(scope: Scope) -> None:
    """Removes lists that would take long to parse; RFC 9110 allows a server to disregard each of them."""
    for _, long in scope["headers"]:
        if len(long) > MAX_PARSED:
            scope["headers"] = [
                (name, value) for name, value in scope["headers"] if name not in PARSED or len(value) <= MAX_PARSED
            ]
            return


def address_of(scope: Scope) -> str:
    """The client's IP address: a proxy's, if there is one in front; empty if unknown."""
    client = scope.get("client")
    return client[0] if client else ""
