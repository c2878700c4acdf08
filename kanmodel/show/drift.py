"""The picture of drift: three answers, histograms, the change of the mean forecast by name, and errors over time."""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np

from kanmodel.monitoring.drift import ASKED, Drift, UseDrift, write_before_after, write_signed
from kanmodel.result import Theme, draw
from kanmodel.show.svg import MARGIN, WIDTH, Element, Scale, new_picture, scale_over
from kanmodel.tables.statistics.tally import N_BINS
from kanmodel.text import abbreviate, abbreviate_words, write_amount

TOP, GAP = 84.0, 26.0
ANSWER, N_ANSWER = 38.0, 112  # height of an answer, and most letters of it
ALONG, N_PANELS, PANEL, BELOW = 3, 6, 84.0, 50.0  # histograms in a row, and most of them; height; room below for labels
LEFT, RIGHT, SHARE = 190.0, 560.0, 736.0  # ends of the waterfall; where shares end
ROW, BAR, AXIS = 20.0, 12.0, 40.0
N_BARS = 12  # names with a bar of their own
SEEN = 0.01  # of the largest bar: what is less is not drawn as unexplained
PLOT = 110.0  # height of errors over time
EDGES = (0, N_BINS // 2 - 1, N_BINS - 2)  # of the bins that are labelled: lowest, median and highest


@draw.register
def draw_drift(result: Drift, theme: Theme = "auto") -> bytes:
    """Draws as SVG the answers, the features that moved, or else those with the largest PSI, and what followed from it.

    Bins of a histogram are as wide as each other, and a dark line is the reference's share. Bars of the waterfall are
    the effects, from the mean forecast of the reference to the current one, with their intervals.
    """
    effect, unit = result.effect.forecast, result.schema.unit
    heading = f"{result.schema.output}: mean forecast {write_before_after(effect)}{f' {unit}' if unit else ''}"
    caption = f"{result.forecasts:,} forecasts beside {result.reference_forecasts:,} of the reference"
    body, y = Element("g"), TOP
    for question, answer in result.answers.items():
        group = body.add_group(f"{ASKED[question]} {answer}", class_="answer")
        look = {True: "solid", False: "box", None: "pale"}[result.verdicts[question].alarm]
        group.add_circle(look, MARGIN + 6, y + 9, 6)
        group.add_text(ASKED[question], MARGIN + 22, y + 13, "strong")
        group.add_text(abbreviate_words(answer, N_ANSWER), MARGIN + 22, y + 28, "muted")
        y += ANSWER
    if result.bins is not None and result.inputs:
        y = _add_histograms(body, y + GAP, result)
    if result.effect.total is not None and effect.reference is not None and effect.now is not None:
        y = _add_waterfall(body, y + GAP, result, effect.reference, effect.now)
    if result.errors is not None:
        y = _add_errors(body, y + GAP, result)
    root = new_picture(WIDTH, y + MARGIN, heading, caption, result.source)
    root.append(body)
    return root.serialise(theme)


def _add_histograms(root: Element, top: float, result: Drift) -> float:
    """Histograms of the features that moved, or of those with the largest PSI."""
    assert result.bins is not None
    order = sorted(range(len(result.inputs)), key=lambda number: -result.inputs[number].psi)
    moved = [number for number in order if result.inputs[number].moved]
    drawn = moved[:N_PANELS] or order[:ALONG]
    title = f"features that moved ({len(drawn)} of {len(moved)})" if moved else "features with the largest PSI"
    root.add_text(title, MARGIN, top, "strong")
    top, pitch = top + 30, (WIDTH - 2 * MARGIN + GAP) / ALONG
    now, then = (side.total().inputs[0] for side in (result.current, result.reference))
    now, then = (counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1) for counts in (now, then))
    for place, number in enumerate(drawn):
        row, column = divmod(place, ALONG)
        left, upper, one = MARGIN + column * pitch, top + row * (PANEL + BELOW), result.inputs[number]
        right, name = left + pitch - GAP, result.model_inputs.label(one.name)
        label = f"{name}: PSI {one.psi:.2g}, shift {write_signed(one.shift, one.unit)}"
        group = root.add_group(label, class_="panel", data_feature=one.name)
        shift = write_signed(one.shift, None if one.unit is None else abbreviate(one.unit, 8))
        group.add_text(abbreviate(name), left, upper - 6)
        group.add_text(shift, right, upper - 6, "end muted")
        highest = max(*now[number].tolist(), *then[number].tolist(), 0.1)
        x, y = Scale(0.0, N_BINS, left, right), Scale(0.0, highest, upper + PANEL, upper)
        for bin_, (share, before) in enumerate(zip(now[number].tolist(), then[number].tolist(), strict=True)):
            at, width = x.at(bin_ + 0.1), x.at(bin_ + 0.9) - x.at(bin_ + 0.1)
            height = {"y": y.at(share), "height": y.start - y.at(share)}
            group.add("rect", class_="f6", **height, x=at, width=width, fill_opacity=0.8)
            group.add_path("whisker", f"M{x.at(bin_):.2f} {y.at(before):.2f}H{x.at(bin_ + 1):.2f}")
        group.add_path("axis", f"M{left:.2f} {y.start:.2f}H{right:.2f}")
        for edge in EDGES:
            group.add_path("tick", f"M{x.at(edge + 1):.2f} {y.start:.2f}v4")
            group.add_text(f"{result.bins.edges[number][edge]:.3g}", x.at(edge + 1), y.start + 16, "middle muted")
    return top + -(-len(drawn) // ALONG) * (PANEL + BELOW) - 24


def _add_waterfall(root: Element, top: float, result: Drift, before: float, after: float) -> float:
    """A bar for the effect of each name, from the mean forecast of the reference to the current one."""
    unit, bars = result.schema.unit, list[tuple[str, float, UseDrift | None]]()
    use = sorted(result.use, key=lambda each: -abs(each.effect or 0))
    named = use if len(use) <= N_BARS + 1 else use[:N_BARS]
    bars += [(result.model_inputs.label(each.name), each.effect or 0.0, each) for each in named]
    if rest := use[len(named) :]:
        bars.append((f"{len(rest)} more", sum(each.effect or 0.0 for each in rest), None))
    if result.effect.baseline_shift:
        bars.append(("baseline shift", result.effect.baseline_shift, None))
    left_out = after - before - sum(amount for _, amount, _ in bars)
    if abs(left_out) > SEEN * max(abs(after - before), *(abs(amount) for _, amount, _ in bars)):
        bars.append(("not explained", left_out, None))
    ends = list(accumulate((amount for _, amount, _ in bars), initial=before))
    root.add_text("change of the mean forecast by name, with its interval", MARGIN, top, "strong")
    root.add_text("share", SHARE, top, "end muted")
    top += 10
    intervals = [
        [start + end for end in (one.contribution.interval or ())] if one else []
        for (_, _, one), start in zip(bars, ends, strict=False)
    ]
    known = [before, after, *ends, *(end for interval in intervals for end in interval)]
    x, bottom = scale_over(known, LEFT, RIGHT, 0.03), top + ROW * (len(bars) + 2)
    root.add_rules(x, top, bottom, unit)
    for y, name, value in ((top, "reference", before), (bottom - ROW, "current", after)):
        root.add_circle("dot", x.at(value), y + ROW / 2, 4)
        root.add_text(name, LEFT - 12, y + 14, "end strong")
        root.add_text(write_amount(value), RIGHT + 12, y + 14, "strong")
    steps = zip(bars, pairwise(ends), intervals, strict=True)
    for number, ((name, amount, one), (start, end), interval) in enumerate(steps, start=1):
        y, label = top + ROW * number, f"{name}: {write_signed(amount, unit)}"
        if one is not None and one.data is not None and one.model is not None:
            label += f" (data {write_signed(one.data.value, unit)}, model {write_signed(one.model.value, unit)})"
        group = root.add_group(label, class_="step", data_feature=name)
        group.add_step(x, start, end, y, ROW, BAR)
        if interval:
            group.add_whisker(x, interval, y + ROW / 2)
        strong = " strong" if one is not None and one.moved else ""
        group.add_text(abbreviate(name), LEFT - 12, y + 14, f"end{strong}")
        group.add_text(write_signed(amount, None), RIGHT + 12, y + 14, strong.strip() or None)
        if one is not None:
            group.add_text(write_before_after(one.share, ".1%"), SHARE, y + 14, f"end muted{strong}")
    return bottom + AXIS


def _add_errors(root: Element, top: float, result: Drift) -> float:
    """The mean absolute error of each block of the reference, and then, in a shade, of the current side."""
    unit, sides = result.schema.unit, (result.reference, result.current)
    title = f"mean absolute error over time{f', {unit}' if unit else ''}; current side shaded"
    root.add_text(title, MARGIN, top, "strong")
    top += 14
    counts = np.concatenate([side.known for side in sides])
    known = np.flatnonzero(counts)
    values = (np.concatenate([side.sizes_of_errors for side in sides])[known] / counts[known]).tolist()
    left, right = 76.0, WIDTH - MARGIN
    x, y = Scale(0.0, float(len(counts)), left, right), scale_over([0.0, *values], top + PLOT, top)
    start = x.at(len(result.reference))
    root.add("rect", class_="shade", x=start, y=top, width=right - start, height=PLOT)
    root.add_levels(y, left, right, 4)
    for side, (begin, end) in zip(sides, ((left, start), (start, right)), strict=True):
        if side.known.any():
            mean = y.at(float(side.sizes_of_errors.sum() / side.known.sum()))
            root.add_path("whisker", f"M{begin:.2f} {mean:.2f}H{end:.2f}")
    group = root.add_group("mean absolute error over time; the dark lines are the means", class_="errors")
    group.add_line("part s1 main", x.all_at((known + 0.5).tolist()), y.all_at(values))
    return top + PLOT
