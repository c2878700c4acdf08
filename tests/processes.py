"""`kanscope` commands in their own processes: started as by users, or forked, which saves seconds of imports."""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import httpx2
from waiting import poll

# The fork server has imported what a command needs, and has run nothing. What has threads of its own, such as polars,
# it must not import: they would be missing in a fork.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["service.cli", "service.app", "service.engines.workers", "httpx2"])


class Command(Protocol):
    """A command that runs or has ended: the common interface of `subprocess.Popen` and `Fork`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...

    def kill(self) -> None: ...


Start = Callable[[Path, list[str], Mapping[str, str]], Command]


def start_command(log: Path, arguments: list[str], environment: Mapping[str, str]) -> Command:
    """Starts a command as users do, which imports torch for seconds; its output goes to a file."""
    with log.open("wb") as file:
        words = [sys.executable, "-m", "service.cli", *arguments]
        return subprocess.Popen(words, env=dict(environment), stdout=file, stderr=file)


class Fork:
    """The same in a fork of a process with all imports: own id, environment, files, threads, signals, exit code.

    Args:
        log: file for its output.
        arguments: of `kanscope`.
        environment: all its environment variables.
    """

    def __init__(self, log: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
        log.write_bytes(b"")
        self._process = FORKS.Process(target=_become, args=(log, arguments, dict(environment)))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutError(f"process {self.pid} runs after {timeout} seconds")
        return code

    def send_signal(self, sig: int, /) -> None:
        os.kill(self.pid, sig)

    def kill(self) -> None:
        self._process.kill()


def _become(log: Path, arguments: list[str], environment: dict[str, str]) -> None:
    """Turns this process into that of a command."""
    from service.cli import main

    sys.stdout = sys.stderr = log.open("w", buffering=1, encoding="utf-8")
    os.dup2(sys.stdin.fileno(), 0)  # also the file descriptors, for child processes
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["kanscope", *arguments]
    assert len(os.listdir(f"/proc/{os.getppid()}/task")) == 1, "a thread of the fork server is missing here"
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # which a fork leaves out: what waits to be written to the log would be lost


def start(log: Path, *arguments: object, by: Start = Fork, **variables: str) -> Command:
    """Starts a command with this process's environment and further variables; its output goes to a file."""
    return by(log, [str(argument) for argument in arguments], {**os.environ, **variables})


@dataclass(frozen=True)
class Process:
    """A `kanscope serve` process."""

    popen: Command
    client: httpx2.Client
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Its log lines, as JSON, without one that is being written."""
        return [json.loads(line) for line in self.log.read_text().rpartition("\n")[0].splitlines()]


@contextmanager
def start_process(log: Path, *arguments: object, by: Start = Fork, **variables: str) -> Iterator[Process]:
    """Starts `kanscope serve` with arguments and environment variables for settings; stops it at the end."""
    popen = start(log, "serve", "--port", 0, *arguments, by=by, **variables)
    try:
        poll(lambda: "running on" in log.read_text() or popen.poll() is not None)
        url = re.search(r"running on (http://[\w.:]+)", log.read_text())
        assert url, log.read_text()
        with httpx2.Client(base_url=url[1], timeout=300) as client:
            yield Process(popen, client, log)
    finally:
        popen.kill()
        popen.wait()


@contextmanager
def run_process(log: Path, *arguments: object, by: Start = Fork, **variables: str) -> Iterator[Process]:
    """The same, once the server's models are loaded."""
    with start_process(log, *arguments, by=by, **variables) as process:
        poll(lambda: is_loaded(process.client))
        yield process


def is_loaded(client: httpx2.Client) -> bool:
    """Whether a server has loaded its models, or one where it wants a key; workers only answer after loading."""
    try:
        answer = client.get("/readyz")
        return "loading" not in answer.text and answer.json().get("error") != "the service is not ready"
    except httpx2.NetworkError:
        return False


def is_running(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
