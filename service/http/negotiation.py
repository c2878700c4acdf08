"""Content negotiation: the media type of an answer (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from fastapi import Request

from service.http.answers import JSON, SVG
from service.http.errors import NotAcceptableError
from service.http.headers import find_header


@lru_cache
def choose_media_type(accept: str | None, offered: tuple[str, ...]) -> str:
    """The media type with the highest quality; ties go to the more specific range, then to the first offered.

    Args:
        accept: the header, such as ``application/x-ndjson, */*;q=0.1``; None or empty accepts anything.
        offered: media types of the operation.

    Raises:
        NotAcceptableError: the client accepts none of them.
    """
    ranges = [_parse_range(part) for part in (accept or "*/*").split(",")]
    ranked = [max(_rank(media_type, *range_) for range_ in ranges) for media_type in offered]
    best = max(range(len(offered)), key=lambda index: (ranked[index][1], ranked[index][0], -index))
    if ranked[best][1] <= 0:
        raise NotAcceptableError(f"the response is {' or '.join(offered)}, which Accept excludes")
    return offered[best]


def choose_format(request: Request, format: Literal["json", "svg"] | None) -> str:
    """The media type of the query's format; without one, SVG or JSON by the Accept header.

    Raises:
        NotAcceptableError: the query has no format, and the client accepts neither.
    """
    if format is not None:
        return {"json": JSON, "svg": SVG}[format]
    return choose_media_type(find_header(request.scope, b"accept"), (JSON, SVG))


@lru_cache
def takes_gzip(accept_encoding: str) -> bool:
    """Whether a client accepts gzip (RFC 9110, section 12.5.3), by its quality or else by that of ``*``."""
    qualities = dict(_parse_range(part) for part in accept_encoding.split(","))
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


async def refuse_other_than_json(request: Request) -> None:
    """Dependency: `accept_json`."""
    accept_json(request)


def accept_json(request: Request) -> None:
    """For operations that answer with JSON alone."""
    choose_media_type(find_header(request.scope, b"accept"), (JSON,))


def _parse_range(part: str) -> tuple[str, float]:
    """``text/*;q=0.5`` -> (``text/*``, 0.5); a quality that is not a number counts as 1."""
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media_range, float(parameter[2:])
            except ValueError:
                break
    return media_range, 1.0


def _rank(media_type: str, media_range: str, quality: float) -> tuple[int, float]:
    """Specificity of a range for a media type (3 exact, 2 type/*, 1 */*, 0 no match), and its quality."""
    kind = media_type.split("/")[0]
    level = {media_type: 3, f"{kind}/*": 2, "*/*": 1}.get(media_range, 0)
    return level, quality if level else 0.0
