"""Routes that FastAPI describes but does not run: their handlers take the request as it is.

What FastAPI does between the two, solving dependencies above all, takes longer than a forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from kanmodel.errors import DataError, NonFiniteError
from service.http.errors import BadRequestError, UnknownValueError, cause_of
from service.http.security import require_scope, scopes_of


class DirectRoute(APIRoute):
    """A route of a handler whose only argument is the request.

    Of its dependencies the scopes are enforced. The others are never run: they describe the parameters that the handler
    reads by itself.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, for callers that have the scopes of the route."""
        handler, scopes = self.endpoint, scopes_of(self.dependencies)

        async def handle(request: Request) -> Response:
            for scope in scopes:
                require_scope(request.scope["state"], scope)
            answer: Response = await handler(request)
            return answer

        return handle


class ProtocolRoute(DirectRoute):
    """One of the Open Inference Protocol, which has 400 for what is 422 elsewhere, and for an unknown output."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, its errors as the protocol has them."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except (DataError, NonFiniteError, UnknownValueError) as error:
                raise BadRequestError(str(error), error.problems, code=cause_of(error)[1]) from error

        return handle
