"""What is computed for as long as the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Receive

Result = TypeVar("Result")


async def while_connected(request: Request, computing: Awaitable[Result]) -> Result:
    """What is computed, which is given up where the client goes away.

    Raises:
        ClientDisconnect: it has.
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
