"""The picture that an answer may be in place of its JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from kanmodel.drawing import scene
from service.http.answers import SVG

Format = TypeAliasType("Format", Literal["json", "svg"])
Color = TypeAliasType("Color", scene.Color)
FormatParameter = Annotated[
    Format | None,
    Field(description="`json`, or `svg` for the picture; beats the header `Accept`, which decides where it is absent."),
]


def describe_picture(text: str) -> dict[str, Any]:
    """The OpenAPI description of a picture beside the JSON of an answer."""
    return {"content": {SVG: {"schema": {"type": "string", "description": text}}}}
