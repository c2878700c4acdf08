"""Changes of forecasts are divided among rows in time, and sum to the change."""

import numpy as np
import pandas as pd
import pytest
from factories import make_chain, make_model, with_intervals
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel import DataError, Model, UnknownNameError
from kanmodel.network.bases import Line
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.tables.columns import Feature, Target

MODEL = Model.of(make_model(targets=("a", "b"), horizon=3))
LOOKBACK, N_FEATURES = MODEL.lookback, len(MODEL.features)


def make_series(n, seed=0):
    """Rows, and the windows of which each begins a step after the one before it."""
    rows = np.random.default_rng(seed).normal(size=(n, N_FEATURES)).cumsum(axis=0)
    return rows, np.lib.stride_tricks.sliding_window_view(rows, LOOKBACK, axis=0).swapaxes(1, 2)


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 99), ago=st.integers(1, 9), same_time=st.booleans(), n=st.integers(1, 4))
def test_rows_sum_to_the_change(seed, ago, same_time, n):
    """New, aged and gone rows, and the baseline's difference, sum to the difference of what `predict` says."""
    _, windows = make_series(LOOKBACK + ago + n - 1, seed)
    same_time &= ago < 3
    found = MODEL.changes(windows, "b+1", ago=ago, same_time=same_time)
    earlier = f"b+{1 + ago}" if same_time else "b+1"
    forecasts = MODEL.predict(windows)
    change = forecasts[ago:, MODEL.outputs.index("b+1")] - forecasts[:-ago, MODEL.outputs.index(earlier)]
    assert (found.output, found.earlier_output, len(found)) == ("b+1", earlier, n)
    np.testing.assert_allclose(found.change, change, atol=1e-6)
    total = (found.new + found.aged + found.gone).sum(axis=1) + found.baseline_change
    assert (np.abs(total - change) <= found.error + 1e-6).all()
    assert same_time or found.baseline_change == 0
    assert found.contributions.shape == (n, LOOKBACK + ago, N_FEATURES)


def test_quantiles_of_the_same_time_are_compared():
    """The earlier forecast of a quantile is of that quantile, which stands after the step in the name of an output."""
    model = Model.of(make_model(targets=("a@0.1", "a@0.9"), horizon=3))
    found = model.changes(make_series(LOOKBACK + 1)[1], "a+2@0.9", same_time=True)
    assert (found.output, found.earlier_output) == ("a+2@0.9", "a+3@0.9")


@pytest.mark.parametrize("ago", [1, 2, 4, 5])
def test_a_linear_model_has_the_changes_of_algebra(ago):
    """A row that has aged changes the forecast by its value times the difference of the weights of its two steps."""
    lookback = 4
    features = (Feature("f", None, 0.0, 1.0, -9.0, 9.0),)
    layer = LayerConfig(lookback, 1, basis=Line(), base="zero")
    target = (Target("y", None, 0.0, 1.0),)
    config = ModelConfig(features, target, lookback, 1, (layer,), readout="flatten", dtype="float64")
    model = Model.of(make_chain(config, 0))
    weights = np.array([model.predict(np.eye(lookback)[[k]][..., None])[0, 0] for k in range(lookback)])
    weights -= model.predict(np.zeros((1, lookback, 1)))[0, 0]
    rows = np.random.default_rng(1).normal(size=lookback + ago)
    windows = np.lib.stride_tricks.sliding_window_view(rows, lookback)[..., None]
    found = model.changes(windows, ago=ago, baseline="zero")
    expected = np.zeros(lookback + ago)
    expected[ago:] += weights * rows[ago:]
    expected[:lookback] -= weights * rows[:lookback]
    np.testing.assert_allclose(found.contributions[0, :, 0], expected, atol=1e-9)
    apart = min(ago, lookback)
    np.testing.assert_allclose(found.new[0, 0], expected[-apart:].sum(), atol=1e-9)
    np.testing.assert_allclose(found.gone[0, 0], expected[:apart].sum(), atol=1e-9)


def test_a_series_that_does_not_move_does_not_change():
    """Of equal rows, what is new takes the place of what is gone, and the change is 0."""
    windows = np.tile(np.arange(N_FEATURES) / 2, (2, LOOKBACK, 1))
    found = MODEL.changes(windows)
    assert found.change[0] == 0
    np.testing.assert_allclose(found.by_feature, 0, atol=1e-9)


def test_changes_of_a_frame_have_their_rows():
    """A frame gives its newest windows; table and text have each change."""
    rows, windows = make_series(LOOKBACK + 5)
    frame = pd.DataFrame(rows, columns=[feature.name for feature in MODEL.features])
    found, whole = MODEL.changes(frame, last=3, ago=2), MODEL.changes(windows, ago=2)
    np.testing.assert_allclose(found.contributions, whole.contributions[-3:], atol=1e-9)
    table = found.table()
    assert len(table) == 3 * N_FEATURES and [row["window"] for row in table[::N_FEATURES]] == [0, 1, 2]
    for row in table:
        assert row["new"] + row["aged"] + row["gone"] == pytest.approx(row["contribution"])
    assert "Changes of a+1" in repr(found) and "since 2 steps before" in repr(found)
    assert "Change of a+1" in repr(MODEL.changes(frame)) and "f0" in MODEL.changes(frame).html()


@pytest.mark.parametrize(
    ("n", "options", "error", "message"),
    [
        (2, {"ago": 2}, DataError, "windows must be at least 3, but there are 2"),
        (2, {"ago": 0}, DataError, "ago must be"),
        (4, {"ago": 3, "same_time": True}, UnknownNameError, r"a\+4"),
        (4, {"last": 2}, DataError, "last is of a data frame"),
    ],
)
def test_what_does_not_fit_is_refused(n, options, error, message):
    """The error names the option."""
    with pytest.raises(error, match=message):
        MODEL.changes(make_series(LOOKBACK + n - 1)[1], **options)


def test_windows_that_do_not_follow_each_other_are_refused():
    """The error names the first that does not."""
    windows = make_series(LOOKBACK + 3)[1].copy()
    windows[2, 0, 0] += 1
    with pytest.raises(DataError, match=r"windows\[2\] must begin with the second row"):
        MODEL.changes(windows)


def test_a_width_of_the_same_time_is_that_of_the_earlier_output():
    """The earlier width is that of the output which lies as many steps further ahead, at the same level."""
    model = Model.of(with_intervals(MODEL))
    found = model.changes(make_series(LOOKBACK + 1)[1], "a+1:width@0.8", ago=1, same_time=True)
    assert (found.output, found.earlier_output) == ("a+1:width@0.8", "a+2:width@0.8")
    windows = make_series(LOOKBACK + 1)[1]
    widths = model.predict(windows, intervals=[0.8]).width[0]
    outputs = list(model.bounded_outputs)
    change = widths[1, outputs.index("a+1")] - widths[0, outputs.index("a+2")]
    assert found.change[0] == pytest.approx(change, abs=1e-6)
