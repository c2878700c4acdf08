"""How good the forecasts are, and how sure: errors beside simple forecasts, and intervals, by step, month and hour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import spread_windows
from kanmodel.attribution.ledger import explain_windows, sum_groups
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import resolve_groups
from kanmodel.network.intervals import BOUNDS, forecasts_of
from kanmodel.report.finding import AmountFormat, Band, Bars, Finding, Panel, Subject, write_percent
from kanmodel.tables.columns import QUANTILE
from kanmodel.tables.skill import describe_simple
from kanmodel.tables.statistics.errors import covered, measure_errors

N_WIDTHS = 128  # reference windows, taken evenly, of which the width is explained
N_BAND = 48  # the newest ones, which are drawn
N_SERIES = 12  # with the largest errors, which are shown
N_NAMED = 3  # drivers of the width named in a sentence
_LABELS = {"step": "{} steps ahead", "month": "in {}", "hour": "at {}:00", "series": "of {}"}


def _find_simple(model: Forecaster, output: int) -> dict[str, Array]:
    """Simple forecasts of the reference windows, (n,), by what they do in words: of the target's past, or the average.

    Persistence is the first; a regression is none of them.
    """
    simple = {of: values[:, output] for of, values in model.reference_simple.items() if of[0] != "ridge"}
    known = {describe_simple(*of): values for of, values in simple.items() if np.isfinite(values).all()}
    average = describe_simple("average", None)
    return known if [*known] == [average] else {name: values for name, values in known.items() if name != average}


def measure_accuracy(subject: Subject) -> Finding:
    """The finding about errors; where actual values are unknown, what the metrics of training say."""
    model, output, actual, forecast = subject.model, subject.output, subject.actual, subject.forecasts
    config, say, question = model.config, subject.say, "How good are the forecasts?"
    test = _find_metrics(model, output)
    evidence: dict[str, Any] = {"test": test}
    of_test = _describe_test(test)
    if actual is None:
        none = "A parameter of a distribution has no actual values"
        none = none if config.target_of(output).parameter else "The checkpoint holds no actual values"
        answer = f"{none} to compare its forecasts with.{of_test}"
        return Finding("accuracy", question, answer, evidence)
    miss, simple = np.abs(forecast - actual), _find_simple(model, output)
    middle, most = np.quantile(miss, [0.5, 0.9]).tolist()
    simple_mae = {name: float(np.abs(of - actual).mean()) for name, of in simple.items()}
    best = min(simple_mae, key=lambda name: simple_mae[name])
    mae, bias, other = float(miss.mean()), float((forecast - actual).mean()), simple_mae[best]
    better = 1 - mae / other if other > 0 else None
    evidence |= {"mae": mae, "median": middle, "within_90_percent": most, "bias": bias, "largest": float(miss.max())}
    evidence |= {"windows": len(miss), "simple_mae": simple_mae, "improvement": better}
    if level := QUANTILE.fullmatch(config.target_of(output).name):
        meant, below = float(level[2][1:]), float((actual <= forecast).mean())
        evidence |= {"level": meant, "covered": below, "exceeded": 1 - below, "meant": 1 - meant}
        exceeded, share = write_percent(1 - below), write_percent(1 - meant)
        answer = f"`{config.outputs[output]}` is meant to be exceeded by {share} of the actual values;"
        answer += f" {exceeded} of the {len(miss)} exceeded it.{of_test}"
        headline = (exceeded, f"of actual values exceed it, meant are {share}")
        return Finding("accuracy", question, answer, evidence, headlines=(headline,))

    answer, headlines = _describe_hits(model, output, evidence), [(say(mae), "average miss")]
    answer += f"The forecast misses the actual value by {say(mae)} on average. Half of all forecasts miss by"
    answer += f" less than {say(middle)}, nine of ten by less than {say(most)}."
    answer += f" {best[0].upper()}{best[1:]} would miss by {say(other)}"
    if better is not None:
        if better > -1:
            compared = f"{write_percent(abs(better))} {'smaller' if better >= 0 else 'larger'}"
            answer, beside = f"{answer}: the model's miss is {compared}", f"than {best}"
        else:
            compared = f"{1 - better:.1f} times"
            answer, beside = f"{answer}: the model's miss is {compared} as large", f"that of {best}"
        headlines.append((compared, beside))
        evidence["ratio"] = 1 - better
    if "right" in evidence:
        headlines.append((write_percent(evidence["right"]), "of outcomes are named right"))
    off = say(abs(bias))
    tends = "neither too high nor too low" if off == say(0.0) else f"{off} too {'high' if bias > 0 else 'low'}"
    answer += f". On average, forecasts are {tends}."
    panels = tuple(_split_misses(subject, simple[best], best))
    evidence["by"] = {panel.by: list(panel.rows) for panel in panels}
    answer += "".join(_describe_extremes(panel, say) for panel in panels)
    return Finding("accuracy", question, answer + of_test, evidence, panels=panels, headlines=tuple(headlines))


def _find_metrics(model: Forecaster, output: int) -> dict[str, float]:
    """The metrics of training, those of one output in place of those of all."""
    name, metrics = model.config.outputs[output], dict(model.metrics)
    own = {kind: metrics[f"{kind} {name}"] for kind in ("test_r2", "test_mae") if f"{kind} {name}" in metrics}
    return {kind: metrics[kind] for kind in ("test_windows", "test_r2", "test_mae") if kind in metrics} | own


def _describe_test(test: Mapping[str, float]) -> str:
    """What the metrics of training say, in a sentence after a space; empty without them."""
    if "test_r2" not in test:
        return ""
    explained = write_percent(max(0.0, test["test_r2"]))
    return f" In the test after its training it explained {explained} of the ups and downs of the actual values."


def _describe_hits(model: Forecaster, output: int, evidence: dict[str, Any]) -> str:
    """How often a classifier names the right outcome, which goes into the evidence; empty for other models."""
    config, targets, forecast = model.config, model.reference.targets, model.reference_predictions
    assert targets is not None
    n, first = len(config.targets), output - output % len(config.targets)
    if not config.is_classifier or not np.isin(targets, (0.0, 1.0)).all():
        return ""
    if config.output_function == "softmax" and n > 1:
        named, true = forecast[:, first : first + n].argmax(axis=1), targets[:, first : first + n].argmax(axis=1)
        usual = float(np.bincount(true).max() / len(true))
    else:
        named, true = forecast[:, output] >= 0.5, targets[:, output] == 1
        usual = float(max(true.mean(), 1 - true.mean()))
    right = float((named == true).mean())
    evidence |= {"right": right, "most_common": usual}
    answer = f"The outcome with the highest probability is the actual one in {write_percent(right)} of the situations;"
    return f"{answer} always naming the most common one would be right in {write_percent(usual)}. "


def _split_misses(subject: Subject, simple: Array, name: str) -> Iterator[Bars]:
    """The errors by step, series, month and hour, as far as there are two or more of them."""
    model, output, times, unit = subject.model, subject.output, subject.times, subject.say.unit
    config, targets, forecasts = model.config, model.reference.targets, model.reference_predictions
    assert targets is not None
    own = range(output % len(config.targets), len(config.outputs), len(config.targets))
    if len(own) > 1:
        others = [next(iter(_find_simple(model, number).items())) for number in own]
        steps = np.broadcast_to(np.arange(len(own)), (len(targets), len(own)))
        ours, theirs = np.take(forecasts, own, axis=1), np.stack([of for _, of in others], axis=1)
        errors = ours - targets[:, own], theirs - targets[:, own]
        labels = [max(1, config.ahead) + step for step in range(len(own))]
        yield Bars("step", _list_rows(labels, errors, steps), others[0][0], "steps ahead", unit)
    errors = forecasts[:, output] - targets[:, output], simple - targets[:, output]
    if (series := model.reference.series) is not None and len(set(series)) > 1:
        names, of_series = np.unique(np.array(series, dtype=object), return_inverse=True)
        rows = sorted(_list_rows(names.tolist(), errors, of_series), key=lambda row: -row["mae"])[:N_SERIES]
        column = config.series.name if config.series else "series"
        yield Bars("series", rows, name, f"{column}, the largest misses first", unit)
    for by, (periods, numbers) in times.groups.items():
        yield Bars(by, _list_rows(periods, errors, numbers), name, times.describe(by), unit)


def _list_rows(
    labels: Sequence[int | str], errors: tuple[Array, Array], groups: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """The rows of `Bars`, from the errors of the forecasts and of the simple ones, and the group of each."""
    measured = zip(labels, measure_errors(*errors, None, groups, len(labels)), strict=True)
    return [{"label": at, "windows": of.count, "mae": of.mae, "simple_mae": of.persistence_mae} for at, of in measured]


def measure_intervals(subject: Subject) -> Finding | None:
    """The finding about the intervals of an output, mostly that of the lowest level; None without."""
    model, output, times, say = subject.model, subject.output, subject.times, subject.say
    intervals, config, actual = model.intervals, model.config, subject.actual
    if intervals is None or output not in forecasts_of(config):
        return None
    forecast = forecasts_of(config).index(output)
    found = model.predict_bounds(model.reference.windows)
    predictions, (lower, upper) = found[0][:, output], (bounds[:, :, forecast] for bounds in found[1:])
    widths, calibration = upper[0] - lower[0], intervals.calibration
    percents = [f"{100 * level:g} %" for level in intervals.levels]
    usual, (narrow, wide) = float(np.median(widths)), np.quantile(widths, [0.1, 0.9]).tolist()
    varies = say(float(widths.min())) != say(float(widths.max()))
    named = f"test_coverage {intervals.levels[0]:g}"
    tested = model.metrics.get(f"{named} {config.outputs[output]}", model.metrics.get(named))
    evidence: dict[str, Any] = {"levels": list(intervals.levels), "kind": intervals.kind, "usual_width": usual}
    evidence |= {"eight_of_ten": [narrow, wide], "test_coverage": tested, "calibration": vars(calibration)}

    brief = f"The interval around the forecast is meant to hold {percents[0]} of the actual values"
    brief += "".join(f", a wider one {percent}" for percent in percents[1:]) + f". That of {percents[0]} is"
    brief += f" {say(usual)} wide in {'the middle case' if varies else 'every situation'}."
    if tested is not None:
        brief += f" In the test after the training it held {write_percent(tested)} of them."
    if actual is not None:
        held = covered(lower, upper, actual).mean(axis=1).tolist()
        evidence |= {"held": held, "windows": len(actual)}
        brief += f" Of the {len(actual)} situations here it holds {write_percent(held[0])}."
    answer = brief
    if say(wide) != say(narrow):
        answer += f" In eight of ten situations it is {say(narrow)} to {say(wide)} wide."
    since = f", from `{calibration.first}` to `{calibration.last}`" if calibration.first else ""
    answer += f" It was calibrated on {calibration.windows} windows{since}."
    ends = [times.name(max(0, len(widths) - N_BAND)), times.name(-1)] if times.texts else ["", ""]
    first, last = (end.replace("`", "").split(",")[0] for end in ends)  # days
    forecasts, low, high = (of[-N_BAND:].tolist() for of in (predictions, lower[0], upper[0]))
    came = None if actual is None else actual[-N_BAND:].tolist()
    title = f"Forecasts, {percents[0]} interval"
    panels: list[Panel] = [Band(title, forecasts, low, high, came, first, last, say.unit)]
    if varies:
        bars = [*_split_widths(subject, widths, f"Width of the {percents[0]} interval")]
        evidence["by"] = {each.by: list(each.rows) for each in bars}
        shares = evidence["drivers"] = _share_width(model, forecast)
        answer += "".join(_describe_extremes(each, say) for each in bars) + _name_drivers(shares, N_NAMED)
        brief += "".join(_describe_extremes(each, say) for each in bars[:1]) + _name_drivers(shares, N_NAMED - 1)
        panels += bars[:1]
    return Finding("intervals", "How sure are the forecasts?", answer, evidence, brief, tuple(panels))


def _split_widths(subject: Subject, widths: Array, title: str) -> Iterator[Bars]:
    """The mean widths by hour and month, as far as there are two or more of them, beside the usual one."""
    usual, times, figures = float(np.median(widths)), subject.times, ("width", "usual_width")
    for by, (labels, numbers) in reversed(times.groups.items()):
        counts = np.bincount(numbers)
        means = (np.bincount(numbers, widths) / counts).tolist()
        rows = [
            {"label": label, "windows": count, "width": width, "usual_width": usual}
            for label, count, width in zip(labels, counts.tolist(), means, strict=True)
        ]
        yield Bars(by, rows, "usual width", times.describe(by), subject.say.unit, title, figures)


def _share_width(model: Forecaster, forecast: int) -> dict[str, float]:
    """The share of each group or feature without one in all movement of a forecast's first width, largest first."""
    bounds, width = model.bound(forecast), 1 + BOUNDS.index("width")
    ledger = explain_windows(bounds, spread_windows(bounds, N_WIDTHS), width, detail="features")
    grouping = resolve_groups(model.groups, model.config.feature_names)
    members = [grouping.members[number] for number in grouping.whole]
    magnitudes = np.abs(sum_groups(ledger.contributions, members)).mean(axis=0)
    shares = zip(grouping.parts, (magnitudes / (magnitudes.sum() or 1.0)).tolist(), strict=True)
    return dict(sorted(shares, key=lambda pair: -pair[1]))


def _name_drivers(shares: Mapping[str, float], most: int) -> str:
    """What makes the width large or small, in a sentence after a space."""
    named = [f"`{name}` ({write_percent(share)})" for name, share in shares.items() if share][:most]
    if not named:
        return " No input changes its width."
    then = f", then {' and '.join(named[1:])}" if named[1:] else ""
    return f" What makes it wide or narrow is most of all {named[0]}{then}."


def _describe_extremes(panel: Bars, say: AmountFormat) -> str:
    """Where the figures are largest and smallest, in a sentence after a space."""
    name = panel.figures[0]
    worst, best = (choose(panel.rows, key=lambda row: row[name]) for choose in (max, min))
    what, (most, least) = "average miss" if name == "mae" else "average width", (say(of[name]) for of in (worst, best))
    if most == least:
        return f" By {panel.by}, the {what} is always the same, {most}."
    ends = [f"{_LABELS[panel.by].format(panel.name(row))} ({size})" for row, size in ((worst, most), (best, least))]
    return f" By {panel.by}, the {what} is largest {ends[0]} and smallest {ends[1]}."
