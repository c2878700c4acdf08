"""The turns in which several processes accept connections on one socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableSequence
from ctypes import Structure, c_bool, c_double, c_longlong
from multiprocessing.sharedctypes import RawArray
from select import select
from socket import socket
from time import monotonic
from typing import Any, cast

import uvicorn

logger = logging.getLogger(__name__)
PATIENCE = 0.03  # seconds that a connection waits for the process whose turn it is; then another accepts it
ABSENT = 1.0  # seconds without a sign of life after which a process has no turn
RETRY = 1.0  # seconds until it accepts again, once the system is out of file descriptors


class Share(Structure):
    """What a process tells the others, in memory that all have.

    Attributes:
        taken: there is such a process.
        alive: when it was last seen to accept connections, by the system's monotonic clock; 0 if it does not.
        n_open: how many connections it has.
        n_accepted: how many it has accepted.
    """

    _fields_ = (("taken", c_bool), ("alive", c_double), ("n_open", c_longlong), ("n_accepted", c_longlong))


Shares = MutableSequence[Share]


def create_shares(n: int) -> Shares:
    """Shares of n processes, none of them taken."""
    return cast("Shares", RawArray(Share, n))


class TurnServer(uvicorn.Server):
    """uvicorn's server in one of several processes, which accepts connections in its turn.

    It is the turn of the process with the fewest open connections; of several, of the one that has accepted the fewest.
    Without turns, those that are opened one by one may all go to the process that wakes first, as long as they last.

    All processes are woken for a connection. One whose turn it is not leaves it, and is woken again until it is
    accepted. If that takes `PATIENCE`, because the process whose turn it is computes or hangs, any other accepts it.
    """

    def __init__(self, config: uvicorn.Config, shares: Shares, number: int) -> None:
        super().__init__(config)
        self.server_state.connections = self._connections = _Connections(self._publish)
        self._shares, self._number = shares, number
        self._listening = False
        self._opening: set[asyncio.Task[Any]] = set()
        self._seen = -1  # connections that all had accepted, when this process last left a waiting one to another
        self._since = 0.0  # when it first did, of those

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Starts the app, and listens."""
        await super().startup([])
        self._shares[self._number].n_accepted = max(share.n_accepted for share in self._shares)  # not all the next ones
        self._listening = True
        self._publish()
        for listening in sockets or ():
            listening.setblocking(False)
            listening.listen(self.config.backlog)
            self._watch(listening)

    async def on_tick(self, counter: int) -> bool:
        """Tells the others that it is alive; uvicorn calls it ten times a second."""
        self._publish()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Accepts no more, and answers what has arrived."""
        self._listening = False
        self._publish()
        for listening in sockets or ():
            asyncio.get_running_loop().remove_reader(listening)
        await super().shutdown(sockets)

    def _publish(self) -> None:
        mine = self._shares[self._number]
        mine.n_open = len(self._connections) + self._connections.n_opening
        mine.alive = monotonic() if self._listening else 0.0

    def _watch(self, listening: socket) -> None:
        if self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket) -> None:
        loop = asyncio.get_running_loop()
        while self._is_next(listening):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("no connection is accepted for %g s: %s; raise the limit of open files", RETRY, error)
                loop.remove_reader(listening)
                loop.call_later(RETRY, self._watch, listening)
                return
            self._shares[self._number].n_accepted += 1
            self._connections.n_opening += 1
            opening = loop.create_task(loop.connect_accepted_socket(self._make_protocol, accepted))
            self._opening.add(opening)
            opening.add_done_callback(self._finish_opening)
            self._publish()

    def _finish_opening(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and (error := opening.exception()) is not None:
            logger.info("a connection was lost as it was accepted: %s", error)
            self._connections.n_opening -= 1

    def _make_protocol(self) -> asyncio.Protocol:
        make = cast("Any", self.config.http_protocol_class)
        made: asyncio.Protocol = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return made

    def _is_next(self, listening: socket) -> bool:
        """Whether the next connection is this process's, by the turns, or because it has waited too long."""
        now = monotonic()
        taking_part = [n for n, share in enumerate(self._shares) if now - share.alive < ABSENT or n == self._number]
        first = min(taking_part, key=lambda n: (self._shares[n].n_open, self._shares[n].n_accepted))
        if first == self._number:
            return True
        seen = sum(share.n_accepted for share in self._shares)
        if seen != self._seen:
            self._since = now
        self._seen = seen if select([listening], [], [], 0)[0] else -1  # it may have been accepted just now
        return now - self._since > PATIENCE


class _Connections(set[Any]):
    """uvicorn's set of open connections, which tells when one is closed."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self.n_opening = 0  # that are accepted, and not in the set yet
        self._tell = tell

    def add(self, connection: Any) -> None:
        super().add(connection)
        self.n_opening -= 1

    def discard(self, connection: Any) -> None:
        super().discard(connection)
        self._tell()
