"""`Drift`: whether inputs moved, whether the model uses what moved, and whether errors are worse, from two tallies.

A reference and what is current are each a `Tally`: counts and sums that add up over hours, processes and replicas. Per
name, the outermost groups and the features in none, the *effect* is

    mean contribution(current) - mean contribution(reference)

Intervals are those of `differences`, p-values those of `p_values`, both of `kanmodel.tables.statistics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baseline, baseline_windows
from kanmodel.computing import part, slices
from kanmodel.forecaster import Forecaster
from kanmodel.monitoring.watched import (
    EXPLAINED,
    N_CURRENT,
    OF_CURRENT,
    Watched,
    block_size,
    count_stretch,
    explain_stretch,
    forecast_stretch,
)
from kanmodel.result import Pictured, Table
from kanmodel.tables.statistics.differences import (
    Bootstraps,
    Change,
    EffectPart,
    average,
    combine,
    known_or_none,
    list_changes,
    list_parts,
)
from kanmodel.tables.statistics.p_values import (
    MIN_SPANS,
    QUESTIONS,
    NullDistribution,
    Question,
    measure,
    null_distributions,
    warn_of_rate,
)
from kanmodel.tables.statistics.tally import Bins, Tally, population_stability, wasserstein
from kanmodel.tables.windows import Windows
from kanmodel.text import escape_markdown, list_some, with_unit, write_markdown

ASKED = {
    "inputs": "Did the inputs move?",
    "use": "Does the model use what moved?",
    "errors": "Are the errors worse?",
}
IN_BRIEF = ("reference", "current", "mean forecast", "explained", "parts", "moved, use unchanged", "nDCG of shares")
N_NAMED, N_SHOWN, N_IN_TEXT = 3, 10, 5  # names in an answer, rows in Markdown, and in text
OF_INPUTS = ("feature", "unit", "psi", "distance", "mean_reference", "mean", "shift", "p_value", "moved")
OF_USE = ("name", "share_reference", "share", "effect", "effect_low", "effect_high")
OF_ERRORS = ("figure", "reference", "now", "change", "change_low", "change_high", "worse")
OF_SERIES = ("series", "forecasts", "mean_reference", "mean", "mae_reference", "mae")
N_DRAWN = 48  # blocks of either side in a picture


@dataclass(frozen=True)
class Moved:
    """How a feature or a name moved, beside chance.

    Attributes:
        p_value: share of the spans of the reference, the current side counted as one, in which any statistic of the
            question is as large beside its usual size; None if that is unknown.
        moved: whether it is at most the false alarm rate of the question; None likewise.
    """

    p_value: float | None
    moved: bool | None


@dataclass(frozen=True)
class InputDrift(Moved):
    """A feature at the newest step of each window.

    Attributes:
        name, unit: of the feature; None for an unknown unit.
        psi: population stability index on the bins of the reference.
        mean: in its unit; the `change` is the shift.
        distance: Wasserstein distance of order 1, in its unit, of values that are binned.
    """

    name: str
    unit: str | None
    psi: float
    mean: Change
    distance: float | None

    @property
    def shift(self) -> float | None:
        """The change of the mean, in the feature's unit."""
        return self.mean.change


@dataclass(frozen=True)
class UseDrift(Moved):
    """What the model uses of a name: an outermost group, or a feature in none.

    Attributes:
        name: the name.
        share: of all names' mean |contribution|.
        contribution: mean contribution, the target's unit; the `change` is the effect.
        data, model: the parts of the effect that data and model have, if another model served the reference.
    """

    name: str
    share: Change
    contribution: Change
    data: EffectPart | None = None
    model: EffectPart | None = None

    @property
    def effect(self) -> float | None:
        """What the name adds to the change of the mean forecast, in the target's unit."""
        return self.contribution.change


@dataclass(frozen=True)
class SeriesDrift:
    """What changed of one of many series, in the target's unit; None where it is unknown. No verdict is given of it.

    Attributes:
        series: its name.
        forecasts: number of forecasts of the current side.
        mean_reference, mean: mean forecasts.
        mae_reference, mae: mean absolute errors.
    """

    series: str
    forecasts: int
    mean_reference: float | None
    mean: float | None
    mae_reference: float | None
    mae: float | None


@dataclass(frozen=True)
class Effect:
    """The change of the mean forecast, in the target's unit; None where nothing is explained.

    Attributes:
        forecast: mean of all forecasts.
        total: sum of the effects and the baseline's shift, which is the change of the mean of the explained forecasts,
            up to residuals.
        baseline_shift: of the forecast for the baseline, from another model that served the reference; else 0.
        data, model: sums of the parts; None unless another model did.
    """

    forecast: Change
    total: float | None
    baseline_shift: float
    data: float | None
    model: float | None


@dataclass(frozen=True)
class ErrorDrift:
    """Errors of the forecasts, the target's unit.

    Attributes:
        known: number of forecasts whose actual value is known.
        reference_known: the same of the reference.
        mae: mean absolute error.
        bias: mean of forecast minus actual value.
        coverage: share of actual values in the intervals, by level.
        worse: which of ``mae``, ``bias`` and ``coverage@0.8`` are worse beyond chance.
    """

    known: int
    reference_known: int
    mae: Change
    bias: Change
    coverage: dict[float, Change]
    worse: tuple[str, ...] = ()

    @property
    def changes(self) -> dict[str, Change]:
        """All of them by name, in the order of the statistics of `null_distributions`."""
        levels = {f"coverage@{level:g}": change for level, change in self.coverage.items()}
        return {"mae": self.mae, "bias": self.bias, **levels}


@dataclass(frozen=True)
class Verdict:
    """The answer to one question.

    Attributes:
        question: ``inputs``, did they move; ``use``, does the model use what moved; ``errors``, are they worse.
        alarm: whether something is beyond chance; None if that is unknown.
        p_value: the smallest of the question.
        false_alarms: rate at which a question has an alarm though nothing has changed: the one that was asked for, by
            default 0.01, or 1 / (spans + 1) if that is larger.
        spans: number of spans of the reference, as long as the current side, that do not overlap.
        missing: why the answer is unknown; else empty.
    """

    question: Question
    alarm: bool | None
    p_value: float | None
    false_alarms: float | None
    spans: int
    missing: str = ""


@dataclass(frozen=True, repr=False, eq=False)
class Drift(Pictured):
    """What changed from a reference to what is current, beside what changes by chance.

    Attributes:
        watched: names and units.
        forecasts, reference_forecasts: their numbers; `explained` and `reference_explained` those of the explained.
        inputs: by feature, in the model's order.
        use: by name, in the order of `watched.names`.
        effect: on the mean forecast.
        ndcg: normalised discounted cumulative gain of the names in the order of their current shares, with the
            reference's shares as gains: 1 for the same order (SageMaker Clarify's statistic of attribution drift); None
            where nothing is explained.
        errors: None where no actual value of the current side is known.
        verdicts: by question.
        reference, current: the tallies, with neighbouring blocks as one, for pictures.
        bins: those of the features and then of the forecasts; None if they were not given.
        notes: number and time of the windows of the reference and of the current side, and how many are left out.
        unconverged: number of explanations that are not within the tolerance.
        by_series: of many series each, those whose errors grew most first; empty of one.
    """

    watched: Watched
    forecasts: int
    reference_forecasts: int
    explained: int
    reference_explained: int
    inputs: tuple[InputDrift, ...]
    use: tuple[UseDrift, ...]
    effect: Effect
    ndcg: float | None
    errors: ErrorDrift | None
    verdicts: dict[Question, Verdict]
    reference: Tally
    current: Tally
    bins: Bins | None = None
    notes: tuple[str, str] = ("", "")
    unconverged: int = 0
    by_series: tuple[SeriesDrift, ...] = ()

    @classmethod
    def of(
        cls,
        watched: Watched,
        reference: Tally,
        current: Tally,
        *,
        length: int | None = None,
        false_alarms: float | None = None,
        crossed: tuple[Tally, Tally] | None = None,
        baseline_shift: float = 0.0,
        **about: Any,
    ) -> Drift:
        """Compares two tallies of the same bins and names.

        Args:
            watched: names and units of their columns.
            reference: blocks in order of time.
            current: likewise.
            length: how many blocks of the reference are as long as the current side; by default as many as it has.
            false_alarms: rate of false alarms of each question; None for the lowest that the spans of the reference
                can hold, and at least 0.01. Below 1 / (spans + 1) a warning says which rate is used.
            crossed: if another model served the reference, the tallies of this model on the reference's windows, and of
                the other on the current ones, in the same blocks, from the same baseline.
            baseline_shift: then the forecast of this model for that baseline, minus that of the other.
            **about: further attributes.
        """
        totals = _Sides(current.total(), reference.total())
        (now, then), sides = (totals.current, totals.reference), _Sides(current, reference)
        length = length or max(1, len(current))
        chance = null_distributions(reference, min(len(reference), length))
        warn_of_rate(chance.values(), false_alarms)
        # PSI depends on the number of forecasts, so that of more than a span has is measured on as many.
        few = min(1.0, then.forecasts.sum() / len(reference) * length / max(now.forecasts.sum(), 1))
        like = replace(now, inputs=few * now.inputs)
        p_values = {question: chance[question].judge(of[0]) for question, of in measure(like, then).items()}
        verdicts = {
            question: _decide(chance[question], p_values[question], false_alarms, question, totals, length)
            for question in QUESTIONS
        }
        use = tuple(_list_use(sides, watched, crossed, p_values["use"], verdicts["use"]))
        return cls(
            watched,
            int(now.forecasts.sum()),
            int(then.forecasts.sum()),
            int(now.explained.sum()),
            int(then.explained.sum()),
            inputs=tuple(_list_inputs(sides, watched, p_values["inputs"], verdicts["inputs"])),
            use=use,
            effect=_find_effect(sides, use, baseline_shift),
            ndcg=rank_gain(then.sizes[0], now.sizes[0]) if now.explained.all() and then.explained.all() else None,
            errors=_find_errors(sides, watched, p_values["errors"], verdicts["errors"]),
            verdicts=verdicts,
            reference=reference.merged(N_DRAWN),
            current=current.merged(N_DRAWN),
            **about,
        )

    @classmethod
    def between(
        cls,
        model: Forecaster,
        output: int,
        reference: Windows,
        current: Windows,
        against: tuple[Forecaster, int] | None = None,
        explained: int = EXPLAINED,
        false_alarms: float | None = None,
    ) -> Drift:
        """Forecasts and explains the windows of two stretches of time, and compares their tallies.

        Args:
            model: the model, and the `output` by its number.
            output: likewise.
            reference: windows in order of time.
            current: likewise.
            against: the model that served the reference, and the number of its output; None for the same.
            explained: most windows of the reference that are explained, chosen evenly, and no denser than those of the
                current side: up to 1 / `OF_CURRENT` as many, and at least 256.
            false_alarms: as of `of`.

        Raises:
            NonFiniteError: a forecast or an explanation is not finite.
        """
        reference, current = reference.by_time(), current.by_time()
        watched, sides, start = Watched.of(model, output), (reference, current), Baseline()
        served = against or (model, output), (model, output)
        if against is not None:
            mean = (model.reference.mean + against[0].reference.mean) / 2
            start = Baseline("instance", instance=np.broadcast_to(mean, model.config.window_shape))
        with part(0.3):
            forecasts = [forecast_stretch(*by, side) for by, side in slices(list(zip(served, sides, strict=True)))]
        bins = Bins.of(np.column_stack([reference.newest, forecasts[0][0]]))
        lengths = len(reference), len(current)
        size = block_size(*lengths, len(watched.features))
        sizes = size, max(1, min(size, lengths[1] // N_CURRENT))
        of_current = min(lengths[1], explained, max(EXPLAINED, explained) // OF_CURRENT)
        counts = min(explained, -(-lengths[0] * of_current // lengths[1])), of_current
        asked = [(0, served[0]), (1, served[1])] + ([] if against is None else [(0, served[1]), (1, served[0])])
        tallies, unconverged = list[Tally](), 0
        for number, by in slices(asked):
            side, (forecast, errors, inside) = sides[number], forecasts[number]
            contributions, n_failed = explain_stretch(*by, side, counts[number], watched.members, start)
            if served[number][0].levels != model.levels:  # no level of one is known to be one of the other
                inside = np.full((lengths[number], len(watched.levels)), np.nan)
            tallies.append(count_stretch(side, sizes[number], bins, (forecast, errors, inside), contributions))
            unconverged += n_failed
        about: dict[str, Any] = {"bins": bins, "unconverged": unconverged, "false_alarms": false_alarms}
        about |= {"length": max(1, round(lengths[1] / size)), "by_series": _compare_series(sides, forecasts)}
        if against is not None:
            shift = [float(by.predict(baseline_windows(by, start))[0, number]) for by, number in served]
            about |= {"crossed": (tallies[2], tallies[3]), "baseline_shift": shift[1] - shift[0]}
        return cls.of(watched, tallies[0], tallies[1], notes=(_describe(reference), _describe(current)), **about)

    @property
    def unused(self) -> tuple[str, ...]:
        """The features that moved while neither the share nor the effect of their name did."""
        used = {member: use.moved for use, of in zip(self.use, self.watched.members, strict=True) for member in of}
        return tuple(each.name for number, each in enumerate(self.inputs) if each.moved and used[number] is False)

    @property
    def alarms(self) -> tuple[Question, ...]:
        """The questions whose answer is beyond chance."""
        return tuple(question for question, verdict in self.verdicts.items() if verdict.alarm)

    @property
    def answers(self) -> dict[Question, str]:
        """A sentence for each question."""
        return {question: self._answer(verdict) for question, verdict in self.verdicts.items()}

    def _answer(self, verdict: Verdict) -> str:
        if verdict.alarm is None:
            return f"unknown: {verdict.missing}"
        chance = f"p {verdict.p_value:.2g} beside {verdict.spans} spans of the reference"
        if not verdict.alarm:
            return f"nothing beyond chance; {chance}"
        moved = {"inputs": self._name_inputs, "use": self._name_use, "errors": self._name_errors}[verdict.question]()
        rate = f"false alarms at {100 * (verdict.false_alarms or 0):.2g} %"
        return f"yes: {list_some(moved, N_NAMED)}; {chance}, {rate}"

    def _name_inputs(self) -> list[str]:
        moved = sorted((each for each in self.inputs if each.moved), key=lambda each: -each.psi)
        return [f"{each.name} by {write_signed(each.shift, each.unit)} (PSI {each.psi:.2g})" for each in moved]

    def _name_use(self) -> list[str]:
        moved = sorted((each for each in self.use if each.moved), key=lambda each: -abs(each.effect or 0))
        return [
            f"{each.name} by {write_signed(each.effect, self.watched.unit)} (share {write_change(each.share, '.0%')})"
            for each in moved
        ]

    def _name_errors(self) -> list[str]:
        changes = {} if self.errors is None else {name: self.errors.changes[name] for name in self.errors.worse}
        return [f"{name} {write_change(change)}" for name, change in changes.items()]

    def table(self, question: Question = "use") -> list[dict[str, Any]]:
        """A row for each feature, each name or each figure of the errors; intervals of the change as two columns.

        Args:
            question: ``inputs``, ``use`` or ``errors``.
        """
        if question == "inputs":
            return [
                {"feature": each.name, "unit": each.unit, "psi": each.psi, "distance": each.distance}
                | _spread("mean", each.mean, "shift")
                | {"p_value": each.p_value, "moved": each.moved}
                for each in self.inputs
            ]
        if question == "errors":
            changes = {} if self.errors is None else self.errors.changes
            worse = () if self.errors is None else self.errors.worse
            judge = worse.__contains__ if self.verdicts["errors"].alarm is not None else lambda name: None
            rows = ((name, _spread("now", change, "change")) for name, change in changes.items())
            return [{"figure": name} | row | {"worse": judge(name)} for name, row in rows]
        return [
            {"name": each.name}
            | _spread("share", each.share)
            | _spread("contribution", each.contribution, "effect")
            | ({} if each.data is None or each.model is None else {"data": each.data.value, "model": each.model.value})
            | {"p_value": each.p_value, "moved": each.moved}
            for each in self.use
        ]

    def markdown(self) -> str:
        """The three answers and the largest changes as Markdown, for a pull request or a mail."""
        answers = self.answers
        lines = [f"## {escape_markdown(self._title())}\n"]
        lines += [f"- **{ASKED[question]}** {escape_markdown(answers[question])}." for question in QUESTIONS]
        lines += [f"- {name}: {escape_markdown(value)}" for name, value in self._facts().items() if name in IN_BRIEF]
        for table in self._tables():
            if table.rows:
                lines += [f"\n### {table.title}\n", write_markdown(table.rows[:N_SHOWN], table.columns)]
        return "\n".join([*lines, ""])

    def _title(self) -> str:
        return f"Drift of {with_unit(self.watched.output, self.watched.unit)}"

    def _facts(self) -> dict[str, str]:
        unit, effect = self.watched.unit, self.effect
        facts = {ASKED[question]: answer for question, answer in self.answers.items()}
        facts |= {"reference": self.notes[0], "current": self.notes[1]} if any(self.notes) else {}
        facts["mean forecast"] = f"{write_change(effect.forecast)}, {write_signed(effect.forecast.change, unit)}"
        if effect.forecast.interval is not None:
            facts["mean forecast"] += " (95 % interval {:+.3g} to {:+.3g})".format(*effect.forecast.interval)
        if effect.total is not None:
            explained = f"{self.reference_explained:,} and {self.explained:,} forecasts"
            facts["explained"] = f"{write_signed(effect.total, unit)}, of {explained}" + (
                f"; {self.unconverged:,} not within the tolerance" if self.unconverged else ""
            )
        if effect.data is not None:
            parts = {"data": effect.data, "model": effect.model, "baseline": effect.baseline_shift}
            facts["parts"] = ", ".join(f"{name} {write_signed(value, unit)}" for name, value in parts.items())
        if self.unused:
            facts["moved, use unchanged"] = list_some(self.unused)
        if self.ndcg is not None:
            facts["nDCG of shares"] = f"{self.ndcg:.3f}"
        return facts

    def _tables(self) -> list[Table]:
        inputs = sorted(self.table("inputs"), key=lambda row: (row["p_value"] or 0, -row["psi"]))
        use = sorted(self.table(), key=lambda row: (row["p_value"] or 0, -abs(row["effect"] or 0)))
        of_parts, is_many = ("data", "model") if self.effect.data is not None else (), bool(self.by_series)
        return [
            Table(inputs, OF_INPUTS, "Inputs, most unusual first", in_text=False),
            Table(use, (*OF_USE, *of_parts, "p_value", "moved"), "Use, most unusual first", most=N_IN_TEXT),
            Table(self.table("errors"), OF_ERRORS, "Errors", in_text=self.errors is not None),
            *([Table(list(map(vars, self.by_series)), OF_SERIES, "Series, whose errors grew most first")] * is_many),
        ]

    def _period(self) -> str:
        return f"reference: {self.notes[0]}; current: {self.notes[1]}" if any(self.notes) else ""


@dataclass(frozen=True)
class _Sides:
    """Both sides of a comparison, with what resamples their blocks."""

    current: Tally
    reference: Tally
    bootstraps: Bootstraps = field(default_factory=Bootstraps)

    def compare(self, of: Callable[[Tally], tuple[Array, Array]]) -> list[Change]:
        """The change of a mean from the reference to the current side, of its sums and weights by block."""
        return list_changes(*(average(self.bootstraps, *of(side)) for side in (self.current, self.reference)))


def write_change(change: Change, form: str = ".4g") -> str:
    """``1.22 to 1.49``; unknown figures are dashes."""
    return " to ".join("-" if value is None else f"{value:{form}}" for value in (change.reference, change.now))


def write_signed(value: float | None, unit: str | None) -> str:
    """``+4.2 K``; a dash for an unknown value."""
    return "-" if value is None else f"{value:+.3g}{f' {unit}' if unit else ''}"


def _spread(name: str, change: Change, of_change: str | None = None) -> dict[str, Any]:
    """The columns of a change: itself, that of the reference, their difference and its interval."""
    difference = of_change or f"{name}_change"
    low, high = change.interval or (None, None)
    reference = "reference" if name == "now" else f"{name}_reference"
    columns = {name: change.now, reference: change.reference, difference: change.change}
    return columns | {f"{difference}_low": low, f"{difference}_high": high}


def _describe(side: Windows) -> str:
    """Number and time of the windows, and how many are left out."""
    said = [f"{len(side):,} windows"]
    if side.times:
        said[0] += f", {side.times[0]} to {side.times[-1]}"
    left_out = {"across a gap in time": side.across_gaps, "for missing values": side.missing.windows}
    said += [f"{count:,} left out {reason}" for reason, count in left_out.items() if count]
    return "; ".join(said)


def _compare_series(
    sides: tuple[Windows, Windows], forecasts: Sequence[tuple[Array, Array, Array]]
) -> tuple[SeriesDrift, ...]:
    """What changed of each of many series."""
    if sides[0].series is None or sides[1].series is None:
        return ()
    names = sorted({*sides[1].series})
    columns = list[list[float | None]]()
    for column in (0, 1):  # forecasts, and errors
        for side, of in zip(sides, forecasts, strict=True):
            values, labels = np.abs(of[column]) if column else of[column], np.array(side.series)
            known = np.isin(labels, names) & ~np.isnan(values)
            places = np.searchsorted(names, labels[known])
            sums, n = (np.bincount(places, weights, len(names)) for weights in (values[known], None))
            columns.append([known_or_none(mean) for mean in np.where(n > 0, sums / np.maximum(n, 1), np.nan).tolist()])
    counts = Counter(sides[1].series)
    found = [SeriesDrift(name, counts[name], *of) for name, *of in zip(names, *columns, strict=True)]
    return tuple(sorted(found, key=lambda each: (each.mae_reference or 0.0) - (each.mae or 0.0)))


def rank_gain(reference: Array, current: Array) -> float | None:
    """nDCG of items in the descending order of `current`, with `reference` as gains, (n_items,) both, none negative.

    DCG is the sum of gain / log2(place + 1), divided by that of the reference's own order (Järvelin and Kekäläinen
    2002). None if all gains are 0.
    """
    discounts = 1 / np.log2(np.arange(len(reference)) + 2)
    best = np.sort(reference)[::-1] @ discounts
    gain = reference[np.argsort(-current, kind="stable")] @ discounts
    return min(1.0, float(gain / best)) if best > 0 else None


def _decide(
    null: NullDistribution, p_values: Array, false_alarms: float | None, question: Question, totals: _Sides, length: int
) -> Verdict:
    """The answer to a question, from its p-values; `totals` are the sums of both sides."""
    counted = {"inputs": "forecasts", "use": "explained", "errors": "known"}[question]
    words = {"inputs": "forecast", "use": "forecast that could be explained", "errors": "actual value"}[question]
    for tally, side in ((totals.current, "current side"), (totals.reference, "reference")):
        if not getattr(tally, counted).any():
            return Verdict(question, None, None, None, 0, f"the {side} has no {words}")
    n_spans = min(null.n_spans, null.n_blocks // length)
    if n_spans < MIN_SPANS:
        spans = f"{n_spans} span{'s' * (n_spans != 1)} as long as the current side"
        missing = f"the reference has {spans}, and a verdict needs {MIN_SPANS}"
        return Verdict(question, None, None, None, n_spans, missing)
    p_value, rate = float(np.nanmin(p_values)), null.rate(false_alarms)
    return Verdict(question, _is_moved(p_value, rate), p_value, rate, n_spans)


def _is_moved(p_value: float, rate: float) -> bool:
    return p_value <= rate * (1 + 1e-9)


def _judge_one(p_value: float, verdict: Verdict) -> dict[str, Any]:
    """The attributes of `Moved`."""
    if verdict.false_alarms is None or np.isnan(p_value):
        return {"p_value": None, "moved": None}
    return {"p_value": p_value, "moved": _is_moved(p_value, verdict.false_alarms)}


def _list_inputs(sides: _Sides, watched: Watched, p_values: Array, verdict: Verdict) -> list[InputDrift]:
    now, then = sides.current.total(), sides.reference.total()
    means = sides.compare(lambda side: (side.input_sums.sum(axis=2), _count(side)))
    psi = population_stability(now.inputs, then.inputs)[0].tolist()
    binned = (now.inputs[0], now.input_sums[0], then.inputs[0], then.input_sums[0])
    distances = [known_or_none(wasserstein(*columns)) for columns in zip(*binned, strict=True)]
    rows = zip(watched.features, watched.units, psi, means, distances, p_values.tolist(), strict=True)
    return [InputDrift(**_judge_one(p, verdict), name=name, unit=unit, psi=index, mean=mean, distance=distance)
            for name, unit, index, mean, distance, p in rows]  # fmt: skip


def _list_use(
    sides: _Sides, watched: Watched, crossed: tuple[Tally, Tally] | None, p_values: Array, verdict: Verdict
) -> list[UseDrift]:
    shares = sides.compare(lambda side: (side.sizes, side.sizes.sum(axis=1)))
    means = sides.compare(lambda side: (side.contributions, side.explained))
    parts: list[tuple[EffectPart | None, EffectPart | None]] = [(None, None)] * len(means)
    if crossed is not None:
        pairs = (sides.current, crossed[1]), (crossed[0], sides.reference)  # this model and the other, on either table
        data, model = (
            [average(sides.bootstraps, (a.contributions + sign * b.contributions) / 2, a.explained) for a, b in pairs]
            for sign in (1, -1)
        )
        parts = list(zip(list_parts(combine(-1, *data)), list_parts(combine(1, *model)), strict=True))
    best = np.fmin(*np.split(p_values, 2)).tolist()
    rows = zip(watched.names, shares, means, parts, best, strict=True)
    return [UseDrift(**_judge_one(p, verdict), name=name, share=share, contribution=mean, data=data, model=model)
            for name, share, mean, (data, model), p in rows]  # fmt: skip


def _find_effect(sides: _Sides, use: Sequence[UseDrift], baseline_shift: float) -> Effect:
    (forecast,) = sides.compare(lambda side: (side.forecast_sums.sum(axis=2), _count(side)))

    def add(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    total = add([each.effect for each in use])
    data = add([each.data.value if each.data else None for each in use])
    model = add([each.model.value if each.model else None for each in use])
    return Effect(forecast, None if total is None else total + baseline_shift, baseline_shift, data, model)


def _find_errors(sides: _Sides, watched: Watched, p_values: Array, verdict: Verdict) -> ErrorDrift | None:
    known, then = (int(side.known.sum()) for side in (sides.current, sides.reference))
    if not known:
        return None
    mae, bias = sides.compare(lambda side: (np.column_stack([side.sizes_of_errors, side.errors]), side.known))
    coverage = {
        level: sides.compare(lambda side, at=number: (side.covered[:, [at]], side.intervals[:, at]))[0]  # type: ignore[misc]
        for number, level in enumerate(watched.levels)
    }
    found = ErrorDrift(known, then, mae, bias, coverage)
    judged = zip(found.changes, p_values.tolist(), strict=True)
    return replace(found, worse=tuple(name for name, p_value in judged if _judge_one(p_value, verdict)["moved"]))


def _count(tally: Tally) -> Array:
    """Number of forecasts of each block, (n_blocks,)."""
    number: Array = tally.forecasts.sum(axis=(1, 2))
    return number
