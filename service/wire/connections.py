"""Connections: bounds in front of uvicorn on what a client sends and leaves unread; work that ends with its client."""

import asyncio
import logging
import re
import socket
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import httptools
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import Settings
from service.wire.errors import OverloadedError, RequestError
from service.wire.headers import IS_WHOLE

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
PIECE = 64 << 10  # bytes that are parsed before they are counted, and of an answer that are sent at once
MIN_RATE = 256 << 10  # bytes a second that a client reads: 2 Mbit/s, at which the largest answers take a minute
MAX_CHUNKS = 16_384  # of a body: to take one costs the same if it has a single byte
MIN_CHUNK = 512  # bytes of a chunk, where the largest body needs more of them
MAX_PIPELINED = 16  # requests of a connection that wait for the answers of earlier ones
LINGER = 5.0  # seconds in which a message must end after its answer
LINGER_BODIES = 32  # times the largest body in it: clients read the answer to too large a one after they have sent it
STOPPING = 0.25  # seconds in which a stopping process still accepts requests on open connections
GUARD = "guard"  # in a request's state: the `Guard` of its connection
REFUSAL = "refusal"  # in a request's state: the error of a head that is refused
UNREAD = "other"  # the method of such a request
REFUSED = b"GET / HTTP/1.1\r\n\r\n"  # what uvicorn gets in its place
LAST_CHUNK = b"0\r\n\r\n"
NOT_HTTP = "the request is not HTTP/1.1, or has no method of it"
MAX_URL = 65535  # which the parser of addresses takes
# A head of which uvicorn's parser and ours cannot think differently: no message within it, no other protocol after it.
_SIMPLE = re.compile(
    rb"(?:GET|HEAD|POST) /(?!/)[\w./:?=&%,@+~!*();-]* HTTP/1\.1\r\n"
    rb"(?:(?!transfer-encoding:|upgrade:|expect:|connection:(?! ?(?:keep-alive|close)\r))[\w-]+:[ \t]?[ -~]*\r\n)*\r\n",
    re.IGNORECASE | re.ASCII,
)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]?([^\r]*)", re.IGNORECASE)


def server_options(settings: Settings) -> dict[str, Any]:
    """Arguments of `uvicorn.run` or `uvicorn.Config` besides the app."""
    return {
        "host": settings.host,
        "port": settings.port,
        "root_path": settings.root_path,
        "http": partial(Guard, settings=settings),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # a client could choose the address in the log
        "timeout_keep_alive": 3 * settings.header_timeout,  # the guard closes such connections before
        "timeout_graceful_shutdown": settings.shutdown_timeout,
    }


@dataclass(slots=True)
class _Exchange:
    """A request whose head is whole, until it has arrived and is answered.

    Attributes:
        pieces: of it that uvicorn has not got yet.
        is_whole: whether all of it has arrived.
        error: why the rest of it is refused; all of it, if `is_refused`.
    """

    pieces: list[bytes]
    is_whole: bool = False
    is_answered: bool = False
    is_refused: bool = False
    error: RequestError | None = None


class Guard(asyncio.Protocol):
    """A connection, which bounds what a client sends and leaves unread before uvicorn's own protocol gets any of it.

    uvicorn has no such limits: it buffers a head, a trailer and an answer for as long as they last, and waits for the
    rest of a message whose answer is sent. It gets whole heads of one request after the other, and bodies without chunk
    extensions and trailers. Here

    - a head, and what stands between two chunks of a body, have ``max_header_bytes``, up to a `PIECE`, and a body has
      `MAX_CHUNKS` or, if it may be larger, chunks of `MIN_CHUNK`. The app counts its bytes, and has its own timeout;
    - a connection without a request, and a head, have ``header_timeout``; an answered message has `LINGER` and
      `LINGER_BODIES` times ``max_body_bytes`` until it ends;
    - a client may hold up an answer for ``send_timeout`` and as long as what it reads meanwhile takes at `MIN_RATE`;
      one that is there and does not read is stated in the log.

    What is refused here is answered by the app, which raises the error in place of a request or of the rest of a body.
    """

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None, *, settings: Settings
    ) -> None:
        self._settings = settings
        self._loop = _loop or asyncio.get_running_loop()
        self._inner = HttpToolsProtocol(config, server_state, {**app_state, GUARD: self}, _loop)
        self._finish = self._inner.shutdown  # closes the connection after the answer that is under way
        self._inner.shutdown = self.shutdown  # type: ignore[method-assign]  # which the server calls
        self._max_chunks = max(MAX_CHUNKS, settings.max_body_bytes // MIN_CHUNK)
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges = deque[_Exchange]()  # the first has uvicorn; only the last may be incomplete
        self._is_in_head = False
        self._url, self._fields = b"", list[tuple[bytes, bytes]]()
        self._head = b""  # with which a message to change the protocol is parsed again
        self._unused = 0  # bytes since a message or a head has ended, or since the last of a body
        self._n_chunks = 0
        self._is_refused = self._is_stopping = self._is_paused = False
        self.is_left = False  # whether the client has closed the connection, or it has ended
        self._timer: asyncio.TimerHandle | None = None  # of the client that has to send
        self._due: float | None = None  # when it must have; the timer may ring sooner, and is then set again
        self._rings = 0.0  # when it does
        self._send_timer: asyncio.TimerHandle | None = None  # of the client that has to read
        self._patience = settings.send_timeout  # seconds for which the client may still hold up the answer
        self._since, self._unsent = 0.0, 0  # time and bytes when that timer was started

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._inner.connection_made(transport)
        self._start_timer()

    def eof_received(self) -> None:  # the transport then closes itself, once it has sent what it holds
        self.is_left = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_left = True
        if self._timer is not None:
            self._timer.cancel()
        self._stop_send_timer()
        self._inner.connection_lost(exc)
        del self._inner, self._finish, self._parser  # or only the garbage collector would free them

    def data_received(self, data: bytes) -> None:
        if not (self._exchanges or self._is_in_head or self._is_refused) and self._is_simple(data):
            self._stop_timer()
            self._exchanges.append(_Exchange([data], is_whole=True))
            self._pass_on()
            self._start_timer()
            return
        for start in range(0, len(data), PIECE):
            if self._is_refused:
                return
            piece = data[start : start + PIECE]
            self._unused += len(piece)
            self._parse(piece)
            self._pass_on()
            limits = self._settings
            most = LINGER_BODIES * limits.max_body_bytes if self._is_lingering else limits.max_header_bytes
            if self._unused > most:
                self._refuse(self._too_large())
        if len(self._exchanges) > 1 and not self._transport.is_closing():
            self._transport.pause_reading()
        self._start_timer()

    def pause_writing(self) -> None:
        self._is_paused = True
        self._inner.pause_writing()
        self._start_send_timer()

    def resume_writing(self) -> None:
        self._is_paused = False
        self._inner.resume_writing()
        if self._exchanges and not self._exchanges[0].is_answered:  # else the rest must be read too
            self._stop_send_timer()

    def on_message_begin(self) -> None:
        self._stop_timer()
        self._is_in_head = True
        self._url, self._fields = b"", []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # else it is a trailer
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        if len(self._url) > min(self._settings.max_header_bytes, MAX_URL):
            raise self._too_large()
        httptools.parse_url(self._url).path.decode("ascii")  # raises here what it would in uvicorn
        if method == b"CONNECT":
            raise ValueError("tunnels are for proxies")
        is_upgrade, fields = self._parser.should_upgrade(), self._fields
        if is_upgrade:
            fields = [field for field in fields if field[0].lower() != b"upgrade"]
        lines = b"".join([b"%b: %b\r\n" % field for field in fields])
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self._url, version, lines)
        if len(head) > self._settings.max_header_bytes:
            raise self._too_large()
        if is_upgrade:
            self._head = head
            return
        self._stop_timer()
        self._is_in_head = False
        self._unused = self._n_chunks = 0
        if len(self._exchanges) > MAX_PIPELINED:
            raise OverloadedError(f"more than {MAX_PIPELINED} requests of this connection wait for earlier answers")
        self._exchanges.append(_Exchange([head]))

    def on_chunk_header(self) -> None:
        self._n_chunks += 1
        if self._n_chunks > self._max_chunks:
            message = f"the body has more than {self._max_chunks} chunks (max_body_bytes)"
            raise RequestError(message, code="body_too_large")

    def on_body(self, body: bytes) -> None:
        exchange = self._exchanges[-1]
        exchange.pieces += [b"%x\r\n" % len(body), body, b"\r\n"] if self._n_chunks else [body]
        if not exchange.is_answered:  # else it is dropped
            self._unused = 0

    def on_message_complete(self) -> None:
        if self._head:
            return
        self._stop_timer()
        self._unused = 0
        self._exchanges[-1].is_whole = True
        if self._n_chunks:
            self._exchanges[-1].pieces.append(LAST_CHUNK)

    def shutdown(self) -> None:
        """Graceful shutdown: requests that have arrived, or are arriving, are answered first."""
        self._is_stopping = True
        self._pass_on()
        self._loop.call_later(STOPPING, self._end_idle)

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Has the app answer the first request; its body ends with an error if the rest of it is refused."""
        exchange = self._exchanges[0]
        if exchange.is_refused:
            scope["method"], scope["state"][REFUSAL] = UNREAD, exchange.error
        scope["state"][IS_WHOLE] = exchange.is_whole
        if not self._is_paused:  # the client has read the last answer
            self._stop_send_timer()

        async def receive_or_raise() -> Message:
            message = await receive()
            if exchange.error is not None:
                raise exchange.error
            return message

        try:
            await app(scope, receive if exchange.is_whole and exchange.error is None else receive_or_raise, send)
        finally:
            exchange.is_answered = True
            self._stop_send_timer()
            self._patience = self._settings.send_timeout
            self._start_send_timer()  # of what is left
            self._pass_on()
            self._start_timer()

    def _is_simple(self, data: bytes) -> bool:
        """Whether these are the bytes of one whole request that needs no second parser: most are."""
        if len(data) > PIECE or self._unused or (head := _SIMPLE.match(data)) is None:
            return False
        lengths = _LENGTH.findall(data, 0, head.end())
        length = int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() and len(lengths[0]) < 10 else 0
        is_plain = len(lengths) == 0 or str(length).encode() == lengths[0]
        return is_plain and head.end() <= self._settings.max_header_bytes and len(data) == head.end() + length

    def _parse(self, piece: bytes) -> None:
        while piece:
            try:
                self._parser.feed_data(piece)
                return
            except httptools.HttpParserUpgrade as upgrade:  # it would take the body for another protocol
                self._parser = httptools.HttpRequestParser(self)
                piece, self._head = self._head + piece[upgrade.args[0] :], b""
            except httptools.HttpParserError as error:
                cause, malformed = error.__context__, RequestError(NOT_HTTP, code="malformed_request")
                self._refuse(cause if isinstance(cause, RequestError) else malformed)
                return

    def _pass_on(self) -> None:
        """Gives uvicorn what has arrived of the first request, and the next one once that is answered."""
        while self._exchanges and not self._transport.is_closing():
            first = self._exchanges[0]
            if first.pieces:
                pieces, first.pieces = first.pieces, []
                self._inner.data_received(b"".join(pieces))
            if len(self._exchanges) == 1 and (self._is_refused or self._is_stopping):
                self._finish()
            if not (first.is_whole and first.is_answered):
                return
            self._exchanges.popleft()
            if len(self._exchanges) == 1:
                self._transport.resume_reading()

    def _refuse(self, error: RequestError) -> None:
        """Has the app answer with an error what is incomplete, unless that is answered; the connection then ends."""
        if self._is_refused:
            return
        self._is_refused = True
        self._stop_timer()
        if self._is_lingering:
            self._close()
            return
        if self._exchanges and not self._exchanges[-1].is_whole:
            self._exchanges[-1].pieces.append(LAST_CHUNK)  # other bodies have no bounds here
        else:
            self._exchanges.append(_Exchange([REFUSED], is_refused=True))
        self._exchanges[-1].is_whole, self._exchanges[-1].error = True, error
        self._pass_on()

    def _too_large(self) -> RequestError:
        what = "headers" if self._is_in_head or not self._exchanges else "trailers or chunk extensions"
        message = f"the {what} are larger than {self._settings.max_header_bytes} bytes (max_header_bytes)"
        return RequestError(message, code="headers_too_large")

    @property
    def _is_lingering(self) -> bool:
        """Whether a message has been answered before it has ended."""
        return bool(self._exchanges) and self._exchanges[0].is_answered and not self._exchanges[0].is_whole

    def _start_timer(self) -> None:
        """Starts the timer of what the client has to send, unless it runs."""
        if self._due is not None or self._is_refused or self._transport.is_closing():
            return
        if self._is_lingering or self._is_in_head or not self._exchanges:
            seconds = LINGER if self._is_lingering else self._settings.header_timeout
            self._due = self._loop.time() + seconds
            self._set_timer(self._due)

    def _stop_timer(self) -> None:
        self._due = None

    def _set_timer(self, due: float) -> None:
        """Has the timer ring by a time: it is not set anew for each request, which would take longer."""
        if self._timer is None or self._rings > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._rings = self._loop.call_at(due, self._ring), due

    def _ring(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._due > self._loop.time():
            self._set_timer(self._due)
            return
        self._due = None
        if self._is_lingering:
            self._close()
        else:
            self._end_slow_head()

    def _end_slow_head(self) -> None:
        if not self._transport.is_reading():  # because of earlier requests: the client cannot send
            self._start_timer()
        elif self._is_in_head:
            seconds = f"{self._settings.header_timeout:g} seconds (header_timeout)"
            self._refuse(RequestError(f"the headers did not arrive within {seconds}", code="headers_timeout"))
        else:
            self._close()

    def _end_idle(self) -> None:
        if not self._is_in_head and (not self._exchanges or self._is_lingering):
            self._close()

    def _close(self) -> None:
        """Closes the connection once the client has read what was sent to it."""
        self._transport.close()
        self._start_send_timer()

    def _start_send_timer(self) -> None:
        """Starts the timer of what the client has to read, if there is anything and it does not run."""
        if self._send_timer is None and (unsent := self._transport.get_write_buffer_size()):
            self._unsent, self._since = unsent, self._loop.time()
            self._send_timer = self._loop.call_later(self._patience, self._end_slow_reader)

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
            n_read = self._unsent - self._transport.get_write_buffer_size()
            self._patience += n_read / MIN_RATE - (self._loop.time() - self._since)

    def _end_slow_reader(self) -> None:
        self._stop_send_timer()
        if self._patience > 0:
            self._start_send_timer()
        elif self._transport.get_write_buffer_size():
            if not (self.is_left or self._is_unreachable):
                seconds = f"{self._settings.send_timeout:g} seconds (send_timeout)"
                logger.warning("a client has not read its answer within %s; raise that for slow ones", seconds)
            self._transport.abort()

    @property
    def _is_unreachable(self) -> bool:
        """Whether the client's machine acknowledges nothing, as one that lost its network; that of a slow reader does.

        Those are the second and third of the bytes of Linux's tcp_info: retransmissions and probes without an answer,
        of which one may be under way.
        """
        if not hasattr(socket, "TCP_INFO"):
            return False
        info: bytes = self._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)
        return max(info[2:]) > 1


def guarded(app: ASGIApp) -> ASGIApp:
    """The app, which tells a request's `Guard`, if it has one, when it is answered."""

    def answer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        guard: Guard | None = scope.get("state", {}).get(GUARD)
        return app(scope, receive, send) if guard is None else guard.answer(app, scope, receive, send)

    return answer


async def send_held(send: Send, message: Message) -> None:
    """Sends a part of a response's body in pieces, and returns once the client's kernel, or ours, has most of it.

    uvicorn takes a part of any size at once, and a next one when it has sent that: at most two pieces are left.
    """
    body = message["body"]
    for start in range(0, len(body), PIECE):
        is_last = start + PIECE >= len(body)
        more_body = not is_last or message.get("more_body", False)
        await send({"type": message["type"], "body": body[start : start + PIECE], "more_body": more_body})
        if not is_last:
            await asyncio.sleep(0)  # what is sent to a client that has gone is dropped: here the end is noticed


class ClosingStream(StreamingResponse):
    """A stream whose generator is closed when it ends, however that happens, and which no proxy holds back.

    Starlette leaves one whose client has gone while a chunk was sent to the garbage collector, and until then what it
    computes would go on. nginx, and what follows it, buffer answers without the header.
    """

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Sets the headers of the response."""
        super().init_headers({"X-Accel-Buffering": "no", **(headers or {})})

    async def stream_response(self, send: Send) -> None:
        """Sends all chunks."""
        async with aclosing(cast(AsyncGenerator[bytes, None], self.body_iterator)):
            await super().stream_response(send)


async def while_connected(request: Request, computing: Awaitable[Result]) -> Result:
    """Awaits a computation; if the client disconnects, cancels it and raises `ClientDisconnect`."""

    async def wait_for_disconnect() -> Result:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect

    answering, leaving = asyncio.ensure_future(computing), asyncio.ensure_future(wait_for_disconnect())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await (answering if answering.done() else leaving)
    finally:
        answering.cancel()
        leaving.cancel()
