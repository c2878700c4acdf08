"""Cancellation of a computation when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Receive

Result = TypeVar("Result")


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
