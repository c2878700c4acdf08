"""The errors of the service, and the table that maps each class to its status and code.

RequestError               refused before a model is called
├── BadRequestError        a 400 under V2, where V1 has 422
├── UnauthenticatedError   no API key, or an unknown one
├── ForbiddenError         not permitted by the API key, or by a setting
│   └── CrossSiteError     a page of another site asks for a change
├── NotAcceptableError     no media type that the client accepts
├── SlowBodyError
├── BodyTooLargeError
├── MediaTypeError         a body that is not JSON, or compressed
├── MisdirectedError       a Host header of another host
├── RateLimitError         an API key over its rate limit
├── UnsupportedError       not available in this configuration
├── BusyError              too many concurrent requests
├── NotReadyError          a model, or the service, is not ready
├── DeadlineError          the deadline has passed
└── OverloadedError        too many pending requests

kanmodel.errors.DataError
└── ValueRefusedError      an invalid value of a request, with a code of its own

kanmodel.errors.UnknownNameError
├── UnknownModelError
├── UnknownVersionError
└── UnknownValueError      a name with its place in the request

Exceptions to responses: one error schema, with KServe's string ``error`` beside the members of RFC 9457.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, ClassVar, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.data import N_LISTED
from kanmodel.errors import (
    MAX_MESSAGE,
    CheckpointError,
    ConfigError,
    DataError,
    ExportError,
    IncompleteError,
    NonFiniteError,
    Problem,
    UnknownNameError,
    UnreadableModelError,
    shorten,
)
from service.wire.json import answer_json, format_path

_LONG = "must be an integer of fewer digits"
NOT_FINITE = "must be finite"  # the message of `kanmodel.data.refuse_non_finite`

# Stable, since clients branch on them: one per cause, described in service/wire/README.md.
ErrorCode = TypeAliasType(
    "ErrorCode",
    Literal[
        "malformed_request",
        "client_gone",
        "load_failed",
        "key_missing",
        "key_unknown",
        "scope_missing",
        "disabled",
        "cross_site",
        "path_not_found",
        "model_not_found",
        "version_not_found",
        "output_not_found",
        "edge_not_found",
        "window_not_found",
        "method_not_allowed",
        "not_acceptable",
        "body_timeout",
        "headers_timeout",
        "body_too_large",
        "unsupported_media_type",
        "unsupported_encoding",
        "host_not_allowed",
        "invalid_json",
        "invalid_value",
        "limit_exceeded",
        "no_formula",
        "not_finite",
        "result_not_finite",
        "explanation_incomplete",
        "rate_limited",
        "headers_too_large",
        "internal_error",
        "not_supported",
        "not_ready",
        "model_failed",
        "model_unloaded",
        "stopping",
        "busy",
        "queue_full",
        "deadline_exceeded",
        "replica_unavailable",
    ],
)


class RequestError(Exception):
    """Base of errors that are raised before a model is called.

    Attributes:
        usual_headers: headers of every response to errors of this class.
        problems: the invalid values; empty if the error has no place.
        headers: headers of the response.
        code: overrides the code of the class.
    """

    usual_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        message: str,
        problems: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
        code: ErrorCode | None = None,
    ) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.headers = {**self.usual_headers, **(headers or {})}
        self.code = code


class BadRequestError(RequestError):
    """An invalid request of the Open Inference Protocol, which has no other status for it."""


class UnauthenticatedError(RequestError):
    """The API key is missing or unknown."""

    usual_headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class ForbiddenError(RequestError):
    """The API key lacks the scope, or a setting forbids the request; the message names which."""


class CrossSiteError(ForbiddenError):
    """A page of another site asks for a change of what is served."""


class NotAcceptableError(RequestError):
    """The client accepts none of the operation's media types."""


class SlowBodyError(RequestError):
    """The body did not arrive in time; the connection is closed, since the rest of it may still come."""

    usual_headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class BodyTooLargeError(RequestError):
    """The body is larger than the service accepts."""


class MediaTypeError(RequestError):
    """The body is not JSON, or it is compressed."""


class MisdirectedError(RequestError):
    """The Host header names another host than this service."""


class RateLimitError(RequestError):
    """The API key is over its rate limit; the header Retry-After has the seconds to wait."""


class UnsupportedError(RequestError):
    """Not available in this configuration; the message says what is."""


class RetryError(RequestError):
    """Base of errors that a retry may overcome."""

    usual_headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class BusyError(RetryError):
    """The limit of concurrent requests is reached."""


class NotReadyError(RetryError):
    """A model, or the service, is not ready; the message says why."""


class DeadlineError(RetryError):
    """The deadline of the request has passed."""


class OverloadedError(RetryError):
    """The limit of pending requests is reached."""


class ValueRefusedError(DataError):
    """An invalid value of a request, with a code of its own.

    Attributes:
        code: the cause.
    """

    def __init__(self, message: str, problems: Sequence[Problem], code: ErrorCode) -> None:
        super().__init__(message, problems)
        self.code = code


class UnknownModelError(UnknownNameError):
    """No model has that name."""


class UnknownVersionError(UnknownNameError):
    """The model has no such version."""


class UnknownValueError(UnknownNameError):
    """An unknown name in a request.

    Attributes:
        problems: its place, and the names that exist.
        code: the kind of name.
    """

    def __init__(self, path: str, message: str, code: ErrorCode = "output_not_found") -> None:
        super().__init__(f"{path} {message}")
        self.problems = (Problem(path, message),)
        self.code = code


# The first class in an error's MRO that is listed gives its status, and its code unless it has one of its own.
CAUSES: dict[type[Exception], tuple[int, ErrorCode]] = {
    BadRequestError: (400, "invalid_value"),
    UnauthenticatedError: (401, "key_missing"),
    ForbiddenError: (403, "disabled"),
    CrossSiteError: (403, "cross_site"),
    UnknownNameError: (404, "edge_not_found"),  # the names that the model core looks up are edges
    UnknownModelError: (404, "model_not_found"),
    UnknownVersionError: (404, "version_not_found"),
    UnknownValueError: (404, "output_not_found"),
    NotAcceptableError: (406, "not_acceptable"),
    SlowBodyError: (408, "body_timeout"),
    BodyTooLargeError: (413, "body_too_large"),
    MediaTypeError: (415, "unsupported_media_type"),
    MisdirectedError: (421, "host_not_allowed"),
    DataError: (422, "invalid_value"),
    NonFiniteError: (422, "result_not_finite"),
    IncompleteError: (422, "explanation_incomplete"),
    RequestValidationError: (422, "invalid_value"),
    RateLimitError: (429, "rate_limited"),
    ClientDisconnect: (400, "client_gone"),  # nobody reads the response, but it is not a failure of the service
    ConfigError: (500, "internal_error"),
    CheckpointError: (500, "internal_error"),
    UnreadableModelError: (500, "internal_error"),  # raised by imports, which the service does not do
    ExportError: (500, "internal_error"),  # likewise by exports
    UnsupportedError: (501, "not_supported"),
    BusyError: (503, "busy"),
    NotReadyError: (503, "not_ready"),
    DeadlineError: (503, "deadline_exceeded"),
    OverloadedError: (503, "queue_full"),
}


def cause_of(error: Exception) -> tuple[int, ErrorCode]:
    """Status and code of an error; those of an internal error if it is not in the table."""
    status, code = next((CAUSES[cls] for cls in type(error).__mro__ if cls in CAUSES), (500, "internal_error"))
    problems = getattr(error, "problems", ())
    if isinstance(error, DataError) and problems and problems[0].message == NOT_FINITE:
        code = "not_finite"  # in the model core's words
    return status, getattr(error, "code", None) or code


def unusable(path: str, message: str, code: ErrorCode | None = None) -> DataError:
    """The error of one invalid value."""
    problem = Problem(path, message)
    return ValueRefusedError(str(problem), [problem], code) if code else DataError(str(problem), [problem])


def unusable_values(problems: Sequence[Problem], n: int | str, verdict: str = "cannot be used") -> DataError:
    """The error of several invalid values, in reading order, of which only the first are listed.

    Args:
        problems: the first of them, at least `N_LISTED` where there are as many.
        n: how many there are.
        verdict: what they have in common.
    """
    more = f"; {n} values {verdict}" if n != 1 else ""
    return DataError(f"{problems[0]}{more}", problems[:N_LISTED])


def unusable_members(details: Sequence[ErrorDetails]) -> DataError:
    """The error of the members that pydantic refuses."""
    return unusable_values([problem_of(one) for one in details[:N_LISTED]], len(details))


def problem_of(details: ErrorDetails) -> Problem:
    """A validation error of pydantic as a `Problem`: ``tolerance`` and ``must be greater than 0``."""
    parts = [part for part in details["loc"] if part not in ("body", "query", "path", "header")]
    if name := details.get("ctx", {}).get("name"):  # see service.operations.members
        parts.append(name)
    message = re.sub("^(Input|List|String) should", "must", details["msg"]).replace("Field required", "is missing")
    message = re.sub("^Unable to parse input string as an integer, exceeded .*", _LONG, message)
    return Problem(format_path(parts), message.replace(" after validation,", ","))


logger = logging.getLogger(__name__)

# Names of RFC 9110; those of Python 3.11 are older.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


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


def install_error_handlers(app: FastAPI) -> None:
    """Installs handlers so that every error has the one schema; `Observation` answers unexpected exceptions."""
    for cls in CAUSES:
        app.add_exception_handler(cls, answer_exception)
    app.add_exception_handler(HTTPException, answer_http_error)


async def send_error(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a known error from a middleware, where the app's exception handlers do not apply."""
    response = await answer_error(Request(scope), error)
    await response(scope, receive, send)


async def answer_error(request: Request, error: Exception) -> Response:
    """The response to a known error; what is wrong inside is 400 under ``/v2``, whose protocol knows no other."""
    body = describe_error(error, request.state.request_id)
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if path.startswith("/v2") and (body["status"] == 422 or isinstance(error, UnknownValueError)):
        body |= {"status": 400, "title": title_of(400)}
    return answer_json(body, status=body["status"], headers=getattr(error, "headers", None))


async def answer_exception(request: Request, error: Exception) -> Response:
    """The response to a known error; re-raises any other."""
    if not any(cls in CAUSES for cls in type(error).__mro__):
        raise error
    is_ours = cause_of(error)[0] == HTTPStatus.INTERNAL_SERVER_ERROR
    return await (answer_failure if is_ours else answer_error)(request, error)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """The response to an error of the framework: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    if not isinstance(request.scope.get("endpoint"), StaticFiles):  # its files are public, and so is their absence
        try:
            request.state.caller.require("read")
        except RequestError as refusal:
            return await answer_error(request, refusal)
    message = {
        404: f"there is no route {request.url.path}; /docs lists the routes",
        405: f"{request.method} is not allowed at {request.url.path}",
    }.get(error.status_code, error.detail)
    headers = dict(error.headers or {})
    if allowed := headers.get("Allow"):
        message = f"{message}; use {allowed}"
    if allowed == "GET":
        headers["Allow"] = "GET, HEAD"  # see service.wire.headers
    code: ErrorCode = "method_not_allowed" if error.status_code == 405 else "path_not_found"
    body = error_body(error.status_code, code, message, request.state.request_id)
    return answer_json(body, status=error.status_code, headers=headers)


async def answer_failure(request: Request, error: Exception) -> Response:
    """The response to an unexpected exception: the request id, and nothing else."""
    request_id = request.state.request_id
    logger.error("request %s failed", request_id, exc_info=error)
    return answer_json(error_body(500, "internal_error", "internal error", request_id), status=500)


def describe_error(error: Exception, request_id: str) -> ErrorResponse:
    """The body of a known error; of any other, a 500 without details."""
    status, code = cause_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return error_body(500, code, "internal error", request_id)
    if isinstance(error, RequestValidationError):
        error = unusable_members(error.errors())
    return error_body(status, code, str(error), request_id, getattr(error, "problems", ()))


def title_of(status: int) -> str:
    """The reason phrase of a status."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def error_body(
    status: int, code: ErrorCode, message: str, request_id: str, problems: Sequence[Problem] = ()
) -> ErrorResponse:
    """An error body. ``error`` names the first bad value; ``detail`` has the rest of the message."""
    error = str(problems[0]) if problems else message
    return {
        "error": shorten(error, MAX_MESSAGE),
        "code": code,
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "detail": shorten(message.removeprefix(f"{error}; "), MAX_MESSAGE),
        "errors": [{"path": problem.path, "message": problem.message} for problem in problems],
        "request_id": request_id,
    }
