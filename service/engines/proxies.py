"""ASGI middleware for the HTTP proxies of Ray Serve: request ids, and error responses in the service's format."""

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.settings import Settings
from service.wire.errors import ErrorCode, error_body
from service.wire.headers import HEADER, choose_request_id
from service.wire.json import answer_json

_MESSAGES = {
    404: "the service is starting or stopping",  # every path is routed to the replicas once they run
    500: "the replica that had the request is gone",
    503: "no replica can take the request",
}


def proxy_variables(settings: Settings) -> dict[str, str]:
    """Environment variables that make Serve's proxies use `make_middlewares`."""
    variables = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:make_middlewares"}
    variables["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"  # as `serve.start` waits; 5 is too short on busy cores
    return variables | {"KANSCOPE_MAX_HEADER_BYTES": str(settings.max_header_bytes)}


def make_middlewares() -> list[Middleware]:
    """The middleware of a proxy; Serve calls this when the proxy starts."""
    return [Middleware(ProxyErrorMiddleware, Settings().max_header_bytes)]


class ProxyErrorMiddleware:
    """Assigns request ids, refuses oversized headers, and rewrites a proxy's own errors in the service's format.

    The app in the replica sets the id in its response, the proxy another: with only one it comes from the proxy itself.
    """

    def __init__(self, app: ASGIApp, max_header_bytes: int) -> None:
        self._app, self._max_header_bytes = app, max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        n_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        n_bytes += sum(len(name) + len(value) for name, value in scope["headers"])
        request_id = choose_request_id(scope["headers"])
        MutableHeaders(scope=scope)[HEADER] = request_id
        started = replaced = False

        async def refuse(status: int, code: ErrorCode, message: str) -> None:
            headers = {HEADER: request_id} | ({"Retry-After": "1"} if status == 503 else {})
            await answer_json(error_body(status, code, message, request_id), status, headers)(scope, receive, send)

        async def send_in_shape(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                replaced = len(headers.getlist(HEADER)) == 1 and message["status"] in _MESSAGES
                if replaced:
                    await refuse(503, "replica_unavailable", _MESSAGES[message["status"]])
                headers[HEADER] = request_id  # in place of both
            if not replaced:
                await send(message)

        if n_bytes > self._max_header_bytes:
            limit = f"{self._max_header_bytes} bytes (max_header_bytes)"
            return await refuse(431, "headers_too_large", f"the headers are larger than {limit}")
        await self._app(scope, receive, send_in_shape)
        if not started:  # for example because the replica died
            await refuse(503, "replica_unavailable", _MESSAGES[500])
