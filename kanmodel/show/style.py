"""Styles of pictures: themes for light and dark, and a palette that is safe for colour-blind readers.

Contributions that raise and lower a forecast have the blue and the orange of Okabe and Ito (2008), as in the explorer;
features and other parts have colours of Paul Tol's scheme "muted" (2021), of which none is near these. Classes of
elements are replaced by presentation attributes with literal colours, which are part of SVG 1.1; librsvg, Qt and
CairoSVG support neither custom properties nor media queries. The theme `auto` has the light colours as attributes, and
the dark ones in a media query, which takes precedence if it is supported.
"""

from __future__ import annotations

from functools import cache

from kanmodel.result import Theme

N_COLORS = 6  # features with a colour of their own
VEIL = 0.17  # opacity of an interval; an inner one lies upon the outer ones
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

COLORS = {  # in the themes light and dark
    "ink": ("#1f2328", "#e6edf3"),
    "paper": ("#ffffff", "#0d1117"),
    "muted": ("#59636e", "#9198a1"),
    "faint": ("#d8dee4", "#30363d"),
    "wash": ("#eff2f5", "#161b22"),
    "rest": ("#b4bcc4", "#6e7781"),
    "c1": ("#44aa99", "#44aa99"),
    "c2": ("#ddcc77", "#ddcc77"),
    "c3": ("#aa4499", "#bf5fb0"),
    "c4": ("#999933", "#999933"),
    "c5": ("#882255", "#c25a8c"),
    "c6": ("#332288", "#8a80d6"),
    "up": ("#0072b2", "#3a9bdc"),
    "down": ("#d55e00", "#e8793a"),
}
LIGHT, DARK = ({name: pair[theme] for name, pair in COLORS.items()} for theme in (0, 1))
PALETTES = {"light": LIGHT, "dark": DARK, "auto": LIGHT}

ROUND = {"stroke-linejoin": "round", "stroke-linecap": "round"}
# Class -> attributes; colours are names in the palettes. If two classes set the same attribute, the later one wins.
LOOKS: dict[str, dict[str, str]] = {
    "kanscope": {"fill": "ink", "font-family": FONT, "font-size": "11"},
    "paper": {"fill": "paper"},
    "heading": {"font-size": "15", "font-weight": "600"},
    "strong": {"font-weight": "600"},
    "muted": {"fill": "muted"},
    "halo": {"stroke": "paper", "stroke-width": "3", "paint-order": "stroke", "stroke-linejoin": "round"},
    "middle": {"text-anchor": "middle"},
    "end": {"text-anchor": "end"},
    "link": {"fill": "none", "stroke": "ink"},
    "box": {"fill": "paper", "stroke": "ink", "stroke-width": "0.8"},
    "curve": {"fill": "none", "stroke": "ink", "stroke-width": "1.5"} | ROUND,
    "chip": {"fill": "paper", "stroke": "ink"},
    "solid": {"fill": "ink"},
    "on-solid": {"fill": "paper", "font-weight": "600"},
    "band": {"fill": "wash"},
    "shade": {"fill": "wash"},
    "dot": {"fill": "ink"},
    "hit": {"fill": "none", "pointer-events": "all"},
    "dashed": {"fill": "none", "stroke": "rest", "stroke-dasharray": "3 3"},
    "pale": {"fill": "rest"},
    "pale-link": {"stroke": "rest"},
    "axis": {"stroke": "muted", "fill": "none"},
    "tick": {"stroke": "muted", "fill": "none"},
    "whisker": {"stroke": "ink", "fill": "none", "stroke-width": "1.2"},
    "knot": {"stroke": "ink", "stroke-width": "1.5"},
    "bar": {"fill": "rest"},
    "amount": {"fill": "muted", "fill-opacity": "0.6"},
    "rule": {"stroke": "faint"},
    "actual": {"fill": "none", "stroke": "rest", "stroke-width": "2.4"} | ROUND,
    "net": {"fill": "none", "stroke": "ink", "stroke-width": "1.2"} | ROUND,
    "main": {"stroke-width": "2.4"},
    "part": {"fill": "none", "stroke-width": "1.2"},
    "line": {"stroke-dasharray": "5 4"},
    "rise": {"fill": "up"},
    "fall": {"fill": "down"},
    "f0": {"fill": "rest"},
    "s0": {"stroke": "rest"},
    **{f"f{n}": {"fill": f"c{n}"} for n in range(1, N_COLORS + 1)},
    **{f"s{n}": {"stroke": f"c{n}"} for n in range(1, N_COLORS + 1)},
}

_HOVER = """
.kanscope .edge:hover .link,.kanscope .edge:focus .link{opacity:1}
.kanscope .edge:hover .box,.kanscope .edge:focus .box{stroke-width:2}
"""


@cache
def attributes_of(classes: str, theme: Theme) -> dict[str, str]:
    """The presentation attributes of an element with these classes."""
    chosen, palette = set(classes.split()), PALETTES[theme]
    looks = (look.items() for name, look in LOOKS.items() if name in chosen)
    return {attribute: palette.get(value, value) for look in looks for attribute, value in look}


_DARK_RULES = "\n".join(
    f"{'' if name == 'kanscope' else '.kanscope '}.{name}{{{colors}}}"
    for name, look in LOOKS.items()
    if (colors := ";".join(f"{attribute}:{DARK[value]}" for attribute, value in look.items() if value in DARK))
)
STYLE = f"{_HOVER}@media screen and (prefers-color-scheme:dark){{\n{_DARK_RULES}\n}}\n"  # of the theme `auto`
