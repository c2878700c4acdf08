"""Routes whose answers are computed once for a checkpoint and a query, and then sent as they are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from service.dependencies import find_deadline, find_model, find_parts
from service.precomputed import Answer


class PrecomputedRoute(APIRoute):
    """A route on a model that answers nothing but what its path, query and Accept say."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, asked for what is not known yet."""
        compute = super().get_route_handler()

        async def answer(request: Request) -> Response:
            cache, served = find_parts(request).answers, find_model(request)
            find_deadline(request)  # which is refused, if it is none, whether it is needed or not
            asked = (request.url.path, request.url.query, request.headers.get("accept"))
            key = (served.name, served.version, served.checkpoint, *asked)
            known = cache.get(key)
            if known is None:
                response = await compute(request)
                known = await run_in_threadpool(Answer.of, response)
                cache.keep(key, known)
            return known.respond(request)

        return answer
