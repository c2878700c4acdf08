"""Intervals are calibrated and adapted so that they cover what they should, by outcomes that were known."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from factories import make_encoded, make_model, make_windows, with_intervals
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

import kanmodel
from kanmodel import DataError, Model
from kanmodel.forecasts.calibration import RATE, track
from kanmodel.network.intervals import forecasts_of
from kanmodel.tables.roles import Columns
from kanmodel.tables.statistics.errors import measure_intervals
from kanmodel.tables.table import CellNames, Selection
from kanmodel.tables.windows import read_table


class QuantileHead(torch.nn.Module):
    """A graph: an LSTM with a head of quantiles on its last step, and the last value added."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = torch.nn.LSTM(2, 4, batch_first=True), torch.nn.Linear(4, 3)
        with torch.no_grad():
            self.head.weight.mul_(0.3)
            self.head.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))  # quantiles 0.1, 0.5 and 0.9 hardly cross

    def forward(self, windows):
        return self.head(self.lstm(windows)[0][:, -1]) + windows[:, -1, :1]


@pytest.fixture(scope="module")
def graph():
    """A model of a median and two quantiles, whose parts are joined as a graph."""
    torch.manual_seed(0)
    windows = torch.randn(40, 5, 2)
    outputs = ["y@0.1", "y@0.5", "y@0.9"]
    return kanmodel.from_torch(QuantileHead(), windows=windows, features=["y", "x"], outputs=outputs)


def cover(model, windows, actual, level):
    """The share of actual values within the intervals, by forecast."""
    found = model.predict(windows, intervals=(level,))
    return ((found.lower[0] <= actual) & (actual <= found.upper[0])).mean(axis=0)


def spread_of(windows):
    """A spread that depends on the window, (n, 1)."""
    return np.exp(windows[:, -1:, -1] / 2)


@pytest.mark.parametrize("kind", ["constant", "nodes", "quantiles"])
def test_calibrated_intervals_cover_new_windows_as_their_level_says(kind, graph):
    """Of windows exchangeable with those of the calibration, whatever the increments are."""
    if kind == "quantiles":
        model = graph
        windows = np.random.default_rng(1).normal(size=(6000, 5, 2))
    else:
        loaded = make_model("lstm", targets=("y", "z"), horizon=2)
        model = Model.of(with_intervals(loaded, "nodes") if kind == "nodes" else loaded)
        windows = make_windows(loaded, 6000)
    forecasts = model.predict(windows)[:, list(forecasts_of(model.config))]
    noise = np.random.default_rng(2).standard_t(4, size=forecasts.shape)
    actual = forecasts + noise * (spread_of(windows) if kind == "quantiles" else 1.0)
    levels = (0.8, 0.95) if kind == "constant" else None
    calibrated = model.calibrate(windows[:3000], actual[:3000], intervals=levels)
    assert calibrated.levels == ((0.8,) if kind == "quantiles" else (0.8, 0.95))
    intervals = calibrated.intervals
    assert intervals.kind == kind and intervals.calibration.windows == 3000
    for level in calibrated.levels:
        assert cover(calibrated, windows[3000:], actual[3000:], level) == pytest.approx(level, abs=0.025)
    assert calibrated.checkpoint is None and model.levels == (kind == "nodes") * (0.8, 0.95)
    np.testing.assert_array_equal(calibrated.predict(windows[:3]), model.predict(windows[:3]))


def test_of_a_graph_with_quantiles_a_width_is_explained(graph):
    """The factors of the calibration are in it."""
    model, rng = graph, np.random.default_rng(0)
    windows = rng.normal(size=(300, 5, 2))
    calibrated = model.calibrate(windows, model.predict(windows)[:, 1] + rng.normal(size=300))
    found = calibrated.predict(windows[:4], intervals="all")
    explained = calibrated.explain(windows[:4], "y+1:width@0.8")
    np.testing.assert_allclose(explained.predictions, found.width[0, :, 0], rtol=1e-5)
    assert explained.converged.all() and np.abs(explained.contributions).max() > 0


def make_table(n=900, seed=0, scale=None):
    """Hours of a load with noise whose scale may change, and a model of it without intervals, 4 hours from the next."""
    rng, hour = np.random.default_rng(seed), np.arange(n)
    noise = rng.normal(size=n) * (1.0 if scale is None else scale)
    time = np.datetime64("2024-01-01T00", "ms") + 3_600_000 * hour
    frame = pl.DataFrame({"time": time, "load": noise, "temp": rng.normal(size=n)})
    columns = Columns(("load",), time="time", ahead=1)
    return frame, Model.of(make_encoded(frame, columns, lookback=3, horizon=4))


def test_a_table_and_its_windows_calibrate_alike(tmp_path):
    """Also the reference windows with their targets; the checkpoint keeps the span."""
    frame, model = make_table(200)
    found = model.calibrate(frame, intervals=0.8)
    backtest = model.backtest(frame)
    rows, ends = frame.select("load", "temp").to_numpy(), np.arange(2, 200 - 4)
    windows = np.stack([rows[end - 2 : end + 1] for end in ends])
    other = model.calibrate(windows, backtest.actual, intervals=0.8)
    for side in ("below", "above"):
        np.testing.assert_array_equal(getattr(found.intervals, side), getattr(other.intervals, side))
    kept = found.save(tmp_path / "m.safetensors").intervals.calibration
    assert (kept.windows, kept.first, kept.last) == (len(ends), backtest.times[0], backtest.times[-1])
    assert kanmodel.load(tmp_path / "m.safetensors").levels == (0.8,)
    reference = Model.of(make_model())
    by_default = reference.calibrate().intervals
    given = reference.calibrate(reference.reference.windows, reference.reference.targets).intervals
    assert by_default.levels == (0.8, 0.95) and by_default.calibration.windows == 160
    np.testing.assert_allclose(by_default.above, given.above)
    with pytest.raises(DataError, match="has no column 'load'"):
        model.calibrate(frame.drop("load"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"windows": None, "targets": np.zeros(3)}, "targets is given without windows"),
        ({"targets": np.zeros((3, 3))}, r"targets must have shape \(50, 2\), but has \(3, 3\)"),
        ({"targets": np.full((50, 2), np.inf)}, r"targets\[0\]\[0\] must be finite"),
        ({"intervals": (0.8, 1.0)}, "intervals must be levels between 0 and 1"),
        ({"intervals": ()}, "intervals must be levels between 0 and 1"),
        ({"intervals": (0.8, 0.8000001)}, r"of at most 4 decimals, such as 0\.8, but has \[0\.8, 0\.8000001\]"),
        ({"intervals": (0.8, 0.99)}, r"intervals at 0.99 need at least 199 windows .* but have 50"),
        ({"last": 7}, "last is of a data frame"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(given, message):
    """One sentence, with how many windows are needed."""
    loaded = make_model(targets=("y", "z"))
    options = {"windows": make_windows(loaded, 50), "targets": np.zeros((50, 2))} | given
    with pytest.raises(DataError, match=message):
        Model.of(loaded).calibrate(**options)
    with pytest.raises(DataError, match="of the reference windows are unknown"):
        Model.of(make_model(with_targets=False)).calibrate()
    with pytest.raises(DataError, match="all targets are quantiles, and none of them is a median"):
        Model.of(make_model(targets=("y@0.1", "y@0.9"))).calibrate()


@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), width=st.floats(0, 20))
@settings(max_examples=examples(50))
def test_scores_of_intervals_are_as_defined(seed, n, width):
    """Coverage, shares outside, mean width, and the interval score of Gneiting and Raftery 2007, in each group."""
    rng = np.random.default_rng(seed)
    actual, lower = rng.normal(size=(2, n, 2)) * 5
    actual[rng.random((n, 2)) < 0.2] = np.nan
    groups = rng.integers(0, 3, (n, 2))
    upper = lower + width
    for group, (found,) in enumerate(measure_intervals((0.9,), lower[None], upper[None], actual, groups, 3)):
        chosen = (groups == group) & ~np.isnan(actual)
        y, low, high = actual[chosen], lower[chosen], upper[chosen]
        assert found.count == len(y)
        if not len(y):
            assert found.covered is found.winkler is None
            continue
        inside = (y >= low) & (y <= high)
        score = [
            h - a + (20 * (a - v) if v < a else 0) + (20 * (v - h) if v > h else 0)
            for v, a, h in zip(y, low, high, strict=True)
        ]
        expected = (inside.mean(), (y < low).mean(), (y > high).mean(), width, np.mean(score))
        assert (found.covered, found.below, found.above, found.width, found.winkler) == pytest.approx(
            expected, abs=1e-9
        )


def test_over_a_shift_of_scale_adapted_intervals_cover_and_others_do_not():
    """Within 3 points of the level after the noise is 2.5 times as strong; by week, and for each output."""
    shift = 2000
    frame, model = make_table(6000, scale=np.where(np.arange(6000) < shift, 1.0, 2.5))
    calibrated = model.calibrate(frame[:1000], intervals=(0.8, 0.95))
    later = frame[shift - 500 :]
    fixed, adapted = (calibrated.backtest(later, adapt=adapt) for adapt in (False, True))
    for before, after in zip(fixed.metrics.intervals, adapted.metrics.intervals, strict=True):
        assert before.covered < before.level - 0.12
        assert after.covered == pytest.approx(after.level, abs=0.03)
        assert after.winkler < 0.95 * before.winkler
    for errors in adapted.by["horizon"].values():
        assert [one.covered for one in errors.intervals] == pytest.approx([0.8, 0.95], abs=0.03)
    assert len(adapted.by["week"]) > 20 and "interval 0.8" in repr(adapted) and "adapted" in repr(adapted)
    assert "coverage of intervals at 0.95" in adapted.svg() and "winkler@0.95" in adapted.html()
    np.testing.assert_array_equal(fixed.predictions, adapted.predictions)


def test_an_actual_value_that_is_not_known_yet_changes_nothing():
    """Bounds of windows up to a row, and outputs that this row reaches, come from the rows before."""
    frame, model = make_table(300)
    calibrated = model.calibrate(frame[:100], intervals=(0.8,))
    row = 200
    places = CellNames("frame", "time")
    windows = read_table(calibrated.config.table, frame, places, Selection(), target="load")
    targets = windows.table.targets.copy()
    targets[row:] += 100.0  # features stay, as those of a window are known
    changed = replace(windows, table=replace(windows.table, targets=targets))
    one, other = (calibrated.backtest(given, adapt=True) for given in (windows, changed))
    early = windows.ends < row
    for name in ("lower", "upper"):
        np.testing.assert_array_equal(getattr(one, name)[:, early], getattr(other, name)[:, early])
    at = np.flatnonzero(windows.ends == row)[0]  # the first whose newest row has it: each output has one outcome more
    assert (one.upper[:, at] < other.upper[:, at]).all()


@given(seed=st.integers(0, 10**6), n=st.integers(1, 80))
@settings(max_examples=examples(40))
def test_tracking_is_the_rule_outcome_by_outcome(seed, n):
    """Also with gaps, missing values and increments of 0, whose factors stay: all are positive, so no bound crosses."""
    rng = np.random.default_rng(seed)
    levels, delays = (0.5, 0.9), np.array([1, 3])
    rows = np.sort(rng.choice(2 * n, n, replace=False))
    excess = rng.normal(size=(n, 2)) * 3
    excess[rng.random((n, 2)) < 0.2] = np.nan
    increments = np.maximum(rng.normal(size=(2, 2, n, 2)), 0)
    values = np.concatenate([np.stack([-excess, excess])[:, None], increments], axis=1)
    start = np.stack([rng.uniform(0, 2, (2, 2, 2)), rng.uniform(-0.2, 0.5, (2, 2, 2))])
    found, last = track(levels, rows, delays, values, start)
    assert (found > 0).all()
    for output, delay in enumerate(delays):
        (factors, average), learned = start[..., output].copy(), 0
        weight = 1 / (80 + 2 * delay)
        for window in range(n + 1):
            while learned < n and (window == n or rows[learned] + delay <= rows[window]):
                for side, sign in ((0, -1), (1, 1)):
                    y = sign * excess[learned, output]
                    if np.isnan(y):
                        continue
                    distance = np.cumsum(factors[side] * increments[side, :, learned, output])
                    for k, level in enumerate(levels):
                        if not increments[side, k, learned, output]:
                            continue
                        share = (1 - level) / 2
                        beyond = 1 - share if y > distance[k] else -share
                        average[side, k] += weight * (beyond - average[side, k])
                        variance = share * (1 - share) * weight / (2 - weight) * (2 * delay - 1)
                        rate = RATE * np.clip(average[side, k] ** 2 / variance / 1.5**2, 1, 10)
                        least = 0.01 * start[0, side, k, output]
                        factors[side, k] = max(factors[side, k] * np.exp(rate * beyond), least)
                learned += 1
            at = last[0] if window == n else found[window]
            np.testing.assert_allclose(at[:, :, output], factors, rtol=1e-12)


def test_increments_of_zero_leave_factors_finite():
    """However long the actual values lie beyond bounds that no factor moves."""
    n = 5000
    values = np.stack([np.ones((n, 1)), np.zeros((n, 1))])[None].repeat(2, axis=0)
    start = np.stack([np.ones((2, 1, 1)), np.zeros((2, 1, 1))])
    found, last = track((0.8,), np.arange(n), np.array([1]), values, start)
    assert (found == 1).all() and (last == start).all()


def test_actual_values_that_come_later_count(tmp_path):
    """A document ends with the last window of which a value was known, so those after it are not taken for known."""
    frame, model = make_table(300)
    calibrated = model.calibrate(frame[:150], intervals=(0.8,)).save(tmp_path / "m.safetensors")
    late = frame[:250].with_columns(load=pl.when(pl.int_range(pl.len()) < 200).then("load"))
    first = calibrated.backtest(late, adapt=True)
    known = np.flatnonzero(~np.isnan(first.actual).all(axis=1))
    assert first.adaptation["last"] == first.times[known[-1]] != first.times[-1]
    second = calibrated.backtest(frame, adapt=first.adaptation)
    assert second.adaptation["outcomes"] == first.adaptation["outcomes"] + 4 * (len(second) - known[-1] - 1)


def test_a_document_goes_on_where_it_ended(tmp_path):
    """Two backtests, the second with rows of the first, end as one over all; the model predicts with its factors."""
    frame, model = make_table(500)
    calibrated = model.calibrate(frame[:150], intervals=(0.8, 0.95)).save(tmp_path / "m.safetensors")
    whole = calibrated.backtest(frame, adapt=True)
    first = calibrated.backtest(frame[:300], adapt=True)
    document = json.loads(json.dumps(first.adaptation))
    assert document["checkpoint"] == calibrated.checkpoint and document["last"] == first.times[-1]
    second = calibrated.backtest(frame[250:], adapt=document)
    assert second.adaptation["outcomes"] == whole.adaptation["outcomes"] == 4 * len(whole)
    for side in ("below", "above"):
        np.testing.assert_allclose(second.adaptation[side], whole.adaptation[side], rtol=1e-9)
    known = ~np.isnan(second.lower)
    assert known[0, :, 0].sum() == len(second) - (300 - 250) + 3 - 1 + 1  # from the row on that ended the first table
    np.testing.assert_allclose(second.lower[known], whole.lower[:, -len(second) :][known], rtol=1e-9)
    assert second.rows()[0]["lower@0.8"] is None and second.metrics.intervals[0].count < second.metrics.count
    again = calibrated.backtest(frame[250:], adapt=second.adaptation)
    assert again.adaptation == second.adaptation and again.metrics.intervals[0].covered is None
    adapted = calibrated.adapt(document)
    assert adapted.checkpoint == calibrated.checkpoint
    window = frame[300:303]
    found, plain = (each.predict(window, intervals="all") for each in (adapted, calibrated))
    distance = np.cumsum(np.array(document["above"])[:, :] * model.scaling.output_scale, axis=0)
    np.testing.assert_allclose(found.upper[:, 0] - found.predictions[0], distance, rtol=1e-6)
    assert (found.upper != plain.upper).all()
    explained = adapted.explain(window, "load+1:width@0.8"), calibrated.explain(window, "load+1:width@0.8")
    np.testing.assert_allclose(explained[0].predictions, found.width[0, :, 0], rtol=1e-6)
    assert explained[0].predictions != explained[1].predictions


def test_a_document_is_of_one_target(tmp_path):
    """Its factors replace those of the target alone."""
    loaded = with_intervals(make_model(targets=("y", "z"), horizon=2), "constant")
    loaded = loaded.with_config(replace(loaded.config, ahead=1))
    rows = {name: np.arange(60.0) % 7 for name in loaded.config.feature_names}
    rows |= {"y": np.random.default_rng(0).normal(size=60), "z": np.zeros(60)}
    model = Model.of(loaded)
    document = model.backtest(rows, "z", adapt=True).adaptation
    adapted = model.adapt(document).intervals
    np.testing.assert_array_equal(adapted.above[:, [0, 2]], loaded.intervals.above[:, [0, 2]])
    np.testing.assert_array_equal(adapted.above[:, [1, 3]], document["above"])
    with pytest.raises(DataError, match=r"adaptation\.target must be y, but is z"):
        model.backtest(rows, "y", adapt=document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "sha256:0"}, "checkpoint is sha256:0, but that of the model None"),
        ({"target": "z"}, r"adaptation\.target must be load, but is z|adaptation\.target z has no intervals"),
        ({"levels": [0.9]}, r"levels must be \(0.8,\), but is"),
        ({"below": [[1.0]]}, "below must be 1 rows, one for each level, of 4 factors of at least 0"),
        ({"below": []}, "below must be 1 rows"),
        ({"above": [[1.0, 1.0, 1.0, -1.0]]}, "above must be 1 rows"),
        ({"average_above": [[0.0, 0.0, 0.0, 1.5]]}, "average_above must be 1 rows, .* of 4 numbers from -1 to 1"),
        ({"above": [[1.0, 1.0, 1.0, np.nan]]}, r"above\[0\]\[3\] must be"),
        ({"outcomes": -1}, "outcomes must be a whole number from 0"),
        ({"more": 1}, "more is unknown"),
    ],
)
def test_a_document_that_does_not_fit_is_refused(change, message):
    """By the member that is wrong."""
    frame, model = make_table(100)
    calibrated = model.calibrate(frame, intervals=(0.8,))
    document = calibrated.backtest(frame, adapt=True).adaptation
    for use in (calibrated.adapt, lambda document: calibrated.backtest(frame, adapt=document)):
        with pytest.raises(DataError, match=message):
            use(dict(document) | change)
    with pytest.raises(DataError, match=r"adaptation\.last is missing"):
        calibrated.adapt({name: value for name, value in document.items() if name != "last"})


def test_what_cannot_adapt_is_refused():
    """A model without intervals, and one whose target was shifted before training, so that outcomes have no time."""
    frame, model = make_table(60)
    with pytest.raises(DataError, match="adapt needs intervals"):
        model.backtest(frame, adapt=True)
    loaded = with_intervals(make_model(), "constant")
    rows = {name: np.arange(40.0) % 7 for name in loaded.config.feature_names} | {"y": np.zeros(40)}
    with pytest.raises(DataError, match="needs to know when outcomes come"):
        Model.of(loaded).backtest(rows, adapt=True)
    assert len(Model.of(loaded).backtest(rows).metrics.intervals) == 2
