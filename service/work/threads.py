"""Threads that work in the background."""

from __future__ import annotations

import os
from contextlib import suppress
from threading import get_native_id

NICE = 10  # where forecasts want the same core, they have nine tenths of it


def give_way() -> None:
    """Lowers the priority of the thread that calls, for good."""
    with suppress(AttributeError, OSError):  # only Linux knows priorities of threads, and it may not allow this
        os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)
