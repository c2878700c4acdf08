"""The picture that an answer may be in place of its JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from kanmodel.drawing import scene, style

Format = TypeAliasType("Format", Literal["json", "svg"])
Color = TypeAliasType("Color", scene.Color)
Theme = TypeAliasType("Theme", style.Theme)
FormatParameter = Annotated[
    Format | None,
    Field(description="`json`, or `svg` for the picture; beats the header `Accept`, which decides where it is absent."),
]
ThemeParameter = Annotated[
    Theme,
    Field(
        description="Colours of the picture: `light`, `dark`, or `auto`, which follows its reader where that reader "
        "understands media queries, and is light elsewhere."
    ),
]
