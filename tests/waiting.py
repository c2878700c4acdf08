"""Waits for other threads and processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any


def poll(condition: Callable[[], bool]) -> None:
    """Returns once a condition holds, fails after a time limit. If the process is suspended, no check is lost."""
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition did not hold within 12,000 checks")


@contextmanager
def repeating(ask: Callable[[], Any], n_threads: int = 3) -> Iterator[list[Any]]:
    """Threads that ask without a pause; the list has all answers so far, and after the block all there are."""
    answers, stopping = list[Any](), Event()

    def repeat() -> None:
        while not stopping.is_set():
            answers.append(ask())

    threads = [Thread(target=repeat) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
