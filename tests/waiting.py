"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def poll(condition: Callable[[], bool]) -> None:
    """Returns as soon as a condition holds; fails where it never does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it is not so after 30 s"
        time.sleep(0.01)
