"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def poll(condition: Callable[[], bool]) -> None:
    """Returns as soon as a condition holds; fails where it never does. A process that was paused has lost no look."""
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it is not so after 12,000 looks in two minutes")
