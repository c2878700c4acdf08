"""Routes whose answers are computed once for a checkpoint and a query, and then sent as they are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.document.errors import describe_unchanged
from service.http.answer_cache import Answer
from service.http.security import require_scope
from service.routes.connections import while_connected
from service.routes.dependencies import find_deadline, find_parts
from service.telemetry.traces import span
from service.work.estimates import estimate_compression


class PrecomputedRoute(APIRoute):
    """A route on a model that answers nothing but what its path, query and Accept say."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["responses"] = {**(options.get("responses") or {}), **describe_unchanged()}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, asked for what is not known yet."""
        compute = super().get_route_handler()

        async def answer(request: Request) -> Response:
            require_scope(request.scope["state"], "read")
            parts = find_parts(request)
            cache = parts.answers
            deadline = find_deadline(request)  # which is refused, if it is none, whether it is needed or not
            known = cache.get(request.scope)
            if known is None:
                index = parts.registry.index()  # before computing, in which time the models may change
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
