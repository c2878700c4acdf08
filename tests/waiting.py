"""Waits for other threads and processes."""

from __future__ import annotations

import time
from collections.abc import Callable


def poll(condition: Callable[[], bool]) -> None:
    """Returns once a condition holds, fails after a time limit. If the process is suspended, no check is lost."""
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition did not hold within 12,000 checks")
