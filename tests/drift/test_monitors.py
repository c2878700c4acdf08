"""The parts of the benchmark of drift: faults, streams, and monitors beside what is known of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks" / "drift"))

from faults import BEFORE, INPUT_FAULTS, UNTIL, Stream, make_series, plant
from monitors import QUESTIONS, RATE, Monitors, alarms, error_rises, gains, shipped_alarms, tally

from kanmodel.monitoring.tallies import TallySchema
from kanmodel.tables.statistics.tally import Bins

N_FEATURES = 3


@pytest.fixture(scope="module")
def series():
    """All three, by name."""
    return {one.name: one for one in make_series(0)}


def make_stream(n, seed=0, shift=0.0):
    """Independent rows of a forecast that is the sum of its features."""
    random = np.random.default_rng(seed)
    newest = random.normal(shift, 1, size=(n, N_FEATURES))
    errors = random.normal(size=n)
    inside = (np.abs(errors) < 1.28)[:, None].astype(float)
    return Stream(newest, newest.sum(axis=1), newest, errors, inside)


def make_monitors(length=24):
    """Of 100 spans that do not overlap."""
    names = tuple(f"x{number}" for number in range(N_FEATURES))
    members = tuple((number,) for number in range(N_FEATURES))
    watched = TallySchema("y+1", None, names, (None,) * N_FEATURES, names, members, (0.8,))
    return Monitors(watched, make_stream(100 * length), length)


def test_the_gain_is_that_of_sagemakers_example():
    """College admission: attributions 0.70, 0.50, 0.05 in training and 0.10, 0.20, 0.70 live, in the reverse order."""
    streams = []
    for sizes in ([0.70, 0.50, 0.05], [0.10, 0.20, 0.70]):
        contributions = np.array([sizes]) * [1, -1, 1]  # magnitudes count
        streams.append(Stream(np.zeros((1, 3)), np.zeros(1), contributions, np.zeros(1), np.zeros((1, 1))))
    bins = Bins.of(np.zeros((2, 4)))
    reference, live = (tally(bins, stream) for stream in streams)
    expected = (0.05 + 0.50 / np.log2(3) + 0.70 / 2) / (0.70 + 0.50 / np.log2(3) + 0.05 / 2)
    found = gains(live, reference)
    assert 1 - found[0, 0] == pytest.approx(expected)
    assert shipped_alarms("nDCG", found).all()
    assert gains(reference, reference)[0, 0] == pytest.approx(0)


def test_a_monitor_says_what_drift_says():
    """Of the current side alone, with a fault or without."""
    monitors = make_monitors()
    seen = set()
    for seed, shift in ((1, 0.0), (2, 1.0), (3, 0.3)):
        stream = make_stream(monitors.length, seed, shift)
        statistics, drift = monitors.statistics(stream, np.array([0])), monitors.explain(stream)
        for question in QUESTIONS:
            found = alarms(monitors.chances[question], statistics[question])
            assert found.tolist() == [drift.verdicts[question].alarm]
            seen.add((question, bool(found[0])))
    assert {("inputs", True), ("inputs", False), ("use", True), ("errors", False)} <= seen


def test_thresholds_hold_their_rate_on_new_spans():
    """1 % of spans that are like the reference, within three standard errors."""
    monitors = make_monitors()
    stream = make_stream(400 * monitors.length, seed=1)
    statistics = monitors.statistics(stream, np.arange(400) * monitors.length)
    allowed = RATE + 3 * np.sqrt(2 * RATE / 400)  # of the new spans and of the 100 that thresholds are from
    for name, chance in monitors.chances.items():
        assert alarms(chance, statistics[name]).mean() <= allowed, name


def test_an_error_is_known_after_the_delay():
    """Those of the first rows are not known, and the others are moved."""
    stream = make_stream(10)
    late = stream.delay_outcomes(3)
    assert np.isnan(late.errors[:3]).all()
    assert np.isnan(late.inside[:3]).all()
    np.testing.assert_array_equal(late.errors[3:], stream.errors[:-3])
    np.testing.assert_array_equal(late.newest, stream.newest)
    one = tally(Bins.of(np.column_stack([stream.newest, stream.forecasts])), late)
    mean = np.abs(stream.errors[:-3]).mean()
    assert error_rises(one.total(), one.total())[0, 0] == 0
    assert one.sizes_of_errors.sum() / one.known.sum() == pytest.approx(mean)


@pytest.mark.parametrize("name", ["weather", "ARMA", "stock market"])
def test_a_fault_changes_its_columns_from_its_start_on(series, name):
    """And has as many rows before it and after, of the same piece, of which neither training nor reference has any."""
    one = series[name]
    names, row, unused = list(one.features), one.starts[0], one.late[-1]
    columns = {
        "stuck sensor": {one.stuck},
        "unit change": {one.unit[0]},
        "one row late": set(one.late),
        "swapped columns": set(one.swapped),
        "least used feature moves": {unused},
    }
    assert set(columns) == set(INPUT_FAULTS)
    for fault, expected in columns.items():
        changed = plant(one, fault, row, unused) != one.values
        assert not changed[:row].any()
        assert {names[column] for column in np.flatnonzero(changed.any(axis=0))} == expected
    for start in one.starts:
        assert set(one.parts[start - BEFORE : start + UNTIL]) == {"after"}
    with pytest.raises(ValueError, match="no such"):
        plant(one, "no such fault", row, unused)


def test_a_season_not_seen_is_in_no_other_part(series):
    """July and August of the weather, and the year from July 2008 of the market."""
    for name, n_rows in (("weather", 62 * 24), ("stock market", 252), ("ARMA", 0)):
        parts = series[name].parts
        assert (parts == "unseen").sum() == n_rows
        assert {"train", "reference", "after"} <= set(parts)
    dates = series["stock market"].frame.index
    assert series["stock market"].unseen.stop < len(dates)
