"""What the programs of all clients send: python CLIENT.py URL WINDOW.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

url, file = sys.argv[1:]
instances: list[list[list[float]]] = json.loads(Path(file).read_bytes())["instances"]
groups = {"hour": ["hour_sin", "hour_cos"]}


def halves(names: Iterable[str]) -> dict[str, float]:
    return dict.fromkeys(names, 0.5)


def stream() -> list[dict[str, Any]]:
    """The lines of a stream of three explanations."""
    address, accept = f"{url}/v1/models/nyc-weather:explain", {"Accept": "application/x-ndjson"}
    response = httpx.post(address, json={"instances": instances * 3}, headers=accept, timeout=60)
    return [json.loads(line) for line in response.text.splitlines()]
