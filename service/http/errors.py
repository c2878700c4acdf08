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
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect
from typing_extensions import TypeAliasType

from kanmodel.data import N_LISTED
from kanmodel.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ExportError,
    IncompleteError,
    NonFiniteError,
    Problem,
    UnknownNameError,
    UnreadableModelError,
)
from service.http.places import format_path

_LONG = "must be an integer of fewer digits"
NOT_FINITE = "must be finite"  # the message of `kanmodel.data.refuse_non_finite`

# Stable, since clients branch on them: one per cause, described in service/http/README.md.
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
    if name := details.get("ctx", {}).get("name"):  # see service.schemas.closed
        parts.append(name)
    message = re.sub("^(Input|List|String) should", "must", details["msg"]).replace("Field required", "is missing")
    message = re.sub("^Unable to parse input string as an integer, exceeded .*", _LONG, message)
    return Problem(format_path(parts), message.replace(" after validation,", ","))
