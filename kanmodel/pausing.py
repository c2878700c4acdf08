"""Long computations, a slice at a time."""

from __future__ import annotations

from collections.abc import Callable

Pause = Callable[[], None]
"""Called between slices of a computation, of a few milliseconds each, and before what may take longer. It may wait, to
let something more urgent go first, and raise, to end the computation: nothing half-done is kept."""


def go_on() -> None:
    """The pause of a computation that runs through."""
