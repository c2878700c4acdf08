"""`NullDistribution`: the statistics of drift where nothing changed, from a reference alone, and p-values.

The statistics of the current side are computed for each span of the reference that is as long, against the rest of it
(subsampling: Politis and Romano 1994, "Large sample confidence regions based on subsamples"), so a week in July is
compared with other weeks. Of one question each statistic is divided by a quantile in its upper tail, over the spans and
the current side, and the largest is compared with the largest of each span (max-T: Westfall and Young 1993,
"Resampling-based multiple testing"). So a question as a whole has a false alarm at the stated rate, if the current side
is exchangeable with the spans; a p-value is at least 1 / (spans + 1), of spans that do not overlap.

The current side is part of the scale, since it is exchangeable with the spans only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.errors import warn_caller
from kanmodel.tables.statistics.bootstrap import divide
from kanmodel.tables.statistics.tally import Tally, population_stability

Question = Literal["inputs", "use", "errors"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
MIN_SPANS = 4  # of the reference, for a verdict
FALSE_ALARMS = 0.01  # rate of a question where none is asked for, and the spans can hold it
FLOOR_PSI = 0.01  # of the scale of a statistic: changes are compared with at least this,
FLOOR_SHARE = 0.01  # of all contributions,
FLOOR_ERROR = 0.01  # of the mean absolute error of the reference,
FLOOR_COVERAGE = 0.005


@dataclass(frozen=True, eq=False)
class NullDistribution:
    """The statistics of one question in the reference alone."""

    # of each span of the reference, a block after the one before, against the rest of it, (n_sliding, n_items); larger
    # is more drift. NaN where there is none
    spans: Array
    floors: Array  # smallest scale of each, (n_items,)
    length: int  # blocks of a span

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
        return np.logical_not(unknown[:, ~unknown.all(axis=0)].any(axis=1) | unknown.all(axis=1))

    def rate(self, false_alarms: float | None = None) -> float:
        """The rate that the spans can hold: `false_alarms`, by default 0.01, or 1 / (spans + 1) if that is larger."""
        return max(false_alarms or FALSE_ALARMS, 1 / (self.n_spans + 1))

    def judge(self, observed: Array) -> Array:
        """p-value of each statistic of the current side, (n_items,), adjusted for their number; NaN if unknown."""
        p_values, n_spans = np.full(len(observed), np.nan), self.n_spans
        items = ~np.isnan(observed) & ~np.isnan(self.spans).all(axis=0)
        if n_spans < MIN_SPANS or not items.any():
            return p_values
        largest, scale = self._rank(observed, items)
        share = 1 - np.searchsorted(largest, observed[items] / scale) / len(largest)
        p_values[items] = (n_spans * share + 1) / (n_spans + 1)
        return p_values

    def thresholds(self, false_alarms: float | None = None) -> Array:
        """Values of the statistics above which each has an alarm if the others are as usual, (n_items,)."""
        n_spans = self.n_spans
        if n_spans < MIN_SPANS:
            return np.full(len(self.floors), np.nan)
        items: NDArray[np.bool_] = np.logical_not(np.isnan(self.spans).all(axis=0))
        largest, _ = self._rank(self._known[0].mean(axis=0), items)
        _, scale = self._rank(np.full(len(items), np.inf), items)
        above = floor(((n_spans + 1) * self.rate(false_alarms) - 1) / n_spans * len(largest) + 1e-9)  # spans above it
        found = np.full(len(self.floors), np.nan)
        found[items] = largest[len(largest) - 1 - above] * scale
        return found

    @cached_property
    def _known(self) -> tuple[Array, Array]:
        """The spans that have all statistics, (n_known, n_items), and the same with each statistic in order."""
        spans = self.spans[self._is_known]
        return spans, np.sort(spans, axis=0)

    def _rank(self, now: Array, items: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Of some items, the largest of each span in units of their scales, sorted, (n_known,), and the scales.

        The scale is in the tail: the quantile that two of n spans exceed, of the spans and the current side as one
        more. That is a quantile of the spans alone, at a level that depends on which side of it the current one is.
        """
        (spans, ordered), n_spans = (each[:, items] for each in self._known), self.n_spans
        low, high = ordered[[round((n_spans - which) / n_spans * (len(ordered) - 1)) for which in (2, 1)]]
        scale = np.maximum(np.clip(now[items], low, high), self.floors[items])
        return np.sort((spans / scale).max(axis=1)), scale


def warn_of_rate(nulls: Iterable[NullDistribution], false_alarms: float | None) -> None:
    """Warns if the spans of a question, where they are enough for a verdict, cannot hold a rate of false alarms."""
    few = min((null.n_spans for null in nulls if null.n_spans >= MIN_SPANS), default=None)
    if false_alarms and few and false_alarms < 1 / (few + 1):
        message = f"{few:,} spans of the reference can hold a rate of false alarms of {100 / (few + 1):.2g} %"
        needed = f"{ceil(1 / false_alarms) - 1:,}" if false_alarms > 1e-9 else "more than a billion"
        message += f", which is used; {100 * false_alarms:.2g} % needs {needed} as long as these"
        warn_caller(message)


def null_distributions(reference: Tally, length: int, beside: Tally | None = None) -> dict[Question, NullDistribution]:
    """The statistics of spans of `length` blocks of a reference against `beside`, by default the rest of it.

    Their order is: of ``inputs`` PSI by feature; of ``use`` the magnitudes of the changes of the share, and then of the
    mean contribution, by name; of ``errors`` the increase of the mean absolute error, the magnitude of the change of
    the bias, and the decrease of the coverage by level.
    """
    spans = reference.spans(length)
    found = measure(spans, reference.without(spans) if beside is None else beside.total())
    total, tiny = (reference if beside is None else beside).total(), np.finfo(float).tiny
    n_names, n_levels = reference.sizes.shape[1], reference.intervals.shape[1]
    size = divide(total.sizes.sum(axis=1), total.explained, np.nan).item()
    error = FLOOR_ERROR * divide(total.sizes_of_errors, total.known, np.nan).item()
    floors: dict[Question, list[float]] = {
        "inputs": [FLOOR_PSI] * reference.inputs.shape[1],
        "use": [FLOOR_SHARE] * n_names + [FLOOR_SHARE * size] * n_names,
        "errors": [error, error] + [FLOOR_COVERAGE] * n_levels,
    }
    return {of: NullDistribution(found[of], np.fmax(np.array(floors[of]), tiny), length) for of in QUESTIONS}


def measure(current: Tally, reference: Tally) -> dict[Question, Array]:
    """The statistics of each block of one tally against that of another, or its only one, (n_blocks, n_items) each."""

    def change(of: Callable[[Tally], tuple[Array, Array]]) -> Array:
        return divide(*of(current), np.nan) - divide(*of(reference), np.nan)

    shares = change(lambda tally: (tally.sizes, tally.sizes.sum(axis=1, keepdims=True)))
    means = change(lambda tally: (tally.contributions, tally.explained[:, None]))
    errors = change(lambda tally: (tally.sizes_of_errors, tally.known))
    biases = change(lambda tally: (tally.errors, tally.known))
    covered = change(lambda tally: (tally.covered, tally.intervals))
    return {
        "inputs": population_stability(current.inputs, reference.inputs),
        "use": np.abs(np.hstack([shares, means])),
        "errors": np.column_stack([errors, np.abs(biases), -covered]),
    }
