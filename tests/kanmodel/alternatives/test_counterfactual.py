"""What must change for a forecast to become another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from factories import make_chain, make_encoded, make_model, make_shop, make_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples, few_of

from kanmodel import Model, train
from kanmodel.alternatives.changeable import FARTHEST, Goal, SearchOptions
from kanmodel.alternatives.counterfactual import Counterfactual
from kanmodel.checkpoint import load_checkpoint
from kanmodel.errors import DataError, UnknownNameError
from kanmodel.network.bases import BSpline, Line
from kanmodel.network.config import plain_layers
from kanmodel.tables.roles import Columns
from service.models.repository import BUNDLED

MODEL = make_model("lstm")
LINEAR = make_chain(
    replace(make_model("flat").config, head=plain_layers([24, 1], Line(), base="zero"), dtype="float64"), seed=3
)
STD = MODEL.scaling.feature_scale


def find(model, window, goal, **search):
    return Counterfactual.of(model, window, 0, goal, SearchOptions(**search))


def shifts_of(found):
    """What is added to each of the features f0 to f3, (4,), original units."""
    by_name = {change.feature: change.shift for change in found.changes}
    return np.array([by_name.get(f"f{number}", 0.0) for number in range(4)])


def goal_beyond(model, window, deviations):
    """A goal that lies so many standard deviations of the output above the forecast, or below."""
    prediction = model.predict(window[None])[0, 0]
    border = prediction + deviations * model.output_std[0]
    return Goal(low=border) if deviations > 0 else Goal(high=border)


@settings(max_examples=examples(30))
@given(
    seed=st.integers(0, 1000),
    deviations=st.sampled_from([-3, -1, -0.2, 0.2, 1, 3]),
    first=st.integers(0, 5),
    max_features=st.integers(1, 4),
    features=st.sets(st.integers(0, 3), min_size=1),
    within=st.booleans(),
)
def test_every_answer_is_a_forecast_and_keeps_to_what_may_change(
    seed, deviations, first, max_features, features, within
):
    """The changed window's own forecast is the new prediction, and nothing changed that may not, or too far."""
    window = make_windows(MODEL, 1, seed)[0]
    goal = goal_beyond(MODEL, window, deviations)
    names, steps = [f"f{number}" for number in sorted(features)], slice(first, 6)
    found = Counterfactual.of(MODEL, window, 0, goal, SearchOptions(names, (first - 5, 0), max_features, within))
    shifts = shifts_of(found)
    assert MODEL.predict(found.window[None])[0, 0] == found.new_prediction
    assert found.reached == (goal.miss(np.array([found.new_prediction]))[0] == 0)
    assert found.distance == pytest.approx(np.abs(shifts / STD).sum())
    assert set(np.flatnonzero(shifts)) <= features
    assert np.count_nonzero(shifts) <= max_features
    expected = window.copy()
    expected[steps] += shifts
    assert found.window == pytest.approx(expected)
    if within:
        for feature in np.flatnonzero(shifts):
            changed = found.window[steps, feature]
            assert changed.min() >= min(MODEL.feature_low[feature], window[steps, feature].min()) - 1e-9
            assert changed.max() <= max(MODEL.feature_high[feature], window[steps, feature].max()) + 1e-9
    else:
        assert np.abs(shifts / STD).max() <= FARTHEST + 1e-9


@settings(max_examples=examples(15))
@given(seed=st.integers(0, 1000), deviations=st.sampled_from([-1, -0.2, 0.2, 1]))
def test_the_answer_is_never_farther_than_the_best_single_feature(seed, deviations):
    """Several features together are asked for only to get nearer, and each single answer reaches the goal itself."""
    window = make_windows(MODEL, 1, seed)[0]
    goal = goal_beyond(MODEL, window, deviations)
    found = find(MODEL, window, goal)
    for single in found.single_features:
        assert (goal.miss(np.array(single.best_prediction)) < 1e-9) == (single.shift is not None)
        if single.shift is not None:
            changed = window.copy()
            changed[:, int(single.feature[1:])] += single.shift
            assert goal.miss(MODEL.predict(changed[None])[0])[0] < 1e-9
            assert found.reached and found.distance <= abs(single.shift_in_std)


def bump(layer: int, where: float):
    """A head whose forecast is 0 but for a bump 0.008 wide, of which the basis of a layer has a grid of 1000."""
    plain, fine = plain_layers([1, 1], base="identity")[0], plain_layers([1, 1], BSpline(1000), base="zero")[0]
    config = replace(make_model("head", n_features=1).config, head=(fine,) if layer == 0 else (plain, fine))
    model = make_chain(config, seed=3)
    with torch.no_grad():
        for one in model.network.head:
            for name, tensor in one.state_dict().items():
                if name != "grid":
                    tensor[...] = 1.0 if "scale" in name or name == "mask" else 0.0
        last = model.network.head[-1]
        knots = torch.linspace(-2, 2, last.grid.shape[1], dtype=last.grid.dtype)
        last.grid[:] = knots
        last.coef[0, 0, int(torch.searchsorted(knots, where)) - 2] = 5.0
    return model


@settings(max_examples=examples(5))
@given(where=st.floats(-1.8, 1.8), layer=st.sampled_from([0, 1]))
def test_a_narrow_bump_is_found(where, layer):
    """A goal reached only on a bump 0.008 standard deviations wide is found, also one of a later layer."""
    model = bump(layer, where)
    window = model.scaling.features_to_original(torch.zeros(1, *model.config.window_shape))[0]
    shifts = np.linspace(where - 0.02, where + 0.02, 401)
    around = model.predict(window + (shifts * model.scaling.feature_scale[0])[:, None, None])[:, 0]
    base = model.predict(window[None])[0, 0]
    if abs(base - around.min()) > 1e-9:  # the bump is where the window is
        return
    goal = Goal(low=base + 0.9 * (around.max() - base))
    (single,) = find(model, window, goal, within_training_range=False).single_features
    assert single.shift is not None and abs(single.shift_in_std - where) < 0.03 and single.searched < 3000
    beyond = Goal(low=base + 1.1 * (around.max() - base))
    (single,) = find(model, window, beyond, within_training_range=False).single_features
    assert single.shift is None


@settings(max_examples=examples(50))
@given(st.sampled_from([2, 3]), st.integers(0, 1000), st.sampled_from([-2, -1, 1, 2]))
def test_a_linear_program_is_solved_where_ranges_are_in_the_way(max_features, seed, deviations):
    """Of a linear model the optimum is known: steepest features first, each to the end of its range."""
    window = make_windows(LINEAR, 1, seed)[0]
    goal = goal_beyond(LINEAR, window, deviations)
    scale, base = LINEAR.scaling.feature_scale, LINEAR.predict(window[None])[0, 0]
    slopes = np.sign(deviations) * (LINEAR.predict(window[None] + np.eye(4)[:, None, :] * scale)[:, 0] - base)
    low = np.minimum((LINEAR.feature_low - window.min(axis=0)) / scale, 0)
    high = np.maximum((LINEAR.feature_high - window.max(axis=0)) / scale, 0)
    room = np.where(slopes > 0, high, -low)
    missing, distance = abs(deviations) * LINEAR.output_std[0], 0.0
    for feature in np.argsort(-np.abs(slopes))[:max_features]:  # the best set of a linear model, if it is enough
        used = min(room[feature], missing / abs(slopes[feature]))
        missing, distance = missing - used * abs(slopes[feature]), distance + used
    found = find(LINEAR, window, goal, max_features=max_features)
    if missing < 1e-9:
        assert found.reached
        assert found.distance <= distance * (1 + 1e-4)


@settings(max_examples=examples(20))
@given(st.sampled_from([-0.5, 0.5]), st.integers(0, 200))
def test_it_is_as_near_as_a_random_search(deviations, seed):
    """Two thousand random changes of up to two features hold none that is nearer by more than a tenth."""
    window = make_windows(MODEL, 1, seed)[0]
    goal = goal_beyond(MODEL, window, deviations)
    found = find(MODEL, window, goal)
    rng = np.random.default_rng(seed)
    low = np.minimum(MODEL.feature_low - window.min(axis=0), 0)
    high = np.maximum(MODEL.feature_high - window.max(axis=0), 0)
    others = rng.permuted(np.tile(np.arange(4), (2000, 1)), axis=1)[:, 2:]
    shifts = rng.uniform(low, high, (2000, 4)) * rng.uniform(size=(2000, 1))
    np.put_along_axis(shifts, others, 0.0, axis=1)
    reached = goal.miss(MODEL.predict(window + shifts[:, None])[:, 0]) == 0
    if reached.any():
        best = np.abs(shifts[reached] / STD).sum(axis=1).min()
        assert found.reached and found.distance <= best * 1.1


NEAREST = {"147": (147, 1, 3.614), "171": (171, -1, 3.343), "440": (440, -1, 2.622), "141": (141, -1, 7.161)}


@pytest.mark.parametrize("name", few_of(NEAREST, ["147"], "further windows of the same model"))
def test_of_two_features_that_reach_little_alone_the_nearest_change_is_found(name):
    """Also where one of them moves within a small range, and where a descent from 0 ends at a farther change."""
    index, deviations, best = NEAREST[name]
    model = load_checkpoint(BUNDLED / "nyc-weather.safetensors")
    window = model.scaling.features_to_original(model.reference.scaled[index])
    found = find(model, window, goal_beyond(model, window, deviations))
    assert found.reached and found.distance <= 1.02 * best


def test_a_goal_that_is_reached_already_needs_no_change():
    """The window as it is answers at distance 0."""
    window = make_windows(MODEL, 1)[0]
    found = find(MODEL, window, Goal(high=1e9))
    assert found.reached and found.distance == 0 and not found.changes
    assert found.new_prediction == found.prediction


def test_what_cannot_be_reached_is_said_with_the_best_found():
    """Nothing reaches the impossible, and the shifts then given are those whose forecast comes nearest."""
    window = make_windows(MODEL, 1)[0]
    found = find(MODEL, window, Goal(low=1e9))
    assert not found.reached
    assert found.new_prediction >= max(found.prediction, *(single.best_prediction for single in found.single_features))
    assert all(single.shift is None for single in found.single_features)


@settings(max_examples=examples(15))
@given(seed=st.integers(0, 300), deviations=st.sampled_from([-1, -0.3, 0.3, 1]))
def test_whole_numbers_stay_whole_and_what_is_fixed_stays(seed, deviations):
    """A feature that counts shifts by whole numbers exactly, and a fixed one by nothing."""
    config = MODEL.config
    features = [*config.features]
    features[0], features[1] = replace(features[0], integer=True), replace(features[1], fixed=True)
    network = make_model("lstm").network
    network.config = replace(config, features=tuple(features))
    model = replace(MODEL, network=network)
    window = make_windows(model, 1, seed)[0]
    window[:, 0] = np.round(window[:, 0])
    found = find(model, window, goal_beyond(model, window, deviations), max_features=3)
    shifts = shifts_of(found)
    assert shifts[0] == np.round(shifts[0]) and shifts[1] == 0
    whole, *others = found.single_features
    assert [whole.feature, *(single.feature for single in others)] == ["f0", "f2", "f3"]
    assert whole.shift is None or whole.shift == np.round(whole.shift) == pytest.approx(whole.shift_in_std * STD[0])


SHOP, SHOP_WINDOWS = make_shop()
LEVELS = {"day": slice(2, 6), "sky": slice(6, 8)}  # the features of each column of levels
OPEN, STAFF, CALENDAR = 8, 9, slice(10, None)
CHANGEABLE = ("sold", "temp", "day", "sky=clear", "sky=cloudy", "open", "staff")


@settings(max_examples=examples(40))
@given(
    number=st.integers(0, len(SHOP_WINDOWS) - 1),
    deviations=st.sampled_from([-3, -0.3, 0.3, 3]),
    names=st.none() | st.lists(st.sampled_from(CHANGEABLE), min_size=1, unique=True),
    first=st.integers(0, 3),
    most=st.integers(1, 3),
    within=st.booleans(),
)
def test_columns_change_as_a_whole_and_only_if_they_may(number, deviations, names, first, most, within):
    """One level stays 1, what is 0 or 1 stays so, counts stay whole, and what is not named keeps its bits."""
    window = SHOP_WINDOWS[number]
    goal = goal_beyond(SHOP, window, deviations)
    found = find(
        SHOP, window, goal, features=names, steps=(first - 3, 0), max_features=most, within_training_range=within
    )
    changed = found.window
    assert SHOP.predict(changed[None])[0, 0] == found.new_prediction
    assert (changed[:first] == window[:first]).all()
    for place in LEVELS.values():
        assert np.isin(changed[:, place], (0, 1)).all() and (changed[:, place].sum(axis=1) == 1).all()
    assert (changed[:, 5] == window[:, 5]).all() or "day" in names  # never strike, which training did not have
    assert not (changed[:, 3] > window[:, 3]).any()
    assert np.isin(changed[:, OPEN], (0, 1)).all() and (changed[:, STAFF] == np.rint(changed[:, STAFF])).all()
    asked = {name.partition("=")[0] for name in (("temp", "open", "staff") if names is None else names)}
    parts = {"sold": 0, "temp": 1, **LEVELS, "open": OPEN, "staff": STAFF, "hour and weekend": CALENDAR}
    moved = {name for name, place in parts.items() if (changed[:, place] != window[:, place]).any()}
    assert moved <= asked and len(moved) <= most
    if names is not None and "sky" in moved and "sky=clear" not in names:
        assert (changed[first:, 7] == 1).all()
    assert {change.feature for change in found.changes} == moved
    assert found.distance == pytest.approx(sum(abs(change.shift_in_std) for change in found.changes))
    for change in found.changes:
        place = parts[change.feature]
        if change.feature in LEVELS:
            levels = next(one.levels for one in SHOP.inputs if one.name == change.feature)
            before, after = window[-1, place].argmax(), changed[-1, place].argmax()
            assert (change.shift, change.level_before, change.level) == (None, levels[before], levels[after])
        else:
            assert change.shift == pytest.approx((changed - window)[first:, place].mean())
            assert change.before + change.shift == pytest.approx(changed[-1, place])


@settings(max_examples=examples(30))
@given(st.integers(0, len(SHOP_WINDOWS) - 1), st.sampled_from([-1, -0.1, 0.1, 1]), st.sampled_from([None, (-1, 0)]))
def test_of_levels_alone_the_answer_is_the_best_of_all(number, deviations, steps):
    """All combinations are tried: the nearest of those that reach the goal is found, or else what misses it least."""
    window, tried = SHOP_WINDOWS[number], []
    goal, rows = goal_beyond(SHOP, window, deviations), slice(None) if steps is None else slice(2, 4)
    for day in (None, 0, 2, 3):
        for sky in (None, 0, 1):
            changed = window.copy()
            for place, level in ((LEVELS["day"], day), (LEVELS["sky"], sky)):
                if level is not None:
                    changed[rows, place] = np.eye(place.stop - place.start)[level]
            distance = np.abs((changed - window)[rows].mean(axis=0) / SHOP.scaling.feature_scale).sum()
            tried.append((float(goal.miss(SHOP.predict(changed[None])[:, 0])[0]), distance))
    found = find(SHOP, window, goal, features=["day", "sky"], steps=steps)
    missed = float(goal.miss(np.array([found.new_prediction]))[0])
    assert (missed, found.distance) == pytest.approx(min(tried), abs=1e-9)
    for single in found.single_features:
        assert single.feature != "day=strike"
        changed = window.copy()
        column, level = single.feature.split("=")
        place = LEVELS[column]
        changed[rows, place] = [name.endswith(f"={level}") for name in SHOP.config.feature_names[place]]
        reached = goal.miss(SHOP.predict(changed[None])[:, 0])[0] == 0
        assert reached == (single.shift is not None)


def test_a_level_and_a_shift_go_together():
    """Where neither a level nor a shift alone is enough, both are found."""
    n_together = 0
    for window in SHOP_WINDOWS[:8]:
        reached = [
            find(SHOP, window, Goal(low=1e9), features=names).new_prediction
            for names in ("day", "temp", ["day", "temp"])
        ]
        alone, together = max(reached[:2]), reached[2]
        assert together >= alone
        if together > alone + 0.01:
            found = find(SHOP, window, Goal(low=(alone + together) / 2), features=["day", "temp"])
            assert found.reached and {change.feature for change in found.changes} == {"day", "temp"}
            n_together += 1
    assert n_together


def test_of_a_cycle_the_smallest_change_is_found():
    """Its size is that of the changes of all steps, of which some may go up and others down."""
    model = Model.of(load_checkpoint(BUNDLED / "nyc-weather.safetensors"))
    window, rows, hour = model.reference.windows[24], slice(-12, None), model.inputs.of_feature["hour_sin"]
    settings_ = []
    for place in hour.values:
        settings_.append(window.copy())
        settings_[-1][rows, hour.numbers] = hour.encode(place)
    sizes = (np.abs(np.stack(settings_) - window)[:, rows] / model.scaling.feature_scale).mean(axis=1).sum(axis=1)
    forecasts = model.predict(np.stack(settings_))[:, 0]
    goal = float(np.quantile(forecasts, 0.6))
    found = model.counterfactual(window, at_least=goal, features=["hour"], steps=(-11, 0))[0]
    assert found.distance == pytest.approx(sizes[forecasts >= goal].min(), abs=1e-6)


def test_a_level_that_is_set_is_named_in_the_table():
    """With its column, without an amount, and in the picture with the level before."""
    found = Model.of(SHOP).counterfactual(SHOP_WINDOWS, features="day", at_least=1e9)
    for one, row in zip(found, found.table(), strict=True):
        assert row["changes"] == "".join(f"day 2 hours later {change.level}" for change in one.changes)
    assert any(row["changes"] for row in found.table()) and "day 2 hours later" in found.svg()


def test_by_default_the_history_of_a_target_and_levels_stay():
    """Naming all else is the same answer, bit by bit; a yes and no that changes within the steps stays."""
    for window in SHOP_WINDOWS[:5]:
        goal = goal_beyond(SHOP, window, 0.3)
        assert find(SHOP, window, goal).window.tobytes() == (
            find(SHOP, window, goal, features=["temp+2", "open", "staff"]).window.tobytes()
        )
    mixed = next(window for window in SHOP_WINDOWS if np.ptp(window[:, OPEN]))
    found = find(SHOP, mixed, goal_beyond(SHOP, mixed, 0.3), features="open", within_training_range=False)
    assert not found.changes and not found.single_features and found.new_prediction == found.prediction


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("hour_sin", "features[0] is 'hour_sin', a part of hour, which changes as a whole: name that"),
        ("day=fest", "features[0] is unknown: 'day=fest'; the levels of day are holiday, strike, weekend, workday"),
        ("day+2=fest", "features[0] is unknown: 'day+2=fest'; the levels of day are holiday, strike, weekend, workday"),
        (["temp", "temp+2"], "features[1] is given twice"),
        ("wind", "features[0] is unknown: 'wind'; the features are sold, temp, day, sky, open, staff, hour, "),
    ],
)
def test_what_cannot_change_is_refused_in_a_sentence(names, says):
    """By the place among the features, of all windows alike."""
    with pytest.raises((DataError, UnknownNameError)) as error:
        find(SHOP, SHOP_WINDOWS[0], Goal(low=0.0), features=names)
    assert str(error.value).startswith(says) and error.value.problems


def test_what_a_series_always_has_is_fixed():
    """Static columns of levels and of numbers are refused by name; other levels of the same table are not."""
    shops, rng = np.repeat(["a", "b", "c"], 12), np.random.default_rng(0)
    frame = {"shop": shops, "region": np.where(shops == "a", "north", "south"), "area": np.repeat([1.0, 2.0, 4.0], 12)}
    frame |= {"sold": rng.normal(size=36), "sky": rng.choice(["clear", "cloudy"], 36)}
    columns = Columns(("sold",), series="shop", static=("region", "area"), ahead=1)
    model, window = make_encoded(pd.DataFrame(frame), columns), np.zeros((4, 6))
    for name in ("region", "region=north", "area"):
        with pytest.raises(DataError, match=r"^features\[0\] is '\w+', which is fixed: nobody can change it"):
            find(model, window, Goal(low=0.0), features=name)
    with pytest.raises(DataError, match=r"^features has nothing that may change"):
        find(model, window, Goal(low=0.0))
    assert find(model, window, Goal(low=1e9), features="sky").single_features


@pytest.mark.parametrize("names", [None, "f0"])
def test_where_nothing_may_change_a_sentence_says_so(names):
    """A model of nothing but its target's history, or of a constant, has no counterfactual; named, the history has."""
    config = make_model("head", n_features=1).config
    constant = replace(config.features[0], std=0.0)
    target = config.targets if names else (replace(config.targets[0], name="f0"),)
    model = make_chain(replace(config, features=(constant,) if names else config.features, targets=target))
    window = make_windows(model, 1)[0]
    with pytest.raises(DataError, match=r"^features has nothing that may change: all are constant in training, fixed"):
        find(model, window, Goal(low=0.0), features=names)
    if names is None:
        assert find(model, window, Goal(low=1e9), features="f0").single_features


def test_training_finds_yes_and_no():
    """A column of 0 and 1 alone is an integer feature, levels and booleans too; constants and other numbers are not."""
    rng = np.random.default_rng(0)
    names = ("y", "yes", "number", "one", "three", "text")
    of = {"y": rng.normal(size=90), "yes": rng.random(90) < 0.5, "number": rng.random(90), "one": np.ones(90)}
    of |= {"three": rng.integers(0, 3, 90), "text": rng.choice(["a", "b"], 90)}
    model = train({name: of[name] for name in names}, "y", lookback=1, hidden=0, epochs=1, progress=False)
    assert [feature.name for feature in model.features if feature.integer] == ["yes", "text=a", "text=b"]
    assert all(feature.is_binary for feature in model.features if feature.integer)


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: Goal(), "target"),
        (lambda: Goal(2.0, 1.0), "target"),
        (lambda: Goal(float("nan")), "target"),
        (lambda: Goal(low=float("inf")), "target"),
        (lambda: SearchOptions(max_features=0), "max_features"),
    ],
)
def test_a_question_that_cannot_be_is_refused(make, place):
    """The error names the member."""
    with pytest.raises(DataError) as error:
        make()
    assert error.value.problems[0].path == place
