"""The bar chart of feature importance, with intervals and verdicts."""

from __future__ import annotations

from kanmodel.result import Theme, draw
from kanmodel.show.svg import new_picture, scale_over, write_amount
from kanmodel.structure.importance import Importance
from kanmodel.text import abbreviate

WIDTH, LEFT = 760.0, 190.0  # names are left of the plot
RIGHT = 560.0  # end of the plot; share and verdict are right of it
SHARE, VERDICT = 640.0, 656.0  # end of one column, start of the next
TOP = 92.0
ROW, BAR = 20.0, 12.0  # heights
AXIS = 34.0  # height of the axis' labels
N_FEATURES = 30  # features drawn; the rest are counted


@draw.register
def draw_importance(result: Importance, theme: Theme = "auto") -> bytes:
    """Draws the importance of features as SVG, most important first; features beyond `N_FEATURES` are one row."""
    rows, unit = result.features, result.unit
    drawn = rows if len(rows) <= N_FEATURES + 1 else rows[:N_FEATURES]
    rest = rows[len(drawn) :]
    bottom = TOP + ROW * (len(drawn) + bool(rest))
    heading = f"{result.output}: how much each feature counts"
    caption = "mean |contribution| over the reference windows, with its 95 % interval; share of all, and verdict"
    root = new_picture(WIDTH, bottom + AXIS, heading, caption, result.source)
    root.add_heading(heading, caption)
    ends = (end for row in drawn for end in (row.interval[1], row.mean_abs_contribution))
    x = scale_over([0.0, *ends], LEFT, RIGHT)
    root.add_rules(x, TOP, bottom, unit)
    root.add("text", "share", x=SHARE, y=TOP - 6, class_="end muted")
    for number, row in enumerate(drawn):
        low, high = row.interval
        label = (
            f"{row.name}: {write_amount(row.mean_abs_contribution, unit)} (95 % interval {low:.3g} to {high:.3g}), "
            f"{row.share:.1%} of all contributions, {row.verdict}"
        )
        group = root.add_group(label, class_="feature", data_feature=row.name)
        middle, width = TOP + ROW * number + ROW / 2, x.at(row.mean_abs_contribution) - x.at(0.0)
        group.add("rect", class_="rise", x=x.at(0.0), y=middle - BAR / 2, width=width, height=BAR, fill_opacity=0.8)
        group.add("path", class_="whisker", d=f"M{x.at(low):.2f} {middle:g}H{x.at(high):.2f}")
        group.add("text", abbreviate(row.name), x=LEFT - 12, y=middle + 4, class_="end")
        group.add("text", f"{row.share:.1%}", x=SHARE, y=middle + 4, class_="end")
        look = {"important": "strong", "weak": None}.get(row.verdict, "muted")
        group.add("text", row.verdict, x=VERDICT, y=middle + 4, class_=look)
    if rest:
        y = bottom - ROW / 2 + 4
        root.add("text", f"{len(rest)} more features", x=LEFT - 12, y=y, class_="end muted")
        root.add("text", f"{sum(row.share for row in rest):.1%}", x=SHARE, y=y, class_="end muted")
    return root.serialise(theme)
