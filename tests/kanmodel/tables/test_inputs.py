"""What a model reads is told, and changed, in the terms of its table; missing values are filled and masked."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import polars
import pytest
import torch
from factories import make_chain, make_encoded
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import kanmodel
from kanmodel import CheckpointError, DataError, Model, UnknownNameError
from kanmodel.alternatives.what_if import WhatIf
from kanmodel.checkpoint import load_checkpoint
from kanmodel.tables.inputs import LEAP_DAY, LEVELS, Input
from kanmodel.tables.roles import Columns
from kanmodel.tables.windows import read_windows
from service.models.repository import BUNDLED

AHEAD, LOOKBACK = 3, 4
DAYTYPES = ("holiday", "weekend", "workday")
CODES = re.compile(r"\w+_(?:sin|cos)\b|=(?:workday|weekend|holiday)|(?:temp|daytype)\+\d")


def make_frame(n: int = 240, start: str = "2024-02-25") -> pd.DataFrame:
    """An hourly table with a known number and known levels, yes and no, and a count; no hour is missing."""
    rng, time = np.random.default_rng(0), pd.date_range(start, periods=n, freq="h")
    frame = {"time": time, "load": rng.normal(size=n), "temp": rng.normal(size=n)}
    frame |= {"daytype": rng.choice(DAYTYPES, n), "open": rng.integers(0, 2, n), "guests": rng.integers(0, 9, n)}
    return pd.DataFrame(frame)


@cache
def made() -> Model:
    """A model as if it was trained on the table, with features as training describes them."""
    columns = Columns(
        ("load",), time="time", ahead=AHEAD, known=("temp", "daytype"), calendar=True, units={"temp": "°C"}
    )
    model = make_encoded(make_frame(), columns, LOOKBACK)
    features = []
    for feature in model.config.features:
        binary = "=" in feature.name or feature.name in ("open", "weekend")
        integer = binary or feature.name == "guests"
        low, high = (0.0, 1.0) if binary else (0.0, 8.0) if feature.name == "guests" else (-4.0, 4.0)
        fixed = feature.name in model.config.table.encoding.fixed
        features.append(replace(feature, std=0.5, min=low, max=high, integer=integer, fixed=fixed))
    return Model.of(make_chain(replace(model.config, features=tuple(features))))


def cut(frame: pd.DataFrame) -> np.ndarray:
    """The newest window of a table."""
    return read_windows(made().config.table, frame)[0]


def find(name: str) -> Input:
    """One input of the model."""
    return next(one for one in made().inputs if one.name == name)


def test_inputs_are_columns_and_parts_of_the_calendar():
    """Each feature is of one, and a known column says how much later it is."""
    found = [(one.name, one.kind, one.label) for one in made().inputs]
    assert found == [
        ("load", "number", "load"),
        ("temp", "number", "temp 3 hours later"),
        ("daytype", "level", "daytype 3 hours later"),
        ("open", "flag", "open"),
        ("guests", "integer", "guests"),
        ("hour", "hour", "hour"),
        ("weekday", "weekday", "weekday"),
        ("day_of_year", "day_of_year", "day of year"),
        ("weekend", "flag", "weekend"),
    ]
    numbers = [number for one in made().inputs for number in one.numbers]
    assert numbers == list(range(len(made().config.features)))


@pytest.mark.parametrize("kind", ["hour", "weekday", "day_of_year", "daytype", "open"])
def test_every_value_is_told_as_it_was_encoded(kind):
    """All hours, weekdays, days of a year, levels, yes and no; with the rounding of a checkpoint's float32 too."""
    one, row = find(kind), np.zeros(len(made().config.features))
    for value, level in enumerate(one.levels):
        row[list(one.numbers)] = one.encode(value)
        for each in (row, row.astype(np.float32).astype(float)):
            assert one.decode(each) == value and one.write(float(one.decode(each))) == level


@given(st.datetimes(pd.Timestamp("1999-01-01"), pd.Timestamp("2101-01-01")), st.booleans())
def test_the_calendar_of_any_time_is_told(time, rounded):
    """Its hour to the minute, its weekday and its date, 29 February too, as the calendar encodes them."""
    calendar = made().config.table.encoding.calendar
    local = np.array([pd.Timestamp(time).floor("min").timestamp()])
    row = np.zeros((1, len(made().config.features)))
    row[:, -calendar.encode(local).shape[1] :] = calendar.encode(local)
    row = row.astype(np.float32).astype(float) if rounded else row
    told = {value.input: value.text for value in made().inputs.decode(row)[0]}
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    assert told["hour"] == f"{time:%H:%M}" and told["weekday"] == f"{time:%A}"
    assert told["day_of_year"] == f"{time.day} {months[time.month - 1]}"
    assert told["weekend"] == ("yes" if time.weekday() >= 5 else "no")


@given(st.floats(-1e6, 1e6), st.integers(0, 8), st.integers(0, 1), st.integers(0, 2), st.floats(0, 23.99))
def test_encoding_and_decoding_are_inverse(temp, guests, is_open, daytype, hour):
    """Of numbers exactly, of an hour up to its decimals."""
    values, row = {"temp": temp, "guests": guests, "open": is_open, "daytype": daytype}, np.zeros(14)
    for name, value in values.items():
        row[list(find(name).numbers)] = find(name).encode(value)
        assert abs(find(name).decode(row) - value) <= find(name).noise  # a rounding of 0 is 0
    row[list(find("hour").numbers)] = find("hour").encode(hour)
    assert abs((float(find("hour").decode(row)) - hour + 12) % 24 - 12) <= 5e-4 + 1e-9


@pytest.mark.parametrize(("name", "value"), [("guests", 3), ("open", 1), ("open", 0)])
@pytest.mark.parametrize(("off", "is_whole"), [(9e-4, True), (-9e-4, True), (2e-3, False), (-2e-3, False)])
def test_a_whole_number_may_be_off_by_a_thousandth(name, value, off, is_whole):
    """As one that was rounded; a mean of flags or of counts is told as it is."""
    row = np.zeros(14)
    row[list(find(name).numbers)] = value + off
    assert find(name).decode(row) == (value if is_whole else value + off)


@pytest.mark.parametrize(("level", "half"), [((0.5, 0.5, 0), "none"), ((0, 0, 0), "none"), ((0, 1, 0), "weekend")])
def test_a_mixture_is_no_level(level, half):
    """Of the mean of windows, or of a level that training did not have, none is told."""
    row = np.zeros(14)
    row[list(find("daytype").numbers)] = level
    told = {value.input: value for value in made().inputs.decode(row[None])[0]}
    assert told["daytype"].text == half and (told["daytype"].value is None) == (half == "none")
    assert told["hour"].text == "none"  # 0 and 0 are no hour


@pytest.mark.parametrize(("name", "column"), [("daytype", "daytype"), ("open", "open"), ("guests", "guests")])
def test_a_curve_is_the_forecast_of_a_table_whose_column_was_changed(name, column):
    """The table is changed and encoded again: the same windows, so the same forecasts."""
    frame = make_frame()
    window = cut(frame)
    ((curve,),) = WhatIf.of(made(), window, name)
    values = [*curve.points] if curve.levels and name != "open" else curve.values.tolist()
    assert len(values) == {"daytype": 3, "open": 2, "guests": 9}[name]
    for value, prediction in zip(values, curve.predictions, strict=True):
        changed = cut(frame.assign(**{column: value}))
        assert prediction == pytest.approx(made().predict(changed)[0], rel=1e-12)


def test_a_curve_over_the_calendar_is_the_forecast_at_other_times():
    """Hour and weekday at one step: the sine and the cosine are those of rows so many hours or days later."""
    frame = make_frame()
    window = cut(frame)
    for name, by, n in (("hour", "h", 24), ("weekday", "D", 7)):
        ((curve,),) = WhatIf.of(made(), window, name, (0, 0))
        assert curve.points == list(LEVELS[name]) and not curve.outside_training_range.any()
        own, seen = list(find(name).numbers), set()
        for later in range(n):
            other = cut(frame.assign(time=frame["time"] + pd.Timedelta(later, by)))
            changed = window.copy()
            changed[0, -1, own] = other[0, -1, own]
            value = int(find(name).decode(changed[0, -1]))
            assert (find(name).encode(value) == other[0, -1, own]).all()  # bit for bit
            assert curve.predictions[value] == pytest.approx(made().predict(changed)[0], rel=1e-12)
            seen.add(value)
        assert seen == set(range(n))


def test_the_calendar_stays_unless_it_is_named():
    """And then moves through hours that exist."""
    window = cut(make_frame())
    goal = float(made().predict(window)[0, 0]) + 0.3 * float(made().output_std[0])
    (one,) = made().counterfactual(window, at_least=goal)
    assert not {change.feature for change in one.changes} & {"hour", "weekday", "day_of_year", "weekend", "daytype"}
    (one,) = made().counterfactual(window, at_least=goal, features=["hour"])
    assert one.single_features[0].feature.startswith("hour=")
    for change in one.changes:
        assert change.feature == "hour" and change.level in LEVELS["hour"]
        assert change.level_before == find("hour").write(float(find("hour").decode(window[0, -1])))


def test_a_sine_is_never_outside_the_training_range():
    """Nor is a day of the year that training did not have, but a level is."""
    window = cut(make_frame())
    window[:, :, list(find("day_of_year").numbers)] = find("day_of_year").encode(272)
    assert not made().trust(window)[0].outside
    window[:, :, list(find("temp").numbers)] = 4.5
    assert [one.label for one in made().trust(window)[0].outside] == ["temp 3 hours later"]


@pytest.mark.parametrize("name", ["encoded", "nyc-weather"])
def test_texts_and_pictures_tell_no_codes(name):
    """Of no sine, no level's feature and no step: explanations, what-if, counterfactuals, trust, importance."""
    model = made() if name == "encoded" else Model.of(load_checkpoint(BUNDLED / "nyc-weather.safetensors"))
    windows = cut(make_frame()) if name == "encoded" else np.array(model.reference.windows[:1])
    both = np.concatenate([windows, model.reference.windows[1:2]])
    explained = model.explain(windows)
    results = [model, explained, model.explain(both), model.what_if(windows), model.trust(windows)]
    results += [model.explain(windows, effects=True), model.compare(model, both[:1], both[1:]), model.importance()]
    goal = float(model.predict(windows)[0, 0]) + float(model.output_std[0])
    results.append(model.counterfactual(windows, at_least=goal, features=["hour"]))
    for result in results:
        texts = [repr(result), result.html()]
        texts += [result.svg()] if hasattr(result, "svg") and len(getattr(result, "predictions", "1")) == 1 else []
        for text in texts:
            assert not CODES.findall(text), type(result)
    told = {value.text for value in explained.values[0]}
    assert all(f">{text}<" in explained.svg() for text in told if ":" in text)


def test_a_report_tells_no_codes():
    """In its prose; only the network's picture has nodes for features."""
    model = Model.of(load_checkpoint(BUNDLED / "nyc-weather.safetensors"))
    report = model.report()
    assert not CODES.findall(report.markdown()) and not CODES.findall(repr(report))
    assert "`hour`" in report.markdown()


@pytest.mark.parametrize("shift", [0, 3])
def test_pairs_of_an_import_are_recognised_on_the_unit_circle(shift):
    """By their names; a weekday with which the times do not agree is a cycle of unknown meaning."""
    names = ("x", "dow_cos", "dow_sin", "month_sin", "month_cos", "tide_sin", "tide_cos", "odd_sin", "odd_cos")
    config = make_chain(made().config).config
    features = tuple(replace(config.features[0], name=name, fixed=False) for name in names)
    config = replace(config, features=features, encoding=None, time=None, groups={}, ahead=0)
    days = np.arange(40)
    dates = pd.date_range("2024-01-01", periods=40)  # a Monday
    week, month = 2 * np.pi * ((days + shift) % 7) / 7, 2 * np.pi * dates.month.to_numpy() / 12
    columns = [days, np.cos(week), np.sin(week), np.sin(month), np.cos(month)]
    columns += [np.sin(days), np.cos(days), np.sin(days), 0.5 * np.cos(days)]
    rows = np.stack(columns, axis=1)
    windows = np.stack([rows[number : number + LOOKBACK] for number in range(40 - LOOKBACK)])
    model = make_chain(config)
    times = tuple(str(date.date()) for date in dates[LOOKBACK - 1 : -1])
    reference = replace(model.reference, scaled=model.to_model_units(windows), targets=None, times=times)
    model = replace(model, reference=reference)
    kinds = {one.name: one.kind for one in model.inputs}
    week = "weekday" if shift == 0 else "cycle"
    others = {"odd_sin": "number", "odd_cos": "number"}
    assert kinds == {"x": "number", "dow": week, "month": "month", "tide": "cycle", **others}
    told = {value.input: value.text for value in model.inputs.decode(windows[:1, -1])[0]}
    assert told["month"] == "Jan" and (told["dow"] == "Thursday") == (shift == 0)
    assert model.groups["dow"] == ("dow_sin", "dow_cos")


def test_the_leap_day_is_told():
    """29 February is between two days of other years."""
    one = find("day_of_year")
    assert one.write(LEAP_DAY) == "29 Feb" and one.levels[58:60] == ("28 Feb", "1 Mar")


STEPS, NAMES = 8, ["load", "temp", "load_seen"]
LOAD, SEEN = NAMES.index("load"), NAMES.index("load_seen")


class Masked(nn.Module):
    """An LSTM that reads the load over its mean where it was seen, and whether it was."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        seen = x[..., [SEEN]]
        mean = (x[..., [LOAD]] * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
        scaled = torch.cat([x[..., [LOAD]] / mean, x[..., [1]], seen], dim=-1)
        return self.head(self.lstm(scaled)[0][:, -1]) * mean[:, 0]


def make_masked(n, seed=0, fill=0.0, share=0.2):
    """Windows as the module was trained: of missing values filled, with a mask."""
    random = np.random.default_rng(seed)
    windows = np.stack([*random.uniform(5, 15, (1, n, STEPS)), *random.normal(size=(2, n, STEPS))], axis=2)
    windows[..., SEEN] = random.uniform(size=(n, STEPS)) > share
    windows[..., LOAD] = np.where(windows[..., SEEN] == 1, windows[..., LOAD], fill)
    return windows


def lacking(windows):
    """The same with missing values where the mask is 0, and no word of it in the mask."""
    given = windows.copy()
    given[..., LOAD] = np.where(windows[..., SEEN] == 1, windows[..., LOAD], np.nan)
    given[..., SEEN] = 1.0
    return given


def read_masked(windows=None, masks=None, **options):
    torch.manual_seed(0)
    net, windows = Masked().eval(), make_masked(60) if windows is None else windows
    masks = {"load": "load_seen"} if masks is None else masks
    return net, kanmodel.from_torch(net, windows=windows, features=NAMES, outputs=["load"], masks=masks, **options)


@pytest.mark.parametrize("fill", [0.0, 12.5])
def test_missing_values_are_filled_as_in_training(fill, tmp_path):
    """In arrays, mappings, lists with None and frames, and after the model was saved; the mask may be left out."""
    masks = {"load": ("load_seen", fill)}
    net, model = read_masked(lacking(make_masked(60, fill=fill)), masks, ahead=1)
    model = kanmodel.load(model.save(tmp_path / "m.safetensors") and tmp_path / "m.safetensors")
    windows = make_masked(5, seed=1, fill=fill)
    given = lacking(windows)
    with torch.no_grad():
        expected = net(torch.from_numpy(windows).float()).numpy()
    np.testing.assert_allclose(model.predict(windows), expected, rtol=1e-5)
    same = model.predict(windows)
    np.testing.assert_array_equal(model.predict(given), same)
    np.testing.assert_array_equal(model.predict({"load": given[..., LOAD], "temp": given[..., 1]}), same)
    none = [[[None if np.isnan(v) else v for v in step] for step in window] for window in given.tolist()]
    np.testing.assert_array_equal(model.predict(none), same)
    frame = polars.DataFrame({"load": given[0, :, LOAD], "temp": given[0, :, 1]}).fill_nan(None)
    np.testing.assert_array_equal(model.predict(frame), same[:1])
    e = model.explain(given[:1])
    change = e.predictions - e.baseline_prediction
    assert e.converged.all() and abs(e.contributions.sum() - change[0]) <= e.residual[0] + 1e-6


def test_a_table_with_missing_values_loses_no_window():
    """Each is a window of the backtest, whose target is there."""
    _, model = read_masked(ahead=1)
    rows = lacking(make_masked(1, seed=2, share=0.0))[0]
    table = polars.DataFrame({"load": np.tile(rows[:, LOAD], 5), "temp": np.tile(rows[:, 1], 5)})
    whole = len(model.backtest(table).actual)
    table[5, "load"] = None
    assert len(model.backtest(table).actual) == whole  # row 5 is in no window's forecast, but in five windows


def test_what_has_no_mask_may_not_be_missing():
    """The message says that the model has none there; an infinite value is none that is missing."""
    _, model = read_masked()
    for column, value, message in (
        (1, np.nan, "; the model has no mask for a missing value there"),
        (LOAD, np.inf, ""),
    ):
        windows = make_masked(1)
        windows[0, 3, column] = value
        with pytest.raises(DataError) as error:
            model.predict(windows)
        assert str(error.value) == f"windows[0][3][{column}] must be finite; 1 of 24 values is not finite{message}"
    with pytest.raises(DataError, match="lacks feature 'temp'"):
        model.predict({"load": make_masked(1)[..., LOAD]})


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(UnknownNameError, match="there is no feature 'loda'"):
        read_masked(masks={"loda": "load_seen"})
    with pytest.raises(CheckpointError, match="load_sene"):
        read_masked(masks={"load": "load_sene"})
