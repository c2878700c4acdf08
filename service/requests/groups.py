"""The ``groups`` and ``segments`` of a request -> what explanations sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from kanmodel.model import Model
from kanmodel.terms import Groups, Segments
from service.http.errors import unusable


def read_groups(document: Mapping[str, Any], model: Model) -> tuple[Groups, Segments]:
    """What a request sums: the checkpoint's groups where it says nothing of them, and none where they are null.

    Raises:
        DataError: groups of features, or segments of steps, that cannot be; the error names each, as ``groups.hour``.
    """
    segments = document.get("segments")
    if "groups" not in document:
        return model.choose_groups(segments=segments)
    groups = document["groups"]
    if isinstance(groups, str):  # which the library takes
        raise unusable("groups", "must be an object of lists by the names of groups, or null")
    return model.choose_groups(groups, segments)


def parse_groups(parameters: Mapping[str, str | None]) -> dict[str, Any]:
    """Those parameters of the Open Inference Protocol that are given, whose values are JSON in a text.

    Raises:
        DataError: a text is not JSON.
    """
    parsed = {}
    for name, text in parameters.items():
        if text is not None:
            try:
                parsed[name] = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise unusable(f"parameters.{name}", f"must be JSON in a text: {error}") from None
    return parsed
