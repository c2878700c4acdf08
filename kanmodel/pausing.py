"""Pauses: hooks that long computations call between slices of work, to yield to urgent work or to be cancelled."""

from __future__ import annotations

from collections.abc import Callable

Pause = Callable[[], None]
"""Called between slices of a computation, mostly of a few milliseconds, and before what may take longer. It may wait,
to let more urgent work run first, or raise, to cancel the computation: no partial result is cached."""


def go_on() -> None:
    """The pause of a computation that runs without interruption."""
