"""Lookup of one request header in the raw scope: Starlette's mapping decodes all headers at each lookup."""

from __future__ import annotations

from starlette.types import Scope

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
