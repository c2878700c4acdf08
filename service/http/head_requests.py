"""HEAD wherever there is GET (RFC 9110, section 9.3.2): the same headers, and no body."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadRequests:
    """Middleware that handles HEAD as GET; the server, which knows the original method, sends no body.

    Args:
        app: the wrapped app.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, send)
        finally:
            if "route" in as_get:  # the matched route, for metrics
                scope["route"] = as_get["route"]
