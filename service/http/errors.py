"""The errors of a service, and one table that gives each class its status.

RequestError               refused before a model is asked
├── BadRequestError        what V2 refuses by 400, where V1 says 422
├── UnauthenticatedError   no API key, or an unknown one
├── ForbiddenError         an API key, or a setting, that does not open this
├── NotAcceptableError     no media type that the client takes
├── SlowBodyError
├── BodyTooLargeError
├── MediaTypeError         a body that is not JSON, or compressed
├── MisdirectedError       a Host header that is not ours
├── BusyError              as many requests as the service answers at once
├── UnsupportedError       what the service can't do as it was started
├── NotReadyError          a model, or the service, that cannot answer yet
└── OverloadedError        more requests wait than the service holds

kanmodel.errors.UnknownNameError
└── UnknownValueError      a name with its place in the request
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect

from kanmodel.errors import CheckpointError, ConfigError, DataError, NonFiniteError, Problem, UnknownNameError
from kanmodel.windows import N_LISTED
from service.http.places import format_path


class RequestError(Exception):
    """Base of what is refused before a model is asked.

    Attributes:
        problems: the bad values; empty where there is no single place.
        headers: headers of the answer.
    """

    def __init__(
        self, message: str, problems: Sequence[Problem] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.headers = dict(headers or {})


class BadRequestError(RequestError):
    """Something in a request of the Open Inference Protocol cannot be used; it has no other status for that."""


class UnauthenticatedError(RequestError):
    """The request needs an API key, and has none that is known."""

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class ForbiddenError(RequestError):
    """The API key lacks the scope that the request needs, or a setting forbids it; the message names either."""


class NotAcceptableError(RequestError):
    """The client takes none of the media types that the operation has."""


class SlowBodyError(RequestError):
    """The body did not arrive in time; the connection ends, since the rest of it may still come."""

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Connection": "close"})


class BodyTooLargeError(RequestError):
    """The body is larger than the service accepts."""


class MediaTypeError(RequestError):
    """The body is not JSON, or it is compressed."""


class MisdirectedError(RequestError):
    """The Host header names another host than this service."""


class BusyError(RequestError):
    """The service is answering as many requests as it may."""

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "1"})


class UnsupportedError(RequestError):
    """The service can't do it as it was started; the message says what does."""


class NotReadyError(RequestError):
    """A model, or the service, cannot answer; the message says why."""


class OverloadedError(RequestError):
    """More requests wait than the service holds."""


class UnknownValueError(UnknownNameError):
    """A name in a request that does not exist.

    Attributes:
        problems: where it stands, and which names exist.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path} {message}")
        self.problems = (Problem(path, message),)


STATUSES: dict[type[Exception], int] = {
    BadRequestError: 400,
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    UnknownNameError: 404,
    NotAcceptableError: 406,
    SlowBodyError: 408,
    BodyTooLargeError: 413,
    MediaTypeError: 415,
    MisdirectedError: 421,
    DataError: 422,
    NonFiniteError: 422,
    RequestValidationError: 422,
    ClientDisconnect: 400,  # nobody reads the answer, but it is no failure of the service
    ConfigError: 500,
    CheckpointError: 500,
    UnsupportedError: 501,
    BusyError: 503,
    NotReadyError: 503,
    OverloadedError: 503,
}


def unusable(path: str, message: str) -> DataError:
    """The error of one bad value."""
    return DataError(f"{path} {message}", [Problem(path, message)])


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
