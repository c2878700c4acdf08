"""JSON documents, compared as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


def leaves(document: Any) -> Iterator[Any]:
    """The values of a document in order; numbers compare equal up to the rounding of other batches."""
    if isinstance(document, dict | list):
        for item in document.values() if isinstance(document, dict) else document:
            yield from leaves(item)
    else:
        yield pytest.approx(document, rel=1e-9, abs=1e-12) if isinstance(document, float) else document
