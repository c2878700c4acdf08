"""Pictures of differences, as bars of features: of two forecasts, of a forecast from an earlier one, of two models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.changes import Changes
from kanmodel.attribution.comparison import Comparisons
from kanmodel.result import Theme, draw
from kanmodel.show.svg import LETTER, MARGIN, Part, Scale, new_picture, scale_over, write_amount, write_change
from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.text import abbreviate, abbreviate_words, with_unit

WIDTH = 760.0
LEFT, RIGHT = 190.0, 640.0  # ends of a plot; names are left and amounts right of it
TOP, HEAD, AXIS = 104.0, 26.0, 46.0  # of the first block; heights of a block's heading and of its axis
ROW, BAR = 20.0, 12.0
N_BARS, N_BLOCKS, N_FEATURES = 12, 3, 30  # features in a block, whose rest is one bar; windows; features of models
PARTS = ("f1", "f2", "f3")  # colours of the parts of a difference


class Row(NamedTuple):
    """What one feature adds to a difference: the amount of each part."""

    name: str
    amounts: tuple[float, ...]


class Block(NamedTuple):
    """The difference of one pair of forecasts."""

    heading: str
    rows: Sequence[Row]
    total: float


@draw.register
def draw_comparisons(result: Comparisons, theme: Theme = "auto") -> bytes:
    """Draws the data part and the model part of each feature as SVG, for the first windows."""

    def block(number: int) -> Block:
        one = result[number]
        before, after = (write_amount(value, result.unit) for value in (one.against_prediction, one.prediction))
        rows = _list_rows(result.features, np.stack([one.data, one.model]))
        shift = [Row("baseline shift", (0.0, one.baseline_shift))] if one.baseline_shift else []
        heading = f"{_name_window(result.times, number, len(result))}from {before} to {after}"
        return Block(heading, [*rows, *shift], one.difference)

    heading = f"{with_unit(result.output, result.unit)}: why two forecasts differ"
    return _draw_blocks(result, theme, heading, ("data", "model"), range(len(result))[:N_BLOCKS], block)


@draw.register
def draw_changes(result: Changes, theme: Theme = "auto") -> bytes:
    """Draws what new, aged and gone rows of each feature add to the change as SVG, for the newest forecasts."""

    def block(number: int) -> Block:
        before, after = (
            write_amount(float(values[number]), result.unit)
            for values in (result.earlier_predictions, result.predictions)
        )
        rows = _list_rows(result.features, np.stack([result.new[number], result.aged[number], result.gone[number]]))
        shift = [Row("other output", (0.0, result.baseline_change, 0.0))] if result.baseline_change else []
        heading = f"{_name_window(result.times, number, len(result))}from {before} to {after}"
        return Block(heading, [*rows, *shift], float(result.change[number]))

    ago = f"{result.ago} steps" if result.ago > 1 else "one step"
    heading = f"{with_unit(result.output, result.unit)}: why the forecast changed since {ago} before"
    newest = range(len(result))[-N_BLOCKS:]
    return _draw_blocks(result, theme, heading, ("new rows", "aged rows", "gone rows"), newest, block)


@draw.register
def draw_model_comparison(result: ModelComparison, theme: Theme = "auto") -> bytes:
    """Draws the change of each feature's share as SVG, with its interval; features beyond `N_FEATURES` are counted."""
    drawn = result.features[:N_FEATURES]
    more = len(result.features) - len(drawn)
    heading = f"{result.output}: shares of the features, {abbreviate(result.against_name)} to {abbreviate(result.name)}"
    caption = (
        "change of the share of all contributions in percentage points, with its 95 % interval; share before, after"
    )
    caption += f"; {more} more features change less" if more else ""
    top, right = TOP - HEAD, RIGHT - 80
    bottom = top + ROW * len(drawn)
    root = new_picture(WIDTH, bottom + AXIS - 8, heading, caption, result.source)
    root.add_heading(heading, caption, n_caption=120)
    ends = (100 * end for one in drawn for end in (*one.interval, one.change))
    x = scale_over([0.0, *ends], LEFT, right)
    root.add_rules(x, top, bottom, "pp")
    for number, one in enumerate(drawn):
        low, high = (100 * end for end in one.interval)
        shares = f"{one.against_share:.1%} to {one.share:.1%}"
        label = f"{one.name}: {shares}, {100 * one.change:+.2g} pp (95 % interval {low:+.2g} to {high:+.2g})"
        group = root.add_group(label, class_="feature", data_feature=one.name)
        y = top + ROW * number
        _add_bars(group, x, y, (100 * one.change,), ("rise" if one.change > 0 else "fall",))
        group.add("path", class_="whisker", d=f"M{x.at(low):.2f} {y + ROW / 2:g}H{x.at(high):.2f}")
        group.add("text", abbreviate(one.name), x=LEFT - 12, y=y + 14, class_="end")
        is_certain = low > 0 or high < 0
        group.add("text", shares, x=WIDTH - MARGIN, y=y + 14, class_="end strong" if is_certain else "end muted")
    _add_zero(root, x, top, bottom)
    return root.serialise(theme)


def _draw_blocks(
    result: Comparisons | Changes,
    theme: Theme,
    heading: str,
    parts: Sequence[str],
    numbers: range,
    block: Callable[[int], Block],
) -> bytes:
    """One plot for each of some windows, on one scale."""
    blocks = [block(number) for number in numbers]
    used = [any(row.amounts[place] for one in blocks for row in one.rows) for place in range(len(parts))]
    more = len(result) - len(blocks)
    caption = "what each feature adds to the difference, and the sum of its parts"
    caption += f"; {more} of {len(result)} windows are not drawn" if more else ""
    heights = [HEAD + ROW * (len(one.rows) + 1) + AXIS for one in blocks]
    root = new_picture(WIDTH, TOP + sum(heights) - 12, heading, caption, result.source)
    root.add_heading(heading, caption, n_caption=120)
    at = LEFT
    for name, class_ in [pair for pair, shown in zip(zip(parts, PARTS, strict=False), used, strict=True) if shown]:
        root.add("rect", class_=class_, x=at, y=76.0, width=14.0, height=BAR)
        root.add("text", name, x=at + 20, y=86.0)
        at += 44 + LETTER * len(name)
    root.add("path", class_="knot", d=f"M{at + 4:.2f} 76v{BAR:g}")
    root.add("text", "sum", x=at + 12, y=86.0)
    ends = [end for one in blocks for row in one.rows for end in _reach(row.amounts)]
    x = scale_over([0.0, *ends, *(one.total for one in blocks)], LEFT, RIGHT, 0.03)
    top = TOP
    for one, height in zip(blocks, heights, strict=True):
        _add_block(root, one, x, top, result.unit, parts)
        top += height
    return root.serialise(theme)


def _add_block(root: Part, block: Block, x: Scale, top: float, unit: str | None, parts: Sequence[str]) -> None:
    """The heading, a row for each feature, and the whole difference."""
    group = root.add_group(f"{block.heading}: {write_change(block.total, unit)}", class_="block")
    group.add("text", abbreviate_words(block.heading, 90), x=MARGIN, y=top + 14, class_="strong")
    top += HEAD
    bottom = top + ROW * (len(block.rows) + 1)
    group.add_rules(x, top, bottom, unit)
    for number, row in enumerate([*block.rows, Row("difference", (block.total,))]):
        y, total = top + ROW * number, sum(row.amounts)
        whole = number == len(block.rows)
        split = ", ".join(f"{part} {write_change(a, None)}" for part, a in zip(parts, row.amounts, strict=False) if a)
        label = f"{row.name}: {write_change(total, unit)}" + ("" if whole or not split else f" ({split})")
        line = group.add_group(label, class_="total" if whole else "row", data_feature=row.name)
        _add_bars(line, x, y, row.amounts, ("solid",) if whole else PARTS)
        if not whole:
            line.add("path", class_="knot", d=f"M{x.at(total):.2f} {y + 2:g}v{ROW - 4:g}")
        look = " strong" if whole else ""
        line.add("text", abbreviate(row.name), x=LEFT - 12, y=y + 14, class_=f"end{look}")
        line.add("text", write_change(total, None), x=RIGHT + 12, y=y + 14, class_=look.strip() or None)
    _add_zero(group, x, top, bottom)


def _add_bars(group: Part, x: Scale, y: float, amounts: Sequence[float], classes: Sequence[str]) -> None:
    """Amounts one after another, the positive ones to the right of 0 and the negative ones to the left."""
    ends = {True: 0.0, False: 0.0}
    for amount, class_ in zip(amounts, classes, strict=False):
        if not amount:
            continue
        start = ends[amount > 0]
        ends[amount > 0] = start + amount
        low, high = sorted((x.at(start), x.at(start + amount)))
        group.add("rect", class_=class_, x=low, y=y + (ROW - BAR) / 2, width=high - low, height=BAR)


def _add_zero(root: Part, x: Scale, top: float, bottom: float) -> None:
    root.add("path", class_="axis", d=f"M{x.at(0.0):.2f} {top}V{bottom}")


def _reach(amounts: Sequence[float]) -> tuple[float, float]:
    """The ends of a row's bars."""
    return sum(min(a, 0.0) for a in amounts), sum(max(a, 0.0) for a in amounts)


def _list_rows(names: Sequence[str], parts: Array) -> list[Row]:
    """A row for each feature, from parts (n_parts, n_features), largest sum of magnitudes first; the rest are one."""
    order = np.argsort(-np.abs(parts).sum(axis=0), kind="stable").tolist()
    named = order if len(order) <= N_BARS + 1 else order[:N_BARS]
    rows = [Row(names[number], tuple(parts[:, number].tolist())) for number in named]
    rest = order[len(named) :]
    return [*rows, Row(f"{len(rest)} more features", tuple(parts[:, rest].sum(axis=1).tolist()))] if rest else rows


def _name_window(times: Sequence[str] | None, number: int, n: int) -> str:
    """What the heading of a block begins with."""
    if times:
        return f"{times[number]}: "
    return f"window {number}: " if n > 1 else ""
