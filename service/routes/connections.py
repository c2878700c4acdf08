"""Cancellation of a computation when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Send

Result = TypeVar("Result")


class ClosingStream(StreamingResponse):
    """A stream whose generator is closed when it ends, however that happens.

    Starlette leaves one whose client has gone while a chunk was sent to the garbage collector, and until then what it
    computes would go on.
    """

    def __init__(self, content: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(content, media_type=media_type)
        self._content = content

    async def stream_response(self, send: Send) -> None:
        """Sends all chunks."""
        async with aclosing(self._content):
            await super().stream_response(send)


async def while_connected(request: Request, computing: Awaitable[Result]) -> Result:
    """Awaits a computation, and cancels it if the client disconnects.

    Raises:
        ClientDisconnect: the client has disconnected.
    """
    answering, leaving = asyncio.ensure_future(computing), asyncio.ensure_future(_wait_for_disconnect(request.receive))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return await answering
        raise ClientDisconnect
    finally:
        answering.cancel()
        leaving.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
