"""Answers in JSON, compared as wholes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


def leaves(document: Any) -> Iterator[Any]:
    """What a document holds, in order; numbers equal those of other batches, which round differently."""
    if isinstance(document, dict | list):
        for item in document.values() if isinstance(document, dict) else document:
            yield from leaves(item)
    else:
        yield pytest.approx(document, rel=1e-9, abs=1e-12) if isinstance(document, float) else document
