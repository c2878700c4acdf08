"""The headers of a request, read from what the server gives: Starlette's mapping decodes all of them for each look."""

from __future__ import annotations

from starlette.types import Scope

IS_WHOLE = "is_whole"  # in a request's state: its body had arrived before anybody could ask for it


def find_header(scope: Scope, name: bytes) -> str | None:
    """The value of a header, the first where there are several; None where there is none.

    Args:
        scope: of the request.
        name: its name, in lower case.
    """
    for known, value in scope["headers"]:
        if known == name:
            text: str = value.decode("latin-1")
            return text
    return None
