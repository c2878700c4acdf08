"""The error answers of operations, by status."""

from __future__ import annotations

from typing import Any

from service.http.error_answers import ErrorResponse
from service.schemas.health import UnreadyResponse

_DESCRIPTIONS = {
    400: "A value is missing, unknown, of another shape, size or kind, out of range or not finite; or the result is "
    "not finite, or a model cannot be loaded.",
    401: "The service wants an API key, and there is none or an unknown one.",
    403: "The API key lacks the scope, or a setting forbids it: the message names which.",
    404: "There is no such model, version, output or edge; the message lists what there is.",
    406: "The operation has none of the media types in `Accept`.",
    408: "The body did not arrive in time.",
    413: "The body is larger than the service accepts.",
    415: "The body is of another media type than the operation takes, or it is compressed.",
    421: "The header `Host` names another host than this service.",
    422: "A value is missing, unknown, of another shape or kind, out of range or not finite; or the result is not "
    "finite.",
    500: "Something failed inside; `request_id` finds it in the log.",
    501: "The service can't do it with several processes; looking at the folder does.",
    503: "The model, the service or the result is not ready, or there are too many requests; the message says why, "
    "`Retry-After` when to ask again.",
}
_EXAMPLES: dict[int, tuple[str, str, str, list[dict[str, str]]]] = {
    400: (
        "Bad Request",
        "inputs[0].shape must be [n, 24, 20], but is [1, 20]",
        "",
        [{"path": "inputs[0].shape", "message": "must be [n, 24, 20], but is [1, 20]"}],
    ),
    401: ("Unauthorized", "an API key is needed, as Authorization: Bearer KEY", "", []),
    403: ("Forbidden", "this needs an API key with the scope explain", "", []),
    404: ("Not Found", "there is no model 'nyc'; the models are nyc-weather", "", []),
    406: ("Not Acceptable", "the answer is application/json, which Accept does not take", "", []),
    408: ("Request Timeout", "the body did not arrive within 30 seconds (body_timeout)", "", []),
    413: ("Content Too Large", "the body is larger than 8388608 bytes (max_body_bytes)", "", []),
    415: ("Unsupported Media Type", "Content-Type must be application/json", "", []),
    421: (
        "Misdirected Request",
        "the Host header must name this machine, or one of the setting allowed_hosts",
        "",
        [],
    ),
    422: (
        "Unprocessable Content",
        "instances[0][3][2] must be finite",
        "1 of 480 values is not finite",
        [{"path": "instances[0][3][2]", "message": "must be finite"}],
    ),
    500: ("Internal Server Error", "internal error", "", []),
    501: (
        "Not Implemented",
        "with several processes (workers, or the engine ray) no model is loaded or unloaded by command: change the "
        "folder, which each process looks at by itself (poll_seconds)",
        "",
        [],
    ),
    503: ("Service Unavailable", "model 'nyc-weather' is loading", "", []),
}


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of an operation, for its OpenAPI description; every operation also has 500."""
    return {status: _describe(status) for status in (*statuses, 500)}


def describe_unreadiness() -> dict[str, Any]:
    """The error of a service that is not ready."""
    described = describe_errors(503)[503]
    content = described["content"]["application/json"]
    return {
        **described,
        "model": UnreadyResponse,
        "content": {"application/json": {"example": {**content["example"], "live": True, "ready": False}}},
    }


def _describe(status: int) -> dict[str, Any]:
    title, error, detail, places = _EXAMPLES[status]
    example = {
        "error": error,
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail or error,
        "errors": places,
        "request_id": "01KAX2M5V7Q8N4W6T9R3Y1ZBCD",
    }
    return {
        "model": ErrorResponse,
        "description": _DESCRIPTIONS[status],
        "content": {"application/json": {"example": example}},
    }
