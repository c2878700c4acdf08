"""The first page of a report: what is forecast and how well, what drives it, and what to read with care.

It is written for readers who do not know the network. Every figure is of the reference windows or of the checkpoint's
metrics, and is in the evidence of its finding. A panel is a small picture of some of them, which `kanmodel.show.report`
draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kanmodel.alternatives.what_if import WhatIf
from kanmodel.attribution.baseline import spread_windows
from kanmodel.attribution.ledger import sum_groups
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import resolve_groups
from kanmodel.report.accuracy import measure_accuracy, measure_intervals, predict_reference
from kanmodel.report.finding import MONTHS, Amounts, Drivers, Example, Finding, Panel, Response, Times, write_percent
from kanmodel.structure.importance import Attribution, Importance
from kanmodel.text import capitalise, list_some, shorten_names

N_NAMED = 3  # features, months or hours named in a sentence, at most
N_DRIVERS = 8  # with a bar of their own
N_RESPONSES = 3  # drivers that are changed
N_CHANGED = 64  # reference windows, taken evenly, in which they are
N_LABEL = 28  # most characters of the name of a response
FEW_WINDOWS = 100
N_POINTS = 21  # of a response, from two standard deviations below to two above


def summarise(model: Forecaster, importance: Importance) -> tuple[Finding, ...]:
    """What is forecast, how well and how surely, what drives it, what if that changes, and what to read with care."""
    output = importance.output_index
    when, say, drivers = Times.of(model, output), Amounts.of(model, output), find_drivers(model, importance)
    accuracy, intervals = measure_accuracy(model, output, when, say), measure_intervals(model, output, when, say)
    return (
        _forecast(model, importance, when),
        accuracy,
        *([] if intervals is None else [intervals]),
        _drivers(model, importance, drivers, when, say),
        _respond(model, importance, drivers, say),
        _limits(model, importance, accuracy, when, say),
    )


def _forecast(model: Forecaster, importance: Importance, when: Times) -> Finding:
    config, output, span = model.config, importance.output_index, model.reference.span
    target, time = config.target_of(output), config.time if config.time and config.time.dated else None
    window = f"{config.lookback} rows" if time is None else time.describe_steps(config.lookback)
    ahead = config.ahead + output // len(config.targets)
    lead = None if time is None or not config.ahead else time.describe_steps(ahead)
    reads = f"last {window}" if config.lookback > 1 else "newest row"
    answer = f"`{importance.output}`" if target.title is None else f"{capitalise(target.title)} (`{importance.output}`)"
    answer += ", a probability" if config.is_classifier else f", in {target.unit}" if target.unit else ""
    answer += "" if lead is None else f", {lead} after the newest row that is known"
    n_features, inputs = len(config.features), "input" if len(config.features) == 1 else "inputs"
    answer += f". The model reads the {reads} of {n_features} {inputs}."
    if len(config.outputs) > 1:
        answer += f" It has {len(config.outputs)} outputs, `{config.outputs[0]}` to `{config.outputs[-1]}`;"
        answer += f" this report is about `{importance.output}` alone."
    answer += f" All figures are of {span.windows} past situations"
    answer += f" from {when.name(0)} to {when.name(-1)}" if when.texts else ""
    fitted = model.provenance.source == "train"
    answer += ", which the model was not fitted to." if fitted else ", which the checkpoint holds."
    evidence = {
        "output": importance.output,
        "title": target.title,
        "unit": target.unit,
        "outputs": len(config.outputs),
        "features": n_features,
        "lookback": config.lookback,
        "reads": _split_count(window),
        "lead": None if lead is None else _split_count(lead),
        "windows": span.windows,
        "first": span.first,
        "last": span.last,
        "span": when.span,
    }
    return Finding("forecast", "What is forecast?", answer, evidence)


def find_drivers(model: Forecaster, importance: Importance) -> list[Attribution]:
    """The rows of outermost groups and of features without a group, most important first."""
    parts = set(resolve_groups(model.config.groups, model.config.feature_names).parts)
    return [row for row in importance.groups or importance.features if row.name in parts]


def _drivers(
    model: Forecaster, importance: Importance, drivers: Sequence[Attribution], when: Times, say: Amounts
) -> Finding:
    unit = importance.unit
    n_drawn = N_DRIVERS if len(drivers) > N_DRIVERS + 1 else len(drivers)
    rows = [
        {"name": row.name, "mean_abs_contribution": row.mean_abs_contribution, "share": row.share}
        | {"interval": list(row.interval), "permutation_mae_increase": row.permutation_mae_increase}
        for row in drivers
    ]
    others = len(rows) - n_drawn, sum(row.share for row in drivers[n_drawn:])
    first, next_ = drivers[0], [row for row in drivers[1:N_NAMED] if row.share > 0]
    answer = f"`{first.name}` moves the forecast most: by {say(first.mean_abs_contribution)} on average away"
    answer += f" from the forecast for average conditions, {write_percent(first.share)} of all movement."
    if next_:
        named = " and ".join(f"`{row.name}` ({write_percent(row.share)})" for row in next_)
        answer += f" Next {'come' if len(next_) > 1 else 'comes'} {named}."
    if first.permutation_mae_increase is not None:
        growth = say(abs(first.permutation_mae_increase))
        larger = "larger" if first.permutation_mae_increase >= 0 else "smaller"
        answer += f" With `{first.name}` shuffled among the situations, the average miss would be {growth} {larger}."
    example, chosen = _find_example(model, importance, drivers, when)
    answer += f" In a typical case{f', the forecast made on {when.name(chosen)},' if when.texts else ''}"
    amounts = [f"`{name}` {say.signed(value)}" for name, value in list(example.contributions.items())[:N_NAMED]]
    answer += f" average conditions give {say(example.start)}, {', '.join(amounts)}"
    answer += f"{', and so on,' if len(example.contributions) > N_NAMED else ','} which makes {say(example.prediction)}"
    answer += "." if example.actual is None else f"; the actual value was {say(example.actual)}."
    evidence = {"drivers": rows, "rest": list(others), "example": vars(example) | {"window": chosen}}
    panels = (Drivers(rows[:n_drawn], others, unit), example)
    headlines = ((write_percent(first.share), f"of all movement is due to `{first.name}`"),)
    return Finding("drivers", "What drives the forecasts?", answer, evidence, panels=panels, headlines=headlines)


def _find_example(
    model: Forecaster, importance: Importance, drivers: Sequence[Attribution], when: Times
) -> tuple[Example, int]:
    """A typical forecast, and its number: the magnitudes of its contributions are the nearest to their means."""
    names = model.config.feature_names
    members = [tuple(names.index(name) for name in row.members) for row in drivers]
    contributions = sum_groups(importance.contributions, members)
    sizes = np.abs(contributions)
    chosen = int(np.abs(sizes - sizes.mean(axis=0)).sum(axis=1).argmin())
    values = contributions[chosen]
    order = np.argsort(-np.abs(values), kind="stable").tolist()
    n_drawn = N_DRIVERS - 2 if len(order) > N_DRIVERS - 1 else len(order)
    found = {drivers[number].name: float(values[number]) for number in order[:n_drawn]}
    if rest := order[n_drawn:]:
        found[f"{len(rest)} others"] = float(values[rest].sum())
    targets, time = model.reference.targets, f", {when.name(chosen)}".replace("`", "") if when.texts else ""
    actual = None if targets is None else float(targets[chosen, importance.output_index])
    forecast = float(importance.predictions[chosen])
    start, title = importance.baseline_prediction, f"A typical forecast{time}"
    return Example(title, start, found, forecast, actual, importance.unit), chosen


def _respond(model: Forecaster, importance: Importance, drivers: Sequence[Attribution], say: Amounts) -> Finding:
    config, output, question = model.config, importance.output_index, "What happens if a driver changes?"
    windows = model.scaling.features_to_original(spread_windows(model, N_CHANGED))
    references = model.scaling.features_to_original(model.reference.scaled)
    spread = references.std(axis=(0, 1))
    names = [row.members[0] for row in drivers if len(row.members) == 1 and row.connected]
    singles = [number for number in map(config.feature_names.index, names) if not config.features[number].fixed]
    # of two values, such as yes and no, there is none in between
    gradual = [number for number in singles if len(np.unique(references[..., number].round(6))) > 2]
    panels, sentences = list[Panel](), list[str]()
    labels = shorten_names([config.feature_names[number] for number in gradual[:N_RESPONSES]], N_LABEL)
    for number in gradual[:N_RESPONSES]:
        column, size = config.features[number], float(f"{spread[number]:.2g}")
        size = max(1.0, round(size)) if column.integer else size
        points = 5 if column.integer else N_POINTS
        found = WhatIf.of(model, windows, [column.name], None, (-2 * size, 2 * size, points))
        curves = [curve for (curve,) in found]
        changes = np.stack([curve.predictions[:, output] - curve.predictions[points // 2, output] for curve in curves])
        low, high = np.quantile(changes, [0.1, 0.9], axis=0).tolist()
        outside = np.mean([curve.outside_training_range for curve in curves], axis=0).tolist()
        shift = curves[0].values.tolist()
        response = Response(
            column.name,
            labels[column.name],
            column.unit,
            shift,
            changes.mean(axis=0).tolist(),
            low,
            high,
            outside,
            importance.unit,
        )
        panels.append(response)
        sentences.append(_describe_response(response, say))
    evidence = {"windows": len(windows), "curves": [vars(panel) for panel in panels]}
    if not panels:
        answer = "No input can be changed alone: all are in groups that mean one thing, or fixed as the calendar is."
        return Finding("response", question, answer, evidence)
    answer = " ".join(sentences) + " All other inputs stay as they are, so this is what the model does, and not what"
    answer += " the world would do, where inputs change together."
    caption = (
        "Line: the average over the situations. Band: eight of ten of them. Dashed: beyond the range of the training."
    )
    return Finding("response", question, answer, evidence, panels=tuple(panels), caption=caption)


def _describe_response(response: Response, say: Amounts) -> str:
    up, down = 3 * (len(response.shift) // 4), len(response.shift) // 4
    unit = {"%": "percentage points", None: ""}.get(response.feature_unit, response.feature_unit)
    size = f"{response.shift[up]:,.10g} {unit}".rstrip()
    span = f"{say.signed(response.low[up])} to {say.signed(response.high[up])} in eight of ten cases"
    return (
        f"If `{response.feature}` is {size} higher throughout, the forecast changes by"
        f" {say.signed(response.change[up])} on average ({span}); if it is as much lower, by"
        f" {say.signed(response.change[down])}."
    )


def find_correlated(importance: Importance) -> list[tuple[tuple[str, ...], float]]:
    """Pairs of features with a correlation of 0.9 or more in magnitude, and it, the largest first."""
    pairs: dict[tuple[str, ...], float] = {}
    for row in importance.features:
        for partner in row.redundant_with:
            pairs.setdefault(tuple(sorted((row.name, partner.name))), partner.correlation)
    return sorted(pairs.items(), key=lambda pair: -abs(pair[1]))


def _limits(model: Forecaster, importance: Importance, accuracy: Finding, when: Times, say: Amounts) -> Finding:
    """What in the checkpoint speaks against the figures."""
    span, metrics = model.reference.span, model.metrics
    unlike, points = span.unlike_training, list[str]()
    converged = float(importance.converged.mean())
    pairs = find_correlated(importance)
    unused = [row.name for row in importance.features if not row.connected]
    evidence: dict[str, Any] = {"windows": span.windows, "unlike_training": [each.feature for each in unlike]}
    evidence |= {"n_unlike": len(unlike), "n_features": len(importance.features), "converged": converged}
    evidence |= {"n_unnamed": [max(0, len(names) - N_NAMED) for names in (unlike, unused)]}
    evidence |= {"redundant": [{"features": list(names), "correlation": of} for names, of in pairs], "unused": unused}
    evidence |= {"n_redundant": len(pairs), "n_others": len(pairs) - 1, "unconverged": 1 - converged}

    if span.windows < FEW_WINDOWS:
        points.append(f"The figures are of {span.windows} situations, which is few.")
    if "mae" in accuracy.evidence:
        points += _doubt_errors(model, importance.output_index, accuracy, when, say, evidence)
    if when.forecast is not None:
        months = when.forecast.astype("datetime64[s]").astype("datetime64[M]").astype(int) % 12
        absent = [MONTHS[number] for number in range(12) if number not in months]
        evidence["absent_months"], present = absent, [MONTHS[number] for number in np.unique(months).tolist()]
        if len(absent) > 6:
            points.append(f"All situations are from {_and(present)}; of other months nothing is known here.")
        elif absent:
            points.append(f"No situation is from {_and(absent)}.")
    if unlike:
        named = list_some([f"`{each.feature}`" for each in unlike], N_NAMED)
        points.append(
            f"{len(unlike)} of {len(importance.features)} inputs behave differently here than in the rows of the"
            f" training, in range, mean or spread: {named}."
        )
    if pairs:
        (one, two), correlation = pairs[0]
        evidence["largest_correlation"] = correlation
        more = f", as do {len(pairs) - 1} other pairs of inputs" if len(pairs) > 2 else ""
        more = ", as does 1 other pair of inputs" if len(pairs) == 2 else more
        points.append(
            f"`{one}` and `{two}` move together (correlation {correlation:.3f}){more}: how the model divides what they"
            " have in common is arbitrary."
        )
    if unused:
        points.append(f"The model does not use {list_some([f'`{name}`' for name in unused], N_NAMED)} at all.")
    if converged < 1:
        share = write_percent(1 - converged)
        points.append(f"In {share} of the situations the division among inputs is less exact than asked for.")
    if model.provenance.source == "prune":
        points.append("Parts of the network were removed after the training, which changes the forecasts.")
    elif not model.provenance.verified:
        points.append("That this checkpoint forecasts as the original model does was not checked.")
    if model.provenance.not_told_apart:
        points.append("Other readings of the imported weights fit the known predictions as well.")
    if left := metrics.get("left_out_windows"):
        evidence["left_out_windows"] = int(left)
        points.append(f"{int(left)} windows with missing values were left out of training and test.")
    points.append(
        "The shares and curves describe this model and not the world: another training on this data may give others."
    )
    answer = "\n".join(f"- {point}" for point in points)
    question, unusual = "What should be read with care?", f"{len(unlike)} of {len(importance.features)}"
    headlines = ((unusual, "inputs behave unlike in training"),) if unlike else ()
    return Finding("limits", question, answer, evidence, headlines=headlines)


def _doubt_errors(
    model: Forecaster, output: int, accuracy: Finding, when: Times, say: Amounts, evidence: dict[str, Any]
) -> list[str]:
    """How the errors differ between the test and these windows, and over these; the figures go into the evidence."""
    targets = model.reference.targets
    assert targets is not None
    miss, points = np.abs(predict_reference(model, output) - targets[:, output]), []
    here, tested, worst = float(miss.mean()), accuracy.evidence["test"].get("test_mae"), int(miss.argmax())
    evidence |= {"mae": here, "test_mae": tested, "largest": float(miss[worst]), "largest_window": worst}
    if len(miss) > 1:
        halves = float(miss[: len(miss) // 2].mean()), float(miss[len(miss) // 2 :].mean())
        evidence["halves"] = list(halves)
        earlier, later = (say(half) for half in halves)
        points.append(
            f"The average miss is {earlier} in the earlier half of the situations and {later} in the later one"
        )
        points[-1] += "." if tested is None else f"; in the test after the training it was {say(tested)}."
    date = f", in the forecast made on {when.name(worst)}" if when.texts else ""
    return [*points, f"The largest miss is {say(float(miss[worst]))}{date}."]


def _split_count(text: str) -> list[float | str]:
    """``[24.0, "hours"]`` of ``24 hours``."""
    count, unit = text.split(" ", 1)
    return [float(count), unit]


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
