"""The number of generated cases per property, ten times as many with ``THOROUGH=1``."""

from __future__ import annotations

import os

THOROUGH = os.environ.get("THOROUGH") == "1"


def examples(count: int) -> int:
    """The number of cases, `count` by default."""
    return 10 * count if THOROUGH else count
