"""`kanscope serve` in a process of its own, as its users start it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from waiting import poll


@dataclass(frozen=True)
class Process:
    """A `kanscope serve` of its own."""

    popen: subprocess.Popen[bytes]
    client: httpx2.Client
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged, as JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def start_process(log: Path, *arguments: object, **variables: str) -> Iterator[Process]:
    """Starts it with arguments, and settings by their variables; what it logs goes into a file. It ends at the end."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", *map(str, arguments)]
    with log.open("wb") as file:
        popen = subprocess.Popen(command, env={**os.environ, **variables}, stderr=file, stdout=file)
    try:
        poll(lambda: "running on" in log.read_text() or popen.poll() is not None)
        url = re.search(r"running on (http://[\w.:]+)", log.read_text())
        assert url, log.read_text()
        with httpx2.Client(base_url=url[1], timeout=60) as client:
            yield Process(popen, client, log)
    finally:
        popen.kill()
        popen.wait()


def is_running(pid: int) -> bool:
    """Whether a process lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
