"""Several processes, and several threads, compared with one of each, on all cores shared with the client."""

from __future__ import annotations

import json
from collections.abc import Iterator

from load import Load, keep_busy, post
from servers import finish_background, free_server
from table import Row, print_table

from kanmodel.checkpoint import LoadedModel, load_checkpoint
from service.models.repository import BUNDLED

NAME = "nyc-weather"
DURATION, WARM_UP = 4.0, 1.0  # seconds
WORK = (("predict", 1, 64), ("predict", 32, 8), ("explain", 1, 8), ("explain", 32, 8))  # verb, windows, connections
VARIANTS = {"2 processes": (2, 1), "1 process with 2 threads": (1, 2)}


def rows() -> Iterator[Row]:
    """The bundled model, with one process with one thread as the peer."""
    model = load_checkpoint(BUNDLED / f"{NAME}.safetensors")
    alone = measure(model, 1, 1)
    for name, variant in VARIANTS.items():
        for (verb, windows, connections), load, peer in zip(WORK, measure(model, *variant), alone, strict=True):
            yield Row(
                f":{verb}, windows a request: {windows}, connections: {connections}, {name}",
                f"{load.rate:.0f}/s",
                f"1 process with 1 thread: {peer.rate:.0f}/s",
                f"{load.rate / peer.rate:.1f}x",
            )


def measure(model: LoadedModel, workers: int, threads: int) -> list[Load]:
    """The results for each kind of request."""
    loads = []
    with free_server(BUNDLED, workers, threads) as server:
        finish_background(server.port, NAME)
        for work in WORK:
            requests = make_requests(model, *work)
            keep_busy(server.port, requests, len(requests), WARM_UP)
            loads.append(keep_busy(server.port, requests, len(requests), DURATION))
    return loads


def make_requests(model: LoadedModel, verb: str, windows: int, connections: int) -> list[bytes]:
    """Requests of some windows each, one per connection."""
    original = model.scaling.features_to_original(model.reference.windows).round(6)
    bodies = [json.dumps({"instances": original[i : i + windows].tolist()}).encode() for i in range(connections)]
    return [post(f"/v1/models/{NAME}:{verb}", body) for body in bodies]


if __name__ == "__main__":
    print_table(rows())
