"""Reads the ``groups`` of features and ``segments`` of steps over which contributions are summed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kanmodel.errors import DataError
from kanmodel.explain.attribution import Segments
from kanmodel.model import Model
from kanmodel.network.config import Groups
from service.http.errors import unusable
from service.requests.bodies import Limits, parse_json


def read_groups(document: Mapping[str, Any], model: Model) -> tuple[Groups, Segments]:
    """The groups and segments of a request; absent groups are those of the checkpoint, null is none.

    Raises:
        DataError: invalid groups or segments; the error names each, as ``groups.hour``.
    """
    segments = document.get("segments")
    if "groups" not in document:
        return model.choose_groups(segments=segments)
    groups = document["groups"]
    if isinstance(groups, str):  # kanmodel also accepts other forms
        raise unusable("groups", "must be an object of group names to lists of members, or null")
    return model.choose_groups(groups, segments)


def parse_groups(parameters: Mapping[str, str | None], limits: Limits, place: str = "") -> dict[str, Any]:
    """Decodes groups and segments that are given as strings of JSON.

    Args:
        parameters: those that may be given.
        limits: those of the body in which they could stand.
        place: what stands before their names in an error.

    Raises:
        DataError: a string is not JSON, or what would be refused in a body.
    """
    parsed = {}
    for name, text in parameters.items():
        if text is not None:
            try:
                parsed[name] = parse_json(text.encode(), limits)
            except DataError as error:
                reason = str(error).removeprefix("body must be JSON: ")
                raise unusable(f"{place}{name}", f"must be a string of JSON: {reason}") from None
    return parsed
