"""The requests to the bundled model that several benchmarks send."""

from __future__ import annotations

from load import post_windows
from models import original_windows

from kanmodel.forecaster import Forecaster

NAME = "nyc-weather"
WORK = (("predict", 1, 64), ("predict", 32, 8), ("explain", 1, 8), ("explain", 32, 8))  # verb, windows, connections


def make_requests(model: Forecaster, verb: str, windows: int, connections: int) -> list[bytes]:
    """Requests of some windows each, one per connection."""
    return post_windows(f"/v1/models/{NAME}:{verb}", original_windows(model), windows, connections)
