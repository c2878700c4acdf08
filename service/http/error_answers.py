"""Exceptions to responses: one error schema, with KServe's string ``error`` beside the members of RFC 9457."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from kanmodel.errors import MAX_MESSAGE, Problem, shorten
from service.http.answers import answer_json
from service.http.errors import CAUSES, ErrorCode, RequestError, cause_of, unusable_members

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
    """The response to a known error; 422 is 400 under ``/v2``, whose protocol knows no other."""
    body = describe_error(error, request.state.request_id)
    if body["status"] == 422 and request.scope["path"].removeprefix(request.scope.get("root_path", "")).startswith(
        "/v2"
    ):
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
        headers["Allow"] = "GET, HEAD"  # see service.http.head_requests
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
