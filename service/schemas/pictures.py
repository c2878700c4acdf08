"""Queries of answers that are also pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from kanmodel.explain import result
from kanmodel.show import network

Format = TypeAliasType("Format", Literal["json", "svg"])
Color = TypeAliasType("Color", network.Color)
Theme = TypeAliasType("Theme", result.Theme)
FormatParameter = Annotated[
    Format | None,
    Field(description="`json`, or `svg` for the picture; takes precedence over the header `Accept`."),
]
ThemeParameter = Annotated[
    Theme,
    Field(
        description="Colours of the picture: `light`, `dark`, or `auto`, which follows the viewer's colour "
        "scheme, and is light in programs without media queries."
    ),
]
