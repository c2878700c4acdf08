"""JSON answers by orjson, media types, and paths of values in a document, such as ``instances[0][3][2]``."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

import orjson
from fastapi import Response

from kanmodel.arrays import N_LISTED
from kanmodel.errors import NonFiniteError, Problem

JSON = "application/json"
PROBLEM = "application/problem+json"  # an error (RFC 9457)
NDJSON = "application/x-ndjson"
MARKDOWN = "text/markdown"
HTML = "text/html"
TEXT = "text/plain"
SVG = "image/svg+xml"
BYTES = "application/octet-stream"
NUMBER_BYTES = 24  # most of a number in JSON
HELD_NUMBER_BYTES = 7 * NUMBER_BYTES  # of memory, as a Python object and in JSON
POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}  # of a picture or a page


def format_path(parts: Sequence[str | int]) -> str:
    """``("columns", "temp_c", 0)`` -> ``columns.temp_c[0]``."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".")


def non_finite_places(value: object, parts: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Paths of NaN and infinity in dicts and lists, in reading order; `parts` is the path of the value itself."""
    if type(value) is float and not isfinite(value):
        yield format_path(parts)
    elif type(value) is dict or type(value) is list:
        for key, item in value.items() if type(value) is dict else enumerate(value):
            if type(item) in (dict, list) or (type(item) is float and not isfinite(item)):
                yield from non_finite_places(item, (*parts, key))


def encode_json(document: object) -> bytes:
    """Encodes dicts and lists as JSON.

    Raises:
        NonFiniteError: the document holds NaN or infinity, for which orjson would write null.
    """
    encoded = orjson.dumps(document)
    if b"null" in encoded and (paths := list(non_finite_places(document))):  # None is null too
        message = f"{paths[0]} must be finite; {len(paths)} results are not"
        raise NonFiniteError(message, [Problem(path, "must be finite") for path in paths[:N_LISTED]])
    return encoded


def answer_json(
    document: object, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = JSON
) -> Response:
    """A JSON response; raises `NonFiniteError` as `encode_json`."""
    return Response(encode_json(document), status, headers, media_type=media_type)


def answer_svg(picture: bytes) -> Response:
    """An SVG response. Opened as a document it may apply its own styles and nothing else."""
    return Response(picture, headers=POLICY, media_type=SVG)
