"""Pictures of features as bars: importance, and what each adds to a difference of two forecasts or of two models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.changes import Changes
from kanmodel.attribution.comparison import Comparisons
from kanmodel.attribution.ledger import sum_groups
from kanmodel.result import Theme, draw
from kanmodel.show.svg import LETTER, MARGIN, WIDTH, Element, Scale, fold_rest, look_of, new_picture, scale_over
from kanmodel.structure.importance import Importance
from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.text import abbreviate, abbreviate_words, with_unit, write_amount, write_change

LEFT = 190.0  # names are left of the plot
ROW, BAR = 20.0, 12.0  # heights
N_FEATURES = 30  # features drawn of a model; the rest are counted
RIGHT, SHARE, VERDICT = 560.0, 640.0, 656.0  # of importance: ends of the plot and of one column, start of the next
END, TOP, HEAD, AXIS = 640.0, 104.0, 26.0, 46.0  # of differences: end of the plot, start and heights of a block
N_BARS, N_BLOCKS = 12, 3  # features in a block, whose rest is one bar; windows drawn
LOOKS = ("f1", "f2", "f3")  # of what adds up to a difference

Row = tuple[str, tuple[float, ...]]  # what one feature adds to a difference: its name and some amounts


class Block(NamedTuple):
    """The difference of one pair of forecasts."""

    heading: str
    rows: list[Row]
    total: float


@draw.register
def draw_importance(result: Importance, theme: Theme = "auto") -> bytes:
    """Draws the importance of features as SVG, most important first; features beyond `N_FEATURES` are one row."""
    rows, unit, top = result.shown, result.unit, 92.0
    drawn = rows if len(rows) <= N_FEATURES + 1 else rows[:N_FEATURES]
    rest = rows[len(drawn) :]
    bottom = top + ROW * (len(drawn) + bool(rest))
    heading = f"{result.output}: how much each feature counts"
    caption = "mean |contribution| over the reference windows, with its 95 % interval; share of all, and verdict"
    root = new_picture(WIDTH, bottom + 34, heading, caption, result.source)
    ends = (end for row in drawn for end in (row.interval[1], row.mean_abs_contribution))
    x = scale_over([0.0, *ends], LEFT, RIGHT)
    root.add_rules(x, top, bottom, unit)
    root.add_text("share", SHARE, top - 6, "end muted")
    for number, row in enumerate(drawn):
        amount, interval = write_amount(row.mean_abs_contribution, unit), "{:.3g} to {:.3g}".format(*row.interval)
        name = result.model_inputs.label(row.name)
        label = f"{name}: {amount} (95 % interval {interval}), {row.share:.1%} of all contributions, {row.verdict}"
        group = root.add_group(label, class_="feature", data_feature=row.name)
        y, width = top + ROW * number, x.at(row.mean_abs_contribution) - x.at(0.0)
        group.add_rect("rise", x.at(0.0), y + (ROW - BAR) / 2, width, BAR, fill_opacity=0.8)
        group.add_whisker(x, row.interval, y + ROW / 2)
        group.add_text(abbreviate(name), LEFT - 12, y + 14, "end")
        group.add_text(f"{row.share:.1%}", SHARE, y + 14, "end")
        look = {"important": "strong", "weak": None}.get(row.verdict, "muted")
        group.add_text(row.verdict, VERDICT, y + 14, look)
    if rest:
        root.add_text(f"{len(rest)} more features", LEFT - 12, bottom - 6, "end muted")
        root.add_text(f"{sum(row.share for row in rest):.1%}", SHARE, bottom - 6, "end muted")
    return root.serialise(theme)


@draw.register
def draw_model_comparison(result: ModelComparison, theme: Theme = "auto") -> bytes:
    """Draws the change of each feature's share as SVG, with its interval; features beyond `N_FEATURES` are counted."""
    drawn, top, right = result.features[:N_FEATURES], TOP - HEAD, END - 80
    more = len(result.features) - len(drawn)
    heading = f"{result.output}: shares of the features, {abbreviate(result.against_name)} to {abbreviate(result.name)}"
    caption = "change of the share of all contributions in percentage points, with its 95 % interval; share before, "
    caption += f"after; {more} more features change less" if more else "after"
    bottom = top + ROW * len(drawn)
    root = new_picture(WIDTH, bottom + AXIS - 8, heading, caption, result.source, n_caption=120)
    x = scale_over([0.0, *(100 * end for one in drawn for end in (*one.interval, one.change))], LEFT, right)
    root.add_rules(x, top, bottom, "pp")
    for number, one in enumerate(drawn):
        low, high = (100 * end for end in one.interval)
        y, shares = top + ROW * number, f"{one.against_share:.1%} to {one.share:.1%}"
        label = f"{one.name}: {shares}, {100 * one.change:+.2g} pp (95 % interval {low:+.2g} to {high:+.2g})"
        group = root.add_group(label, class_="feature", data_feature=one.name)
        _add_bars(group, x, y, (100 * one.change,), (look_of(one.change),))
        group.add_whisker(x, (low, high), y + ROW / 2)
        group.add_text(abbreviate(one.name), LEFT - 12, y + 14, "end")
        group.add_text(shares, WIDTH - MARGIN, y + 14, "end strong" if low > 0 or high < 0 else "end muted")
    root.add_path("axis", f"M{x.at(0.0):.2f} {top}V{bottom}")
    return root.serialise(theme)


@draw.register
def draw_comparisons(result: Comparisons, theme: Theme = "auto") -> bytes:
    """Draws what data and model of each feature add to the difference as SVG, for the first windows."""
    blocks = []
    for number in range(len(result))[:N_BLOCKS]:
        one = result[number]
        rows = _list_rows(result, np.stack([one.data, one.model]))
        rows += [("baseline shift", (0.0, one.baseline_shift))] if one.baseline_shift else []
        heading = _write_heading(result, number, one.against_prediction, one.prediction)
        blocks.append(Block(heading, rows, one.difference))
    heading = f"{with_unit(result.output, result.unit)}: why two forecasts differ"
    return _draw_blocks(result, theme, heading, ("data", "model"), blocks)


@draw.register
def draw_changes(result: Changes, theme: Theme = "auto") -> bytes:
    """Draws what new, aged and gone rows of each feature add to the change as SVG, for the newest forecasts."""
    blocks = []
    for number in range(len(result))[-N_BLOCKS:]:
        rows = _list_rows(result, np.stack([result.new[number], result.aged[number], result.gone[number]]))
        rows += [("other output", (0.0, result.baseline_change, 0.0))] if result.baseline_change else []
        before, after = float(result.earlier_predictions[number]), float(result.predictions[number])
        blocks.append(Block(_write_heading(result, number, before, after), rows, float(result.change[number])))
    ago = f"{result.ago} steps" if result.ago > 1 else "one step"
    heading = f"{with_unit(result.output, result.unit)}: why the forecast changed since {ago} before"
    return _draw_blocks(result, theme, heading, ("new rows", "aged rows", "gone rows"), blocks)


def _write_heading(result: Comparisons | Changes, number: int, before: float, after: float) -> str:
    several = f"window {number}: " if len(result) > 1 else ""
    window = f"{result.times[number]}: " if result.times else several
    return f"{window}from {write_amount(before, result.unit)} to {write_amount(after, result.unit)}"


def _list_rows(result: Comparisons | Changes, amounts: Array) -> list[Row]:
    """A row for each input, from amounts (n_amounts, n_features), largest magnitudes first; the rest are one."""
    shown = result.model_inputs.merge(result.features)
    names, amounts = [*shown], sum_groups(amounts, shown.values())
    drawn = fold_rest(names, np.abs(amounts).sum(axis=0), N_BARS)
    return [(name, tuple(amounts[:, of].sum(axis=1).tolist())) for name, of in drawn]


def _draw_blocks(
    result: Comparisons | Changes, theme: Theme, heading: str, names: Sequence[str], blocks: Sequence[Block]
) -> bytes:
    """A plot for each block, all on one scale, with the name of each amount."""
    more = len(result) - len(blocks)
    caption = "what each feature adds to the difference, and the sum of its parts"
    caption += f"; {more} of {len(result)} windows are not drawn" if more else ""
    heights = [HEAD + ROW * (len(one.rows) + 1) + AXIS for one in blocks]
    root = new_picture(WIDTH, TOP + sum(heights) - 12, heading, caption, result.source, n_caption=120)
    at = LEFT
    for place, name in enumerate(names):
        if any(amounts[place] for one in blocks for _, amounts in one.rows):
            root.add_rect(LOOKS[place], at, 76.0, 14.0, BAR)
            root.add_text(name, at + 20, 86.0)
            at += 44 + LETTER * len(name)
    root.add_path("knot", f"M{at + 4:.2f} 76v{BAR:g}")
    root.add_text("sum", at + 12, 86.0)
    reach = [sum(side(amount, 0.0) for amount in row) for one in blocks for _, row in one.rows for side in (min, max)]
    x, top = scale_over([0.0, *reach, *(one.total for one in blocks)], LEFT, END, 0.03), TOP
    for one, height in zip(blocks, heights, strict=True):
        _add_block(root, one, x, top, result.unit, names)
        top += height
    return root.serialise(theme)


def _add_block(root: Element, block: Block, x: Scale, top: float, unit: str | None, names: Sequence[str]) -> None:
    """The heading, a row for each feature, and the whole difference."""
    group = root.add_group(f"{block.heading}: {write_change(block.total, unit)}", class_="block")
    group.add_text(abbreviate_words(block.heading, 90), MARGIN, top + 14, "strong")
    top += HEAD
    bottom = top + ROW * (len(block.rows) + 1)
    group.add_rules(x, top, bottom, unit)
    for number, (name, amounts) in enumerate([*block.rows, ("difference", (block.total,))]):
        y, total, is_whole = top + ROW * number, sum(amounts), number == len(block.rows)
        split = ", ".join(f"{each} {write_change(a)}" for each, a in zip(names, amounts, strict=False) if a)
        label = f"{name}: {write_change(total, unit)}" + ("" if is_whole or not split else f" ({split})")
        row = group.add_group(label, class_="total" if is_whole else "row", data_feature=name)
        _add_bars(row, x, y, amounts, ("solid",) if is_whole else LOOKS)
        if not is_whole:
            row.add_path("knot", f"M{x.at(total):.2f} {y + 2:g}v{ROW - 4:g}")
        row.add_text(abbreviate(name), LEFT - 12, y + 14, "end strong" if is_whole else "end")
        row.add_text(write_change(total), END + 12, y + 14, "strong" if is_whole else None)
    group.add_path("axis", f"M{x.at(0.0):.2f} {top}V{bottom}")


def _add_bars(group: Element, x: Scale, y: float, amounts: Sequence[float], looks: Sequence[str]) -> None:
    """Amounts one after another, the positive ones to the right of 0 and the negative ones to the left."""
    ends = {True: 0.0, False: 0.0}
    for amount, look in zip(amounts, looks, strict=False):
        if amount:
            start = ends[amount > 0]
            ends[amount > 0] = start + amount
            group.add_bar(look, x.at(start), x.at(start + amount), y + (ROW - BAR) / 2, BAR)
