"""What `make test` leaves to `make test-all`, tests marked ``thorough``, and both to the nights: generated cases."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable

import pytest
from _pytest.mark import ParameterSet

THOROUGH = os.environ.get("THOROUGH") == "1"  # set by `make test-all`
EXPLORE = os.environ.get("EXPLORE") == "1"  # set each night: new cases, and all of them
FEWER = 1 if EXPLORE else 3 if THOROUGH else 10
LEAST = 5  # the first case is the simplest, which often reaches no assertion


def examples(count: int, fewer: int = FEWER) -> int:
    """The number of generated cases: the share that the environment asks for, rounded up, and five at least.

    The cases of `make test` and `make test-all` are the same in every run, so that more of them would find little that
    was not found before; each night has all, and new ones.
    """
    return min(count, max(LEAST, -(-count // fewer)))


def few_of(cases: Iterable[object], quick: Container[object], why: str) -> list[ParameterSet]:
    """The cases as parameters of a test, all but the `quick` ones marked ``thorough``."""
    mark = pytest.mark.thorough(why)
    return [pytest.param(case, marks=() if case in quick else mark) for case in cases]


def require_reason(item: pytest.Item) -> None:
    """Refuses the mark ``thorough`` without a reason."""
    for mark in item.iter_markers("thorough"):
        reasons = [why for why in mark.args if isinstance(why, str) and why.strip()]
        if len(reasons) != 1 or len(mark.args) != 1 or mark.kwargs not in ({}, {"alone": True}):
            raise pytest.UsageError(f'{item.nodeid}: say why it is thorough, as @pytest.mark.thorough("takes 9 s")')
