"""Configuration of uvicorn: limits on headers and slow clients, graceful shutdown, no access log of its own."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from time import perf_counter
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http.answers import JSON, encode_json
from service.http.error_answers import error_body
from service.http.errors import ErrorCode
from service.http.headers import IS_WHOLE
from service.http.ids import HEADER, new_request_id
from service.settings import Settings

logger = logging.getLogger(__name__)

MIN_TAKEN = 64 << 10  # bytes that a client must read within the timeout; beyond them uvicorn pauses the app
LINGER = 0.25  # seconds in which a stopping process still accepts requests on open connections
UNREAD = "other"  # the method of a request that was refused before it was parsed


def server_options(settings: Settings) -> dict[str, Any]:
    """Arguments of `uvicorn.run` or `uvicorn.Config` besides the app."""
    return {
        "host": settings.host,
        "port": settings.port,
        "root_path": settings.root_path,
        "http": partial(
            BoundedProtocol,
            max_header_bytes=settings.max_header_bytes,
            header_timeout=settings.header_timeout,
            send_timeout=settings.send_timeout,
        ),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # a client could choose the address in the log
        "timeout_graceful_shutdown": settings.shutdown_timeout,
    }


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection, with limits on the head of a request (the request line and headers) and on slow readers.

    uvicorn has none of these limits: it buffers a head for as long as it arrives, and an answer until its client has
    read it. A refused head never reaches the app, so it is answered here, and recorded by ``record_refusal`` of the
    app's lifespan state.

    Args:
        *arguments: arguments of uvicorn.
        max_header_bytes: most bytes of the request target and the headers.
        header_timeout: seconds in which a head must arrive; the first one counts from the connection.
        send_timeout: seconds in which a client must read `MIN_TAKEN` bytes of its answer, or the rest of it.
        **options: keyword arguments of uvicorn.
    """

    def __init__(
        self, *arguments: Any, max_header_bytes: int, header_timeout: float, send_timeout: float, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._max_header_bytes = max_header_bytes
        self._header_timeout = header_timeout
        self._send_timeout = send_timeout
        self._send_timer: asyncio.TimerHandle | None = None
        self._unsent = 0  # bytes, when the timer started
        self._method = UNREAD
        self._begun = perf_counter()
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._refused = False
        self._stopping = False
        self._answering: RequestResponseCycle | None = None  # the pipelined request that is running

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timer of the first head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers."""
        self._stop_timer()
        self._stop_send_timer()
        if self._answering is not None:  # of pipelined requests, uvicorn notifies only the last
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts and parses received bytes; the parser itself buffers an unfinished header without limit."""
        if self._refused:
            return
        was_in_head = self._in_head
        super().data_received(data)
        if self._in_head:
            self._start_timer()
            self._head_bytes += len(data) if was_in_head else 0
            if self._head_bytes > self._max_header_bytes:
                self._refuse_large_head()

    def on_message_begin(self) -> None:
        """Called when a head begins."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._method = UNREAD
        self._begun = perf_counter()

    def on_headers_complete(self) -> None:
        """Called when a head is complete."""
        self._stop_timer()
        self._in_head = False
        self._method = self.parser.get_method().decode("ascii")
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._max_header_bytes:
            self._refuse_large_head()
            raise ValueError("the head is too large")  # stops the parser
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Called when a request is complete."""
        self.scope["state"][IS_WHOLE] = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers a request that cannot be parsed."""
        self._refuse(400, "malformed_request", "the request is not HTTP/1.1")

    def shutdown(self) -> None:
        """Graceful shutdown: requests that have arrived, or are arriving, are answered first."""
        self._stopping = True
        if self._is_idle:
            self.loop.call_later(LINGER, self._end_idle)
        else:
            super().shutdown()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _end_idle(self) -> None:
        if self._is_idle and not self._in_head:
            self.transport.close()

    def pause_writing(self) -> None:
        """Called when the client reads more slowly than the app sends."""
        super().pause_writing()
        self._start_send_timer()

    def resume_writing(self) -> None:
        """Called when the client has caught up."""
        super().resume_writing()
        self._stop_send_timer()

    def _start_send_timer(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self._send_timeout, self._end_slow_reader)

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _end_slow_reader(self) -> None:
        if self._unsent - self.transport.get_write_buffer_size() >= MIN_TAKEN:
            self._start_send_timer()
            return
        logger.warning("a client has not read its answer within %g seconds (send_timeout)", self._send_timeout)
        self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._header_timeout, self._end_slow_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_slow_head(self) -> None:
        if self._in_head:
            self._refuse(
                408,
                "headers_timeout",
                f"the headers did not arrive within {self._header_timeout:g} seconds (header_timeout)",
            )
        else:
            self.transport.close()

    def _refuse_large_head(self) -> None:
        self._refuse(
            431, "headers_too_large", f"the headers are larger than {self._max_header_bytes} bytes (max_header_bytes)"
        )

    def _refuse(self, status: int, code: ErrorCode, message: str) -> None:
        """Closes the connection with an error response; without one if an earlier request is still being answered."""
        if self._refused:
            return
        self._refused = True
        request_id = new_request_id()
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
        self.transport.close()
