"""Shared responses of the OpenAPI document: every error by status, 304, and their headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.wire.errors import ErrorCode, error_body, title_of

REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
ETAG = {"ETag": {"$ref": "#/components/headers/ETag"}}
_RETRY = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
HEADERS: Mapping[str, Any] = {
    "X-Request-Id": {
        "description": "Id of the request: its own `X-Request-Id`, else the trace id of its `traceparent`, else a "
        "new one.",
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "Name of this answer, by its bytes. Sent back as `If-None-Match`, it gets 304 while it "
        "is the same.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which the same request may be answered.",
        "schema": {"type": "integer", "minimum": 1},
    },
}

# By status: what is wrong, and an example, its code and its message.
_ERRORS: Mapping[int, tuple[str, ErrorCode, str]] = {
    400: (
        "A value is missing, unknown, of another shape, size or kind, out of range or not finite; or the result is not "
        "finite, or a model cannot be loaded.",
        "invalid_value",
        "inputs[0].shape must be [n, 24, 20], but is [1, 20]",
    ),
    401: (
        "The service wants an API key, and there is none or an unknown one.",
        "key_missing",
        "an API key is needed: send Authorization: Bearer KEY",
    ),
    403: (
        "The API key lacks the scope, a setting forbids it, or a page of another site asks for what changes models.",
        "scope_missing",
        "this needs an API key with the scope explain",
    ),
    404: (
        "There is no such model, version, output or edge; the message lists what there is.",
        "model_not_found",
        "there is no model 'nyc'; the models are nyc-weather",
    ),
    406: (
        "The operation has none of the media types in `Accept`.",
        "not_acceptable",
        "the response is application/json, which Accept excludes",
    ),
    408: (
        "The body did not arrive in time.",
        "body_timeout",
        "the body did not arrive within 30 seconds (body_timeout)",
    ),
    413: (
        "The body is larger than the service accepts.",
        "body_too_large",
        "the body is larger than 8388608 bytes (max_body_bytes)",
    ),
    415: (
        "The body is of another media type than the operation takes, or it is compressed.",
        "unsupported_media_type",
        "Content-Type must be application/json",
    ),
    421: (
        "The header `Host` names another host than this service.",
        "host_not_allowed",
        "the Host header must name this machine, or a host of the setting allowed_hosts",
    ),
    422: (
        "A value is missing, unknown, of another shape or kind, out of range or not finite; or the result is not "
        "finite.",
        "not_finite",
        "instances[0][3][2] must be finite",
    ),
    429: (
        "The API key has asked as often as it may in a minute.",
        "rate_limited",
        "the key dashboard is limited to 600 requests per minute",
    ),
    431: (
        "The request target or the headers are larger than the service accepts.",
        "headers_too_large",
        "the headers are larger than 65536 bytes (max_header_bytes)",
    ),
    500: ("Something failed inside; `request_id` finds it in the log.", "internal_error", "internal error"),
    501: (
        "Not available in this configuration.",
        "not_supported",
        "with several processes (workers, or the engine ray) no model is loaded or unloaded by command: change the "
        "folder, which each process looks at by itself (poll_seconds)",
    ),
    503: (
        "The model, the service or the result is not ready, or there are too many requests: `code` says which.",
        "not_ready",
        "model 'nyc-weather' is loading",
    ),
}
_WITH_RETRY = (429, 503)


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of an operation; every operation also has 500. `share_responses` fills in what they are."""
    return {status: {"description": _ERRORS[status][0]} for status in (*statuses, 500)}


def describe_unreadiness() -> dict[str, Any]:
    """The error of a service that is not ready."""
    response = _describe(503)
    example = response["content"]["application/json"]["example"]
    schema = {"$ref": "#/components/schemas/UnreadyResponse"}
    content = {"schema": schema, "example": {**example, "live": True, "ready": False}}
    return {**response, "content": {"application/json": content}}


def describe_unchanged() -> dict[int | str, dict[str, Any]]:
    """The answer to a client that has this one already."""
    return {304: {"description": "The answer is the one that `If-None-Match` names."}}


def shared_responses() -> dict[str, Any]:
    """The components that `share_responses` refers to, by the name of the status."""
    unchanged = {**describe_unchanged()[304], "headers": {**REQUEST_ID, **ETAG}}
    return {_name(304): unchanged, **{_name(status): _describe(status) for status in _ERRORS}}


def share_responses(responses: dict[str, Any]) -> None:
    """Has the answers of an operation that others have too refer to the components."""
    for status, response in responses.items():
        if status != "200" and "content" not in response:
            responses[status] = {"$ref": f"#/components/responses/{_name(int(status))}"}


def _name(status: int) -> str:
    """``404`` -> ``NotFound``."""
    return title_of(status).replace(" ", "")


def _describe(status: int) -> dict[str, Any]:
    description, code, message = _ERRORS[status]
    schema = {"$ref": "#/components/schemas/ErrorResponse"}
    example = error_body(status, code, message, "01KAX2M5V7Q8N4W6T9R3Y1ZBCD")
    return {
        "description": description,
        "headers": {**REQUEST_ID, **(_RETRY if status in _WITH_RETRY else {})},
        "content": {"application/json": {"schema": schema, "example": example}},
    }
