"""`Drift`: whether inputs moved, whether the model uses what moved, and whether errors are worse, from two tallies.

Per name, the outermost groups and the features in none, the *effect* is

    mean contribution(current) - mean contribution(reference)

Intervals are those of `differences`, p-values those of `p_values`, both of `kanmodel.tables.statistics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baseline, baseline_windows
from kanmodel.computing import progress_share, tracked
from kanmodel.forecaster import Forecaster
from kanmodel.monitoring.tallies import EXPLAINED, N_CURRENT, OF_CURRENT, ForecastWindows, TallySchema, block_size
from kanmodel.result import Pictured, Table
from kanmodel.tables.statistics import differences
from kanmodel.tables.statistics.differences import Change, EffectPart, known_or_none
from kanmodel.tables.statistics.p_values import (
    MIN_SPANS,
    QUESTIONS,
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
N_NAMED, N_SHOWN, N_IN_TEXT = 3, 10, 5  # names in an answer, rows in Markdown, and in text
N_DRAWN = 48  # blocks of either side in a picture


@dataclass(frozen=True)
class InputDrift:
    """A feature at the newest step of each window.

    Attributes:
        name: name of the feature.
        unit: its unit; None if unknown.
        psi: population stability index on the bins of the reference.
        mean: mean of the feature, in its unit; None if there is no forecast.
        distance: Wasserstein distance of order 1, in its unit, of values that are binned.
        p_value: adjusted for the number of statistics of the question, from 0 to 1; None if unknown.
        moved: whether that is at most the false alarm rate of the question; None if unknown.
    """

    name: str
    unit: str | None
    psi: float
    mean: Change
    distance: float | None
    p_value: float | None
    moved: bool | None

    @property
    def shift(self) -> float | None:
        """The change of the mean, in the feature's unit; None if unknown."""
        return self.mean.change


@dataclass(frozen=True)
class UseDrift:
    """What the model uses of a name: an outermost group, or a feature in none.

    Attributes:
        name: the group or the feature.
        share: of all names' mean |contribution|; None if nothing is explained.
        contribution: mean contribution, the target's unit.
        p_value: the smaller one of the share and the contribution, adjusted for the number of statistics of the
            question; None if unknown.
        moved: whether that is at most the false alarm rate of the question; None if unknown.
        data, model: the parts of the effect that data and model have, if another model served the reference.
    """

    name: str
    share: Change
    contribution: Change
    p_value: float | None
    moved: bool | None
    data: EffectPart | None = None
    model: EffectPart | None = None

    @property
    def effect(self) -> float | None:
        """The change of its mean contribution, in the target's unit; None if nothing is explained."""
        return self.contribution.change


@dataclass(frozen=True)
class SeriesDrift:
    """What changed of one of many series, in the target's unit; None where it is unknown. No verdict is given of it.

    Attributes:
        series, forecasts: its name, and the number of forecasts of the current side.
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
    """The change of the mean forecast that the inputs explain, in the target's unit; None where nothing is explained.

    Attributes:
        forecast: mean of all forecasts; None if there is none.
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
    """Errors of the forecasts whose actual value is known, in the target's unit.

    Attributes:
        known: number of current forecasts whose actual value is known.
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
        """All of them by name, in the order of `TallySchema.figures`."""
        levels = {f"coverage@{level:g}": change for level, change in self.coverage.items()}
        return {"mae": self.mae, "bias": self.bias, **levels}


@dataclass(frozen=True)
class DriftVerdict:
    """The answer to one question.

    Attributes:
        question: ``inputs``, did they move; ``use``, does the model use what moved; ``errors``, are they worse.
        alarm: whether something is beyond chance; None if that is unknown.
        p_value: the smallest of the question, from 0 to 1; None if unknown.
        false_alarms: rate at which it has an alarm though nothing has changed: the one that was asked for, by default
            0.01, or 1 / (spans + 1) if that is larger; None if unknown.
        spans: number of spans of the reference, as long as the current side, that do not overlap.
        missing: why the answer is unknown; else empty.
    """

    question: Question
    alarm: bool | None = None
    p_value: float | None = None
    false_alarms: float | None = None
    spans: int = 0
    missing: str = ""

    def describe(self, moved: Sequence[str]) -> str:
        """A sentence, which names what moved."""
        if self.alarm is None:
            return f"unknown: {self.missing}"
        chance = f"p {self.p_value:.2g} beside {self.spans} spans of the reference"
        if not self.alarm:
            return f"nothing beyond chance; {chance}"
        return f"yes: {list_some(moved, N_NAMED)}; {chance}, false alarms at {100 * (self.false_alarms or 0):.2g} %"


@dataclass(frozen=True, repr=False, eq=False)
class Drift(Pictured):
    """What changed from a reference to what is current, beside what changes by chance.

    Attributes:
        schema: names and units.
        forecasts, reference_forecasts: their numbers; `explained` and `reference_explained` those of the explained.
        inputs, use: by feature, and by name, in the order of the `schema`.
        effect: on the mean forecast.
        ndcg: `rank_gain` of the names by their shares (SageMaker Clarify's statistic of attribution drift); None where
            nothing is explained.
        errors: None where no actual value of the current side is known.
        verdicts: by question.
        reference, current: the tallies, with neighbouring blocks as one, for pictures.
        bins: those of the features and then of the forecasts; None if they were not given.
        notes: number and time of the windows of the reference and of the current side, and how many are left out.
        unconverged: number of explanations that are not within the tolerance.
        by_series: of many series each, those whose errors grew most first; empty of one.
    """

    schema: TallySchema
    forecasts: int
    reference_forecasts: int
    explained: int
    reference_explained: int
    inputs: tuple[InputDrift, ...]
    use: tuple[UseDrift, ...]
    effect: Effect
    ndcg: float | None
    errors: ErrorDrift | None
    verdicts: dict[Question, DriftVerdict]
    reference: Tally
    current: Tally
    bins: Bins | None = None
    notes: tuple[str, str] = ("", "")
    unconverged: int = 0
    by_series: tuple[SeriesDrift, ...] = ()

    @classmethod
    def of(
        cls,
        schema: TallySchema,
        reference: Tally,
        current: Tally,
        *,
        length: int | None = None,
        false_alarms: float | None = None,
        crossed: tuple[Tally, Tally] | None = None,
        baseline_shift: float = 0.0,
        **about: Any,
    ) -> Drift:
        """Compares two tallies of the same bins and names, each of blocks in order of time.

        Args:
            schema: names and units of their columns.
            reference: the tally of the reference.
            current: that of the current side.
            length: how many blocks of the reference are as long as the current side; by default as many as it has.
            false_alarms: as of `DriftQuestion`.
            crossed: if another model served the reference, the tallies of this model on the reference's windows, and of
                the other on the current ones, in the same blocks, from the same baseline.
            baseline_shift: then the forecast of this model for that baseline, minus that of the other.
            **about: further attributes, such as the `origin`.
        """
        sides = _Comparison(schema, reference, current, length or max(1, len(current)), false_alarms)
        warn_of_rate(sides.chances.values(), false_alarms)
        now, then, use = sides.now, sides.then, sides.list_use(crossed)
        return cls(
            schema,
            int(now.forecasts.sum()),
            int(then.forecasts.sum()),
            int(now.explained.sum()),
            int(then.explained.sum()),
            inputs=sides.list_inputs(),
            use=use,
            effect=sides.find_effect(use, baseline_shift),
            ndcg=rank_gain(then.sizes[0], now.sizes[0]) if now.explained.all() and then.explained.all() else None,
            errors=sides.find_errors(),
            verdicts=sides.verdicts,
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
        against: tuple[Forecaster, int] | None,
        explained: int,
        false_alarms: float | None,
        origin: str,
    ) -> Drift:
        """Forecasts and explains the windows of two spans of time, and compares their tallies.

        Arguments are those of `DriftQuestion`, with outputs by their numbers. Raises NonFiniteError if a forecast or an
        explanation is not finite.
        """
        reference, current = reference.by_time(), current.by_time()
        schema, baseline, this = TallySchema.of(model, output), Baseline(), (model, output)
        other = against or this
        if against is not None:
            mean = (model.reference.mean + against[0].reference.mean) / 2
            baseline = Baseline("instance", instance=np.broadcast_to(mean, model.config.window_shape))
        with progress_share(0.3):
            served = tracked([(*other, reference), (*this, current)])
            before, now = (ForecastWindows.of(*each) for each in served)
        bins = Bins.of(np.column_stack([reference.newest, before.forecasts]))
        n, n_now = len(reference), len(current)
        size = block_size(n, n_now, len(schema.features))
        most_now = min(n_now, explained, max(EXPLAINED, explained) // OF_CURRENT)
        most = min(explained, -(-n * most_now // n_now))
        size_now = max(1, min(size, n_now // N_CURRENT))
        asked, baseline_shift = [(before, size, most, other), (now, size_now, most_now, this)], 0.0
        if against is not None:
            asked += [(before, size, most, this), (now, size_now, most_now, other)]
            ours, theirs = (by.predict(baseline_windows(by, baseline))[0, number] for by, number in (this, other))
            baseline_shift = float(ours) - float(theirs)
        tallied = [side.tally(schema, bins, width, count, baseline, by) for side, width, count, by in tracked(asked)]
        tallies, unconverged = zip(*tallied, strict=True)
        return cls.of(
            schema,
            *tallies[:2],
            length=max(1, round(n_now / size)),
            false_alarms=false_alarms,
            crossed=None if against is None else tallies[2:],
            baseline_shift=baseline_shift,
            bins=bins,
            notes=(_describe(reference), _describe(current)),
            unconverged=sum(unconverged),
            by_series=_compare_series(before, now),
            origin=origin,
            model_inputs=model.inputs,
        )

    @property
    def unused(self) -> tuple[str, ...]:
        """The features that moved while neither the share nor the effect of their name did."""
        used = {member: use.moved for use, of in zip(self.use, self.schema.members, strict=True) for member in of}
        return tuple(each.name for number, each in enumerate(self.inputs) if each.moved and used[number] is False)

    @property
    def alarms(self) -> tuple[Question, ...]:
        """The questions whose answer is beyond chance."""
        return tuple(question for question, verdict in self.verdicts.items() if verdict.alarm)

    @property
    def answers(self) -> dict[Question, str]:
        """A sentence for each question."""
        return {question: verdict.describe(self._name_moved(question)) for question, verdict in self.verdicts.items()}

    def _name_moved(self, question: Question) -> list[str]:
        """What is beyond chance, with its change, the largest first."""
        label = self.model_inputs.label
        if question == "inputs":
            inputs = sorted((each for each in self.inputs if each.moved), key=lambda each: -each.psi)
            return [
                f"{label(each.name)} by {write_signed(each.shift, each.unit)} (PSI {each.psi:.2g})" for each in inputs
            ]
        if question == "errors":
            changes = {} if self.errors is None else {name: self.errors.changes[name] for name in self.errors.worse}
            return [f"{name} {write_before_after(change)}" for name, change in changes.items()]
        use = sorted((each for each in self.use if each.moved), key=lambda each: -abs(each.effect or 0))
        effects = [f"{label(each.name)} by {write_signed(each.effect, self.schema.unit)}" for each in use]
        shares = [write_before_after(each.share, ".0%") for each in use]
        return [f"{effect} (share {share})" for effect, share in zip(effects, shares, strict=True)]

    def table(self, question: Question = "use") -> list[dict[str, Any]]:
        """A row for each feature, name or figure of the errors, by the question; intervals are two columns."""
        if question == "inputs":
            return [
                {"feature": each.name, "unit": each.unit, "psi": each.psi, "distance": each.distance}
                | _spread("mean", each.mean, "shift")
                | {"p_value": each.p_value, "moved": each.moved}
                for each in self.inputs
            ]
        if question == "use":
            return [
                {"name": each.name}
                | _spread("share", each.share)
                | _spread("contribution", each.contribution, "effect")
                | {name: one.value for name, one in (("data", each.data), ("model", each.model)) if one is not None}
                | {"p_value": each.p_value, "moved": each.moved}
                for each in self.use
            ]
        if self.errors is None:
            return []
        worse, is_unknown = self.errors.worse, self.verdicts["errors"].alarm is None
        return [
            {"figure": name} | _spread("now", change, "change") | {"worse": None if is_unknown else name in worse}
            for name, change in self.errors.changes.items()
        ]

    def markdown(self) -> str:
        """The three answers and the largest changes as Markdown, for a pull request or a mail."""
        lines = [f"## {escape_markdown(self._title())}\n"]
        lines += [f"- **{ASKED[question]}** {escape_markdown(answer)}." for question, answer in self.answers.items()]
        lines += [f"- {name}: {escape_markdown(value)}" for name, value in self._summary().items()]
        for table in self._tables():
            if table.rows:
                lines += [f"\n### {table.title}\n", write_markdown(table.rows[:N_SHOWN], table.columns)]
        return "\n".join([*lines, ""])

    def _title(self) -> str:
        return f"Drift of {with_unit(self.schema.output, self.schema.unit)}"

    def _facts(self) -> dict[str, str]:
        return {ASKED[question]: answer for question, answer in self.answers.items()} | self._summary()

    def _summary(self) -> dict[str, str]:
        """The facts beside the answers."""
        unit, effect = self.schema.unit, self.effect
        facts = {"reference": self.notes[0], "current": self.notes[1]} if any(self.notes) else {}
        facts["mean forecast"] = f"{write_before_after(effect.forecast)}, {write_signed(effect.forecast.change, unit)}"
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
            facts["moved, use unchanged"] = list_some([*map(self.model_inputs.label, self.unused)])
        if self.ndcg is not None:
            facts["nDCG of shares"] = f"{self.ndcg:.3f}"
        return facts

    def _tables(self) -> list[Table]:
        label = self.model_inputs.label
        inputs = [row | {"feature": label(row["feature"])} for row in self.table("inputs")]
        inputs.sort(key=lambda row: (row["p_value"] or 0, -row["psi"]))
        use = [row | {"name": label(row["name"])} for row in self.table()]
        use.sort(key=lambda row: (row["p_value"] or 0, -abs(row["effect"] or 0)))
        of_inputs = "feature", "unit", "psi", "distance", "mean_reference", "mean", "shift", "p_value", "moved"
        of_use = "name", "share_reference", "share", "effect", "effect_low", "effect_high"
        of_parts = ("data", "model") if self.effect.data is not None else ()
        of_errors = "figure", "reference", "now", "change", "change_low", "change_high", "worse"
        tables = [
            Table(inputs, of_inputs, "Inputs, most unusual first", in_text=False),
            Table(use, (*of_use, *of_parts, "p_value", "moved"), "Use, most unusual first", most=N_IN_TEXT),
            Table(self.table("errors"), of_errors, "Errors", in_text=self.errors is not None),
        ]
        if series := list(map(vars, self.by_series)):
            tables.append(Table(series, list(series[0]), "Series, whose errors grew most first"))
        return tables

    def _period(self) -> str:
        return f"reference: {self.notes[0]}; current: {self.notes[1]}" if any(self.notes) else ""


class _Comparison:
    """Two tallies with their sums, p-values and verdicts; arguments are those of `Drift.of`."""

    def __init__(
        self, schema: TallySchema, reference: Tally, current: Tally, length: int, false_alarms: float | None
    ) -> None:
        self.schema, self.reference, self.current = schema, reference, current
        self.length, self.false_alarms = length, false_alarms
        self.now, self.then = current.total(), reference.total()
        self.bootstraps = differences.Bootstraps()
        self.chances = null_distributions(reference, min(len(reference), length))
        # PSI depends on the number of forecasts, so that of more than a span has is measured on as many.
        few = min(1.0, self.then.forecasts.sum() / len(reference) * length / max(self.now.forecasts.sum(), 1))
        measured = measure(replace(self.now, inputs=few * self.now.inputs), self.then)
        self.p_values = {question: self.chances[question].judge(of[0]) for question, of in measured.items()}
        self.verdicts = {question: self._decide(question) for question in QUESTIONS}

    def _decide(self, question: Question) -> DriftVerdict:
        column, words = {
            "inputs": ("forecasts", "forecast"),
            "use": ("explained", "forecast that could be explained"),
            "errors": ("known", "actual value"),
        }[question]
        for tally, side in ((self.now, "current side"), (self.then, "reference")):
            if not getattr(tally, column).any():
                return DriftVerdict(question, missing=f"the {side} has no {words}")
        chance = self.chances[question]
        n_spans = min(chance.n_spans, chance.n_blocks // self.length)
        if n_spans < MIN_SPANS:
            spans = f"{n_spans} span{'s' * (n_spans != 1)} as long as the current side"
            missing = f"the reference has {spans}, and a verdict needs {MIN_SPANS}"
            return DriftVerdict(question, spans=n_spans, missing=missing)
        p_value, rate = float(np.nanmin(self.p_values[question])), chance.rate(self.false_alarms)
        return DriftVerdict(question, _is_beyond_chance(p_value, rate), p_value, rate, n_spans)

    def _judge(self, question: Question, p_values: Array) -> list[tuple[float | None, bool | None]]:
        """The p-value of each statistic and whether it moved; None if unknown."""
        rate = self.verdicts[question].false_alarms
        known = [None if rate is None or np.isnan(p_value) else p_value for p_value in p_values.tolist()]
        return [(p, None if p is None or rate is None else _is_beyond_chance(p, rate)) for p in known]

    def _compare(self, of: Callable[[Tally], tuple[Array, Array]]) -> list[Change]:
        """The change of a mean from the reference to the current side, of its sums and weights by block."""
        now, then = (differences.average(self.bootstraps, *of(side)) for side in (self.current, self.reference))
        return differences.list_changes(now, then)

    def list_inputs(self) -> tuple[InputDrift, ...]:
        now, then = self.now, self.then
        psi = population_stability(now.inputs, then.inputs)[0].tolist()
        means = self._compare(lambda side: (side.input_sums.sum(axis=2), side.forecasts.sum(axis=(1, 2))))
        binned = zip(now.inputs[0], now.input_sums[0], then.inputs[0], then.input_sums[0], strict=True)
        distances = [known_or_none(wasserstein(*columns)) for columns in binned]
        judged = self._judge("inputs", self.p_values["inputs"])
        rows = zip(self.schema.features, self.schema.units, psi, means, distances, judged, strict=True)
        return tuple(InputDrift(*of, *of_chance) for *of, of_chance in rows)

    def list_use(self, crossed: tuple[Tally, Tally] | None) -> tuple[UseDrift, ...]:
        shares = self._compare(lambda side: (side.sizes, side.sizes.sum(axis=1)))
        means = self._compare(lambda side: (side.contributions, side.explained))
        parts: Sequence[tuple[EffectPart | None, EffectPart | None]] = [(None, None)] * len(means)
        parts = parts if crossed is None else self._divide(*crossed)
        judged = self._judge("use", np.fmin(*np.split(self.p_values["use"], 2)))
        rows = zip(self.schema.names, shares, means, judged, parts, strict=True)
        return tuple(UseDrift(name, share, mean, *of, *of_parts) for name, share, mean, of, of_parts in rows)

    def _divide(self, before: Tally, now: Tally) -> list[tuple[EffectPart, EffectPart]]:
        """The parts of each effect that data and model have, from this model before and the other now."""

        def combine(sign: int) -> list[EffectPart]:
            sides = [
                differences.average(self.bootstraps, (a.contributions - sign * b.contributions) / 2, a.explained)
                for a, b in ((self.current, now), (before, self.reference))  # this model and the other, on either table
            ]
            return differences.list_parts(differences.combine(sign, *sides))

        return list(zip(combine(-1), combine(1), strict=True))

    def find_effect(self, use: Sequence[UseDrift], baseline_shift: float) -> Effect:
        (forecast,) = self._compare(lambda side: (side.forecast_sums.sum(axis=2), side.forecasts.sum(axis=(1, 2))))
        total = _add(each.effect for each in use)
        data = _add(None if each.data is None else each.data.value for each in use)
        model = _add(None if each.model is None else each.model.value for each in use)
        return Effect(forecast, None if total is None else total + baseline_shift, baseline_shift, data, model)

    def find_errors(self) -> ErrorDrift | None:
        if not self.now.known.any():
            return None
        mae, bias = self._compare(lambda side: (np.column_stack([side.sizes_of_errors, side.errors]), side.known))
        coverage = {
            level: self._compare(lambda side, at=number: (side.covered[:, [at]], side.intervals[:, at]))[0]  # type: ignore[misc]
            for number, level in enumerate(self.schema.levels)
        }
        judged = zip(self.schema.figures, self._judge("errors", self.p_values["errors"]), strict=True)
        worse = tuple(name for name, (_, moved) in judged if moved)
        return ErrorDrift(int(self.now.known.sum()), int(self.then.known.sum()), mae, bias, coverage, worse)


def _is_beyond_chance(p_value: float, rate: float) -> bool:
    return p_value <= rate * (1 + 1e-9)


def _add(values: Iterable[float | None]) -> float | None:
    """The sum; None if one is unknown."""
    known = list(values)
    return None if None in known else sum(value or 0.0 for value in known)


def write_before_after(change: Change, form: str = ".4g") -> str:
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
    span = f", {side.times[0]} to {side.times[-1]}" if side.times else ""
    left_out = {"across a gap in time": side.across_gaps, "for missing values": side.missing.windows}
    reasons = [f"{count:,} left out {reason}" for reason, count in left_out.items() if count]
    return "; ".join([f"{len(side):,} windows{span}", *reasons])


def _compare_series(before: ForecastWindows, now: ForecastWindows) -> tuple[SeriesDrift, ...]:
    """What changed of each of many series."""
    if before.windows.series is None or now.windows.series is None:
        return ()
    counts = Counter(now.windows.series)
    names = sorted(counts)
    means = [side.average_by_series(side.forecasts, names) for side in (before, now)]
    errors = [side.average_by_series(np.abs(side.errors), names) for side in (before, now)]
    found = [SeriesDrift(name, counts[name], *of) for name, *of in zip(names, *means, *errors, strict=True)]
    return tuple(sorted(found, key=lambda each: (each.mae_reference or 0.0) - (each.mae or 0.0)))


def rank_gain(reference: Array, current: Array) -> float | None:
    """nDCG of items in the descending order of `current`, with `reference` as gains, (n_items,) both, none negative.

    The sum of gain / log2(place + 1), over that of the reference's own order, so 1 for the same order (Järvelin and
    Kekäläinen 2002); None if all gains are 0.
    """
    discounts = 1 / np.log2(np.arange(len(reference)) + 2)
    best = np.sort(reference)[::-1] @ discounts
    gain = reference[np.argsort(-current, kind="stable")] @ discounts
    return min(1.0, float(gain / best)) if best > 0 else None
