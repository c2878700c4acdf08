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
from time import monotonic, sleep
from typing import cast

import uvicorn
from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess, multiprocess

from kanmodel.errors import KanscopeError
from service.app import create_app
from service.engines.turns import Share, Shares, TurnServer, create_shares
from service.settings import Settings
from service.telemetry.logs import configure_logging
from service.telemetry.metrics import SHARED, count_restarts
from service.wire.connections import server_options

logger = logging.getLogger(__name__)
HEALTH_TIMEOUT = 60  # seconds for a health check of a worker, which does not answer while it imports torch
GRACE = 5  # seconds that a worker may take to end after `shutdown_timeout`, before it is killed
HEALTHY = 60  # seconds of serving after which a worker's end is no longer one of a row of failures
LONGEST = 30  # seconds: the longest back-off, which doubles from one with each failure in a row
MAX_CAUSE = 1000  # characters, which a pipe takes in one piece


class Worker(multiprocess.Process):
    """uvicorn's process, with its turn to accept, a health check that does not block its supervisor, and a bounded end.

    uvicorn waits up to `HEALTH_TIMEOUT` seconds for an answer, deaf to signals, and for a process's end without limit.

    Attributes:
        ready: when it said that it serves; None if it has not.
        cause: why it cannot serve, as it says before it ends.
    """

    ready: float | None = None
    cause: str | None = None
    _asked: float | None = None  # when the health check was sent that has no answer yet
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

    def target(self, sockets: list[socket] | None = None) -> None:
        """Serves, in the process itself; if that fails, its supervisor gets the cause, and logs it."""
        try:
            super().target(sockets)
        except Exception as error:
            if not isinstance(error, KanscopeError | OSError):
                logger.exception("a worker process fails; please report this")
            self.child_conn.send(" ".join(f"{error or type(error).__name__}".split())[:MAX_CAUSE])
            sys.exit(STARTUP_FAILURE)

    def start(self) -> None:
        """Starts the process; one that the system does not start is not alive, and has a cause."""
        try:
            super().start()
        except OSError as error:
            self.cause = str(error)

    def is_alive(self, timeout: float = 5) -> bool:
        """Whether it runs, and has answered each health check within the timeout. Sends the next one."""
        is_running = self.process.is_alive()  # asked first: what it says last is then in the pipe
        try:
            while self.parent_conn.poll():
                said = self.parent_conn.recv()
                if isinstance(said, str):
                    self.cause = said
                    continue
                self._asked = None
                if said and self.ready is None:
                    self.ready = monotonic()
            if is_running and self._asked is None:
                self.parent_conn.send(b"ping")
                self._asked = monotonic()
        except (OSError, EOFError):
            return False
        return is_running and self._asked is not None and monotonic() - self._asked < timeout

    def describe_end(self) -> str:
        """Why it does not serve, or no longer, as the predicate of a sentence, with what to do."""
        if self.cause is not None:
            return f"{'did not start' if self.ready is None else 'ended'}: {self.cause}; mend that"
        if self.process.is_alive():
            what = "was not ready" if self.ready is None else "has not answered a health check"
            return f"{what} within {HEALTH_TIMEOUT} seconds; see its lines in the log, and whether it gets a core"
        code = self.exitcode or 0
        if code == -signal.SIGKILL:
            return "was ended by SIGKILL; if nobody sent it, memory ran out: give more, or lower KANSCOPE_WORKERS"
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"ended {how}; see its lines in the log"

    def kill(self) -> None:
        """Kills the process, if there is one."""
        if self.pid is not None:
            super().kill()

    def terminate(self) -> None:
        """Tells it to finish what it has accepted, and then to end."""
        super().terminate()
        self._end = monotonic() + (self.config.timeout_graceful_shutdown or 0) + GRACE

    def join(self) -> None:
        """Waits for its end, kills it if that takes longer than it may, and takes it out of turns and gauges."""
        if self._end is not None:
            self.process.join(max(0.0, self._end - monotonic()))
            if self.process.is_alive():
                text = (
                    "process %s did not end in time and is killed; if it was answering, raise KANSCOPE_SHUTDOWN_TIMEOUT"
                )
                logger.error(text, self.pid)
                self.process.kill()
        self._shares[self._number] = Share()
        if self.pid is not None:
            self.process.join()
            mark_process_dead(self.pid)  # type: ignore[no-untyped-call]  # or its requests are in flight for ever


class _Supervisor(Multiprocess):
    """uvicorn's supervisor, told to end by a signal also between the restarts of its workers, which may take long.

    A worker that ends is replaced; one that fails again and again, after a back-off, and the others serve meanwhile.

    Attributes:
        has_failed: whether it ends because a worker failed before any has served.
    """

    processes: list[Worker]  # type: ignore[assignment]
    has_failed = False
    _has_served = False
    _is_short = False  # a worker's end was logged, and not yet that all serve
    _n_failures = 0  # ends of workers in a row that had not served for `HEALTHY` seconds
    _next = 0.0  # when a worker may be started

    def __init__(self, config: uvicorn.Config, shares: Shares, count: Callable[[], None]) -> None:
        super().__init__(config, [config.bind_socket()])
        self._shares, self._count = shares, count
        signals = self.signal_queue

        class Ending(Event):
            def is_set(self) -> bool:
                return super().is_set() or not {signal.SIGTERM, signal.SIGINT}.isdisjoint(signals)

        self.should_exit = Ending()

    def init_processes(self) -> None:
        """Starts the workers that are missing; during a series of failures one at a time."""
        while len(self.processes) < self.processes_num and monotonic() >= self._next:
            if self._n_failures and self._n_ready < len(self.processes):
                return
            self.processes.append(self._start())

    def keep_subprocess_alive(self) -> None:
        """Replaces each worker that has ended or hangs, at once or after the back-off."""
        for worker in tuple(self.processes):
            if self.should_exit.is_set():
                return
            if not worker.is_alive(HEALTH_TIMEOUT):
                self._drop(worker)
            self._has_served |= worker.ready is not None
        if self._is_short and self._n_ready == self.processes_num:
            self._is_short = False
            logger.info("all %d worker processes serve again", self.processes_num)
        self.init_processes()

    def restart_all(self) -> None:
        """Replaces each worker once its successor serves; if one does not, those that are left stay as they are."""
        for place, old in enumerate(self.processes):
            new, until = self._start(), monotonic() + HEALTH_TIMEOUT
            while is_alive := new.is_alive(HEALTH_TIMEOUT):
                if new.ready is not None or monotonic() >= until or self.should_exit.is_set():
                    break
                sleep(0.1)
            if not is_alive or new.ready is None:
                described = new.describe_end()
                new.kill()
                new.join()
                if not self.should_exit.is_set():
                    left = "the processes that serve are kept"
                    logger.error("no reload, %s: worker process %s %s, and send SIGHUP again", left, new.pid, described)
                return
            old.terminate()
            old.join()
            self.processes[place] = new
        self._n_failures, self._next = 0, 0.0

    def handle_ttin(self) -> None:
        """Adds a worker, up to the number that the service was started with."""
        self.processes_num = min(self.processes_num + 1, self.config.workers)

    def handle_ttou(self) -> None:
        """Ends a worker, unless none is left to serve."""
        if len(self.processes) == self.processes_num:
            super().handle_ttou()

    def terminate_all(self) -> None:
        for listening in self.sockets:  # connections would be accepted but not answered
            listening.close()
        super().terminate_all()

    @property
    def _n_ready(self) -> int:
        return sum(worker.ready is not None for worker in self.processes)

    def _start(self) -> Worker:
        worker = Worker(self.config, self.sockets, self._shares)
        worker.start()
        return worker

    def _drop(self, worker: Worker) -> None:
        """Logs why a worker has ended, and when there is another one; without any that has served the service ends."""
        described = worker.describe_end()
        worker.kill()
        worker.join()
        self.processes.remove(worker)
        self._count()
        if worker.exitcode == STARTUP_FAILURE and not self._has_served:
            logger.error("the service ends: worker process %s %s, and start it again", worker.pid, described)
            self.has_failed = True
            self.should_exit.set()
            return
        has_been_healthy = worker.ready is not None and monotonic() - worker.ready >= HEALTHY
        self._n_failures = 0 if has_been_healthy else self._n_failures + 1
        seconds = min(LONGEST, 2 ** (self._n_failures - 1)) if self._n_failures else 0
        self._next, self._is_short = monotonic() + seconds, True
        after = f"in {seconds} s" if seconds else "now"
        text = "worker process %s %s. Another one is started %s; %d of %d serve"
        logger.error(text, worker.pid, described, after, self._n_ready, self.processes_num)


def serve_workers(settings: Settings) -> None:
    """Serves with several processes until SIGTERM or SIGINT; one that dies is replaced. SIGHUP replaces them in turn.

    Each accepts connections on the shared socket, has its own copy of the models, and drains like a single process.
    Raises SystemExit if the address is not available, or a worker failed before any has served.
    """
    with TemporaryDirectory(prefix="kanscope-") as folder:
        os.environ[SHARED] = folder  # before a worker imports the client library, which reads it once
        options = server_options(settings) | {"workers": settings.workers}
        config = uvicorn.Config(partial(create_worker, settings), factory=True, **options)
        shares = create_shares(settings.workers + 1)  # one more while a successor starts
        supervisor = _Supervisor(config, shares, count_restarts())
        supervisor.run()
    if supervisor.has_failed:
        sys.exit(STARTUP_FAILURE)


def create_worker(settings: Settings) -> FastAPI:
    """Creates the app of one worker, which ends with its supervisor: it would block the port for the next one."""

    def end_with_parent() -> None:
        parent = parent_process()
        assert parent is not None
        wait([parent.sentinel])
        logger.error("this process ends, because the supervisor process is gone; start the service again")
        os.kill(os.getpid(), signal.SIGTERM)

    configure_logging(settings)
    Thread(target=end_with_parent, name="parent", daemon=True).start()
    return create_app(settings)
