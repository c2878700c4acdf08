"""The bar chart of feature importance, with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from kanmodel.explain.importance import Attribution
from kanmodel.explain.result import Theme
from kanmodel.show.explanation import LEFT, WIDTH
from kanmodel.show.svg import Scale, add, add_group, new_picture, scale_over, serialise, shorten, write_amount

RIGHT = 560.0  # end of the plot; share and verdict are right of it
SHARE, VERDICT = 640.0, 656.0  # end of one column, start of the next
TOP = 92.0
ROW, BAR = 20.0, 12.0  # heights
AXIS = 34.0  # height of the axis' labels
N_FEATURES = 30  # features drawn; the rest are counted


def draw_importance(rows: Sequence[Attribution], output: str, unit: str | None, theme: Theme = "auto") -> bytes:
    """Draws the importance of features as SVG.

    Args:
        rows: one for each feature, most important first.
        output: output to which they contribute.
        unit: of the contributions; None if unknown.
        theme: colours.
    """
    drawn = rows if len(rows) <= N_FEATURES + 1 else rows[:N_FEATURES]
    rest = rows[len(drawn) :]
    bottom = TOP + ROW * (len(drawn) + bool(rest))
    heading = f"{output}: how much each feature counts"
    told = "mean |contribution| over the reference windows, with its 95 % interval; share of all, and verdict"
    root = new_picture(WIDTH, bottom + AXIS, heading, told, role="graphics-document document")
    add(root, "text", shorten(heading, 80), x=24.0, y=36.0, class_="heading")
    add(root, "text", told, x=24.0, y=57.0, class_="muted")
    x = scale_over(
        [0.0, *(row.interval[1] for row in drawn), *(row.mean_abs_contribution for row in drawn)], LEFT, RIGHT
    )
    for value in x.ticks():
        add(root, "path", class_="rule", d=f"M{x.at(value):.2f} {TOP}V{bottom}")
        add(root, "text", f"{value:g}", x=x.at(value), y=bottom + 16, class_="middle muted")
    if unit:
        add(root, "text", unit, x=RIGHT + 12, y=bottom + 16, class_="muted")
    add(root, "text", "share", x=SHARE, y=TOP - 6, class_="end muted")
    for number, row in enumerate(drawn):
        _draw_row(root, x, TOP + ROW * number, row, unit)
    if rest:
        _draw_rest(root, bottom - ROW, rest)
    return serialise(root, theme)


def _draw_row(root: Element, x: Scale, y: float, row: Attribution, unit: str | None) -> None:
    low, high = row.interval
    label = (
        f"{row.name}: {write_amount(row.mean_abs_contribution, unit)} (95 % interval {low:.3g} to {high:.3g}), "
        f"{row.share:.1%} of all contributions, {row.verdict}"
    )
    group = add_group(root, label, class_="feature", data_feature=row.name)
    middle, width = y + ROW / 2, x.at(row.mean_abs_contribution) - x.at(0.0)
    add(group, "rect", class_="rise", x=x.at(0.0), y=middle - BAR / 2, width=width, height=BAR, fill_opacity=0.8)
    add(group, "path", class_="whisker", d=f"M{x.at(low):.2f} {middle:g}H{x.at(high):.2f}")
    add(group, "text", shorten(row.name), x=LEFT - 12, y=middle + 4, class_="end")
    add(group, "text", f"{row.share:.1%}", x=SHARE, y=middle + 4, class_="end")
    look = {"important": "strong", "weak": ""}.get(row.verdict, "muted")
    add(group, "text", row.verdict, x=VERDICT, y=middle + 4, class_=look or None)


def _draw_rest(root: Element, y: float, rest: Sequence[Attribution]) -> None:
    """A row for all features beyond `N_FEATURES`."""
    share = sum(row.share for row in rest)
    add(root, "text", f"{len(rest)} more features", x=LEFT - 12, y=y + ROW / 2 + 4, class_="end muted")
    add(root, "text", f"{share:.1%}", x=SHARE, y=y + ROW / 2 + 4, class_="end muted")
