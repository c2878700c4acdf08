"""The requests to the bundled model that several benchmarks send."""

from __future__ import annotations

import json

from load import post

from kanmodel.checkpoint import LoadedModel

NAME = "nyc-weather"
WORK = (("predict", 1, 64), ("predict", 32, 8), ("explain", 1, 8), ("explain", 32, 8))  # verb, windows, connections


def make_requests(model: LoadedModel, verb: str, windows: int, connections: int) -> list[bytes]:
    """Requests of some windows each, one per connection."""
    original = model.scaling.features_to_original(model.reference.windows).round(6)
    bodies = [json.dumps({"instances": original[i : i + windows].tolist()}).encode() for i in range(connections)]
    return [post(f"/v1/models/{NAME}:{verb}", body) for body in bodies]
