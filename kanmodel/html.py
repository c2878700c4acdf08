"""Results as one self-contained piece of HTML: inline SVG and CSS, no script, nothing that is loaded."""

from __future__ import annotations

import re
from html import escape

# In what the drawing writes, a value holds neither a quote nor a bracket, and no text holds a tag: all are escaped.
_GROUP = re.compile(r"<g [^>]*>")
_FOR_PAGES = re.compile(r' (?:data-[a-z-]+|tabindex|aria-label)="[^"]*"')


def wrap_picture(svg: str) -> str:
    """A picture that is as wide as its place at most, without the attributes that are for the scripts of a page.

    A group's title, which stays, names it on hover and to a screen reader.
    """
    style = "<style>.kanscope-figure svg{max-width:100%;height:auto}</style>"
    plain = _GROUP.sub(lambda group: _FOR_PAGES.sub("", group[0]), svg)
    return f'<div class="kanscope-figure">{style}{plain}</div>'


def wrap_text(text: str) -> str:
    """Plain text with its spaces."""
    return f"<pre>{escape(text)}</pre>"
