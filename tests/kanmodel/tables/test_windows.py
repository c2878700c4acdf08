"""The newest windows of a data frame, cut by number or by time."""

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from factories import make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel import DataError, Model, UnknownNameError
from kanmodel.checkpoint import LoadedModel
from kanmodel.network.chain import Network
from kanmodel.tables.rhythm import TimeColumn

LOADED = make_model()
NAMES, LOOKBACK = LOADED.config.feature_names, LOADED.config.lookback


@pytest.fixture(scope="module")
def model():
    """A model of hourly rows."""
    network = Network(replace(LOADED.config, time=TimeColumn("time", 3600.0, 1.5, True)))
    network.load_state_dict(LOADED.network.state_dict())
    return Model(LoadedModel(network, LOADED.reference, {}, LOADED.provenance))


def make_frame(n=200, leave_out=()):
    """Hourly rows from 1 May 2024, in a shuffled order, without some of them."""
    rows = np.random.default_rng(0).normal(size=(n, len(NAMES)))
    time = pd.date_range("2024-05-01", periods=n, freq="h")
    frame = pd.DataFrame(rows, columns=NAMES).assign(time=time).drop(index=[*leave_out])
    return frame.sample(frac=1, random_state=0)


@settings(max_examples=examples(30))
@given(hours=st.integers(1, 190), unit=st.sampled_from(["h", "min", "d", None]))
def test_windows_are_cut_by_time(model, hours, unit):
    """One for each row within the duration before the newest row; the forecasts are those of windows cut by hand."""
    last = {"h": f"{hours}h", "min": f"{60 * hours} min", "d": f"{hours / 24!r}d", None: hours}[unit]
    frame = make_frame()
    ordered = frame.sort_values("time")
    rows = ordered[list(NAMES)].to_numpy()
    windows = np.array([rows[end - LOOKBACK : end] for end in range(201 - hours, 201)])
    if "e" in str(last):  # a float that is written with an exponent is no duration
        return
    for table in (frame, pl.DataFrame(frame)):
        np.testing.assert_array_equal(model.predict(table, last=last), model.predict(windows))
    explained = model.explain(frame, last=last, detail="features")
    times = [str(time).replace(" ", "T") for time in ordered["time"][-hours:]]
    assert list(explained.times) == times and explained[0].times == (times[0],)
    assert [row["time"] for row in explained.table()[:: len(NAMES)]] == times


def test_one_window_by_default(model):
    """A frame is its newest window, as always."""
    frame = make_frame()
    assert model.predict(frame).shape == (1, 1) and len(model.explain(frame)) == 1
    assert model.explain(frame).times == ("2024-05-09T07:00:00",)
    assert "2024-05-09T07:00:00" in repr(model.explain(frame))


def test_a_gap_is_refused_or_its_windows_are_left_out(model):
    """The error names the gap; with `skip`, the forecasts are those of the windows on one side of it."""
    frame = make_frame(leave_out=[150])
    with pytest.raises(DataError, match="goes from 2024-05-07T05:00:00 to 2024-05-07T07:00:00"):
        model.predict(frame, last="3d")
    assert len(model.predict(frame, last=49 - LOOKBACK + 1)) == 44  # the rows since the gap
    explained = model.explain(frame, last="3d", gaps="skip", detail="features")
    kept = 71 - (LOOKBACK - 1)
    assert len(explained) == kept
    np.testing.assert_allclose(explained.predictions[:, None], model.predict(explained.windows), atol=1e-9)
    complete = make_frame()
    of_complete = model.explain(complete, last="3d", detail="features")
    common = [of_complete.times.index(time) for time in explained.times]
    np.testing.assert_array_equal(of_complete.windows[common], explained.windows)


@pytest.mark.parametrize(
    ("frame", "options", "error", "message"),
    [
        (make_frame(), {"last": "soon"}, DataError, "last must be a number of windows, or a duration such as 7d"),
        (make_frame(), {"last": "0d"}, DataError, "last must be a number of windows, or a duration"),
        (make_frame(), {"last": 0}, DataError, "last must be"),
        (make_frame(), {"last": 199}, DataError, r"has 200 rows, but needs 204 for 199 windows"),
        (make_frame(), {"last": "3w"}, DataError, r"has 200 rows, but needs 205 for 200 windows"),
        (make_frame(), {"gaps": "fill"}, UnknownNameError, "gaps"),
        (make_frame().drop(columns="time").reset_index(drop=True), {"last": "3d"}, DataError, "the rows have no dates"),
        (np.zeros((6, 4)), {"last": 3}, DataError, "last is of a data frame"),
        (make_frame(leave_out=range(3, 200, 4)), {"last": 20, "gaps": "skip"}, DataError, "no window without a gap"),
    ],
)
def test_what_does_not_fit_is_refused(model, frame, options, error, message):
    """The error names the option, or how many rows are needed."""
    with pytest.raises(error, match=message):
        model.predict(frame, **options)
