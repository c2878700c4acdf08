"""Answers that are the same each time, kept as the bytes that leave, for as long as the models are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from service.http.answer_cache import Answer
from service.work.cache import Cache

OVERHEAD = 2048  # bytes of an entry beside its bodies and its key: objects, headers, its place in the cache


@dataclass(frozen=True)
class _Known:
    """An answer with what belongs to it.

    Attributes:
        answer: the answer.
        route: the route that it is of, for metrics and the log.
        told: of which model it is, for the log.
    """

    answer: Answer
    route: Any
    told: Mapping[str, Any] = field(default_factory=dict)


class Answers:
    """The last answers by path, query and Accept. Belongs to one event loop, so it needs no lock.

    Once the models are others, so may be the answers: all of them go, and with them what they held in memory.

    Args:
        size: bytes that are kept, keys included; beyond them, what is unused for longest goes.
        index: gives the models that answers are about: another object once they are others.
    """

    def __init__(self, size: int, index: Callable[[], object]) -> None:
        self._find_index = index
        self._index = index()  # the models that all answers were computed from
        self._known: Cache[_Known] = Cache(size)

    def get(self, scope: Scope) -> Answer | None:
        """The answer to a request, if it is there; the scope is told what it is about."""
        self._follow_models()
        known = self._known.get(_key(scope))
        if known is None:
            return None
        scope["route"] = known.route
        scope.setdefault("state", {}).update(known.told)
        return known.answer

    def keep(self, scope: Scope, answer: Answer, index: object) -> None:
        """Keeps the answer to a request, computed from the models of an index, while they and the room are there."""
        self._follow_models()
        if index is not self._index:
            return
        key, state = _key(scope), scope.get("state", {})
        told = {name: state[name] for name in ("model", "checkpoint") if name in state}
        of_key = 4 * len(key[0]) + len(key[1]) + len(key[2])  # a letter of a path may take 4
        weight = answer.size + of_key + OVERHEAD
        self._known.put(key, _Known(answer, scope.get("route"), told), weight)

    def _follow_models(self) -> None:
        if self._index is not self._find_index():
            self._index = self._find_index()
            self._known.clear()


def _key(scope: Scope) -> tuple[str, bytes, bytes]:
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return scope["path"], scope["query_string"], accept
