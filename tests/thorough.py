"""How many cases a property is tried on: hundreds in all by default, ten times as many with ``THOROUGH=1``."""

from __future__ import annotations

import os

THOROUGH = os.environ.get("THOROUGH") == "1"


def examples(count: int) -> int:
    """The cases to generate, where `count` are enough by default."""
    return 10 * count if THOROUGH else count
