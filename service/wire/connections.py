"""Connections: uvicorn with limits on what a client sends and leaves unread; work that ends with its client."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from functools import partial
from time import perf_counter
from typing import Any, Literal, TypeVar, cast

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.settings import Settings
from service.wire.errors import STATUSES, ErrorCode, error_body
from service.wire.headers import HEADER, IS_WHOLE, new_request_id
from service.wire.json import JSON, encode_json

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
MIN_TAKEN = 64 << 10  # bytes that a client must read within the timeout; beyond them uvicorn pauses the app
PIECE = 16 << 10  # bytes that are parsed before they are counted; more arrive at once
BODY_PIECE = 256 << 10  # the same within a body, whose bytes the app counts
MAX_CHUNKS = 16_384  # parts in which a body may arrive: to take one costs the same if it has a single byte
MIN_CHUNK = 512  # bytes of such a part, where the largest body needs more of them
MAX_PIPELINED = 16  # requests of a connection that wait for the answers of earlier ones
LINGER = 5.0  # seconds in which a message must end after its answer
STOPPING = 0.25  # seconds in which a stopping process still accepts requests on open connections
UNREAD = "other"  # the method of a request that was refused before it was parsed
DROPPED: deque[tuple[bytes, bytes]] = deque(maxlen=0)  # the parser's trailers: they are neither kept nor headers


def server_options(settings: Settings) -> dict[str, Any]:
    """Arguments of `uvicorn.run` or `uvicorn.Config` besides the app."""
    return {
        "host": settings.host,
        "port": settings.port,
        "root_path": settings.root_path,
        "http": partial(BoundedProtocol, settings=settings),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # a client could choose the address in the log
        "timeout_graceful_shutdown": settings.shutdown_timeout,
    }


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection, in which what a client sends and leaves unread is bounded in bytes and in time.

    uvicorn has no such limits: it buffers a head, a trailer and an answer for as long as they last, and waits for the
    rest of a message whose answer is sent. Here

    - a head, and what stands between two parts of a body (chunk sizes, their extensions, trailers), have
      ``max_header_bytes``, a body `MAX_CHUNKS` or, if it may be larger, parts of `MIN_CHUNK`. The bytes of a body are
      counted by the app that reads it, with `body_timeout`;
    - a head has ``header_timeout``, the first one from the connection; an answered message `LINGER` and
      ``max_body_bytes`` until it ends; a client ``send_timeout`` to read `MIN_TAKEN` bytes or the rest of an answer.
      uvicorn's own timer closes a connection on which nothing follows an answer.

    A refused head never reaches the app, so it is answered here, and recorded by ``record_refusal`` of the app's
    lifespan state.
    """

    def __init__(self, *arguments: Any, settings: Settings, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._settings = settings
        self._max_chunks = max(MAX_CHUNKS, settings.max_body_bytes // MIN_CHUNK)
        self._receiving: Literal["nothing", "head", "body"] = "nothing"  # the part of a message that is incomplete
        self._parsing = 0  # bytes of the piece that is parsed
        self._unused = 0  # bytes since a message or a head has ended, or the app was given a part of a body
        self._chunks = 0  # of the body
        self._timer: asyncio.TimerHandle | None = None  # of the client that has to send
        self._send_timer: asyncio.TimerHandle | None = None  # of the client that has to read
        self._unsent = 0  # bytes, when that timer started
        self._method = UNREAD
        self._begun = perf_counter()
        self._refused = False
        self._stopping = False
        self._answering: RequestResponseCycle | None = None  # the pipelined request that is running

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_send_timer()
        if self._answering is not None:  # of pipelined requests, uvicorn notifies only the last
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        start = 0
        while start < len(data):
            if self._refused:
                return
            piece = data[start : start + (BODY_PIECE if self._receiving == "body" else PIECE)]
            start += len(piece)
            self._parsing = len(piece)
            self._unused += self._parsing
            super().data_received(piece)
            limits = self._settings
            if self._unused > (limits.max_body_bytes if self._is_lingering else limits.max_header_bytes):
                self._refuse_large()
        self._start_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._receiving = "head"
        self._method = UNREAD
        self._begun = perf_counter()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._method = self.parser.get_method().decode("ascii")
        most = self._settings.max_header_bytes
        may_be_large = self._unused + self._parsing > most  # the head may have begun within a piece
        if may_be_large and len(self.url) + sum(len(n) + len(v) for n, v in self.headers) > most:
            self._refuse_large()
            raise ValueError("the head is too large")  # stops the parser
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refused, self.cycle.keep_alive = True, False  # those that wait are answered
            raise ValueError("too many requests are pipelined")
        super().on_headers_complete()
        self.headers = DROPPED  # type: ignore[assignment]
        self._receiving = "body"
        self._unused = self._chunks = 0
        if self._stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._chunks += 1
        if self._chunks > self._max_chunks:
            self._refuse("body_too_large", f"the body has more than {self._max_chunks} chunks (max_body_bytes)")
            raise ValueError("too many chunks")  # stops the parser
        if not self.cycle.response_complete:  # else it is dropped
            self._unused = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_timer()
        self._receiving = "nothing"
        self._unused = 0
        self.scope["state"][IS_WHOLE] = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_send_timer()
        else:
            self._start_timer()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def send_400_response(self, msg: str) -> None:
        self._refuse("malformed_request", "the request is not HTTP/1.1")

    def shutdown(self) -> None:
        """Graceful shutdown: requests that have arrived, or are arriving, are answered first."""
        self._stopping = True
        if self._is_idle:
            self.loop.call_later(STOPPING, self._end_idle)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_send_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():  # then the rest must be read too
            self._stop_send_timer()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _is_lingering(self) -> bool:
        """Whether a message has been answered before it has ended."""
        return self._receiving == "body" and self._is_idle

    def _end_idle(self) -> None:
        if self._is_idle and self._receiving != "head":
            self._close()

    def _start_timer(self) -> None:
        """Starts the timer of what the client has to send, unless it runs, or uvicorn's does."""
        if self._timer is not None or self._refused:
            return
        if self._is_lingering:
            self._timer = self.loop.call_later(LINGER, self._close)
        elif self._receiving == "head" or (self._is_idle and self.timeout_keep_alive_task is None):
            self._timer = self.loop.call_later(self._settings.header_timeout, self._end_slow_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_slow_head(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # by earlier requests: the client cannot send
            self._start_timer()
        elif self._receiving == "head":
            seconds = f"{self._settings.header_timeout:g} seconds (header_timeout)"
            self._refuse("headers_timeout", f"the headers did not arrive within {seconds}")
        else:
            self._close()

    def _start_send_timer(self) -> None:
        if self._send_timer is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._send_timer = self.loop.call_later(self._settings.send_timeout, self._end_slow_reader)

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _end_slow_reader(self) -> None:
        self._send_timer = None
        if self._unsent - self.transport.get_write_buffer_size() >= MIN_TAKEN:
            self._start_send_timer()
            return
        logger.warning("a client has not read its answer within %g seconds (send_timeout)", self._settings.send_timeout)
        self.transport.abort()

    def _close(self) -> None:
        """Closes the connection once the client has read what was sent to it."""
        self.transport.close()
        self._start_send_timer()

    def _refuse_large(self) -> None:
        what = "trailers or chunk extensions" if self._receiving == "body" else "headers"
        limit = f"{self._settings.max_header_bytes} bytes (max_header_bytes)"
        self._refuse("headers_too_large", f"the {what} are larger than {limit}")

    def _refuse(self, code: ErrorCode, message: str) -> None:
        """Closes the connection with an error response; without one if this request, or an earlier one, has its own."""
        if self._refused:
            return
        self._refused = True
        request_id, status = new_request_id(), STATUSES[code]
        if self._is_lingering:
            self._close()
            return
        if self._is_idle:
            seconds = perf_counter() - self._begun
            state = {"request_id": request_id, "address": self.client[0] if self.client else ""}
            self.app_state["record_refusal"](state, self._method, status, seconds)
        elif self.cycle.more_body and not self.cycle.response_started and not self.pipeline:
            # the app waits for the rest of the body: it sees a disconnect, and records it
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        else:
            self.cycle.keep_alive = False
            return
        error = error_body(status, code, message, request_id)
        body = encode_json(error)
        head = (
            f"HTTP/1.1 {status} {error['title']}\r\ncontent-type: {JSON}\r\ncontent-length: {len(body)}\r\n"
            f"{HEADER.lower()}: {request_id}\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._close()


class ClosingStream(StreamingResponse):
    """A stream whose generator is closed when it ends, however that happens.

    Starlette leaves one whose client has gone while a chunk was sent to the garbage collector, and until then what it
    computes would go on.
    """

    async def stream_response(self, send: Send) -> None:
        """Sends all chunks."""
        async with aclosing(cast(AsyncGenerator[bytes, None], self.body_iterator)):
            await super().stream_response(send)


async def while_connected(request: Request, computing: Awaitable[Result]) -> Result:
    """Awaits a computation; if the client disconnects, cancels it and raises `ClientDisconnect`."""

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, leaving = asyncio.ensure_future(computing), asyncio.ensure_future(wait_for_disconnect())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return await answering
        raise ClientDisconnect
    finally:
        answering.cancel()
        leaving.cancel()
