import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from factories import make_model, make_tally, make_windows, with_intervals
from hypothesis import given
from hypothesis import strategies as st
from readmes import ROOT
from scipy.signal import lfilter
from thorough import few_of

import kanmodel
from kanmodel import load
from kanmodel.errors import DataError, UnknownNameError
from kanmodel.model import Model
from kanmodel.monitoring.drift import Drift, rank_gain
from kanmodel.monitoring.tallies import TOLERANCE, TallySchema
from kanmodel.tables.statistics import differences
from kanmodel.tables.statistics.p_values import MIN_SPANS, QUESTIONS, NullDistribution, measure, null_distributions
from kanmodel.tables.statistics.tally import Bins, Tally

seeds = st.integers(0, 2**32 - 1)
WATCHED = TallySchema("y+1", "K", ("a", "b", "c"), ("m", None, "s"), ("ab", "c"), ((0, 1), (2,)), (0.8,))


def list_changes(found):
    """Every `Change` of a drift, with a name."""
    yield "forecast", found.effect.forecast
    for each in found.inputs:
        yield each.name, each.mean
    for each in found.use:
        yield f"share of {each.name}", each.share
        yield f"contribution of {each.name}", each.contribution
    if found.errors:
        yield from found.errors.changes.items()


@given(st.integers(20, 80), st.integers(1, 40), st.integers(1, 80), seeds)
def test_swapping_the_sides_changes_signs(n_blocks, n, n_other, seed):
    """Every change and every interval is negated; PSI and distance are the same."""
    one, bins, *_ = make_tally(8 * n_blocks, seed, n_blocks)
    other, *_ = make_tally(n + n_other, seed + 1, n, bins)
    there, back = Drift.of(WATCHED, one, other), Drift.of(WATCHED, other, one)
    if not (there.errors and back.errors):
        there, back = replace(there, errors=None), replace(back, errors=None)
    for (name, mine), (_, theirs) in zip(list_changes(there), list_changes(back), strict=True):
        assert (mine.now, mine.reference) == (theirs.reference, theirs.now), name
        assert (mine.change is None) == (theirs.change is None)
        assert mine.change is None or mine.change == -theirs.change, name
        assert (mine.interval is None) == (theirs.interval is None)
        if mine.interval:
            np.testing.assert_allclose(mine.interval, [-theirs.interval[1], -theirs.interval[0]], atol=1e-12)
    for mine, theirs in zip(there.inputs, back.inputs, strict=True):
        assert mine.psi == pytest.approx(theirs.psi, abs=1e-12)
        assert mine.distance == pytest.approx(theirs.distance, abs=1e-12)


@pytest.mark.parametrize("n_blocks", [0, 1, 5])
def test_of_nothing_everything_is_unknown(n_blocks):
    """A side without forecasts, with or without blocks, has no figures and no verdicts, and says so."""
    some, nothing = make_tally(400, 0, 50)[0], Tally.empty(3, 2, 1, n_blocks)
    for sides in ((some, nothing), (nothing, some)) if n_blocks else ((some, nothing),):
        found = Drift.of(WATCHED, *sides)
        assert all(change.change is None for _, change in list_changes(found))
        assert found.effect.total is found.ndcg is None and not found.alarms
        assert all("has no" in answer for answer in found.answers.values())
        assert found.svg() and found.markdown() and repr(found)


def test_a_table_has_no_drift_from_itself():
    """Shifts, distances, PSI, effects and changes of errors are exactly 0, and there is no verdict without spans."""
    model = Model.of(make_model("lstm", n_reference=40))
    windows = make_windows(model, 300)
    found = model.drift(windows, windows)
    assert all(change.change == 0 for _, change in list_changes(found))
    assert all((each.psi, each.distance) == (0, 0) for each in found.inputs)
    assert found.effect.total == 0 and found.ndcg == 1
    assert found.verdicts["inputs"].alarm is None and "1 span" in found.verdicts["inputs"].missing
    assert found.errors is None and found.verdicts["errors"].missing == "the current side has no actual value"
    assert found.alarms == found.unused == ()


@given(st.sampled_from(["lstm", "head", "front"]), st.integers(1, 60), st.booleans(), st.integers(0, 99))
def test_effects_sum_to_the_change_of_the_mean_forecast(shape, n, is_grouped, seed):
    """Of whole tables, to the residuals of the explanations, with groups and without."""
    loaded = make_model(shape, seed=seed % 7, n_reference=24)
    groups = {"some": loaded.config.feature_names[:2]} if is_grouped else {}
    model = Model.of(loaded.with_config(replace(loaded.config, groups=groups)))
    before, now = make_windows(loaded, 90, seed), make_windows(loaded, n, seed + 1) * 1.2
    found = model.drift(before, now)
    change = model.predict(now)[:, 0].mean() - model.predict(before)[:, 0].mean()
    assert found.effect.forecast.change == pytest.approx(change)
    explained = [model.explain(windows, detail="features", tolerance=TOLERANCE) for windows in (before, now)]
    residual = max(one.residual.max() for one in explained)
    assert found.effect.total == pytest.approx(change, abs=2 * residual + 1e-9)
    assert found.effect.total == pytest.approx(sum(each.effect for each in found.use))
    names = loaded.config.feature_names
    assert found.schema.names == (("some", *names[2:]) if is_grouped else names)
    contributions = [one.contributions_by_part for one in explained]
    shares = [np.abs(each).sum(axis=0) / np.abs(each).sum() for each in contributions]
    np.testing.assert_allclose([each.share.reference for each in found.use], shares[0])
    np.testing.assert_allclose([each.share.now for each in found.use], shares[1])
    assert found.ndcg == pytest.approx(rank_gain(*shares))


def test_parts_of_data_and_model_sum_to_what_compare_says():
    """Their totals are the means of those of pairs of windows, and with the baseline's shift they are the whole."""
    ours, theirs = (Model.of(make_model("lstm", seed=seed, n_reference=24), f"m{seed}") for seed in (1, 2))
    before, now = make_windows(ours, 12, 3), make_windows(ours, 12, 4) + 0.3
    found = ours.drift(before, now, against=theirs)
    pairs = ours.compare(theirs, now, before)
    error = max(one.error for one in pairs)
    for name in ("data", "model"):
        shift = pairs[0].baseline_shift if name == "model" else 0
        total = np.mean([getattr(one, f"{name}_total") for one in pairs]) - shift
        assert getattr(found.effect, name) == pytest.approx(total, abs=20 * error)
    assert found.effect.baseline_shift == pytest.approx(pairs[0].baseline_shift, abs=1e-9)
    change = ours.predict(now)[:, 0].mean() - theirs.predict(before)[:, 0].mean()
    assert found.effect.forecast.change == pytest.approx(change)
    assert found.effect.total == pytest.approx(change, abs=20 * error)
    for each in found.use:
        assert each.data.value + each.model.value == pytest.approx(each.effect)
        assert each.data.interval[0] <= each.data.value <= each.data.interval[1]
    assert "m1" in found.source and "m2" in found.source
    same = ours.drift(before, now, against=ours)
    assert all(each.model.value == 0 for each in same.use) and same.effect.baseline_shift == 0


def test_each_week_of_the_bundled_year_is_above_the_usual_threshold_of_psi():
    """At least 7 of 20 features are above 0.2 against the rest of the year in each of 355 weeks, as the page says."""
    rows = pl.read_csv(ROOT / "service/bundled/nyc-weather.csv.gz", infer_schema_length=None)
    names = [feature.name for feature in load(ROOT / "service/bundled/nyc-weather.safetensors").features]
    days, rest = divmod(len(rows), 24)
    values = rows.select(names).to_numpy()[: len(rows) - rest]
    unknown = np.full((len(values), 1), np.nan)
    blocks = np.arange(len(values)) // 24
    bins, first = Bins.of(np.column_stack([values, values[:, 0]])), values[:, 0]
    year = Tally.of(bins, values, first, unknown, unknown[:, 0], unknown[:, :0], blocks, days)
    psi = null_distributions(year, 7)["inputs"].spans
    assert psi.shape == (355, 20) and (psi > 0.2).sum(axis=1).min() == 7


def make_rows(n, seed=0, missing=0.0):
    """A table of the features and targets of `make_model`, of which some targets are missing."""
    rng = np.random.default_rng(seed)
    rows = {name: rng.normal(size=n) for name in ("f0", "f1", "f2", "f3", "a", "b")}
    return rows | {"b": np.where(rng.random(n) < missing, np.nan, rows["b"])}


@pytest.mark.parametrize("missing", [0, 0.4, 1])
def test_errors_are_those_of_the_forecasts_whose_actual_value_is_known(missing):
    """Of a table, by output, also of windows whose horizon goes beyond its end; None where no value is known."""
    loaded = with_intervals(make_model("lstm", targets=("a", "b"), horizon=3))
    model = Model.of(loaded)
    before, now = make_rows(200, 1), make_rows(40, 2, missing)
    found, later = model.drift(before, now, "b+2"), model.config.ahead + 1
    ends = np.arange(model.lookback - 1, 40)
    windows = np.stack(
        [np.stack([now[f"f{i}"][end + 1 - model.lookback : end + 1] for i in range(4)], 1) for end in ends]
    )
    assert found.forecasts == len(ends) and found.inputs[0].mean.now == pytest.approx(now["f0"][ends].mean())
    actual = np.append(now["b"], np.full(later, np.nan))[ends + later]
    known = ~np.isnan(actual)
    if missing == 1:
        assert found.errors is None and found.verdicts["errors"].alarm is None
        return
    forecasts = model.predict(windows, intervals="all")
    errors = (model.predict(windows)[:, model.outputs.index("b+2")] - actual)[known]
    assert found.errors.known == known.sum()
    assert found.errors.mae.now == pytest.approx(np.abs(errors).mean())
    assert found.errors.bias.now == pytest.approx(errors.mean())
    for level, lower, upper in zip(model.levels, forecasts.lower, forecasts.upper, strict=True):
        number = forecasts.outputs.index("b+2")
        inside = (lower[:, number] <= actual) & (actual <= upper[:, number])
        assert found.errors.coverage[level].now == pytest.approx(inside[known].mean())


def test_coverage_is_unknown_where_the_other_model_has_other_intervals():
    """Of the reference, if the model that served it has none; levels are those of this model."""
    sure, plain = Model.of(with_intervals(make_model())), Model.of(make_model(seed=2))
    rows = [make_windows(sure, n)[:, -1] for n in (90, 30)]
    before, now = ({f"f{i}": of[:, i] for i in range(4)} | {"y": of[:, 0]} for of in rows)
    found = sure.drift(before, now, against=plain).errors
    assert found.coverage and all(each.now is not None and each.reference is None for each in found.coverage.values())
    assert plain.drift(before, now, against=sure).errors.coverage == {}


def shift_one(windows, amount):
    changed = windows.copy()
    changed[:, :, 1] += amount
    return changed


ODD = {
    "one window": lambda w: (w, w[:1]),
    "one window each": lambda w: (w[:1], w[1:2]),
    "fewer than 8 blocks": lambda w: (w, w[:7]),
    "a longer current side": lambda w: (w[:9], w),
    "a constant feature": lambda w: (w * [1, 1, 0, 1], w[:20] * [1, 1, 0, 1]),
    "a constant feature that changes": lambda w: (w * [1, 1, 0, 1], w[:20]),
    "discrete features": lambda w: (np.round(w), np.round(w[:20])),
    "all beyond the range": lambda w: (w, shift_one(w[:20], 1e4)),
    "too far out to be explained": lambda w: (w, shift_one(w[:20], 1e30)),
    "a mapping of arrays": lambda w: tuple({f"f{i}": each[:, :, i] for i in range(4)} for each in (w, w[:20])),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_windows_have_an_answer_in_every_form(name):
    """Numbers, tables, text, Markdown and picture are there, finite or None, whatever the windows are."""
    model = Model.of(make_model("lstm", n_reference=24))
    found = model.drift(*ODD[name](make_windows(model, 120)))
    for question in QUESTIONS:
        for row in found.table(question):
            assert all(np.isfinite(value) for value in row.values() if isinstance(value, float)), row
    assert found.svg().startswith("<svg") and found.markdown().count("**") == 6 and len(repr(found)) > 100
    if name == "too far out to be explained":
        assert found.explained == 0 and found.use[0].effect is None and found.effect.total is None
        assert found.verdicts["use"].missing == "the current side has no forecast that could be explained"
    elif "beyond" in name:
        assert [each.name for each in found.inputs if each.moved] == ["f1"] and found.inputs[1].shift == pytest.approx(
            1e4, 1e-3
        )
    elif name == "a constant feature":
        assert found.inputs[2].psi == found.inputs[2].distance == 0 and not found.inputs[2].moved
    elif "that changes" in name:
        assert found.inputs[2].moved


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"current": np.zeros((0, 6, 4))}, "current is empty"),
        ({"current": np.full((1, 6, 4), np.nan)}, r"current\[0\]\[0\]\[0\] must be finite"),
        ({"reference": None}, "reference must be finite"),
        ({"reference": {"f0": np.zeros(9)}}, "reference has no column 'f1'"),
        ({"output": "y+9"}, "there is no output 'y\\+9'"),
        ({"false_alarms": 0}, "false_alarms must lie between 0 and 1, but is 0"),
        ({"explained": 0}, "explained must be a whole number from 1"),
        ({"against": Model.of(make_model(n_features=5))}, "against must read the same features"),
        ({"gaps": "fill"}, "gaps must be one of error, skip"),
    ],
)
def test_wrong_arguments_are_refused(wrong, error):
    """With the name of the side or the argument."""
    model = Model.of(make_model("lstm", n_reference=24))
    windows = model.reference.windows
    with pytest.raises((DataError, UnknownNameError), match=error):
        model.drift(**{"reference": windows, "current": windows} | wrong)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=12), seeds)
def test_rank_gain_is_ndcg(gains, seed):
    """It equals the sum written out; 1 for the same order, and None without gains."""
    reference, rng = np.array(gains), np.random.default_rng(seed)
    current = rng.permutation(len(gains)).astype(float)
    found = rank_gain(reference, current)
    if not reference.any():
        assert found is None
        return
    order = sorted(range(len(gains)), key=lambda number: -current[number])
    dcg = sum(gains[number] / np.log2(place + 1) for place, number in enumerate(order, start=1))
    best = sum(gain / np.log2(place + 1) for place, gain in enumerate(sorted(gains, reverse=True), start=1))
    assert found == pytest.approx(dcg / best) and found <= 1 + 1e-12
    assert rank_gain(reference, reference) == pytest.approx(1)


N_FEATURES = 12


def make_sides(n_spans, rng, shift=0.0, length=24):
    """Tallies of a reference of spans and of a current side as long as one, of AR(1) features, and what it is of."""
    n = (n_spans + 1) * length
    correlation = np.linspace(0.3, 0.95, N_FEATURES)
    series = rng.normal(size=(n + 200, N_FEATURES + 2))
    for step in range(1, len(series)):
        series[step, :-2] = correlation * series[step - 1, :-2] + np.sqrt(1 - correlation**2) * series[step, :-2]
        series[step, -2] += 0.8 * series[step - 1, -2]
    newest, errors = series[200:, :-2], series[200:, -2] * (1 + 0.2 * np.abs(series[200:, -1]))
    newest[-length:, 1] += shift
    contributions = newest * np.linspace(0, 1, N_FEATURES) ** 2
    contributions[:, ::2] = np.exp(contributions[:, ::2]) - 1
    inside = (np.abs(errors) < 1.5).astype(float)[:, None]
    counted = newest, contributions.sum(axis=1), contributions, errors, inside
    bins = Bins.of(np.column_stack([newest, counted[1]])[:-length])
    sides = (each[:-length] for each in counted), (each[-length:] for each in counted)
    sizes = n_spans * length, length
    return [Tally.of(bins, *side, np.arange(size), size) for side, size in zip(sides, sizes, strict=True)]


@pytest.mark.parametrize("n_spans", few_of((9, 4, 39), (9,), "takes 6 s"))
def test_false_alarms_are_at_most_the_stated_rate(n_spans):
    """Of series in which nothing changes, for each question; a shifted input is found, and is not used."""
    rng, n_series, stated = np.random.default_rng(n_spans), 100, 1 / (n_spans + 1)
    alarms = dict.fromkeys(QUESTIONS, 0)
    for _ in range(n_series):
        reference, current = make_sides(n_spans, rng)
        chance = null_distributions(reference, len(current))
        for question, of in measure(current.total(), reference.total()).items():
            assert chance[question].rate(0.01) == pytest.approx(stated)
            alarms[question] += np.nanmin(chance[question].judge(of[0])) <= stated * (1 + 1e-9)
    most = stated + 2.6 * (stated * (1 - stated) / n_series) ** 0.5  # one in 200 such counts is above
    assert max(alarms.values()) <= most * n_series, alarms


def test_an_unused_feature_that_moves_is_named():
    """Its inputs have an alarm, while the model's use of it does not."""
    names, members = tuple("abcdefghijkl"), tuple((number,) for number in range(N_FEATURES))
    watched = TallySchema("y", None, names, (None,) * N_FEATURES, names, members, (0.8,))
    found = Drift.of(watched, *make_sides(30, np.random.default_rng(5), shift=3.0))
    assert found.alarms == ("inputs",) and found.unused == ("b",)
    (moved,) = (each for each in found.inputs if each.moved)
    assert moved.name == "b" and moved.shift == pytest.approx(3, abs=0.8) and moved.p_value <= 1 / 31 + 1e-9
    assert found.answers["inputs"].startswith("yes: b by +")
    assert "moved, use unchanged" in repr(found)


def test_a_statistic_above_its_threshold_has_an_alarm():
    """If the others are as usual; half of it has none."""
    reference, _ = make_sides(30, np.random.default_rng(7))
    for question, chance in null_distributions(reference, 24).items():
        limits, usual = chance.thresholds(0.05), np.abs(chance.spans).mean(axis=0)
        for item in range(len(usual)):
            for factor, is_alarm in ((1.001, True), (0.5, False)):
                now = usual.copy()
                now[item] = factor * limits[item]
                assert (chance.judge(now)[item] <= 0.05 * (1 + 1e-9)) == is_alarm, (question, item)


def test_spans_without_explanations_do_not_count():
    """A span in which nothing is explained says nothing of use, and leaves fewer spans for its verdict."""
    spans = np.random.default_rng(0).random((97, 3))
    whole = NullDistribution(spans, np.full(3, 1e-9), 4)
    assert whole.n_spans == 25 and whole.rate(0.01) == 1 / 26
    spans[:60] = np.nan
    assert NullDistribution(spans, whole.floors, 4).n_spans == 9
    assert np.isnan(NullDistribution(spans * np.nan, whole.floors, 4).judge(spans[-1])).all()
    assert np.isnan(NullDistribution(spans[-3:], whole.floors, 1).judge(spans[-1])).all() and MIN_SPANS == 4


def cover(correlation, n_current, n_series=10, n_columns=40):
    """Share of the intervals of a shift that hold 0, of two stretches of AR(1) series, 2,000 steps and `n_current`."""
    rng, held = np.random.default_rng(3), 0
    watched = TallySchema("y", None, ("y",) * n_columns, (None,) * n_columns, ("y",), ((0,),), ())
    for _ in range(n_series):
        sides = [
            lfilter([1], [1, -correlation], rng.normal(size=(n + 200, n_columns)), axis=0)[200:]
            for n in (2000, n_current)
        ]
        bins, tallies = Bins.of(np.column_stack([sides[0], sides[0][:, 0]])), []
        for side in sides:
            n, unknown = len(side), np.full((len(side), 1), np.nan)
            counted = side, side[:, 0], unknown, unknown[:, 0], unknown[:, :0]
            tallies.append(Tally.of(bins, *counted, np.arange(n) // 4, n // 4))
        intervals = [each.mean.interval for each in Drift.of(watched, *tallies).inputs]
        held += sum(low <= 0 <= high for low, high in intervals)
    return held / (n_columns * n_series)


def test_coverage_of_intervals_is_what_the_module_says():
    """Two of its figures, within three standard errors; all of them by the next test."""
    for correlation, n_current in ((0.7, 400), (0.9, 96)):
        assert cover(correlation, n_current, 4) == pytest.approx(read_coverage()[n_current][correlation], abs=0.06)


def read_coverage():
    """The table of the module's docstring: coverage by length and autocorrelation."""
    lines = differences.__doc__.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("    autocorrelation"))
    correlations = [float(cell) for cell in lines[start].split()[1:]]
    rows = (line.split() for line in lines[start + 1 : start + 4])
    return {
        int(n): dict(zip(correlations, (float(cell) / 100 for cell in cells), strict=True)) for n, _, *cells in rows
    }


@pytest.mark.thorough("takes 20 s")
def test_coverage_of_intervals_by_length_and_autocorrelation():
    """Prints the table of the module's docstring."""
    for n_current, stated in read_coverage().items():
        found = {correlation: cover(correlation, n_current) for correlation in stated}
        print(n_current, " ".join(f"{100 * share:.1f}" for share in found.values()))
        assert found == pytest.approx(stated, abs=5e-4)


def make_hours(n, seed, noise=0.1):
    """Four columns with a day's and a week's season, in units of the model's scaling, (n, 4)."""
    rng, hours = np.random.default_rng(seed), np.arange(n)[:, None]
    phases = np.arange(4) / 4
    seasons = np.sin(2 * np.pi * (hours / 24 + phases)) + 0.7 * np.sin(2 * np.pi * (hours / 168 + phases))
    return seasons + noise * lfilter([0.44], [1, -0.9], rng.normal(size=(n + 200, 4)), axis=0)[200:]


def name_columns(loaded, rows):
    """A table of rows in units of the model's scaling."""
    values = rows * loaded.scaling.feature_scale + loaded.scaling.feature_mean
    return dict(zip(loaded.config.feature_names, values.T, strict=True))


def test_every_hour_of_the_day_is_explained():
    """Of an eighth of hourly rows, so that weeks of a series that does not change have no alarm."""
    loaded, n = make_model(), 60 * 168
    rows = make_hours(n + 3 * 168 + 5, 0)
    for week in range(3):
        sides = rows[:n], rows[n + 168 * week : n + 168 * (week + 1) + 5]
        found = Model.of(loaded).drift(*(name_columns(loaded, side) for side in sides), explained=n // 8)
        assert found.alarms == () and found.reference_explained == n // 8 and found.explained == 168


def test_a_stuck_sensor_takes_few_explanations():
    """Of 3,000 rows beside 800 a third is explained, no denser than the current side, with progress in small steps."""
    loaded, shares = make_model(n_reference=40), []
    rows = make_hours(3800, 1, noise=1.0)
    rows[3000:, 2] = 30.0
    sides = name_columns(loaded, rows[:3000]), name_columns(loaded, rows[3000:])
    found = Model.of(loaded).drift(*sides, progress=shares.append)
    assert (found.reference_explained, found.explained) == (965, 256)
    assert found.unconverged == 0 and abs(found.use[2].effect) > 0.1 * loaded.output_std[0]
    assert shares[0] == 0 and shares[-1] == 1 and max(np.diff(shares)) < 0.5 and sorted(shares) == shares


@pytest.mark.parametrize(
    ("asked", "used", "needed"),
    [
        (None, 0.2, None),
        (0.3, 0.3, None),
        (0.2, 0.2, None),
        (0.01, 0.2, "1 % needs 99"),
        (5e-324, 0.2, "4.9e-322 % needs more than a billion"),
    ],
)
def test_a_rate_that_the_spans_cannot_hold_is_warned_of(asked, used, needed):
    """One sentence says which rate four spans can hold, and how many the asked one needs."""
    loaded = make_model(n_reference=40)
    windows = make_windows(loaded, 400)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = Model.of(loaded).drift(windows, windows[:100], false_alarms=asked)
    assert found.verdicts["use"].false_alarms == pytest.approx(used)
    sentence = f"4 spans of the reference can hold a rate of false alarms of 20 %, which is used; {needed}"
    assert [str(one.message).startswith(sentence) for one in caught] == [True] * (needed is not None)


def test_what_changed_is_told_of_each_series():
    """Errors of each series are those of its rows alone; series whose errors grew most come first."""
    rng = np.random.default_rng(0)
    n, names = 240, ("a", "b", "c")
    table = pl.DataFrame(
        {
            "shop": np.repeat(names, n),
            "day": np.tile(np.arange(n), 3),
            "x": rng.normal(size=3 * n),
            "y": rng.normal(size=3 * n),
        }
    )
    model = kanmodel.train(
        table, "y", series="shop", time="day", ahead=1, lookback=4, hidden=3, epochs=1, batch=64, progress=False
    )
    before, now = (table.filter(of) for of in (pl.col("day") < 180, pl.col("day") >= 170))
    found = model.drift(before, now)
    assert {each.series for each in found.by_series} == {*names}
    changes = [each.mae - each.mae_reference for each in found.by_series]
    assert changes == sorted(changes, reverse=True)
    for each in found.by_series:
        alone = model.backtest(now, series=each.series)
        assert each.mae == pytest.approx(alone.metrics.mae) and each.forecasts == len(alone) + 1
    assert "Series, whose errors grew most first" in found.html()
