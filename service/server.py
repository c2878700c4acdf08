"""How uvicorn serves the app: heads of requests within bounds, time to end what was accepted, no log of its own."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.answers import JSON, encode_json
from service.errors import error_body
from service.request_ids import HEADER, new_request_id
from service.settings import Settings


def server_options(settings: Settings) -> dict[str, Any]:
    """What `uvicorn.run`, or `uvicorn.Config`, is told beside the app."""
    return {
        "host": settings.host,
        "port": settings.port,
        "root_path": settings.root_path,
        "http": partial(
            BoundedProtocol, max_header_bytes=settings.max_header_bytes, header_timeout=settings.header_timeout
        ),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "timeout_graceful_shutdown": settings.shutdown_timeout,
    }


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection, which ends where the head of a request is too large or too slow.

    uvicorn bounds neither: it gathers the head, which is what precedes the body, for as long as it comes. What is
    refused here never reaches the app, so it is answered here.

    Args:
        *arguments: those of uvicorn.
        max_header_bytes: most bytes of the target, names and values of headers.
        header_timeout: seconds that a head may take; of a connection's first one, from the connection on.
        **options: those of uvicorn.
    """

    def __init__(self, *arguments: Any, max_header_bytes: int, header_timeout: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._max_header_bytes = max_header_bytes
        self._header_timeout = header_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on; the parser keeps an unfinished header, so what it is given is counted here."""
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
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._stop_timer()
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._max_header_bytes:
            self._refuse_large_head()
            raise ValueError("the head is too large")  # ends the parser
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what the parser does not understand."""
        self._refuse(400, "the request is not HTTP/1.1")

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._header_timeout, self._end_slow_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_slow_head(self) -> None:
        if self._in_head:
            self._refuse(408, f"the headers did not arrive within {self._header_timeout:g} seconds (header_timeout)")
        else:
            self.transport.close()

    def _refuse_large_head(self) -> None:
        self._refuse(431, f"the headers are larger than {self._max_header_bytes} bytes (max_header_bytes)")

    def _refuse(self, status: int, message: str) -> None:
        """Ends the connection with an error; with none where an earlier request is still being answered."""
        if self._refused:
            return
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return
        request_id = new_request_id()
        error = error_body(status, message, request_id)
        body = encode_json(error)
        head = (
            f"HTTP/1.1 {status} {error['title']}\r\ncontent-type: {JSON}\r\ncontent-length: {len(body)}\r\n"
            f"{HEADER.lower()}: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
