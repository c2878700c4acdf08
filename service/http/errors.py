"""The errors of a service, and one table that gives each class its status and its code.

RequestError               refused before a model is asked
├── BadRequestError        what V2 refuses by 400, where V1 says 422
├── UnauthenticatedError   no API key, or an unknown one
├── ForbiddenError         an API key, or a setting, that does not open this
│   └── CrossSiteError     a page of another site that wants to change what is served
├── NotAcceptableError     no media type that the client takes
├── SlowBodyError
├── BodyTooLargeError
├── MediaTypeError         a body that is not JSON, or compressed
├── MisdirectedError       a Host header that is not ours
├── RateLimitError         an API key that has asked as often as it may
├── UnsupportedError       not available in this configuration
├── BusyError              as many requests as the service answers at once
├── NotReadyError          a model, or the service, that cannot answer yet
├── DeadlineError          a result that was not there in time
└── OverloadedError        more requests wait than the service holds

kanmodel.errors.DataError
└── ValueRefusedError      a value of a request, with a code of its own

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
from kanmodel.windows import N_LISTED
from service.http.places import format_path

NOT_FINITE = "must be finite"  # what `kanmodel.windows.refuse_non_finite` says of a value

# Stable: clients branch on them. One for each cause; service/http/README.md says what each means.
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
    """Base of what is refused before a model is asked.

    Attributes:
        usual_headers: headers of every answer to errors of this class.
        problems: the bad values; empty where there is no single place.
        headers: headers of the answer.
        code: of the answer, where it is not the one of the class.
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
    """Something in a request of the Open Inference Protocol cannot be used; it has no other status for that."""


class UnauthenticatedError(RequestError):
    """The request needs an API key, and has none that is known."""

    usual_headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class ForbiddenError(RequestError):
    """The API key lacks the scope that the request needs, or a setting forbids it; the message names either."""


class CrossSiteError(ForbiddenError):
    """A page of another site must not change what is served."""


class NotAcceptableError(RequestError):
    """The client takes none of the media types that the operation has."""


class SlowBodyError(RequestError):
    """The body did not arrive in time; the connection ends, since the rest of it may still come."""

    usual_headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class BodyTooLargeError(RequestError):
    """The body is larger than the service accepts."""


class MediaTypeError(RequestError):
    """The body is not JSON, or it is compressed."""


class MisdirectedError(RequestError):
    """The Host header names another host than this service."""


class RateLimitError(RequestError):
    """The API key has asked as often as it may; the header says when it may ask again."""


class UnsupportedError(RequestError):
    """Not available in this configuration; the message says what is."""


class RetryError(RequestError):
    """Base of what may work a second later."""

    usual_headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class BusyError(RetryError):
    """The service is answering as many requests as it may."""


class NotReadyError(RetryError):
    """A model, or the service, cannot answer; the message says why."""


class DeadlineError(RetryError):
    """The result was not there in the time that the request gave it."""


class OverloadedError(RetryError):
    """More requests wait than the service holds."""


class ValueRefusedError(DataError):
    """A value of a request that cannot be used, for a reason that has a code of its own.

    Attributes:
        code: what is wrong with it.
    """

    def __init__(self, message: str, problems: Sequence[Problem], code: ErrorCode) -> None:
        super().__init__(message, problems)
        self.code = code


class UnknownModelError(UnknownNameError):
    """No model has that name."""


class UnknownVersionError(UnknownNameError):
    """The model has no such version."""


class UnknownValueError(UnknownNameError):
    """A name in a request that does not exist.

    Attributes:
        problems: where it stands, and which names exist.
        code: what it is the name of.
    """

    def __init__(self, path: str, message: str, code: ErrorCode = "output_not_found") -> None:
        super().__init__(f"{path} {message}")
        self.problems = (Problem(path, message),)
        self.code = code


# The first class of an error's that is here gives its status, and its code unless it has one of its own.
CAUSES: dict[type[Exception], tuple[int, ErrorCode]] = {
    BadRequestError: (400, "invalid_value"),
    UnauthenticatedError: (401, "key_missing"),
    ForbiddenError: (403, "disabled"),
    CrossSiteError: (403, "cross_site"),
    UnknownNameError: (404, "edge_not_found"),  # what the model core does not find is an edge
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
    ClientDisconnect: (400, "client_gone"),  # nobody reads the answer, but it is no failure of the service
    ConfigError: (500, "internal_error"),
    CheckpointError: (500, "internal_error"),
    UnreadableModelError: (500, "internal_error"),  # of imports, which the service has none of
    ExportError: (500, "internal_error"),  # likewise of exports
    UnsupportedError: (501, "not_supported"),
    BusyError: (503, "busy"),
    NotReadyError: (503, "not_ready"),
    DeadlineError: (503, "deadline_exceeded"),
    OverloadedError: (503, "queue_full"),
}


def cause_of(error: Exception) -> tuple[int, ErrorCode]:
    """Status and code of an error; those of an internal one where the table does not have it."""
    status, code = next((CAUSES[cls] for cls in type(error).__mro__ if cls in CAUSES), (500, "internal_error"))
    problems = getattr(error, "problems", ())
    if isinstance(error, DataError) and problems and problems[0].message == NOT_FINITE:
        code = "not_finite"  # as the model core says it
    return status, getattr(error, "code", None) or code


def unusable(path: str, message: str, code: ErrorCode | None = None) -> DataError:
    """The error of one bad value."""
    problems = [Problem(path, message)]
    return ValueRefusedError(f"{path} {message}", problems, code) if code else DataError(f"{path} {message}", problems)


def unusable_values(problems: Sequence[Problem], verdict: str = "cannot be used") -> DataError:
    """The error of several bad values, in reading order; of more than can be listed it says so."""
    first, n = problems[0], len(problems)
    count = f"more than {N_LISTED}" if n > N_LISTED else str(n)
    more = f"; {count} values {verdict}" if n > 1 else ""
    return DataError(f"{first.path} {first.message}{more}", problems[:N_LISTED])


def problem_of(details: ErrorDetails) -> Problem:
    """One complaint of pydantic, in our words: ``tolerance`` and ``must be greater than 0``."""
    parts = [part for part in details["loc"] if part not in ("body", "query", "path", "header")]
    if name := details.get("ctx", {}).get("name"):  # see service.schemas.closed
        parts.append(name)
    message = re.sub("^(Input|List|String) should", "must", details["msg"]).replace("Field required", "is missing")
    return Problem(format_path(parts), message)
