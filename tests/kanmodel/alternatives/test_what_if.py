"""Forecasts over the values or shifts of one feature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import make_chain, make_model, make_shop, make_windows
from hypothesis import given
from hypothesis import strategies as st

from kanmodel import Model
from kanmodel.alternatives.what_if import WhatIf
from kanmodel.computing import pausing
from kanmodel.errors import DataError, UnknownNameError

MODEL = make_model(targets=("a", "b"))


@given(seed=st.integers(0, 50), first=st.integers(0, 5), n_steps=st.integers(1, 6), low=st.floats(-50, 50))
def test_every_value_is_the_forecast_of_the_changed_window(seed, first, n_steps, low):
    """Each point of a curve is what `predict` says of the window with that one feature shifted at those steps."""
    windows = make_windows(MODEL, 2, seed)
    steps = slice(first, min(first + n_steps, 6))
    curves = WhatIf.of(MODEL, windows, ["f2", "f0"], (first - 5, steps.stop - 6), (low, low + 7, 3))
    for window, of_window in zip(windows, curves, strict=True):
        assert [response.feature for response in of_window] == ["f2", "f0"]
        for response in of_window:
            assert response.kind == "shift" and response.values.tolist() == [low, low + 3.5, low + 7]
            for value, prediction in zip(response.values, response.predictions, strict=True):
                changed = window.copy()
                changed[steps, int(response.feature[1:])] += value
                assert prediction == pytest.approx(MODEL.predict(changed[None])[0], rel=1e-9, abs=1e-9)


def test_without_a_shift_the_feature_takes_the_values_of_its_training_range():
    """The curve begins at the training minimum and ends at the maximum, held at the chosen steps."""
    windows = make_windows(MODEL, 1)
    ((response,),) = WhatIf.of(MODEL, windows, ["f3"], (-1, 0), points=5)
    assert (response.kind, response.values[0], response.values[-1]) == (
        "value",
        MODEL.feature_low[3],
        MODEL.feature_high[3],
    )
    changed = windows.copy()
    changed[:, 4:, 3] = response.values[2]
    assert response.predictions[2] == pytest.approx(MODEL.predict(changed)[0])
    assert not response.outside_training_range.any()


def test_values_outside_the_training_range_are_marked():
    """A point is marked exactly where a changed step leaves the range."""
    windows = make_windows(MODEL, 1)
    far = float(MODEL.feature_high[0] - MODEL.feature_low[0])
    ((response,),) = WhatIf.of(MODEL, windows, "f0", shift=(-far * 2, far * 2, 9))
    taken = windows[0, :, 0] + response.values[:, None]
    expected = (taken.min(axis=1) < MODEL.feature_low[0]) | (taken.max(axis=1) > MODEL.feature_high[0])
    assert response.outside_training_range.tolist() == expected.tolist()
    assert expected[0] and expected[-1] and not expected[4]


def test_it_pauses_between_features():
    """Long answers let others go first, between any two windows and features."""
    calls: list[int] = []
    with pausing(lambda: calls.append(1)):
        WhatIf.of(MODEL, make_windows(MODEL, 2), ["f0", "f1", "f2"], shift=(0, 1, 2))
    assert len(calls) == 5


SHOP, SHOP_WINDOWS = make_shop()
DAY = slice(2, 6)  # the features of its levels
DAYS = ("holiday", "strike", "weekend", "workday")


@given(st.integers(0, len(SHOP_WINDOWS) - 1), st.integers(0, 3), st.sampled_from([None, *DAYS]))
def test_a_level_is_set_and_the_others_are_unset(number, first, level):
    """By the column's name each level, by its name or that of its feature one; all other cells keep their bits."""
    window = SHOP_WINDOWS[[number]]
    names = ["day"] if level is None else [f"day={level}", f"day+2={level}"]
    for name in names:
        ((curve,),) = WhatIf.of(SHOP, window, name, (first - 3, 0))
        assert (curve.feature, curve.kind, curve.levels) == ("day", "level", DAYS)
        assert curve.points == (list(DAYS) if level is None else [level])
        assert curve.actual == window[0, -1, DAY].argmax()
        for place, prediction, outside in zip(
            curve.values.astype(int), curve.predictions, curve.outside_training_range, strict=True
        ):
            changed = window.copy()
            changed[0, first:, DAY] = np.eye(4)[place]
            assert prediction == pytest.approx(SHOP.predict(changed)[0], rel=1e-12)
            assert outside == (DAYS[place] == "strike")  # which no row of the training had


def test_a_column_is_called_as_in_the_table():
    """Or as its feature is, also where it is taken later; without names there is a curve for each, in that order."""
    windows = SHOP_WINDOWS[:2]
    for (one,), (other,) in zip(WhatIf.of(SHOP, windows, "temp"), WhatIf.of(SHOP, windows, "temp+2"), strict=True):
        assert one.feature == other.feature == "temp" and one.label == "temp 2 hours later"
        assert one.predictions.tobytes() == other.predictions.tobytes()
    curves = WhatIf.of(SHOP, windows)[0]
    assert [curve.feature for curve in curves] == ["sold", "temp", "day", "sky", "open", "staff", "hour", "weekend"]
    shifted = WhatIf.of(SHOP, windows, shift=(-1, 1))[0]
    assert [curve.feature for curve in shifted] == ["sold", "temp", "staff"]


def test_whole_numbers_take_whole_values():
    """What is yes or no takes 0 and 1, and a count each number of its training range."""
    ((yes, count),) = WhatIf.of(SHOP, SHOP_WINDOWS[:1], ["open", "staff"])
    assert yes.points == ["no", "yes"] and yes.values.tolist() == [0, 1] and count.values.tolist() == list(range(9))
    ((few,),) = WhatIf.of(SHOP, SHOP_WINDOWS[:1], "staff", points=3)
    assert few.values.tolist() == [0, 4, 8]


@pytest.mark.parametrize("windows", [SHOP_WINDOWS[:1], SHOP_WINDOWS[:3]])
def test_levels_are_drawn_and_listed(windows):
    """Each level has a ring at its forecast and its name below, and stands in the tables beside numbers."""
    found = Model.of(SHOP).what_if(windows, ["temp", "day"])
    picture = found.svg()
    assert all(f">{level}<" in picture for level in DAYS) and picture.count('r="4.5"') == len(DAYS)
    assert {row["value"] for row in found.table() if row["feature"] == "day"} == set(DAYS)
    assert "holiday" in found.html() and "workday" in str(found)


@pytest.mark.parametrize(
    ("names", "shift", "says"),
    [
        (
            "day=fest",
            None,
            "features[0] is unknown: 'day=fest'; the levels of day are holiday, strike, weekend, workday",
        ),
        ("hour_sin", None, "features[0] is 'hour_sin', a part of hour, which changes as a whole: name that"),
        (["sky", "day=strike"], (0, 1), "shift cannot be added to the levels of sky"),
        (["day", "day"], None, "features[1] is given twice"),
    ],
)
def test_what_cannot_be_set_is_refused_in_a_sentence(names, shift, says):
    """It names the place, and the levels that there are."""
    with pytest.raises((DataError, UnknownNameError)) as error:
        WhatIf.of(SHOP, SHOP_WINDOWS[:1], names, shift=shift)
    assert str(error.value).startswith(says) and error.value.problems


@pytest.mark.parametrize(
    ("question", "place"),
    [
        ({"shift": (0, 1, 1)}, "shift.points"),
        ({"shift": (0, 1, 2.5)}, "shift.points"),
        ({"shift": (0,)}, "shift"),
        ({"shift": (-1e308, 1e308)}, "shift.from"),
        ({"shift": (0, 1e308)}, "shift.to"),
        ({"points": 1}, "points"),
        ({"steps": (0, 1)}, "steps"),
        ({"features": ["f0", "f0"]}, "features[1]"),
        ({"features": []}, "features"),
    ],
)
def test_a_question_that_cannot_be_is_refused(question, place):
    """The error names the member."""
    with pytest.raises(DataError) as error:
        WhatIf.of(MODEL, make_windows(MODEL, 1), **question)
    assert error.value.problems[0].path == place


def test_an_unknown_training_range_needs_a_shift():
    """A model without minimum and maximum says so by the feature's name."""
    features = tuple(replace(feature, min=None) for feature in MODEL.config.features)
    model = make_chain(replace(MODEL.config, features=features))
    with pytest.raises(DataError, match="shift is needed, since the training range of f0 is unknown"):
        WhatIf.of(model, make_windows(model, 1))
