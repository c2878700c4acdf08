"""A cache of encoded answers, cleared when the served models change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from service.http.answer_cache import Answer
from service.work.cache import Cache

OVERHEAD = 2048  # bytes of an entry besides its bodies and its key: objects, headers, the cache's own


@dataclass(frozen=True)
class _Known:
    """A cached answer with its route and model.

    Attributes:
        answer: the answer.
        route: its route, for metrics and the log.
        told: its model, for the log.
    """

    answer: Answer
    route: Any
    told: Mapping[str, Any] = field(default_factory=dict)


class Answers:
    """An LRU cache of answers by path, query and Accept. It belongs to one event loop, so it needs no lock.

    When the served models change, it is cleared, which also frees the models that the answers refer to.

    Args:
        size: capacity in bytes, keys included; the least recently used answers are evicted beyond it.
        index: returns the served models: a different object after every change.
    """

    def __init__(self, size: int, index: Callable[[], object]) -> None:
        self._find_index = index
        self._index = index()  # the models that all answers were computed from
        self._known: Cache[_Known] = Cache(size)

    def get(self, scope: Scope) -> Answer | None:
        """The cached answer to a request, if any; its route and model are noted in the scope."""
        self._follow_models()
        known = self._known.get(_key(scope))
        if known is None:
            return None
        scope["route"] = known.route
        scope.setdefault("state", {}).update(known.told)
        return known.answer

    def keep(self, scope: Scope, answer: Answer, index: object) -> None:
        """Caches the answer to a request, unless the models it was computed from are no longer served."""
        self._follow_models()
        if index is not self._index:
            return
        key, state = _key(scope), scope.get("state", {})
        told = {name: state[name] for name in ("model", "checkpoint") if name in state}
        of_key = 4 * len(key[0]) + len(key[1]) + len(key[2])  # a character of a path takes up to 4
        weight = answer.size + of_key + OVERHEAD
        self._known.put(key, _Known(answer, scope.get("route"), told), weight)

    def _follow_models(self) -> None:
        if self._index is not self._find_index():
            self._index = self._find_index()
            self._known.clear()


def _key(scope: Scope) -> tuple[str, bytes, bytes]:
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return scope["path"], scope["query_string"], accept
