"""The multi-process engine: uvicorn workers that accept connections on one socket in turn, and their supervisor."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import wait
from socket import socket
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import monotonic
from typing import ClassVar, cast

import uvicorn
from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess, multiprocess

from service.app import create_app
from service.engines.turns import Share, Shares, TurnServer, create_shares
from service.settings import Settings
from service.telemetry.logs import configure_logging
from service.telemetry.metrics import SHARED, count_restarts
from service.wire.connections import server_options

logger = logging.getLogger(__name__)
HEALTH_TIMEOUT = 60  # seconds for a health check of a worker, which does not answer while it imports torch
GRACE = 5  # seconds that a worker may take to end after `shutdown_timeout`, before it is killed


class Worker(multiprocess.Process):
    """uvicorn's process, with its turn to accept, a health check that does not block its supervisor, and a bounded end.

    uvicorn waits up to `HEALTH_TIMEOUT` seconds for an answer, deaf to signals, and for a process's end without limit.
    """

    _asked: float | None = None  # when the health check was sent that has no answer yet
    on_death: ClassVar[Callable[[], None]] = staticmethod(lambda: None)  # in the supervisor counts a restart
    _end: float | None = None  # when it is killed, once it has been told to end

    def __init__(self, config: uvicorn.Config, sockets: list[socket], shares: Shares) -> None:
        super().__init__(config, sockets)
        self._shares = shares
        self._number = next(number for number, share in enumerate(shares) if not share.taken)
        shares[self._number] = Share(taken=True)

    @property
    def server(self) -> TurnServer:
        """The server, in the process itself."""
        if self._server is None:
            self._server = TurnServer(self.config, self._shares, self._number)
        return cast("TurnServer", self._server)

    def is_alive(self, timeout: float = 5) -> bool:
        """Whether it runs, and has answered each health check within the timeout. Sends the next one."""
        if not self.process.is_alive():
            return False
        try:
            if self._asked is not None and self.parent_conn.poll():
                self.parent_conn.recv()
                self._asked = None
            if self._asked is None:
                self.parent_conn.send(b"ping")
                self._asked = monotonic()
        except (OSError, EOFError):
            return False
        return monotonic() - self._asked < timeout

    def terminate(self) -> None:
        """Tells it to finish what it has accepted, and then to end."""
        super().terminate()
        self._end = monotonic() + (self.config.timeout_graceful_shutdown or 0) + GRACE

    def join(self) -> None:
        """Waits for its end, kills it if that takes longer than it may, and takes it out of turns and gauges."""
        if self._end is not None:
            self.process.join(max(0.0, self._end - monotonic()))
            if self.process.is_alive():
                logger.error("process %s did not end in time and is killed", self.pid)
                self.process.kill()
        super().join()
        if self._end is None:  # nobody told it to end
            type(self).on_death()
        self._shares[self._number] = Share()
        mark_process_dead(self.pid)  # type: ignore[no-untyped-call]  # or its requests are in flight for ever


class _Supervisor(Multiprocess):
    """uvicorn's supervisor, told to end by a signal also between the restarts of its workers, which may take long."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config, [config.bind_socket()])
        signals = self.signal_queue

        class Ending(Event):
            def is_set(self) -> bool:
                return super().is_set() or not {signal.SIGTERM, signal.SIGINT}.isdisjoint(signals)

        self.should_exit = Ending()

    def terminate_all(self) -> None:
        for listening in self.sockets:  # connections would be accepted but not answered
            listening.close()
        super().terminate_all()


def serve_workers(settings: Settings) -> None:
    """Serves with several processes until SIGTERM or SIGINT; one that dies is replaced. SIGHUP replaces them in turn.

    Each accepts connections on the shared socket, has its own copy of the models, and drains like a single process.
    Raises SystemExit if the address is not available, or a worker failed before it was ready.
    """
    with TemporaryDirectory(prefix="kanscope-") as folder:
        os.environ[SHARED] = folder  # before a worker imports the client library, which reads it once
        options = server_options(settings) | {"workers": settings.workers, "timeout_worker_healthcheck": HEALTH_TIMEOUT}
        shares = create_shares(settings.workers + 1)  # one more while a successor starts
        Worker.on_death = staticmethod(count_restarts())
        multiprocess.Process = partial(Worker, shares=shares)  # type: ignore[assignment, misc]  # its name for them
        supervisor = _Supervisor(uvicorn.Config(partial(create_worker, settings), factory=True, **options))
        supervisor.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


def create_worker(settings: Settings) -> FastAPI:
    """Creates the app of one worker, which ends with its supervisor: it would block the port for the next one."""

    def end_with_parent() -> None:
        parent = parent_process()
        assert parent is not None
        wait([parent.sentinel])
        logger.error("the supervisor process is gone")
        os.kill(os.getpid(), signal.SIGTERM)

    configure_logging(settings)
    Thread(target=end_with_parent, name="parent", daemon=True).start()
    return create_app(settings)
