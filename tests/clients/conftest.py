"""`kanscope serve` with the repository API, for generated and existing clients."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from processes import start_command, start_process
from waiting import poll


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of the command, which serves the bundled model."""
    log = tmp_path_factory.mktemp("server") / "log"
    with start_process(log, by=start_command, KANSCOPE_REPOSITORY_API="true") as process:
        poll(lambda: process.client.get("/readyz").status_code == 200)
        yield process.client
