"""The picture that an answer may be in place of its JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from kanmodel.drawing import scene

Format = TypeAliasType("Format", Literal["json", "svg"])
Color = TypeAliasType("Color", scene.Color)
FormatParameter = Annotated[
    Format | None,
    Field(description="`json`, or `svg` for the picture; beats the header `Accept`, which decides where it is absent."),
]
