"""Content negotiation: the media type of an answer (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Mapping
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
    qualities = _parse_qualities(accept or "*/*")
    best = max(offered, key=lambda media_type: _rank(media_type, qualities))  # the first of equals
    if _rank(best, qualities)[0] <= 0:
        raise NotAcceptableError(f"the response is {' or '.join(offered)}, which Accept excludes")
    return best


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
    qualities = _parse_qualities(accept_encoding)
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


async def refuse_other_than_json(request: Request) -> None:
    """Dependency: `accept_json`."""
    accept_json(request)


def accept_json(request: Request) -> None:
    """For operations that answer with JSON alone."""
    choose_media_type(find_header(request.scope, b"accept"), (JSON,))


def _parse_qualities(header: str) -> dict[str, float]:
    """``text/*;q=0.5, */*`` -> {``text/*``: 0.5, ``*/*``: 1}; a quality that is not a number counts as 1."""
    return dict(map(_parse_range, header.lower().split(",")))


def _parse_range(part: str) -> tuple[str, float]:
    media_range, *parameters = map(str.strip, part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media_range, float(parameter[2:])
            except ValueError:
                break
    return media_range, 1.0


def _rank(media_type: str, qualities: Mapping[str, float]) -> tuple[float, int]:
    """Quality of a media type by the most specific range that matches it, and how specific that is, 0 for none."""
    ranges = ("*/*", f"{media_type.split('/')[0]}/*", media_type)
    level = max((level for level, name in enumerate(ranges, start=1) if name in qualities), default=0)
    return (qualities[ranges[level - 1]] if level else 0.0), level
