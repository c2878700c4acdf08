"""Additions to single operations of the OpenAPI document: request bodies and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.http.answers import SVG
from service.schemas.closed import Closed


def describe_body(cls: type[Closed], others: Mapping[str, Any] | None = None, required: bool = True) -> dict[str, Any]:
    """The OpenAPI description of a body that the handler reads itself; see `service.document.description`.

    Args:
        cls: the model of its JSON.
        others: descriptions of what it may be instead, by media type.
        required: whether there must be one.
    """
    schema = {"$ref": f"#/components/schemas/{cls.__name__}"}
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": schema}, **(others or {})}}
    }


def describe_picture(text: str) -> dict[str, Any]:
    """The OpenAPI description of a picture beside the JSON of an answer."""
    return {"content": {SVG: {"schema": {"type": "string", "description": text}}}}
