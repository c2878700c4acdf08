"""Routes whose answers depend on the checkpoint and the query alone, and are cached."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.document.errors import describe_unchanged
from service.http.answer_cache import Answer
from service.http.security import require_scope, scopes_of
from service.routes.connections import while_connected
from service.routes.dependencies import find_deadline, find_parts
from service.telemetry.observation import span
from service.work.estimates import estimate_compression


class PrecomputedRoute(APIRoute):
    """A route on a model whose answer is determined by its path, query and Accept header."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["responses"] = {**(options.get("responses") or {}), **describe_unchanged()}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which runs only if the answer is not cached."""
        compute = super().get_route_handler()
        (needed,) = scopes_of(self.dependencies)

        async def answer(request: Request) -> Response:
            require_scope(request.scope["state"], needed)
            parts = find_parts(request)
            cache = parts.answers
            deadline = find_deadline(request)  # an invalid header is refused even if it is not needed
            known = cache.get(request.scope)
            if known is None:
                index = parts.registry.index()  # before the computation, during which the models may change
                response = await while_connected(request, compute(request))
                cost = estimate_compression(len(response.body))
                with span("encode"):
                    known = await parts.work.run(partial(Answer.of, response), "explanation", cost, deadline=deadline)
                cache.keep(request.scope, known, index)
            status, headers, body = known.choose(dict(request.headers.raw))
            response = Response(body, status)
            response.raw_headers = headers
            return response

        return answer
