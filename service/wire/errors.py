"""The errors of the service: causes with their status, exceptions, and the one schema of every error response.

RequestError             a request is refused; its code says why
├── NotReadyError        a model, or the service, is not ready
├── DeadlineError        the deadline has passed
└── OverloadedError      too many requests wait

kanmodel.errors.DataError
└── InvalidValueError    an invalid value, with a code of its own

kanmodel.errors.UnknownNameError
└── NotFoundError        a model, version or value that does not exist

Responses have KServe's string ``error`` beside the members of RFC 9457.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Literal, get_args

from fastapi import Request, Response
from pydantic import Field
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from typing_extensions import TypeAliasType, TypedDict

from kanmodel import errors as core
from kanmodel.arrays import N_LISTED
from kanmodel.errors import MAX_MESSAGE, DataError, Problem
from kanmodel.text import abbreviate
from service.wire.headers import find_header, path_of, takes_problems
from service.wire.json import JSON, PROBLEM, answer_json, encode_json, format_path

logger = logging.getLogger(__name__)

_LONG = "must be an integer of fewer digits"
NOT_FINITE = "must be finite"  # the message of `kanmodel.arrays.refuse_non_finite`

# Codes by status: one per cause, and stable, since clients branch on them. The site's page `errors.md` explains each.
_400 = Literal["malformed_request", "load_failed"]
_401 = Literal["key_missing", "key_unknown"]
_403 = Literal["scope_missing", "disabled", "cross_site"]
_404 = Literal[
    "path_not_found", "model_not_found", "version_not_found", "output_not_found", "edge_not_found", "window_not_found"
]
_405 = Literal["method_not_allowed"]
_406 = Literal["not_acceptable"]
_408 = Literal["body_timeout", "headers_timeout"]
_413 = Literal["body_too_large"]
_415 = Literal["unsupported_media_type", "unsupported_encoding"]
_421 = Literal["host_not_allowed"]
_INVALID = Literal["invalid_json", "invalid_value", "limit_exceeded", "no_formula", "not_finite"]
_422 = Literal[_INVALID, "result_not_finite", "explanation_incomplete"]
_429 = Literal["rate_limited"]
_431 = Literal["headers_too_large"]
_499 = Literal["client_gone"]  # which nobody reads: nginx's status for it is in the log and the metrics alone
_500 = Literal["internal_error"]
_501 = Literal["not_supported"]
_UNREADY = Literal["not_ready", "model_failed", "model_unloaded", "stopping"]
_503 = Literal[_UNREADY, "queue_full", "deadline_exceeded"]
ErrorCode = TypeAliasType(
    "ErrorCode",
    Literal[_400, _401, _403, _404, _405, _406, _408, _413, _415, _421, _422, _429, _431, _499, _500, _501, _503],
)
_STATUSES = {
    **{400: _400, 401: _401, 403: _403, 404: _404, 405: _405, 406: _406, 408: _408, 413: _413, 415: _415, 421: _421},
    **{422: _422, 429: _429, 431: _431, 499: _499, 500: _500, 501: _501, 503: _503},
}
STATUSES: dict[str, int] = {code: status for status, codes in _STATUSES.items() for code in get_args(codes)}
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}, 503: {"Retry-After": "1"}}
# Of RFC 9110, as those of Python 3.11 are older, and of nginx.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content", 499: "Client Closed Request"}


class RequestError(Exception):
    """A request is refused, usually before a model is called.

    Args:
        message: what is wrong.
        problems: the invalid values; empty if the error has no place.
        headers: of the response, besides those of the status; an empty one leaves that of the status out.
        code: the cause; that of the class if None.
    """

    code: ErrorCode = "internal_error"

    def __init__(
        self,
        message: str,
        problems: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
        code: ErrorCode | None = None,
    ) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.code = code or self.code
        given = {**_HEADERS.get(STATUSES[self.code], {}), **(headers or {})}
        self.headers = {name: value for name, value in given.items() if value}


class NotReadyError(RequestError):
    """A model, or the service, is not ready."""

    code = "not_ready"


class DeadlineError(RequestError):
    """The deadline of the request has passed."""

    code = "deadline_exceeded"


class OverloadedError(RequestError):
    """Too many requests wait."""

    code = "queue_full"


class InvalidValueError(DataError):
    """An invalid value of a request, with a code of its own."""

    def __init__(self, message: str, problems: Sequence[Problem], code: ErrorCode) -> None:
        super().__init__(message, problems)
        self.code = code


class NotFoundError(core.UnknownNameError):
    """A model, a version, or a value that a request names at a path does not exist."""

    def __init__(self, message: str, code: ErrorCode, path: str = "") -> None:
        super().__init__(f"{path} {message}" if path else message)
        self.code, self.problems = code, (Problem(path, message),) if path else ()


# The first class in an error's MRO that is listed gives its code, unless it has one of its own.
CAUSES: dict[type[Exception], ErrorCode] = {
    RequestError: "internal_error",
    core.DataError: "invalid_value",
    core.UnknownNameError: "edge_not_found",  # the names that the model core looks up are edges
    core.NonFiniteError: "result_not_finite",
    core.IncompleteError: "explanation_incomplete",
    core.ConfigError: "internal_error",
    core.CheckpointError: "internal_error",
    core.UnreadableModelError: "internal_error",  # raised by imports, which the service does not do
    core.ExportError: "internal_error",  # likewise by exports
    ClientDisconnect: "client_gone",  # nobody reads the response, but it is not a failure of the service
}


def find_code(error: Exception) -> ErrorCode | None:
    """The cause of an error; None if its class is unknown."""
    known = next((CAUSES[cls] for cls in type(error).__mro__ if cls in CAUSES), None)
    problems = getattr(error, "problems", ())
    if known == "invalid_value" and problems and problems[0].message == NOT_FINITE:
        return "not_finite"
    return known and getattr(error, "code", known)


def invalid_value(path: str, message: str, code: ErrorCode = "invalid_value") -> DataError:
    """The error of one invalid value."""
    problem = Problem(path, message)
    return InvalidValueError(str(problem), [problem], code)


def invalid_values(problems: Sequence[Problem], n: int | str, verdict: str = "cannot be used") -> DataError:
    """The error of `n` invalid values, given at least the first `N_LISTED` in reading order, which are listed."""
    more = f"; {n} values {verdict}" if n != 1 else ""
    return DataError(f"{problems[0]}{more}", problems[:N_LISTED])


def invalid_members(details: Sequence[ErrorDetails]) -> DataError:
    """The error of the members that pydantic refuses."""
    return invalid_values([problem_of(one) for one in details[:N_LISTED]], len(details))


def problem_of(details: ErrorDetails) -> Problem:
    """A validation error of pydantic as a `Problem`: ``tolerance`` and ``must be greater than 0``."""
    parts = [part for part in details["loc"] if part not in ("body", "query", "path", "header")]
    if name := details.get("ctx", {}).get("name"):  # see service.operations.members
        parts.append(name)
    message = re.sub("^(Input|List|String) should", "must", details["msg"]).replace("Field required", "is missing")
    message = re.sub("^Unable to parse input string as an integer, exceeded .*", _LONG, message)
    return Problem(format_path(parts), message.replace(" after validation,", ","))


class ErrorPlace(TypedDict):
    """One bad value."""

    path: Annotated[str, Field(description="Where it is, such as `instances[0][3][2]`.")]
    message: Annotated[str, Field(description="What is wrong with it, such as `must be finite`.")]


class ErrorResponse(TypedDict):
    """Every error of every operation."""

    error: Annotated[str, Field(description="What is wrong, in one sentence that names the place.")]
    code: Annotated[ErrorCode, Field(description="What is wrong, for programs; it stays as it is.")]
    type: Annotated[str, Field(description="Always `about:blank`: the status says the kind (RFC 9457).")]
    title: Annotated[str, Field(description="Name of the HTTP status.")]
    status: Annotated[int, Field(description="The HTTP status.")]
    detail: Annotated[str, Field(description="More about what is wrong.")]
    errors: Annotated[list[ErrorPlace], Field(description="The bad values, at most 20; empty where there is no place.")]
    request_id: Annotated[str, Field(description="Id of the request, also in the header `X-Request-Id`.")]


async def send_error(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends an error from a middleware, where the app's exception handlers do not apply."""
    await answer_error(Request(scope), error)(scope, receive, send)


def answer_exception(request: Request, error: Exception) -> Response:
    """The response to a known error; re-raises any other, which `Observation` answers."""
    if find_code(error) is None:
        raise error
    return answer_error(request, error)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """The response to an error of the framework: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    if not isinstance(request.scope.get("endpoint"), StaticFiles):  # its files are public, and so is their absence
        try:
            request.state.caller.require("read")
        except RequestError as refusal:
            return answer_error(request, refusal)
    message = {
        404: f"there is no route {request.url.path}; /docs lists the routes",
        405: f"{request.method} is not allowed at {request.url.path}",
    }.get(error.status_code, error.detail)
    headers = dict(error.headers or {})
    if allowed := headers.get("Allow"):
        message = f"{message}; use {allowed}"
    if allowed == "GET":
        headers["Allow"] = "GET, HEAD"  # see service.operations.route
    code: ErrorCode = "method_not_allowed" if error.status_code == 405 else "path_not_found"
    return answer_body(request, error_body(error.status_code, code, message, request.state.request_id), headers)


def answer_error(request: Request, error: Exception) -> Response:
    """The response to any error; what is wrong inside is 400 under ``/v2``, whose protocol knows no other.

    An unexpected exception is logged, and the response has its request id, and nothing else.
    """
    body = describe_error(error, request.state.request_id)
    if body["code"] == "internal_error":
        logger.error("request %s failed; please report this", request.state.request_id, exc_info=error)
    if path_of(request.scope).startswith("/v2") and (body["status"] == 422 or body["code"] == "output_not_found"):
        body |= {"status": 400, "title": title_of(400)}
    return answer_body(request, body, error.headers if isinstance(error, RequestError) else None)


def answer_body(request: Request, body: ErrorResponse, headers: Mapping[str, str] | None = None) -> Response:
    """The response with an error body, which is a problem document by media type where the client names that.

    The log and the metrics have its code.
    """
    request.state.code = body["code"]
    media_type = PROBLEM if takes_problems(find_header(request.scope, b"accept") or "") else JSON
    return answer_json(body, body["status"], headers, media_type)


def end_stream(request: Request, error: Exception) -> bytes:
    """The last line of a stream that fails after its status was sent; the log and the metrics have its code.

    An unexpected exception is logged.
    """
    body = describe_error(error, request.state.request_id)
    request.state.code = body["code"]
    if body["code"] == "internal_error":
        logger.error("request %s failed in its stream; please report this", request.state.request_id, exc_info=error)
    return encode_json(body) + b"\n"


def describe_error(error: Exception, request_id: str) -> ErrorResponse:
    """The body of a known error; of any other, a 500 without details."""
    code = find_code(error) or "internal_error"
    if code == "internal_error":
        return error_body(500, code, "internal error", request_id)
    return error_body(STATUSES[code], code, str(error), request_id, getattr(error, "problems", ()))


def title_of(status: int) -> str:
    """The reason phrase of a status."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def error_body(
    status: int, code: ErrorCode, message: str, request_id: str, problems: Sequence[Problem] = ()
) -> ErrorResponse:
    """An error body. ``error`` names the first bad value; ``detail`` has the rest of the message."""
    error = str(problems[0]) if problems else message
    return {
        "error": abbreviate(error, MAX_MESSAGE),
        "code": code,
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "detail": abbreviate(message.removeprefix(f"{error}; "), MAX_MESSAGE),
        "errors": [{"path": problem.path, "message": problem.message} for problem in problems],
        "request_id": request_id,
    }
