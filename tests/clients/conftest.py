"""`kanscope serve` as its users start it, with the repository API for clients that have it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of the command, which serves the bundled model."""
    log = tmp_path_factory.mktemp("server") / "log"
    environment = {**os.environ, "KANSCOPE_REPOSITORY_API": "true"}
    with log.open("wb") as file:
        command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        _wait(lambda: re.search(r"http://\S+:\d+", log.read_text()) or process.poll() is not None)
        url = re.search(r"http://\S+:\d+", log.read_text())
        assert url, log.read_text()
        with httpx2.Client(base_url=url[0], timeout=60) as client:
            _wait(lambda: client.get("/readyz").status_code == 200)
            yield client
    finally:
        process.terminate()
        process.wait()


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the server is not ready after 60 s"
        time.sleep(0.05)
