"""How pictures look: on light and dark paper, in colours that colour-blind people can tell apart.

The colours are those of Okabe and Ito (2008). `:where` has no specificity, so a page that holds a picture sets its
own `color` and custom properties with any rule of its own.
"""

from __future__ import annotations

N_COLORS = 6  # features that have a colour of their own

STYLE = """
:where(.kanscope){color-scheme:light dark;color:#1f2328;--paper:#fff;--muted:#59636e;--faint:#d8dee4;--wash:#eff2f5;
--rest:#b4bcc4;--c1:#0072b2;--c2:#e69f00;--c3:#009e73;--c4:#d55e00;--c5:#cc79a7;--c6:#56b4e9;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:11px}
@media (prefers-color-scheme:dark){:where(.kanscope){color:#e6edf3;--paper:#0d1117;--muted:#9198a1;--faint:#30363d;
--wash:#161b22;--rest:#6e7781;--c1:#3a9bdc}}
.kanscope text{fill:currentColor;stroke:none}
.kanscope .paper{fill:var(--paper)}
.kanscope .heading{font-size:15px;font-weight:600}
.kanscope .muted{fill:var(--muted)}
.kanscope .middle{text-anchor:middle}
.kanscope .end{text-anchor:end}
.kanscope .link{fill:none;stroke:currentColor}
.kanscope .box{fill:var(--paper);stroke:currentColor;stroke-width:.8}
.kanscope .curve{fill:none;stroke:currentColor;stroke-width:1.5;stroke-linejoin:round;stroke-linecap:round}
.kanscope .chip{fill:var(--paper);stroke:currentColor;stroke-width:1}
.kanscope .output .chip{fill:currentColor}
.kanscope .output text{fill:var(--paper);font-weight:600}
.kanscope .band,.kanscope .shade{fill:var(--wash)}
.kanscope .dot{fill:currentColor}
.kanscope .hit{fill:transparent}
.kanscope .folded rect{fill:none;stroke:var(--rest);stroke-dasharray:3 3}
.kanscope .folded text{fill:var(--muted)}
.kanscope .pruned .link{stroke:var(--rest)}
.kanscope .pruned .dot{fill:var(--rest)}
.kanscope .axis,.kanscope .tick{stroke:var(--muted);fill:none}
.kanscope .knot{stroke:currentColor;stroke-width:1.5}
.kanscope .bar{fill:var(--rest)}
.kanscope .rule{stroke:var(--faint)}
.kanscope .main{stroke-width:2.4}
.kanscope .part{fill:none;stroke-width:1.2}
.kanscope .line{stroke-dasharray:5 4}
.kanscope .edge:hover .link,.kanscope .edge:focus .link{opacity:1}
.kanscope .edge:hover .box,.kanscope .edge:focus .box{stroke-width:2}
.kanscope .f0{fill:var(--rest)}.kanscope .s0{stroke:var(--rest)}
""" + "".join(
    f".kanscope .f{n}{{fill:var(--c{n})}}.kanscope .s{n}{{stroke:var(--c{n})}}\n" for n in range(1, N_COLORS + 1)
)
