"""Monitors: statistics of spans of time, and the thresholds above which each has an alarm.

A monitor has statistics for each span, larger for more drift. Its threshold is that of Kanscope for all of them
(`kanmodel.tables.statistics.p_values.NullDistribution`), from the spans of the reference, each beside the rest of it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from faults import Stream

from kanmodel.monitoring.drift import Drift, rank_gain
from kanmodel.monitoring.tallies import TallySchema
from kanmodel.tables.statistics.p_values import NullDistribution, measure, null_distributions
from kanmodel.tables.statistics.tally import Bins, Tally

Array = np.ndarray

RATE = 0.01
SHIPPED_GAIN = 0.9  # of SageMaker: an alarm below
SHIPPED_SHARE = 0.5  # of evidently: an alarm if as many columns have drifted
SHIPPED_INDEX = 0.1  # of evidently: PSI from which a column has
QUESTIONS = ("inputs", "use", "errors")
CALIBRATED = (*QUESTIONS, "evidently", "nDCG", "MAE")
SHIPPED = ("evidently as shipped", "nDCG as shipped")


def tally(bins: Bins, stream: Stream) -> Tally:
    """A block a row."""
    each = stream.newest, stream.forecasts, stream.contributions, stream.errors, stream.inside
    return Tally.of(bins, *each, np.arange(len(stream)), len(stream))


def gains(spans: Tally, others: Tally) -> Array:
    """1 - nDCG of the mean magnitudes of contributions (SageMaker Model Monitor), (n_spans, 1).

    Gains are those of `others`, (n_spans) or one for all, in the order of the spans'.
    """
    sizes = np.broadcast_to(others.sizes, spans.sizes.shape)
    found = [rank_gain(reference, current) for reference, current in zip(sizes, spans.sizes, strict=True)]
    return 1 - np.array(found, dtype=float)[:, None]


def error_rises(spans: Tally, others: Tally) -> Array:
    """The rise of the mean absolute error of the outcomes that came within each span, (n_spans, 1); NaN of none."""
    means = [
        np.divide(of.sizes_of_errors, of.known, where=of.known > 0, out=np.full(len(of), np.nan))
        for of in (spans, others)
    ]
    return (means[0] - means[1])[:, None]


def evidently(python: Path, reference: Array, length: int, streams: Sequence[tuple[Array, Array]]) -> list[Array]:
    """evidently's PSI of the features in spans of `length` rows, from its own environment.

    Yields (n_spans, n_features) of all spans of the reference (n, n_features), each against its other rows, and of the
    spans of each stream that begin at some rows, against all.
    """
    script = Path(__file__).with_name("peer_evidently.py")
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "asked.npz"), Path(folder, "answered.npz")
        named = {f"stream{number}": values for number, (values, _) in enumerate(streams)}
        begins = {f"begins{number}": rows for number, (_, rows) in enumerate(streams)}
        np.savez(asked, reference=reference, length=length, **named, **begins)
        subprocess.run([python, script, asked, answered], check=True)
        with np.load(answered) as found:
            return [found["reference"], *(found[name] for name in named)]


@dataclass(frozen=True, eq=False)
class Monitors:
    """All monitors of one model with spans of one length.

    Attributes:
        watched: names of the model.
        reference: its forecasts in the reference, outcomes delayed.
        length: rows of a span.
    """

    watched: TallySchema
    reference: Stream
    length: int

    @cached_property
    def bins(self) -> Bins:
        """Of features and forecasts."""
        return Bins.of(np.column_stack([self.reference.newest, self.reference.forecasts]))

    @cached_property
    def tally(self) -> Tally:
        """Of the reference."""
        return tally(self.bins, self.reference)

    @cached_property
    def chances(self) -> Mapping[str, NullDistribution]:
        """What changes without a cause, of all monitors but evidently's."""
        spans = self.tally.spans(self.length)
        others = self.tally.without(spans)
        tiny = np.full(1, np.finfo(float).tiny)
        return {**null_distributions(self.tally, self.length)} | {
            "nDCG": NullDistribution(gains(spans, others), tiny, self.length),
            "MAE": NullDistribution(error_rises(spans, others), tiny, self.length),
        }

    def statistics(self, stream: Stream, begins: Array) -> dict[str, Array]:
        """Those of the spans of a stream that begin at some rows, (n_spans, n_items)."""
        spans, total = tally(self.bins, stream).spans(self.length), self.tally.total()
        spans = Tally(*(each[begins] for each in spans.arrays))
        return {**measure(spans, total)} | {"nDCG": gains(spans, total), "MAE": error_rises(spans, total)}

    def explain(self, stream: Stream) -> Drift:
        """What Kanscope says of a span."""
        return Drift.of(self.watched, self.tally, tally(self.bins, stream), false_alarms=RATE)


def alarms(chance: NullDistribution, statistics: Array) -> Array:
    """Whether each span has an alarm, (n_spans,)."""
    rate = chance.rate(RATE) * (1 + 1e-9)
    return np.array([np.nanmin([*chance.judge(of), 1.0]) <= rate for of in statistics])


def shipped_alarms(monitor: str, statistics: Array) -> Array:
    """The same with the thresholds of the libraries."""
    if monitor == "nDCG":
        return 1 - statistics[:, 0] < SHIPPED_GAIN
    return (statistics >= SHIPPED_INDEX).mean(axis=1) >= SHIPPED_SHARE
