"""`Drift`: whether inputs moved, whether the model uses what moved, and whether errors are worse, from two tallies.

A reference and what is current are each a `Tally`: counts and sums that add up over hours, processes and replicas. Per
name, the outermost groups and the features in none, the *effect* is

    mean contribution(current) - mean contribution(reference)

As every contribution is from the same baseline, effects sum to the change of the mean forecast, up to residuals. If
another model served the reference, it is the sum of a data part and a model part, the Shapley value of a game with two
players as in `kanmodel.explain.comparison`, and the shift of the forecast for the baseline is beside them.

Intervals of 95 % are of a moving-block bootstrap over the blocks of each side, combined by MOVER (Zou and Donner 2008,
"Construction of confidence limits about effect measures"), so they respect that windows overlap. They describe these
two stretches of time, and say nothing about whether such a change is unusual. Of a short stretch of a strongly
autocorrelated series they are too narrow; how many of 100 hold the true shift of an AR(1) series, from 2,000 values to
so many, in blocks of 4 (``pytest -s tests/kanmodel/explain/test_drift.py -k by_length``, thorough, prints it):

    autocorrelation   0     0.7   0.9
    1000 values       95.2  94.2  93.2
    400 values        94.8  93.0  90.8
    96 values         94.0  87.5  78.8

Verdicts do. The same statistics are computed for each span of the reference that is as long as the current side,
against the rest of it (subsampling: Politis and Romano 1994, "Large sample confidence regions based on subsamples"), so
a week in July is compared with other weeks. Of one question each statistic is divided by its mean over the spans and
the current side, and the largest is compared with the largest of each span (max-T: Westfall and Young 1993,
"Resampling-based multiple testing"). So a question as a whole has a false alarm at the stated rate, if the current side
is exchangeable with the spans; a p-value is at least 1 / (spans + 1), of spans that do not overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import part, slices
from kanmodel.data import Array, take_windows
from kanmodel.explain.attribution import explain_windows, sum_groups
from kanmodel.explain.backtest import CHUNK, Outcomes
from kanmodel.explain.baseline import Baseline, baseline_windows
from kanmodel.explain.bootstrap import Bootstrap, Estimate
from kanmodel.explain.result import Pictured, Table
from kanmodel.explain.tally import N_BINS, Bins, Tally, population_stability, wasserstein
from kanmodel.network.config import resolve_groups
from kanmodel.network.intervals import forecasts_of
from kanmodel.text import escape_markdown, list_some, with_unit, write_markdown

Question = Literal["inputs", "use", "errors"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
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
FALSE_ALARMS = 0.01
MIN_SPANS = 4  # of the reference, for a verdict
MIN_BLOCKS = 8  # for an interval
MOST_BLOCKS = 1000  # that are resampled; neighbours are joined
N_BLOCKS, N_CURRENT = 4000, 24  # most of the reference, and fewest of the current side where it has them
TALLY_BYTES = 1 << 26
EXPLAINED, MIN_EXPLAINED = 4096, 512  # windows of the reference, and fewest of the current side where it has them
N_DRAWN = 48  # blocks of either side in a picture
FLOOR_PSI = 0.01  # of the scale of a statistic: changes are compared with at least this,
FLOOR_SHARE = 0.01  # of all contributions,
FLOOR_ERROR = 0.01  # of the mean absolute error of the reference,
FLOOR_COVERAGE = 0.005


@dataclass(frozen=True)
class Watched:
    """What is watched of a model: the names of a tally's columns.

    Attributes:
        output, unit: of the forecasts; None for an unknown unit.
        features, units: of the inputs, likewise.
        names: what a forecast is divided among: outermost groups, and features in none.
        members: numbers of the features of each name.
        levels: of the intervals, ascending; empty if the output has none.
    """

    output: str
    unit: str | None
    features: tuple[str, ...]
    units: tuple[str | None, ...]
    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    levels: tuple[float, ...]

    @classmethod
    def of(cls, model: LoadedModel, output: int) -> Watched:
        """Of an output, by its number."""
        config = model.config
        grouping = resolve_groups(config.groups, config.feature_names)
        return cls(
            output=config.outputs[output],
            unit=config.target_of(output).unit,
            features=config.feature_names,
            units=tuple(feature.unit for feature in config.features),
            names=grouping.parts,
            members=tuple(grouping.members[number] for number in grouping.whole),
            levels=model.levels if model.intervals is not None and output in forecasts_of(config) else (),
        )


@dataclass(frozen=True)
class Change:
    """A figure of the current side and of the reference; None where it is unknown.

    Attributes:
        now: its value on the current side.
        reference: that of the reference.
        interval: of the change, 95 %; None of fewer than 8 blocks of either side.
    """

    now: float | None
    reference: float | None
    interval: tuple[float, float] | None = None

    @property
    def change(self) -> float | None:
        """now - reference."""
        return None if self.now is None or self.reference is None else self.now - self.reference


@dataclass(frozen=True)
class Part:
    """A part of an effect, in the target's unit, with its interval as of `Change`."""

    value: float | None
    interval: tuple[float, float] | None


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
    data: Part | None = None
    model: Part | None = None

    @property
    def effect(self) -> float | None:
        """What the name adds to the change of the mean forecast, in the target's unit."""
        return self.contribution.change


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
        """All of them by name, in the order of the statistics of `find_chance`."""
        levels = {f"coverage@{level:g}": change for level, change in self.coverage.items()}
        return {"mae": self.mae, "bias": self.bias, **levels}


@dataclass(frozen=True)
class Verdict:
    """The answer to one question.

    Attributes:
        question: ``inputs``, did they move; ``use``, does the model use what moved; ``errors``, are they worse.
        alarm: whether something is beyond chance; None if that is unknown.
        p_value: the smallest of the question.
        false_alarms: rate at which a question has an alarm though nothing has changed: the one that was asked for, or
            1 / (spans + 1) if that is larger.
        spans: number of spans of the reference, as long as the current side, that do not overlap.
        missing: why the answer is unknown; else empty.
    """

    question: Question
    alarm: bool | None
    p_value: float | None
    false_alarms: float | None
    spans: int
    missing: str = ""


@dataclass(frozen=True, eq=False)
class Chance:
    """The statistics of one question in the reference alone: what changes without a cause.

    Attributes:
        spans: of each span of the reference against the rest of it, (n_sliding, n_items), each span a block after the
            one before; larger is more drift. NaN where there is none.
        floors: smallest scale of each, (n_items,).
        length: blocks of a span.
    """

    spans: Array
    floors: Array
    length: int

    @property
    def n_blocks(self) -> int:
        """Blocks of the reference."""
        return len(self.spans) + self.length - 1

    @property
    def n_spans(self) -> int:
        """Number of spans that do not overlap, of those that have all statistics."""
        return floor(self.n_blocks / self.length * self._is_known.mean()) if self._is_known.any() else 0

    @property
    def _is_known(self) -> NDArray[np.bool_]:
        """Whether a span has all statistics that any span has, (n_sliding,)."""
        unknown = np.isnan(self.spans)
        missing = unknown[:, ~unknown.all(axis=0)].any(axis=1) | unknown.all(axis=1)
        return np.logical_not(missing)

    def rate(self, false_alarms: float) -> float:
        """The rate that the spans allow: `false_alarms`, or 1 / (spans + 1) if that is larger."""
        return max(false_alarms, 1 / (self.n_spans + 1))

    def judge(self, observed: Array) -> Array:
        """p-value of each statistic of the current side, (n_items,), adjusted for their number; NaN if unknown."""
        p_values, n_spans = np.full(len(observed), np.nan), self.n_spans
        items = ~np.isnan(observed) & ~np.isnan(self.spans).all(axis=0)
        if n_spans < MIN_SPANS or not items.any():
            return p_values
        spans, now = self.spans[self._is_known][:, items], observed[items]
        n = len(spans) / self.length
        scale = (n * np.abs(spans).mean(axis=0) + np.abs(now)) / (n + 1)
        scale = np.maximum(scale, self.floors[items])
        largest = np.sort((spans / scale).max(axis=1))
        share = 1 - np.searchsorted(largest, now / scale) / len(largest)
        p_values[items] = (n_spans * share + 1) / (n_spans + 1)
        return p_values

    def thresholds(self, false_alarms: float) -> Array:
        """Values of the statistics above which each has an alarm if the others are as usual, (n_items,).

        A little below them there may be one too, since a large statistic makes its own spans look smaller.
        """
        spans, n_spans = self.spans[self._is_known], self.n_spans
        if n_spans < MIN_SPANS:
            return np.full(len(self.floors), np.nan)
        n = len(spans) / self.length
        usual = np.abs(spans).mean(axis=0)
        scale = np.maximum(usual, self.floors)
        largest = np.sort(np.nanmax(spans / scale, axis=1))
        above = floor(((n_spans + 1) * self.rate(false_alarms) - 1) / n_spans * len(largest) + 1e-9)  # spans above it
        ratio = largest[len(largest) - 1 - above]
        own = ratio * n * usual / (n + 1 - ratio) if ratio < n + 1 else np.full(len(usual), np.inf)
        found: Array = np.maximum(own, ratio * self.floors)  # a statistic is part of its own scale
        return found


def find_chance(reference: Tally, length: int) -> dict[Question, Chance]:
    """The statistics of spans of `length` blocks of a reference, for each question.

    Their order is: of ``inputs`` PSI by feature; of ``use`` the magnitudes of the changes of the share, and then of the
    mean contribution, by name; of ``errors`` the increase of the mean absolute error, the magnitude of the change of
    the bias, and the decrease of the coverage by level.
    """
    spans = reference.spans(length)
    found, total = measure(spans, reference.without(spans)), reference.total()
    n_names, n_levels = reference.sizes.shape[1], reference.bounded.shape[1]
    size = _divide(total.sizes.sum(axis=1), total.explained).item()
    error = FLOOR_ERROR * _divide(total.sizes_of_errors, total.known).item()
    tiny = np.finfo(float).tiny
    floors: dict[Question, list[float]] = {
        "inputs": [FLOOR_PSI] * reference.inputs.shape[1],
        "use": [FLOOR_SHARE] * n_names + [FLOOR_SHARE * size] * n_names,
        "errors": [error, error] + [FLOOR_COVERAGE] * n_levels,
    }
    return {
        question: Chance(found[question], np.fmax(np.array(floors[question]), tiny), length) for question in QUESTIONS
    }


def measure(current: Tally, reference: Tally) -> dict[Question, Array]:
    """The statistics of each block of one tally against that of another, or its only one, (n_blocks, n_items) each."""

    def change(of: Callable[[Tally], tuple[Array, Array]]) -> Array:
        return _divide(*of(current)) - _divide(*of(reference))

    shares = change(lambda tally: (tally.sizes, tally.sizes.sum(axis=1, keepdims=True)))
    means = change(lambda tally: (tally.contributions, tally.explained[:, None]))
    errors = change(lambda tally: (tally.sizes_of_errors, tally.known))
    biases = change(lambda tally: (tally.errors, tally.known))
    covered = change(lambda tally: (tally.covered, tally.bounded))
    return {
        "inputs": population_stability(current.inputs, reference.inputs),
        "use": np.abs(np.hstack([shares, means])),
        "errors": np.column_stack([errors, np.abs(biases), -covered]),
    }


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
        notes: what is said of the windows of the reference and of the current side: their time, and what is left out.
        unconverged: number of explanations that are not within the tolerance.
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

    @classmethod
    def of(
        cls,
        watched: Watched,
        reference: Tally,
        current: Tally,
        *,
        length: int | None = None,
        false_alarms: float = FALSE_ALARMS,
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
            false_alarms: rate of false alarms of each question.
            crossed: if another model served the reference, the tallies of this model on the reference's windows, and of
                the other on the current ones, in the same blocks, from the same baseline.
            baseline_shift: then the forecast of this model for that baseline, minus that of the other.
            **about: further attributes.
        """
        now, then = sides = current.total(), reference.total()
        length = length or len(current)
        bootstraps = Bootstraps()
        chance = find_chance(reference, min(len(reference), length))
        # PSI depends on the number of forecasts, so that of more than a span has is measured on as many.
        few = min(1.0, then.forecasts.sum() / len(reference) * length / max(now.forecasts.sum(), 1))
        like = replace(now, inputs=few * now.inputs)
        p_values = {question: chance[question].judge(of[0]) for question, of in measure(like, then).items()}
        verdicts = {
            question: _decide(chance[question], p_values[question], false_alarms, question, sides, length)
            for question in QUESTIONS
        }
        return cls(
            watched,
            int(now.forecasts.sum()),
            int(then.forecasts.sum()),
            int(now.explained.sum()),
            int(then.explained.sum()),
            inputs=tuple(_list_inputs(bootstraps, watched, reference, current, p_values["inputs"], verdicts["inputs"])),
            use=(
                use := tuple(
                    _list_use(bootstraps, watched, reference, current, crossed, p_values["use"], verdicts["use"])
                )
            ),
            effect=_find_effect(bootstraps, reference, current, use, baseline_shift),
            ndcg=rank_gain(then.sizes[0], now.sizes[0]) if now.explained.all() and then.explained.all() else None,
            errors=_find_errors(bootstraps, watched, reference, current, p_values["errors"], verdicts["errors"]),
            verdicts=verdicts,
            reference=reference.merged(N_DRAWN),
            current=current.merged(N_DRAWN),
            **about,
        )

    @classmethod
    def between(
        cls,
        model: LoadedModel,
        output: int,
        reference: Outcomes,
        current: Outcomes,
        against: tuple[LoadedModel, int] | None = None,
        explained: int = EXPLAINED,
        false_alarms: float = FALSE_ALARMS,
    ) -> Drift:
        """Forecasts and explains the windows of two stretches of time, and compares their tallies.

        Args:
            model: the model, and the `output` by its number.
            output: likewise.
            reference: windows in order of time.
            current: likewise.
            against: the model that served the reference, and the number of its output; None for the same.
            explained: number of windows of the reference that are explained, taken evenly, and at most as many of the
                current side, of which they are at least as dense.
            false_alarms: rate of false alarms of each question.

        Raises:
            NonFiniteError: a forecast or an explanation is not finite.
        """
        watched, sides = Watched.of(model, output), (reference, current)
        served = against or (model, output), (model, output)
        start = Baseline()
        if against is not None:
            mean = (model.reference_mean + against[0].reference_mean) / 2
            start = Baseline("instance", instance=np.broadcast_to(mean, model.config.window_shape))
        with part(0.3):
            forecasts = [_forecast(*by, side) for by, side in slices(list(zip(served, sides, strict=True)))]
        bins = Bins.of(np.column_stack([reference.rows[reference.ends], forecasts[0][0]]))
        size = block_size(len(reference.ends), len(current.ends), len(watched.features))
        every = -(-len(reference.ends) // explained)
        strides = every, max(min(every, len(current.ends) // MIN_EXPLAINED), -(-len(current.ends) // explained), 1)
        asked = [(0, served[0]), (1, served[1])] + ([] if against is None else [(0, served[1]), (1, served[0])])
        tallies, unconverged = list[Tally](), 0
        for number, by in slices(asked):
            side, (forecast, errors, inside) = sides[number], forecasts[number]
            contributions, n_failed = _explain(*by, side, strides[number], watched.members, start)
            n = len(side.ends)
            n_blocks = max(1, round(n / size))
            blocks = np.arange(n) * n_blocks // n
            newest = side.rows[side.ends]
            counted = (newest, forecast, contributions, errors, inside)
            tallies.append(Tally.of(bins, *counted, blocks, n_blocks))
            unconverged += n_failed
        about: dict[str, Any] = {"bins": bins, "unconverged": unconverged, "false_alarms": false_alarms}
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
            is_known = self.verdicts["errors"].alarm is not None
            return [
                {"figure": name} | _spread("now", change, "change") | {"worse": name in worse if is_known else None}
                for name, change in changes.items()
            ]
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
        change = f", {write_signed(effect.forecast.change, unit)}{_write_interval(effect.forecast)}"
        facts["mean forecast"] = write_change(effect.forecast) + change
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
        of_parts = ("data", "model") if self.effect.data is not None else ()
        return [
            Table(inputs, OF_INPUTS, "Inputs, most unusual first", in_text=False),
            Table(use, (*OF_USE, *of_parts, "p_value", "moved"), "Use, most unusual first", most=N_IN_TEXT),
            Table(self.table("errors"), OF_ERRORS, "Errors", in_text=self.errors is not None),
        ]

    def _period(self) -> str:
        return f"reference: {self.notes[0]}; current: {self.notes[1]}" if any(self.notes) else ""


def write_change(change: Change, form: str = ".4g") -> str:
    """``1.22 to 1.49``; unknown figures are dashes."""
    return " to ".join("-" if value is None else f"{value:{form}}" for value in (change.reference, change.now))


def write_signed(value: float | None, unit: str | None) -> str:
    """``+4.2 K``; a dash for an unknown value."""
    return "-" if value is None else f"{value:+.3g}{f' {unit}' if unit else ''}"


def _write_interval(change: Change) -> str:
    return "" if change.interval is None else " (95 % interval {:+.3g} to {:+.3g})".format(*change.interval)


def _spread(name: str, change: Change, of_change: str | None = None) -> dict[str, Any]:
    """The columns of a change: itself, that of the reference, their difference and its interval."""
    difference = of_change or f"{name}_change"
    low, high = change.interval or (None, None)
    reference = "reference" if name == "now" else f"{name}_reference"
    columns = {name: change.now, reference: change.reference, difference: change.change}
    return columns | {f"{difference}_low": low, f"{difference}_high": high}


def block_size(n_reference: int, n_current: int, n_features: int) -> int:
    """Windows of a block: few enough blocks of the reference for the memory, and many of the current side."""
    affordable = max(MIN_BLOCKS, TALLY_BYTES // (16 * N_BINS * (n_features + 1)))
    usual = -(-n_reference // min(N_BLOCKS, affordable))
    return max(1, min(usual, n_current // N_CURRENT), -(-n_reference // affordable))


def _forecast(model: LoadedModel, output: int, side: Outcomes) -> tuple[Array, Array, Array]:
    """Forecasts and errors, (n,), and whether intervals hold the actual values, (n, n_levels); NaN where unknown."""
    config, kept = model.config, forecasts_of(model.config)
    is_bounded, forecasts, bounds = model.intervals is not None and output in kept, list[Array](), list[Array]()
    for windows in side.parts(config.lookback):
        if is_bounded:
            predictions, *ends = model.predict_bounds(windows)
            bounds.append(np.stack(ends)[:, :, :, kept.index(output)])  # (2, n_levels, n)
        else:
            predictions = model.predict(windows)
        forecasts.append(predictions[:, output])
    forecast, actual = np.concatenate(forecasts), side.actual[:, output // len(config.targets)]
    inside = np.empty((len(actual), 0))
    if is_bounded:
        lower, upper = np.concatenate(bounds, axis=2)
        inside = np.where(np.isnan(actual), np.nan, (lower <= actual) & (actual <= upper)).T
    return forecast, forecast - actual, inside


def _explain(
    model: LoadedModel,
    output: int,
    side: Outcomes,
    stride: int,
    members: Sequence[Sequence[int]],
    baseline: Baseline,
) -> tuple[Array, int]:
    """Contributions of every `stride`-th window, (n, n_names), and how many have not converged.

    NaN for others, and where the contributions miss more than what they explain, as of values too far out.
    """
    contributions, unconverged = np.full((len(side.ends), len(members)), np.nan), 0
    chosen = np.arange(stride // 2, len(side.ends), stride)
    for start in slices(range(0, len(chosen), CHUNK)):
        rows = chosen[start : start + CHUNK]
        windows = model.to_model_units(take_windows(side.rows, side.ends[rows], model.config.lookback))
        found = explain_windows(model, windows, output, baseline, None, "features")
        contributions[rows] = sum_groups(found.contributions, members)
        change = np.abs(found.predictions - found.baseline_prediction)
        contributions[rows[found.residual > np.maximum(change, model.output_std[output])]] = np.nan
        unconverged += int((~found.converged).sum())
    return contributions, unconverged


def _describe(side: Outcomes) -> str:
    """Number and time of the windows, and how many are left out."""
    said = [f"{len(side.ends):,} windows"]
    if side.times:
        said[0] += f", {side.times[0]} to {side.times[-1]}"
    left_out = {"across a gap in time": side.across_gaps, "for missing values": side.missing}
    said += [f"{count:,} left out {reason}" for reason, count in left_out.items() if count]
    return "; ".join(said)


def rank_gain(reference: Array, current: Array) -> float | None:
    """nDCG of items in the descending order of `current`, with `reference` as gains, (n_items,) both, none negative.

    DCG is the sum of gain / log2(place + 1), divided by that of the reference's own order (Järvelin and Kekäläinen
    2002). None if all gains are 0.
    """
    discounts = 1 / np.log2(np.arange(len(reference)) + 2)
    best = np.sort(reference)[::-1] @ discounts
    return float(reference[np.argsort(-current, kind="stable")] @ discounts / best) if best > 0 else None


def _decide(
    chance: Chance, p_values: Array, false_alarms: float, question: Question, sides: tuple[Tally, Tally], length: int
) -> Verdict:
    """The answer to a question, from its p-values; `sides` are the sums of the current side and of the reference."""
    counted = {"inputs": "forecasts", "use": "explained", "errors": "known"}[question]
    words = {"inputs": "forecast", "use": "forecast that could be explained", "errors": "actual value"}[question]
    for tally, side in zip(sides, ("current side", "reference"), strict=True):
        if not getattr(tally, counted).any():
            return Verdict(question, None, None, None, 0, f"the {side} has no {words}")
    n_spans = min(chance.n_spans, chance.n_blocks // length)
    if n_spans < MIN_SPANS:
        spans = f"{n_spans} span{'s' * (n_spans != 1)} as long as the current side"
        return Verdict(
            question, None, None, None, n_spans, f"the reference has {spans}, and a verdict needs {MIN_SPANS}"
        )
    p_value, rate = float(np.nanmin(p_values)), chance.rate(false_alarms)
    return Verdict(question, _is_moved(p_value, rate), p_value, rate, n_spans)


def _is_moved(p_value: float, rate: float) -> bool:
    return p_value <= rate * (1 + 1e-9)


def _judge_one(p_value: float, verdict: Verdict) -> dict[str, Any]:
    """The attributes of `Moved`."""
    known = verdict.false_alarms is not None and not np.isnan(p_value)
    assert verdict.false_alarms is not None or not known
    return {"p_value": p_value, "moved": _is_moved(p_value, verdict.false_alarms or 0.0)} if known else _UNKNOWN


_UNKNOWN = {"p_value": None, "moved": None}


def _list_inputs(
    bootstraps: Bootstraps, watched: Watched, reference: Tally, current: Tally, p_values: Array, verdict: Verdict
) -> list[InputDrift]:
    now, then = current.total(), reference.total()
    means = _list_changes(
        *(_average(bootstraps, side.input_sums.sum(axis=2), _count(side)) for side in (current, reference))
    )
    psi = population_stability(now.inputs, then.inputs)[0].tolist()
    binned = (now.inputs[0], now.input_sums[0], then.inputs[0], then.input_sums[0])
    distances = [_known(wasserstein(*columns)) for columns in zip(*binned, strict=True)]
    rows = zip(watched.features, watched.units, psi, means, distances, p_values.tolist(), strict=True)
    return [InputDrift(**_judge_one(p, verdict), name=name, unit=unit, psi=index, mean=mean, distance=distance)
            for name, unit, index, mean, distance, p in rows]  # fmt: skip


def _list_use(
    bootstraps: Bootstraps,
    watched: Watched,
    reference: Tally,
    current: Tally,
    crossed: tuple[Tally, Tally] | None,
    p_values: Array,
    verdict: Verdict,
) -> list[UseDrift]:
    sides = current, reference
    shares = _list_changes(*(_average(bootstraps, side.sizes, side.sizes.sum(axis=1)) for side in sides))
    means = _list_changes(*(_average(bootstraps, side.contributions, side.explained) for side in sides))
    parts: list[tuple[Part | None, Part | None]] = [(None, None)] * len(means)
    if crossed is not None:
        pairs = (current, crossed[1]), (crossed[0], reference)  # this model and the other, on either table
        data = [_average(bootstraps, (a.contributions + b.contributions) / 2, a.explained) for a, b in pairs]
        model = [_average(bootstraps, (a.contributions - b.contributions) / 2, a.explained) for a, b in pairs]
        parts = list(zip(_list_parts(_combine(-1, *data)), _list_parts(_combine(1, *model)), strict=True))
    best = np.fmin(*np.split(p_values, 2)).tolist()
    rows = zip(watched.names, shares, means, parts, best, strict=True)
    return [UseDrift(**_judge_one(p, verdict), name=name, share=share, contribution=mean, data=data, model=model)
            for name, share, mean, (data, model), p in rows]  # fmt: skip


def _find_effect(
    bootstraps: Bootstraps, reference: Tally, current: Tally, use: Sequence[UseDrift], baseline_shift: float
) -> Effect:
    sides = (_average(bootstraps, side.forecast_sums.sum(axis=2), _count(side)) for side in (current, reference))
    (forecast,) = _list_changes(*sides)

    def add(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    total = add([each.effect for each in use])
    data = add([each.data.value if each.data else None for each in use])
    model = add([each.model.value if each.model else None for each in use])
    return Effect(forecast, None if total is None else total + baseline_shift, baseline_shift, data, model)


def _find_errors(
    bootstraps: Bootstraps, watched: Watched, reference: Tally, current: Tally, p_values: Array, verdict: Verdict
) -> ErrorDrift | None:
    known, then = (int(side.known.sum()) for side in (current, reference))
    if not known:
        return None
    mae, bias = (
        _list_changes(*(_average(bootstraps, getattr(side, of)[:, None], side.known) for side in (current, reference)))[
            0
        ]
        for of in ("sizes_of_errors", "errors")
    )
    coverage = {}
    for number, level in enumerate(watched.levels):
        sides = (
            _average(bootstraps, side.covered[:, [number]], side.bounded[:, number]) for side in (current, reference)
        )
        (coverage[level],) = _list_changes(*sides)
    found = ErrorDrift(known, then, mae, bias, coverage)
    judged = zip(found.changes, p_values.tolist(), strict=True)
    return replace(found, worse=tuple(name for name, p_value in judged if _judge_one(p_value, verdict)["moved"]))


class Bootstraps(dict[int, Bootstrap]):
    """By number of blocks, since their resamples take longer than what is estimated from them."""

    def __missing__(self, n: int) -> Bootstrap:
        self[n] = Bootstrap(n)
        return self[n]


def _count(tally: Tally) -> Array:
    """Number of forecasts of each block, (n_blocks,)."""
    number: Array = tally.forecasts.sum(axis=(1, 2))
    return number


def _average(bootstraps: Bootstraps, sums: Array, weights: Array) -> Estimate:
    """Sums (n_blocks, n_columns) over the sum of the weights (n_blocks,), with bounds; NaN where they are unknown."""
    kept = np.flatnonzero(weights > 0)
    unknown = np.full(sums.shape[1], np.nan)
    if not len(kept):
        return Estimate(unknown, unknown, unknown)
    value = sums[kept].sum(axis=0) / weights[kept].sum()
    if len(kept) < MIN_BLOCKS:
        return Estimate(value, unknown, unknown)
    starts = np.arange(min(len(kept), MOST_BLOCKS)) * len(kept) // min(len(kept), MOST_BLOCKS)
    joined, of = (np.add.reduceat(each[kept], starts, axis=0) for each in (sums, weights))
    found = bootstraps[len(starts)].share(joined, of=of[:, None])
    return Estimate(value, found.low, found.high)


def _combine(sign: int, one: Estimate, other: Estimate) -> Estimate:
    """one + sign * other, of independent estimates, with bounds by MOVER."""
    value = one.value + sign * other.value
    ends = (other.low, other.high) if sign > 0 else (other.high, other.low)
    low = value - np.hypot(one.value - one.low, ends[0] - other.value)
    high = value + np.hypot(one.high - one.value, ends[1] - other.value)
    return Estimate(value, low, high)


def _list_changes(now: Estimate, then: Estimate) -> list[Change]:
    """The changes of each column."""
    parts = _list_parts(_combine(-1, now, then))
    columns = zip(now.value.tolist(), then.value.tolist(), parts, strict=True)
    return [Change(_known(value), _known(before), part.interval) for value, before, part in columns]


def _list_parts(found: Estimate) -> list[Part]:
    columns = zip(found.value.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
    return [Part(_known(value), None if low != low or high != high else (low, high)) for value, low, high in columns]


def _known(value: float) -> float | None:
    return value if value == value else None


def _divide(sums: Array, weights: Array) -> Array:
    """NaN where the weight is 0."""
    shape = np.broadcast_shapes(sums.shape, weights.shape)
    found: Array = np.divide(sums, weights, out=np.full(shape, np.nan), where=weights > 0)
    return found
