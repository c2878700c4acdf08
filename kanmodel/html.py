"""Results as self-contained HTML, without scripts or external resources.

A page has its picture as inline SVG, whose parts have titles to hover over. A notebook has it as an image with a data
URL: in an untrusted notebook JupyterLab removes `svg` and `style` elements, but keeps images, tables and `details`.
Like tables, an image follows the light or dark theme of its page.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from kanmodel.text import Row, abbreviate, format_cells, printable

N_TILE = 26  # most characters of a name in a tile
N_ROWS = 100  # of a table; the rest are counted
# Regular expressions suffice: the drawing escapes quotes and brackets in values, and tags in texts.
_GROUP = re.compile(r"<g [^>]*>")
_FOR_PAGES = re.compile(r' (?:data-[a-z-]+|tabindex|aria-label)="[^"]*"')
_TITLE = re.compile(r"<title>[^<]*</title>")
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=[^\s\d`]{1,4}(?:[\s.,;:)]|$))")  # where no line breaks
_NAMES = re.compile(r"<title>([^<]*)</title><desc>([^<]*)</desc>")

_LIGHT = "body{color-scheme:light;background:#fff;color:#1f2328}"
_DARK = "body{color-scheme:dark;background:#0d1117;color:#e6edf3}"
_COLORS = {"light": _LIGHT, "dark": _DARK, "auto": f"{_LIGHT}@media screen and (prefers-color-scheme:dark){{{_DARK}}}"}
_PAGE_STYLE = (
    'body{margin:16px;font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}'
    "h1{font-size:20px}"
)
_FOLDER = Path(__file__).parent
_STYLE, _SHEET_STYLE = (
    f"<style>\n{(_FOLDER / name).read_text(encoding='utf-8')}</style>" for name in ("result.css", "sheet.css")
)


def write_page(title: str, body: str, theme: str) -> str:
    """A document for a file from a plain title and markup, in a theme's colours or the reader's; it is XML as well."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f'<meta name="viewport" content="width=device-width"/><title>{text(title)}</title>'
        f"<style>{_PAGE_STYLE}{_COLORS[theme]}</style></head><body>{write_piece(body)}</body></html>\n"
    )


def write_piece(body: str) -> str:
    """A fragment for another page, such as a notebook; also legible without its style."""
    return f'<div class="kanscope-result">{_STYLE}{body}</div>'


def inline_picture(svg: str) -> str:
    """A picture without the attributes for scripts of a page, but with titles, for tooltips and screen readers."""
    plain = _GROUP.sub(lambda group: _FOR_PAGES.sub("", group[0]), svg)
    return f'<div class="kanscope-figure">{plain}</div>'


def image_of(svg: str) -> str:
    """A picture as an image, with the title of the whole picture for screen readers."""
    names = _NAMES.search(svg)
    assert names is not None
    alt = "{}. {}".format(*names.groups()).replace('"', "&quot;")
    body = _TITLE.sub("", _GROUP.sub("<g>", svg[names.end() :]))  # elements of an image get no pointer events
    data = b64encode((svg[: names.end()] + body).encode()).decode()
    return f'<div class="kanscope-figure"><img alt="{alt}" src="data:image/svg+xml;base64,{data}"/></div>'


def write_table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Some columns of a table, numbers right-aligned, at most `N_ROWS` rows."""
    are_numbers, cells, more = format_cells(rows, columns, N_ROWS)
    classes = [' class="number"' if is_number else "" for is_number in are_numbers]
    names = zip(columns, classes, strict=True)
    head = "".join(f'<th scope="col"{class_}>{text(name.replace("_", " "))}</th>' for name, class_ in names)
    lines = ("".join(f"<td{c}>{isolate(cell)}</td>" for c, cell in zip(classes, line, strict=True)) for line in cells)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"{table}<p>{more}</p>" if more else table


def write_facts(facts: Mapping[str, str]) -> str:
    """Names and values, one pair per line."""
    lines = (f'<tr><th scope="row">{text(name)}</th><td>{isolate(value)}</td></tr>' for name, value in facts.items())
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def fold(summary: str, body: str) -> str:
    """Markup that expands on a click, without a script."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def write_heading(heading: str) -> str:
    """A heading from plain text."""
    return f"<h2>{isolate(heading)}</h2>"


def write_prose(prose: str, longest: int | None = None) -> str:
    """A paragraph, or a list of lines that begin with a dash; text in backticks becomes code.

    No line breaks between a number and a short word after it, such as a unit. Names longer than `longest` characters
    are abbreviated, with the whole as title.
    """
    if prose.startswith("- "):
        return f"<ul>{''.join(f'<li>{_mark(line[2:], longest)}</li>' for line in prose.splitlines())}</ul>"
    return f"<p>{_mark(prose, longest)}</p>"


def _mark(line: str, longest: int | None) -> str:
    parts = _BEFORE_UNIT.sub("\u00a0", line).split("`")
    return "".join(_name(part, longest) if number % 2 else text(part) for number, part in enumerate(parts))


def _name(name: str, longest: int | None) -> str:
    if longest is None or len(name) <= longest:
        return f"<code>{isolate(name)}</code>"
    return f'<code title="{text(name)}">{isolate(abbreviate(name, longest))}</code>'


def write_sheet(body: str) -> str:
    """Markup that is laid out for reading and for printing on A4."""
    return f'{_SHEET_STYLE}<div class="kanscope-sheet">{body}</div>'


def write_banner(title: str, about: Sequence[str], headlines: Sequence[tuple[str, str]]) -> str:
    """The head of a sheet: a title, lines below it, and figures in large type, each with what it is."""
    lines = "".join(f'<p class="kanscope-about">{isolate(line)}</p>' for line in about)
    tiles = (
        f'<div class="kanscope-tile"><strong>{isolate(figure)}</strong> <span>{_mark(what, N_TILE)}</span></div>'
        for figure, what in headlines
    )
    return f'<h1>{isolate(title)}</h1>{lines}<div class="kanscope-tiles">{"".join(tiles)}</div>'


def write_section(heading: str, body: str, pictures: Sequence[str] = (), caption: str = "") -> str:
    """A section of a sheet, with pictures beside each other below its markup; one with a caption is not divided."""
    class_ = "kanscope-panels kanscope-three" if len(pictures) > 2 else "kanscope-panels"
    panels = f'<div class="{class_}">{"".join(pictures)}</div>' if pictures else ""
    below = f'<p class="kanscope-about">{text(caption)}</p>' if caption else ""
    return f'<div class="{"kanscope-whole" if caption else ""}">{write_heading(heading)}{body}{panels}{below}</div>'


def write_columns(parts: Sequence[str]) -> str:
    """Parts of a sheet in two columns."""
    return f'<div class="kanscope-columns">{"".join(parts)}</div>'


def write_term(term: str, body: str) -> str:
    """Markup below a small heading."""
    return f'<div class="kanscope-term"><h3>{isolate(term)}</h3>{body}</div>'


def write_code(code: str) -> str:
    """Preformatted plain text."""
    return "<pre>" + "\n".join(map(text, code.splitlines())) + "</pre>"


def text(plain: str) -> str:
    """Plain text as markup."""
    return escape(printable(plain))


def isolate(plain: str) -> str:
    """Plain text as markup, isolated so that its direction of writing does not affect the text around it."""
    return text(plain) if plain.isascii() else f"<bdi>{text(plain)}</bdi>"
