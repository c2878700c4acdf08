"""Routes that FastAPI documents but does not run: their handlers take the raw request.

Routing and dependency resolution in FastAPI take longer than a forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from kanmodel.errors import DataError, NonFiniteError
from service.http.error_answers import answer_exception
from service.http.errors import BadRequestError, UnknownValueError, cause_of
from service.http.security import require_scope, scopes_of

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """A route whose handler takes only the request.

    Scopes among its dependencies are enforced. Other dependencies never run: they document the parameters that the
    handler reads itself.
    """

    def get_route_handler(self) -> Handler:
        """The handler, with a check of the route's scopes."""
        handler, scopes = self.endpoint, scopes_of(self.dependencies)

        async def handle(request: Request) -> Response:
            for scope in scopes:
                require_scope(request.scope["state"], scope)
            answer: Response = await handler(request)
            return answer

        return handle


class ProtocolRoute(DirectRoute):
    """A route of the Open Inference Protocol, which answers 400 instead of 422, and for an unknown output."""

    def get_route_handler(self) -> Handler:
        """The handler, with the error statuses of the protocol."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except (DataError, NonFiniteError, UnknownValueError) as error:
                raise BadRequestError(str(error), error.problems, code=cause_of(error)[1]) from error

        return handle


class DirectRoutes:
    """Middleware that dispatches direct routes before FastAPI's own routing.

    Args:
        app: the wrapped app, for all other paths and methods.
        routes: all routes, of which it picks the direct ones.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = [(route, route.get_route_handler()) for route in routes if isinstance(route, DirectRoute)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            for route, handle in self._routes:
                if (found := route.path_regex.match(path)) is not None:
                    scope["route"], scope["path_params"] = route, found.groupdict()
                    await _answer(handle, Request(scope, receive), send)
                    return
        await self._app(scope, receive, send)


async def _answer(handle: Handler, request: Request, send: Send) -> None:
    try:
        response = await handle(request)
    except Exception as error:
        response = await answer_exception(request, error)
    await response(request.scope, request.receive, send)
