"""The first page of a report: what is forecast and how well, what drives it, and what to read with care.

It is written for readers who do not know the network. Every figure is of the reference windows or of the checkpoint's
metrics, and is in the evidence of its finding. `kanmodel.show.report` draws the panels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kanmodel.alternatives.what_if import WhatIf
from kanmodel.arrays import Array
from kanmodel.attribution.baseline import spread_windows
from kanmodel.attribution.ledger import sum_groups
from kanmodel.report.accuracy import measure_accuracy, measure_intervals
from kanmodel.report.finding import AmountFormat, Drivers, Example, Finding, Response, Subject, write_percent
from kanmodel.tables.inputs import MONTHS
from kanmodel.tables.statistics.bootstrap import CONFIDENCE
from kanmodel.text import capitalise, list_some, shorten_names

N_NAMED = 3  # features, months or hours named in a sentence, at most
N_DRIVERS = 8  # with a bar of their own
N_RESPONSES = 3  # drivers that are changed
N_CHANGED = 64  # reference windows, taken evenly, in which they are
N_LABEL = 28  # most characters of the name of a response
FEW_WINDOWS = 100
N_POINTS = 21  # of a response, from two standard deviations below to two above


def summarise(subject: Subject) -> tuple[Finding, ...]:
    """Whether it has skill, what is forecast, how well, what drives it, what if that changes, and what to doubt."""
    accuracy, intervals = measure_accuracy(subject), measure_intervals(subject)
    sure = () if intervals is None else (intervals,)
    return (
        _judge(subject),
        _forecast(subject),
        accuracy,
        *sure,
        _drivers(subject),
        _respond(subject),
        _limits(subject, accuracy.evidence["test"].get("test_mae")),
    )


def _judge(subject: Subject) -> Finding:
    """The skill of the model with all its outputs; a red one's sentence stands in large type."""
    skill = subject.model.skill
    evidence = asdict(skill) | {"verdict": skill.verdict, "better_by": skill.better_by, "interval": skill.interval}
    percents = [f"{100 * each:.0f}" for each in (*(skill.interval or ()), skill.better_by or 0.0)]
    evidence |= {"percents": [float(each) for each in percents], "confidence_percent": round(100 * CONFIDENCE)}
    answer = " ".join(filter(None, (skill.reason, skill.figures)))
    return Finding("skill", "Does the model know more than simple forecasts?", answer, evidence)


def _forecast(subject: Subject) -> Finding:
    config, output, times = subject.model.config, subject.output, subject.times
    name, target, span = config.outputs[output], config.target_of(output), subject.model.reference.span
    time = config.time if config.time and config.time.dated else None
    window = f"{config.lookback} rows" if time is None else time.describe_steps(config.lookback)
    ahead = config.ahead + output // len(config.targets)
    lead = None if time is None or not config.ahead else time.describe_steps(ahead)
    reads = f"last {window}" if config.lookback > 1 else "newest row"
    answer = f"`{name}`" if target.title is None else f"{capitalise(target.title)} (`{name}`)"
    answer += ", a probability" if config.is_classifier else f", in {target.unit}" if target.unit else ""
    answer += "" if lead is None else f", {lead} after the newest row that is known"
    n_features, inputs = len(config.features), "input" if len(config.features) == 1 else "inputs"
    answer += f". The model reads the {reads} of {n_features} {inputs}."
    if len(config.outputs) > 1:
        answer += f" It has {len(config.outputs)} outputs, `{config.outputs[0]}` to `{config.outputs[-1]}`;"
        answer += f" this report is about `{name}` alone."
    answer += f" All figures are of {span.windows} past situations"
    answer += f" from {times.name(0)} to {times.name(-1)}" if times.texts else ""
    fitted = subject.model.provenance.source == "train"
    answer += ", which the model was not fitted to." if fitted else ", which the checkpoint holds."
    evidence = {
        "output": name,
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
        "span": times.span,
    }
    return Finding("forecast", "What is forecast?", answer, evidence)


def _drivers(subject: Subject) -> Finding:
    drivers, times, say = subject.drivers, subject.times, subject.say
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
    if (growth := first.permutation_mae_increase) is not None:
        answer += f" With `{first.name}` shuffled among the situations, the average miss would be {say(abs(growth))}"
        answer += f" {'larger' if growth >= 0 else 'smaller'}."
    example, chosen = _find_example(subject)
    answer += f" In a typical case{f', the forecast made on {times.name(chosen)},' if times.texts else ''}"
    answer += f" {describe_example(example, say)}"
    evidence = {"drivers": rows, "rest": list(others), "example": vars(example) | {"window": chosen}}
    panels = (Drivers(rows[:n_drawn], others, subject.importance.unit), example)
    headlines = ((write_percent(first.share), f"of all movement is due to `{first.name}`"),)
    return Finding("drivers", "What drives the forecasts?", answer, evidence, panels=panels, headlines=headlines)


def describe_example(example: Example, say: AmountFormat) -> str:
    """How the largest contributions lead from average conditions to the forecast."""
    amounts = {name: say.signed(value) for name, value in list(example.contributions.items())[:N_NAMED]}
    named = [f"`{name}` {amount}" for name, amount in amounts.items() if amount != say.signed(0.0)]
    more = ["and so on"] if named and len(example.contributions) > len(named) else []
    told = ", ".join([f"average conditions give {say(example.start)}", *named, *more])
    told += f", which makes {say(example.prediction)}"
    return told + ("." if example.actual is None else f"; the actual value was {say(example.actual)}.")


def fold_contributions(names: Sequence[str], values: Array) -> dict[str, float]:
    """The largest contributions by name, and last those of the others together."""
    order = np.argsort(-np.abs(values), kind="stable").tolist()
    n_drawn = N_DRIVERS - 2 if len(order) > N_DRIVERS - 1 else len(order)
    found = {names[number]: float(values[number]) for number in order[:n_drawn]}
    if rest := order[n_drawn:]:
        found[f"{len(rest)} others"] = float(values[rest].sum())
    return found


def _find_example(subject: Subject) -> tuple[Example, int]:
    """A typical forecast, and its number: the magnitudes of its contributions are the nearest to their means."""
    importance, drivers, times, actual = subject.importance, subject.drivers, subject.times, subject.actual
    names = subject.model.config.feature_names
    contributions = sum_groups(importance.contributions, [tuple(map(names.index, row.members)) for row in drivers])
    magnitudes = np.abs(contributions)
    chosen = int(np.abs(magnitudes - magnitudes.mean(axis=0)).sum(axis=1).argmin())
    found = fold_contributions([row.name for row in drivers], contributions[chosen])
    made = f", {times.name(chosen)}".replace("`", "") if times.texts else ""
    example = Example(
        title=f"A typical forecast{made}",
        start=importance.baseline_prediction,
        contributions=found,
        prediction=float(importance.predictions[chosen]),
        actual=None if actual is None else float(actual[chosen]),
        unit=importance.unit,
    )
    return example, chosen


def _respond(subject: Subject) -> Finding:
    model, question = subject.model, "What happens if a driver changes?"
    config, references = model.config, model.reference.windows
    windows = model.scaling.features_to_original(spread_windows(model, N_CHANGED))
    names = [row.members[0] for row in subject.drivers if len(row.members) == 1 and row.connected]
    singles = [number for number in map(config.feature_names.index, names) if not config.features[number].fixed]
    # of levels, such as yes and no, and of two values there is none in between
    numeric = [number for number in singles if not model.inputs.of_feature[config.feature_names[number]].levels]
    gradual = [number for number in numeric if len(np.unique(references[..., number].round(6))) > 2][:N_RESPONSES]
    full = {config.feature_names[number]: model.inputs.label(config.feature_names[number]) for number in gradual}
    short = shorten_names([*full.values()], N_LABEL)
    labels = {name: (label, short[label]) for name, label in full.items()}
    spread = references.std(axis=(0, 1))
    panels = [_measure_response(subject, windows, number, spread[number], labels) for number in gradual]
    evidence = {"windows": len(windows), "curves": [vars(panel) for panel in panels]}
    if not panels:
        answer = "No input can be changed alone: all are in groups that mean one thing, or fixed as the calendar is."
        return Finding("response", question, answer, evidence)
    answer = " ".join(_describe_response(panel, subject.say) for panel in panels)
    answer += " All other inputs stay as they are, so this is what the model does, and not what the world would do,"
    answer += " where inputs change together."
    caption = "Line: the average over the situations. Band: eight of ten of them."
    caption += " Dashed: beyond the range of the training."
    return Finding("response", question, answer, evidence, panels=tuple(panels), caption=caption)


def _measure_response(
    subject: Subject, windows: Array, number: int, spread: float, labels: Mapping[str, tuple[str, str]]
) -> Response:
    """The response to a feature, by its number, up to two of its standard deviations."""
    column, size = subject.model.config.features[number], float(f"{spread:.2g}")
    size, points = (max(1.0, round(size)), 5) if column.integer else (size, N_POINTS)
    found = WhatIf.of(subject.model, windows, [column.name], None, (-2 * size, 2 * size, points))
    curves = [curve for (curve,) in found]
    forecasts = np.stack([curve.predictions[:, subject.output] for curve in curves])
    changes = forecasts - forecasts[:, [points // 2]]
    low, high = np.quantile(changes, [0.1, 0.9], axis=0).tolist()
    return Response(
        feature=column.name,
        title=labels[column.name][0],
        label=labels[column.name][1],
        feature_unit=column.unit,
        shift=curves[0].values.tolist(),
        change=changes.mean(axis=0).tolist(),
        low=low,
        high=high,
        outside=np.mean([curve.outside_training_range for curve in curves], axis=0).tolist(),
        unit=subject.importance.unit,
    )


def _describe_response(response: Response, say: AmountFormat) -> str:
    up, down = 3 * (len(response.shift) // 4), len(response.shift) // 4
    unit = {"%": "percentage points", None: ""}.get(response.feature_unit, response.feature_unit)
    size = f"{response.shift[up]:,.10g} {unit}".rstrip()
    span = f"{say.signed(response.low[up])} to {say.signed(response.high[up])} in eight of ten cases"
    return (
        f"If `{response.title}` is {size} higher throughout, the forecast changes by"
        f" {say.signed(response.change[up])} on average ({span}); if it is as much lower, by"
        f" {say.signed(response.change[down])}."
    )


def _limits(subject: Subject, test_mae: float | None) -> Finding:
    """What in the checkpoint speaks against the figures."""
    model, importance, pairs = subject.model, subject.importance, subject.correlated
    span, provenance, label = model.reference.span, model.provenance, model.inputs.label
    unlike = [each.feature for each in span.unlike_training]
    unused = [row.name for row in importance.features if not row.connected]
    converged, n_features = float(importance.converged.mean()), len(importance.features)
    evidence: dict[str, Any] = {
        "windows": span.windows,
        "unlike_training": unlike,
        "n_unlike": len(unlike),
        "n_features": n_features,
        "converged": converged,
        "n_unnamed": [max(0, len(names) - N_NAMED) for names in (unlike, unused)],
        "redundant": [{"features": list(names), "correlation": of} for names, of in pairs],
        "unused": unused,
        "n_redundant": len(pairs),
        "n_others": len(pairs) - 1,
        "unconverged": 1 - converged,
    }
    points = [f"The figures are of {span.windows} situations, which is few."] if span.windows < FEW_WINDOWS else []
    points += _doubt_errors(subject, test_mae, evidence) + _doubt_months(subject, evidence)
    if unlike:
        points.append(
            f"{len(unlike)} of {n_features} inputs behave differently here than in the rows of the training, in range,"
            f" mean or spread: {list_some([f'`{label(name)}`' for name in unlike], N_NAMED)}."
        )
    if pairs:
        (one, two), correlation = pairs[0]
        evidence["largest_correlation"], n = correlation, len(pairs) - 1
        more = f", as do {n} other pairs of inputs" if n > 1 else ", as does 1 other pair of inputs" if n else ""
        points.append(
            f"`{label(one)}` and `{label(two)}` move together (correlation {correlation:.3f}){more}: how the model"
            " divides what they have in common is arbitrary."
        )
    if unused:
        points.append(f"The model does not use {list_some([f'`{label(name)}`' for name in unused], N_NAMED)} at all.")
    if converged < 1:
        share = write_percent(1 - converged)
        points.append(f"In {share} of the situations the division among inputs is less exact than asked for.")
    if provenance.source == "prune":
        points.append("Parts of the network were removed after the training, which changes the forecasts.")
    elif not provenance.verified:
        points.append("That this checkpoint forecasts as the original model does was not checked.")
    if provenance.not_told_apart:
        points.append("Other readings of the imported weights fit the known predictions as well.")
    if left := model.metrics.get("left_out_windows"):
        evidence["left_out_windows"] = int(left)
        points.append(f"{int(left)} windows with missing values were left out of training and test.")
    points.append(
        "The shares and curves describe this model and not the world: another training on this data may give others."
    )
    answer = "\n".join(f"- {point}" for point in points)
    headline = (f"{len(unlike)} of {n_features}", "inputs behave unlike in training")
    question = "What should be read with care?"
    return Finding("limits", question, answer, evidence, headlines=(headline,) if unlike else ())


def _doubt_errors(subject: Subject, test_mae: float | None, evidence: dict[str, Any]) -> list[str]:
    """How the errors differ between the test and these windows, and over these; the figures go into the evidence."""
    times, say, actual = subject.times, subject.say, subject.actual
    if actual is None:
        return []
    miss, points = np.abs(subject.forecasts - actual), []
    worst = int(miss.argmax())
    evidence |= {"mae": float(miss.mean()), "test_mae": test_mae}
    evidence |= {"largest": float(miss[worst]), "largest_window": worst}
    if len(miss) > 1:
        halves = [float(half.mean()) for half in (miss[: len(miss) // 2], miss[len(miss) // 2 :])]
        evidence["halves"] = halves
        earlier, later = map(say, halves)
        point = f"The average miss is {earlier} in the earlier half of the situations and {later} in the later one"
        tested = "" if test_mae is None else f"; in the test after the training it was {say(test_mae)}"
        points.append(f"{point}{tested}.")
    date = f", in the forecast made on {times.name(worst)}" if times.texts else ""
    return [*points, f"The largest miss is {say(float(miss[worst]))}{date}."]


def _doubt_months(subject: Subject, evidence: dict[str, Any]) -> list[str]:
    """The months of which there is no situation, which go into the evidence."""
    if (forecast := subject.times.forecast) is None:
        return []
    months = set((forecast.astype("datetime64[s]").astype("datetime64[M]").astype(int) % 12).tolist())
    present, absent = ([MONTHS[n] for n in range(12) if (n in months) == is_in] for is_in in (True, False))
    evidence["absent_months"] = absent
    if len(absent) > 6:
        return [f"All situations are from {_and(present)}; of other months nothing is known here."]
    return [f"No situation is from {_and(absent)}."] if absent else []


def _split_count(text: str) -> list[float | str]:
    """``[24.0, "hours"]`` of ``24 hours``."""
    count, unit = text.split(" ", 1)
    return [float(count), unit]


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
