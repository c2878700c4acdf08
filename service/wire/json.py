"""JSON answers by orjson, and pictures. NaN and infinity are refused, since orjson would write null.

Paths of values in a JSON document, such as ``instances[0][3][2]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

import orjson
from fastapi import Response

from kanmodel.data import N_LISTED
from kanmodel.errors import NonFiniteError, Problem


def format_path(parts: Sequence[str | int]) -> str:
    """``("columns", "temp_c", 0)`` -> ``columns.temp_c[0]``."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".")


def all_finite(value: object) -> bool:
    """Whether a document of dicts and lists contains neither NaN nor infinity."""
    kind = type(value)
    if kind is float:
        return isfinite(value)  # type: ignore[arg-type]
    if kind is dict:
        return all(map(all_finite, value.values()))  # type: ignore[attr-defined]
    if kind is list:
        return all(map(all_finite, value))  # type: ignore[call-overload]
    return True


def non_finite_places(document: object) -> Iterator[str]:
    """Paths of NaN and infinity in a document, in reading order, at any depth."""
    stack: list[tuple[tuple[str | int, ...], object]] = [((), document)]
    while stack:
        parts, value = stack.pop()
        if isinstance(value, float) and not isfinite(value):
            yield format_path(parts)
        elif isinstance(value, dict):
            stack.extend(((*parts, key), item) for key, item in reversed(value.items()))
        elif isinstance(value, list):
            stack.extend(((*parts, index), item) for index, item in reversed(list(enumerate(value))))


JSON = "application/json"
NDJSON = "application/x-ndjson"
MARKDOWN = "text/markdown"
TEXT = "text/plain"
SVG = "image/svg+xml"
BYTES = "application/octet-stream"
POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}  # of a picture


def answer_json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response.

    Raises:
        NonFiniteError: the document holds NaN or infinity.
    """
    return Response(encode_json(document), status, headers, media_type=JSON)


def answer_svg(picture: bytes) -> Response:
    """An SVG response. Opened as a document it may apply its own styles and nothing else."""
    return Response(picture, headers=POLICY, media_type=SVG)


def encode_json(document: object) -> bytes:
    """Encodes dicts and lists as JSON.

    Raises:
        NonFiniteError: the document holds NaN or infinity.
    """
    encoded = orjson.dumps(document)
    if b"null" in encoded and not all_finite(document):  # None is null too
        problems = [Problem(path, "must be finite") for path in non_finite_places(document)]
        raise NonFiniteError(f"{problems[0].path} must be finite; {len(problems)} results are not", problems[:N_LISTED])
    return encoded
