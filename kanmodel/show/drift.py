"""The picture of drift: three answers, histograms, the change of the mean forecast by name, and errors over time."""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np

from kanmodel.arrays import Array
from kanmodel.monitoring.drift import ASKED, Drift, UseDrift, write_change, write_signed
from kanmodel.result import Theme, draw
from kanmodel.show.svg import MARGIN, Part, Scale, new_picture, scale_over, write_amount, write_points
from kanmodel.tables.statistics.tally import N_BINS
from kanmodel.text import abbreviate, abbreviate_words

WIDTH, TOP, GAP = 760.0, 84.0, 26.0
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
    effect, unit = result.effect.forecast, result.watched.unit
    heading = f"{result.watched.output}: mean forecast {write_change(effect)}{f' {unit}' if unit else ''}"
    caption = f"{result.forecasts:,} forecasts beside {result.reference_forecasts:,} of the reference"
    body, y = Part("g"), TOP
    for question, answer in result.answers.items():
        y = _add_answer(body, y, ASKED[question], answer, result.verdicts[question].alarm)
    drawn = [number for number in _choose(result) if result.bins is not None]
    if drawn:
        y = _add_histograms(body, y + GAP, result, drawn)
    if result.effect.total is not None and effect.reference is not None and effect.now is not None:
        y = _add_waterfall(body, y + GAP, result, effect.reference, effect.now)
    if result.errors is not None:
        y = _add_errors(body, y + GAP, result)
    root = new_picture(WIDTH, y + MARGIN, heading, caption, result.source)
    root.add_heading(heading, caption)
    root.append(body)
    return root.serialise(theme)


def _add_answer(root: Part, y: float, question: str, answer: str, alarm: bool | None) -> float:
    group = root.add_group(f"{question} {answer}", class_="answer")
    look = {True: "solid", False: "box", None: "pale"}[alarm]
    group.add("circle", class_=look, cx=MARGIN + 6, cy=y + 9, r=6)
    group.add("text", question, x=MARGIN + 22, y=y + 13, class_="strong")
    group.add("text", abbreviate_words(answer, N_ANSWER), x=MARGIN + 22, y=y + 28, class_="muted")
    return y + ANSWER


def _choose(result: Drift) -> list[int]:
    """The features with a histogram, by number."""
    order = sorted(range(len(result.inputs)), key=lambda number: -result.inputs[number].psi)
    moved = [number for number in order if result.inputs[number].moved]
    return moved[:N_PANELS] or order[:ALONG]


def _add_histograms(root: Part, top: float, result: Drift, drawn: list[int]) -> float:
    assert result.bins is not None
    moved = sum(bool(each.moved) for each in result.inputs)
    title = f"features that moved ({len(drawn)} of {moved})" if moved else "features with the largest PSI"
    root.add("text", title, x=MARGIN, y=top, class_="strong")
    pitch = (WIDTH - 2 * MARGIN + GAP) / ALONG
    sides = [side.total().inputs[0] for side in (result.current, result.reference)]
    for place, number in enumerate(drawn):
        row, column = divmod(place, ALONG)
        left, upper = MARGIN + column * pitch, top + 30 + row * (PANEL + BELOW)
        one = result.inputs[number]
        label = f"{one.name}: PSI {one.psi:.2g}, shift {write_signed(one.shift, one.unit)}"
        group = root.add_group(label, class_="panel", data_feature=one.name)
        shift = write_signed(one.shift, None if one.unit is None else abbreviate(one.unit, 8))
        group.add("text", abbreviate(one.name), x=left, y=upper - 6)
        group.add("text", shift, x=left + pitch - GAP, y=upper - 6, class_="end muted")
        now, then = (_shares(counts[number]) for counts in sides)
        _add_bins(group, left, left + pitch - GAP, upper, now, then, result.bins.edges[number])
    return top + 30 + -(-len(drawn) // ALONG) * (PANEL + BELOW) - 24


def _shares(counts: Array) -> list[float]:
    shares: list[float] = (counts / max(counts.sum(), 1)).tolist()
    return shares


def _add_bins(
    group: Part, left: float, right: float, top: float, now: list[float], then: list[float], edges: Array
) -> None:
    x, y = Scale(0.0, N_BINS, left, right), Scale(0.0, max(*now, *then, 0.1), top + PANEL, top)
    for place, share in enumerate(now):
        at = {"x": x.at(place + 0.1), "width": x.at(place + 0.9) - x.at(place + 0.1)}
        group.add("rect", class_="f6", y=y.at(share), height=y.start - y.at(share), **at, fill_opacity=0.8)
        height = y.at(then[place])
        group.add("path", class_="whisker", d=f"M{x.at(place):.2f} {height:.2f}H{x.at(place + 1):.2f}")
    group.add("path", class_="axis", d=f"M{left:.2f} {y.start:.2f}H{right:.2f}")
    for edge in EDGES:
        group.add("path", class_="tick", d=f"M{x.at(edge + 1):.2f} {y.start:.2f}v4")
        group.add("text", f"{edges[edge]:.3g}", x=x.at(edge + 1), y=y.start + 16, class_="middle muted")


def _add_waterfall(root: Part, top: float, result: Drift, before: float, after: float) -> float:
    """A bar for the effect of each name, from the mean forecast of the reference to the current one."""
    unit, bars = result.watched.unit, list[tuple[str, float, UseDrift | None]]()
    use = sorted(result.use, key=lambda each: -abs(each.effect or 0))
    named = use if len(use) <= N_BARS + 1 else use[:N_BARS]
    bars += [(each.name, each.effect or 0.0, each) for each in named]
    if rest := use[len(named) :]:
        bars.append((f"{len(rest)} more", sum(each.effect or 0.0 for each in rest), None))
    if result.effect.baseline_shift:
        bars.append(("baseline shift", result.effect.baseline_shift, None))
    left_out = after - before - sum(amount for _, amount, _ in bars)
    if abs(left_out) > SEEN * max(abs(after - before), *(abs(amount) for _, amount, _ in bars)):
        bars.append(("not explained", left_out, None))
    ends = list(accumulate((amount for _, amount, _ in bars), initial=before))
    root.add("text", "change of the mean forecast by name, with its interval", x=MARGIN, y=top, class_="strong")
    root.add("text", "share", x=SHARE, y=top, class_="end muted")
    top += 10
    reach = [
        start + end for (_, _, use), start in zip(bars, ends, strict=False)
        for end in (use.contribution.interval or () if use else ())
    ]  # fmt: skip
    x, bottom = scale_over([before, after, *ends, *reach], LEFT, RIGHT, 0.03), top + ROW * (len(bars) + 2)
    root.add_rules(x, top, bottom, unit)
    for number, (name, value) in ((0, ("reference", before)), (len(bars) + 1, ("current", after))):
        y = top + ROW * number
        root.add("circle", class_="dot", cx=x.at(value), cy=y + ROW / 2, r=4)
        root.add("text", name, x=LEFT - 12, y=y + 14, class_="end strong")
        root.add("text", write_amount(value, None), x=RIGHT + 12, y=y + 14, class_="strong")
    for number, ((name, amount, one), (start, end)) in enumerate(zip(bars, pairwise(ends), strict=True), start=1):
        y, label = top + ROW * number, f"{name}: {write_signed(amount, unit)}"
        if one is not None and one.data is not None and one.model is not None:
            label += f" (data {write_signed(one.data.value, unit)}, model {write_signed(one.model.value, unit)})"
        group = root.add_group(label, class_="step", data_feature=name)
        low, high = sorted((x.at(start), x.at(end)))
        group.add(
            "rect", class_="rise" if amount > 0 else "fall", x=low, y=y + 4, width=max(high - low, 0.5), height=BAR
        )
        group.add("path", class_="axis", d=f"M{x.at(end):.2f} {y + 4 + BAR}v{ROW - BAR}")
        if one is not None and one.contribution.interval is not None:
            ends_at = [x.at(start + bound) for bound in one.contribution.interval]
            group.add("path", class_="whisker", d=f"M{ends_at[0]:.2f} {y + 10:g}H{ends_at[1]:.2f}")
        look = " strong" if one is not None and one.moved else ""
        group.add("text", abbreviate(name), x=LEFT - 12, y=y + 14, class_=f"end{look}")
        group.add("text", write_signed(amount, None), x=RIGHT + 12, y=y + 14, class_=look.strip() or None)
        if one is not None:
            group.add("text", write_change(one.share, ".1%"), x=SHARE, y=y + 14, class_=f"end muted{look}")
    return bottom + AXIS


def _add_errors(root: Part, top: float, result: Drift) -> float:
    """The mean absolute error of each block of the reference, and then, in a shade, of the current side."""
    unit, sides = result.watched.unit, (result.reference, result.current)
    title = f"mean absolute error over time{f', {unit}' if unit else ''}; current side shaded"
    root.add("text", title, x=MARGIN, y=top, class_="strong")
    top += 14
    counts = np.concatenate([side.known for side in sides])
    sums = np.concatenate([side.sizes_of_errors for side in sides])
    known = np.flatnonzero(counts)
    values = (sums[known] / counts[known]).tolist()
    left, right = 76.0, WIDTH - MARGIN
    x, y = Scale(0.0, float(len(counts)), left, right), scale_over([0.0, *values], top + PLOT, top)
    start = x.at(len(result.reference))
    root.add("rect", class_="shade", x=start, y=top, width=right - start, height=PLOT)
    root.add_levels(y, left, right, 4)
    for side, (begin, end) in zip(sides, ((left, start), (start, right)), strict=True):
        if side.known.any():
            mean = y.at(float(side.sizes_of_errors.sum() / side.known.sum()))
            root.add("path", class_="whisker", d=f"M{begin:.2f} {mean:.2f}H{end:.2f}")
    points = write_points([x.at(place + 0.5) for place in known.tolist()], [y.at(value) for value in values])
    group = root.add_group("mean absolute error over time; the dark lines are the means", class_="errors")
    group.add("polyline", class_="part s1 main", points=points)
    return top + PLOT
