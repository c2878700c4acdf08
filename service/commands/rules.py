"""Prometheus rules whose thresholds are what a history differs in without a cause, for `kanscope drift --rules`.

The history is counted in the bins of the checkpoint's reference windows, as the service counts what it forecasts. Each
span of it then says what the expressions of the rules are without a change, and the thresholds are quantiles of that:
see `NullDistribution`. Inputs and use are compared with the reference windows, which the service states as gauges;
errors with those of the history, which are numbers in the rules.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill
from typing import Any

import numpy as np
import yaml

from kanmodel.attribution.ledger import sum_groups
from kanmodel.errors import DataError
from kanmodel.model import Model
from kanmodel.monitoring.tallies import ForecastWindows, TallySchema, block_size
from kanmodel.tables.instants import read_duration
from kanmodel.tables.statistics.p_values import MIN_SPANS, NullDistribution, Question, null_distributions, warn_of_rate
from kanmodel.tables.statistics.tally import PRIOR, Bins, Tally
from kanmodel.tables.windows import Windows, read_all_windows
from service.telemetry.history import HOUR
from service.telemetry.monitor import N_NAMES, reference_values, watched_output

ENOUGH = 0.8  # of the forecasts of a span of the history, for an alert
INTERVAL = "5m"  # between two evaluations
BY = "model, version"
BY_NAME = f"{BY}, name"
ON_NAME = f"on ({BY_NAME}) group_left ()"
ON_VERSION = f"on ({BY}) group_left ()"
ALERTS: dict[Question, tuple[str, str, str]] = {
    "inputs": (
        "KanscopeInputsMoved",
        "{{ $labels.name }}, an input of {{ $labels.model }}, has moved: PSI {{ $value | humanize }}",
        "It says by how much, in its unit, and whether the model uses it.",
    ),
    "use": (
        "KanscopeUseChanged",
        "{{ $labels.model }} uses {{ $labels.name }} otherwise: its {{ $labels.of }} by {{ $value | humanize }}",
        "It says what that adds to the mean forecast, in the target's unit.",
    ),
    "errors": (
        "KanscopeErrorsWorse",
        "forecasts of {{ $labels.model }} are worse: {{ $labels.name }} by {{ $value | humanize }}",
        "It has the errors of both. If inputs moved too, look there first; if not, their relation to the target did.",
    ),
}
Rule = dict[str, Any]


class _Text(str):
    """A text of several lines in YAML."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|"))


def write_rules(
    model: Model,
    name: str,
    history: Any,
    place: str,
    span: str,
    false_alarms: float | None,
    explained: int,
    series: Sequence[str] = (),
) -> str:
    """The rules of a model as YAML.

    Args:
        model: the model.
        name: its name in the service.
        history: a table in order of time, with the target's column for rules of errors.
        place: the table's path, for errors.
        span: what the rules look back over, such as ``24h``.
        false_alarms: rate of false alarms of each question; None for the lowest that the history's spans can hold, and
            at least 0.01. Below 1 / (spans + 1) a warning says which rate is used.
        explained: most windows of the history that are explained, chosen evenly.
        series: that of the history, if it has several.

    Raises:
        DataError: the span is no duration, or the history has no times or fewer than four spans.
    """
    output, seconds = watched_output(model), read_duration(span)
    if seconds is None or seconds < 1:
        raise DataError(f"--span must be a duration such as 24h or 7d, but is {span!r}")
    schema = TallySchema.of(model, output)
    side = read_all_windows(model.config.table, history, place, series=series or None)
    n, n_span = len(side), count_windows(side, seconds, place)
    if n_span * MIN_SPANS > n:
        raise DataError(
            f"--span {span} is {n_span:,} windows, more than a quarter of the {n:,} of {place}: give a longer history "
            "or a shorter span"
        )
    values = reference_values(model, output)
    bins = Bins.of(values)
    contributions = sum_groups(model.importance(schema.output).contributions, schema.members)
    unknown = np.full(len(values), np.nan), np.empty((len(values), 0))
    reference = Tally.of(bins, values[:, :-1], values[:, -1], contributions, *unknown)
    size = block_size(n, n_span, len(schema.features))
    tally, _ = ForecastWindows.of(model, output, side).tally(schema, bins, size, explained)
    rules = Rules(name, schema, _cut(tally), _cut(reference), max(1, round(n_span / size)), seconds, false_alarms)
    return rules.write(f"{n:,} windows" + (f", {side.times[0]} to {side.times[-1]}" if side.times else ""))


def count_windows(side: Windows, seconds: float, place: str) -> int:
    """Number of windows in so many seconds; raises DataError without times, or of several series."""
    time = side.table.spec.time
    if time is None or not time.dated:
        raise DataError(f"{place} needs a time column with dates, which the model has too: --span is a time")
    if side.series is not None and len(set(side.series)) > 1:
        raise DataError(f"{place} has {len(set(side.series))} series, but --rules is of one: name it with --series")
    instants = side.table.instants
    return max(1, round(seconds / float(np.median(np.diff(instants[side.ends])))))  # type: ignore[index]


class Rules:
    """The rules of one model.

    Args:
        name: of the model in the service.
        schema: names of the tallies' columns.
        history: blocks in order of time, in the bins of the reference windows.
        reference: the reference windows.
        length: blocks of a span.
        seconds: the same in time.
        false_alarms: rate of false alarms of each question, as of `write_rules`.
    """

    def __init__(
        self,
        name: str,
        schema: TallySchema,
        history: Tally,
        reference: Tally,
        length: int,
        seconds: float,
        false_alarms: float | None,
    ) -> None:
        hours, rest = divmod(seconds, HOUR)
        self.span = f"{int(seconds)}s" if rest else f"{int(hours)}h"
        self.name, self.schema, self.rate = name, schema, false_alarms
        self.total, self._share_of_span = history.total(), length / len(history)
        of_reference, of_history = null_distributions(history, length, reference), null_distributions(history, length)
        self.chances: dict[Question, NullDistribution] = {
            "inputs": of_reference["inputs"],
            "use": of_reference["use"],
            "errors": of_history["errors"],
        }
        warn_of_rate(self.chances.values(), false_alarms)

    def write(self, about: str) -> str:
        """YAML, with a comment on what it rests on; `about` describes the history."""
        group = {"name": f"kanscope-drift-{self.name}", "interval": INTERVAL, "rules": self.list_rules()}
        rates = [
            f"{question} {100 * chance.rate(self.rate):.3g} % ({chance.n_spans} spans)"
            if chance.n_spans >= MIN_SPANS
            else f"{question} no rule, as fewer than {MIN_SPANS} spans have what it needs"
            for question, chance in self.chances.items()
        ]
        forecasts, explained, known = (
            f"{self._per_span(each):.4g}" for each in (self.total.forecasts, self.total.explained, self.total.known)
        )
        comment = (
            f"Drift of the model {self.name} over {self.span}, by `kanscope drift --rules` from {about}. Without a "
            f"change an alert is on for about this share of the time at most: {', '.join(rates)}. A span of the "
            f"history has {forecasts} forecasts, {explained} of them explained, and {known} actual values: of less "
            f"than {ENOUGH:.0%} of these there is no alert, and the inputs of more forecasts count as that many. "
            "Bins and thresholds are those of one checkpoint: write the rules anew for another."
        )
        text = yaml.dump({"groups": [group]}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
        return fill(comment, 118, initial_indent="# ", subsequent_indent="# ") + "\n" + text

    def list_rules(self) -> list[Rule]:
        """Thresholds, statistics, and an alert for each question."""
        rules = list[Rule]()
        for question, items, statistics in (
            ("inputs", [("psi", name) for name in self.schema.features[:N_NAMES]], self._inputs),
            ("use", [(of, name) for of in ("share", "contribution") for name in self._names], self._use),
            ("errors", [("errors", name) for name in self.schema.figures], self._errors),
        ):
            limits = self.chances[question].thresholds(self.rate)  # type: ignore[index]
            known = [(*item, float(limit)) for item, limit in zip(items, limits, strict=True) if np.isfinite(limit)]
            if not known:
                continue
            for of, name, limit in known:
                rules.append(_record("threshold", f"vector({limit:.6g})", model=self.name, of=of, name=name))
            rules += statistics()
            alert, summary, advice = ALERTS[question]  # type: ignore[index]
            of_any = "|".join(dict.fromkeys(of for of, *_ in known))
            selector = self._of(f'of=~"{of_any}"')
            expression = f"""
                kanscope:drift:statistic{selector}
                  > on (model, of, name) group_left () kanscope:drift:threshold"""
            path = f"GET /v1/models/{{{{ $labels.model }}}}/drift?version={{{{ $labels.version }}}}&since={self.span}"
            rules.append(
                {"alert": alert, "expr": _unindent(expression), "labels": {"severity": "warning", "question": question}}
                | {"annotations": {"summary": summary, "description": f"{path}. {advice}"}}
            )
        return rules

    @property
    def _names(self) -> tuple[str, ...]:
        return self.schema.names[:N_NAMES]

    def _inputs(self) -> list[Rule]:
        """PSI as `population_stability` has it, of at most as many forecasts as a span of the history has."""
        values = self._of('of="input"')
        counts, current, reference, together, p, q = (
            f"kanscope:drift:{name}{self._of()}"
            for name in ("counts", "current", "reference", "together", "current_share", "reference_share")
        )
        n = self._per_span(self.total.forecasts)

        def smooth(side: str) -> str:
            return f"""
                ({side} + {PRIOR:g} * {together})
                  / {ON_NAME} (sum by ({BY_NAME}) ({side}) + {PRIOR:g})"""

        index = f"sum by ({BY_NAME}) (({p} - {q}) * ln({p} / {q}))"
        return [
            _record("counts", f"sum by ({BY_NAME}, bin) ({self._increase('values', values)})"),
            _record(
                "current",
                f"""
                {counts}
                  * {ON_NAME} clamp_max({n:.6g} / (sum by ({BY_NAME}) ({counts}) > 0), 1)""",
            ),
            _record("reference", f"max by ({BY_NAME}, bin) (kanscope_watched_reference_values{values})"),
            _record(
                "together",
                f"""
                (({current} + {reference}) > 0)
                  / {ON_NAME} sum by ({BY_NAME}) ({current} + {reference})""",
            ),
            _record("current_share", smooth(current)),
            _record("reference_share", smooth(reference)),
            self._state("psi", index, f"sum by ({BY_NAME}) ({counts})", self.total.forecasts, BY_NAME),
        ]

    def _use(self) -> list[Rule]:
        """Magnitudes of the change of the share of |contribution|, and of the mean contribution."""
        of_all, positive, negative = self._of(), self._of('sign="positive"'), self._of('sign="negative"')
        explained = f"sum by ({BY}) ({self._increase('explained', of_all)})"
        gauge = f"max by ({BY_NAME}, sign) (kanscope_watched_reference_contribution%s)"

        def share(sums: str) -> str:
            return f"sum by ({BY_NAME}) ({sums}) / {ON_VERSION} sum by ({BY}) ({sums})"

        def difference(sums: str) -> str:
            return " - ".join(f"sum by ({BY_NAME}) ({sums % sign})" for sign in (positive, negative))

        increase = f"increase(kanscope_watched_contributions_total%s[{self.span}])"
        shares = f"""
            abs({share(increase % of_all)}
              - {share(gauge % of_all)})"""
        means = f"""
            abs(({difference(increase)})
              / {ON_VERSION} {explained}
              - ({difference(gauge)}))"""
        return [
            self._state("share", shares, explained, self.total.explained),
            self._state("contribution", means, explained, self.total.explained),
        ]

    def _errors(self) -> list[Rule]:
        """Increase of the mean absolute error, magnitude of the change of the bias, decrease of the coverage."""
        total, of_all = self.total, self._of()
        known = f"sum by ({BY}) ({self._increase('known', of_all)})"
        sums = f"sum by ({BY}) ({self._increase('errors', of_all)})"
        signs = (self._of(f'sign="{sign}"') for sign in ("positive", "negative"))
        positive, negative = (  # a sign that no error had has no counter
            f"(sum by ({BY}) ({self._increase('errors', sign)}) or 0 * {sums})" for sign in signs
        )
        mae, bias = (float(each[0] / total.known[0]) for each in (total.sizes_of_errors, total.errors))
        worse = f"""
            {sums}
              / {known}
              - {mae:.8g}"""
        biased = f"""
            abs(({positive}
              - {negative})
              / {known}
              - {_signed(bias)})"""
        rules = [
            self._state("errors", worse, known, total.known, name="mae"),
            self._state("errors", biased, known, total.known, name="bias"),
        ]
        for number, level in enumerate(self.schema.levels):
            bounded, covered = total.intervals[:, number], total.covered[:, number]
            if not bounded.any():
                continue
            held, of_level = (self._of(f'level="{level:g}"{more}') for more in (', holds="yes"', ""))
            all_of = f"sum by ({BY}) ({self._increase('intervals', of_level)})"
            missed = f"""
                {covered[0] / bounded[0]:.8g}
                  - (sum by ({BY}) ({self._increase("intervals", held)}) or 0 * {all_of})
                  / {all_of}"""
            rules.append(self._state("errors", missed, all_of, bounded, name=f"coverage@{level:g}"))
        return rules

    def _state(self, of: str, expression: str, counted: str, n: Any, by: str = BY, **labels: str) -> Rule:
        """Records a statistic where enough is counted."""
        lines = _unindent(expression)
        enough = f"{lines}\nand on ({by})\n  {counted} >= {ENOUGH * self._per_span(n):.6g}"
        return {"record": "kanscope:drift:statistic", "expr": _Text(enough), "labels": {"of": of, **labels}}

    def _increase(self, metric: str, selector: str) -> str:
        return f"increase(kanscope_watched_{metric}_total{selector}[{self.span}])"

    def _of(self, *more: str) -> str:
        """Selects the model."""
        return "{" + ", ".join([f"model={json.dumps(self.name, ensure_ascii=False)}", *more]) + "}"

    def _per_span(self, number: Any) -> float:
        """What a span of the history has of the forecasts of all blocks, on average."""
        return float(np.sum(number) * self._share_of_span)


def _record(metric: str, expression: str, /, **labels: str) -> Rule:
    return {"record": f"kanscope:drift:{metric}", "expr": _unindent(expression)} | (
        {"labels": labels} if labels else {}
    )


def _unindent(expression: str) -> str:
    """Without the indentation of the code; of several lines, as such."""
    if "\n" not in expression:
        return expression
    lines = expression.strip("\n").split("\n")
    margin = len(lines[0]) - len(lines[0].lstrip())
    return _Text("\n".join(line[margin:] for line in lines))


def _signed(value: float) -> str:
    return f"({value:.8g})" if value < 0 else f"{value:.8g}"


def _cut(tally: Tally) -> Tally:
    """Of the features and names that /metrics has."""
    return replace(
        tally,
        inputs=tally.inputs[:, :N_NAMES],
        input_sums=tally.input_sums[:, :N_NAMES],
        contributions=tally.contributions[:, :N_NAMES],
        sizes=tally.sizes[:, :N_NAMES],
    )
