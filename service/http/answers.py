"""JSON answers by orjson, and pictures. NaN and infinity are refused, since orjson would write null."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from fastapi import Response

from kanmodel.data import N_LISTED
from kanmodel.errors import NonFiniteError, Problem
from service.http.places import all_finite, non_finite_places

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
