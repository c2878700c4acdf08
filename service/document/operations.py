"""Additions to single operations of the OpenAPI document: request bodies and pictures."""

from __future__ import annotations

from typing import Any

from service.wire.json import SVG


def describe_text(media_type: str, text: str) -> dict[str, Any]:
    """The OpenAPI description of text beside the JSON of an answer."""
    return {"content": {media_type: {"schema": {"type": "string", "description": text}}}}


def describe_picture(text: str) -> dict[str, Any]:
    """The OpenAPI description of a picture beside the JSON of an answer."""
    return describe_text(SVG, text)
