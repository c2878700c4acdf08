"""The geometry of pictures is that of the numbers of their results."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from factories import make_model, make_windows, with_intervals

from kanmodel import Model
from kanmodel.report.finding import Band
from kanmodel.result import draw as draw_panel
from kanmodel.show.svg import Scale
from kanmodel.text import abbreviate, abbreviate_words

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"-?[\d.]+")


@pytest.fixture(scope="module")
def model():
    return Model.of(replace(make_model(), sha256="0123456789abcdef" * 4), "weather")


@pytest.fixture(scope="module")
def windows(model):
    return make_windows(model, 5)


def draw(result):
    return ElementTree.fromstring(result.svg(theme="light"))


def groups(part, class_):
    return [group for group in part.iter(f"{SVG}g") if group.get("class") == class_]


def points_of(polyline):
    """Positions in pixels, (2, points)."""
    return np.array([pair.split(",") for pair in polyline.get("points").split()], dtype=float).T


def scale_of(part, axis):
    """Value -> pixel, from the numbers along an axis."""
    anchor, above = ("middle", 0) if axis == "x" else ("end", 4)  # the middle of a letter is above its line
    texts = [text for text in part.iter(f"{SVG}text") if text.get("text-anchor") == anchor]
    known = [(float(text.text), float(text.get(axis)) - above) for text in texts if NUMBER.fullmatch(text.text)]
    return np.poly1d(np.polyfit(*zip(*known, strict=True), 1))


@pytest.mark.parametrize("shift", [None, (-20, 20, 9)])
def test_what_if_draws_each_forecast_and_the_window_as_it_is(model, windows, shift):
    """All panels have one scale; values outside the training range are shaded, and the line there is dashed."""
    found = model.what_if(windows[:1], ["f1", "f0"], shift=shift)
    panels = groups(draw(found), "panel")
    moves = {curve.feature: np.ptp(curve.predictions[:, 0]) for curve in found[0]}
    assert [panel.get("data-feature") for panel in panels] == sorted(moves, key=lambda name: -moves[name])
    y = scale_of(panels[0], "y")
    for panel in panels:
        (curve,) = (one for one in found[0] if one.feature == panel.get("data-feature"))
        x, forecasts = scale_of(panel, "x"), curve.predictions[:, 0]
        whole, inside = map(points_of, panel.iter(f"{SVG}polyline"))
        np.testing.assert_allclose(whole, [x(curve.values), y(forecasts)], atol=0.1)
        low, high = np.clip(curve.within, curve.values[0], curve.values[-1])
        assert inside[0, [0, -1]] == pytest.approx([x(low), x(high)], abs=0.1)
        np.testing.assert_allclose(inside[1], np.interp(inside[0], *whole), atol=0.1)
        shaded = [(float(rect.get("x")), float(rect.get("width"))) for rect in panel.iter(f"{SVG}rect")]
        is_shaded = [any(at < x(value) < at + width for at, width in shaded) for value in curve.values[1:-1]]
        assert is_shaded == curve.outside_training_range[1:-1].tolist()
        (dot,) = panel.iter(f"{SVG}circle")
        at = [x(curve.actual), y(model.predict(windows[0])[0, 0])]
        assert [float(dot.get("cx")), float(dot.get("cy"))] == pytest.approx(at, abs=0.1)
        assert curve.actual == (windows[0, -1, int(curve.feature[1:])] if shift is None else 0)


def test_what_if_of_several_windows_draws_their_mean(model, windows):
    """A line for each window, and on top their mean; no window is left out of it."""
    (panel,) = groups(draw(model.what_if(windows, "f2")), "panel")
    *each, mean = (points_of(line)[1] for line in panel.iter(f"{SVG}polyline"))
    assert len(each) == len(windows)
    np.testing.assert_allclose(np.mean(each, axis=0), mean, atol=0.02)


def test_what_if_of_a_bound_draws_the_intervals(windows):
    """The bands of the forecast over each value, of one window."""
    sure = Model.of(with_intervals(make_model()))
    found = sure.what_if(windows[:1], "f0", output="y+1:lower@0.8")
    (panel,) = groups(draw(found), "panel")
    (curve,), y = found[0], scale_of(panel, "y")
    areas = [path.get("d")[1:-1] for path in panel.iter(f"{SVG}path") if path.get("fill-opacity")]
    for area, level in zip(areas, (0.95, 0.8), strict=True):
        heights = np.array([float(corner.split()[1]) for corner in area.split("L")])
        low, high = (curve.predictions[:, found.outputs.index(f"y+1:{side}@{level}")] for side in ("lower", "upper"))
        np.testing.assert_allclose(heights, y(np.concatenate([low, high[::-1]])), atol=0.1)
    assert "fill-opacity" not in sure.what_if(windows[:1], "f0").svg()


def test_many_panels_do_not_overlap():
    """Of 61 features those that move the forecast most have a panel, and the rest is counted."""
    wide = Model.of(make_model(n_features=61))
    picture = draw(wide.what_if(make_windows(wide, 1)))
    shown = groups(picture, "panel")
    assert len(shown) == 24 and "37 more features move it less" in picture.find(f"{SVG}desc").text
    corners = [points_of(line)[:, 0] for panel in shown for line in list(panel.iter(f"{SVG}polyline"))[:1]]
    assert len({tuple(corner) for corner in corners}) == 24


def bars_of(group):
    """The bars of a row as (start, end) in pixels, and the place of the mark for their sum."""
    bars = [
        (float(rect.get("x")), float(rect.get("x")) + float(rect.get("width"))) for rect in group.iter(f"{SVG}rect")
    ]
    marks = [path.get("d") for path in group.iter(f"{SVG}path") if path.get("stroke-width") == "1.5"]
    return bars, float(re.match(r"M([\d.]+) ", marks[0])[1]) if marks else None


def check_blocks(picture, parts, totals):
    """Bars are as long as their amounts, their sum is marked, and all rows of a window sum to its difference.

    Args:
        picture: the picture.
        parts: amounts by window, (n_parts, n_features).
        totals: by window.
    """
    for block, amounts, total in zip(groups(picture, "block"), parts, totals, strict=True):
        x = scale_of(block, "x")
        rows = {row.get("data-feature"): row for row in groups(block, "row")}
        drawn = 0.0
        for name, row in rows.items():
            bars, mark = bars_of(row)
            lengths = sorted(end - start for start, end in bars)
            drawn += (mark - x(0)) / (x(1) - x(0))
            if name.startswith("f"):
                of_feature = amounts[:, int(name[1:])]
                expected = sorted((abs(of_feature) * (x(1) - x(0))).tolist())
                assert [0.0] * (len(expected) - len(lengths)) + lengths == pytest.approx(expected, abs=0.1)
                assert mark == pytest.approx(x(of_feature.sum()), abs=0.1)
        (whole,) = groups(block, "total")
        ((start, end),), _ = bars_of(whole)
        assert end - start == pytest.approx(abs(total) * (x(1) - x(0)), abs=0.1)
        assert drawn == pytest.approx(total, abs=0.02 * max(1.0, abs(total)))


@pytest.mark.parametrize("n_features", [4, 20])
def test_comparisons_draw_the_parts_of_data_and_model(n_features):
    """Each feature has its two parts; beyond twelve the rest is one row, and all sum to the difference."""
    mine, other = (Model.of(make_model(n_features=n_features, seed=seed)) for seed in (0, 1))
    windows = make_windows(mine, 4)
    found = mine.compare(other, windows[:2], windows[2:])
    parts = [np.stack([one.data, one.model]) for one in found]
    check_blocks(draw(found), parts, [one.difference for one in found])
    names = [row.get("data-feature") for row in groups(draw(found), "row")]
    assert ("8 more features" in names) == (n_features == 20)


def test_changes_draw_new_aged_and_gone_rows(model, windows):
    """The newest three forecasts are drawn, with what each feature's rows add."""
    rows = np.concatenate(windows[:2])
    found = model.changes(np.stack([rows[start : start + 6] for start in range(5)]))
    parts = [np.stack([found.new[number], found.aged[number], found.gone[number]]) for number in range(1, 4)]
    picture = draw(found)
    check_blocks(picture, parts, found.change[1:])
    assert "1 of 4 windows are not drawn" in picture.find(f"{SVG}desc").text


def test_a_comparison_of_models_draws_changes_of_shares(model):
    """Each feature has the change of its share in percentage points, with its interval."""
    found = model.compare(Model.of(make_model(seed=1)))
    picture = draw(found)
    x = scale_of(picture, "x")
    for group, change in zip(groups(picture, "feature"), found.features, strict=True):
        ((start, end),), _ = bars_of(group)
        assert sorted([x(0), x(100 * change.change)]) == pytest.approx([start, end], abs=0.1)
        (whisker,) = (path for path in group.iter(f"{SVG}path"))
        ends = [float(end) for end in re.match(r"M([\d.-]+) [\d.]+H([\d.-]+)", whisker.get("d")).groups()]
        assert ends == pytest.approx([x(100 * end) for end in change.interval], abs=0.1)


@pytest.mark.parametrize("goal", [{"at_least": 0.5}, {"at_most": -5}, {"between": (0.5, 0.6)}])
def test_counterfactuals_draw_the_way_to_the_goal(model, windows, goal):
    """The forecast goes from a ring to a dot, in the goal if it is reached; each change likewise."""
    found = model.counterfactual(windows[:2], **goal)
    for group, one, window in zip(groups(draw(found), "window"), found, windows[:2], strict=True):
        moves = [[float(circle.get("cx")) for circle in part.findall(f"{SVG}circle")] for part in group.iter()]
        (before, after), *changes = [move for move in moves if move]
        (band,) = group.iter(f"{SVG}rect")
        start = float(band.get("x"))
        assert (start - 0.1 <= after <= start + float(band.get("width")) + 0.1) == one.reached
        assert np.sign(after - before) == np.sign(round(one.new_prediction - one.prediction, 6))
        assert len(changes) == len(one.changes)
        shifts = [change.shift_in_std for change in one.changes]
        lengths = [end - start for start, end in changes]
        if shifts:
            assert np.array(lengths) / lengths[0] == pytest.approx(np.array(shifts) / shifts[0], abs=0.01)
        for change in one.changes:
            assert change.before == window[-1, int(change.feature[1:])]


def test_the_waterfall_has_the_features_values(model, windows):
    """Beside each name is its newest value with its unit, and groups have none."""
    found = model.explain(windows[0])
    for step in groups(draw(found), "step"):
        feature = int(step.get("data-feature")[1:])
        value, unit = windows[0, -1, feature], model.features[feature].unit
        shown = step.findall(f"{SVG}text")[1].text
        assert float(shown.split()[0]) == pytest.approx(value, rel=0.01) and shown.endswith(unit or shown)
        mean = float(re.search(r"mean (\S+)", step.find(f"{SVG}title").text)[1])
        assert mean == pytest.approx(windows[0, :, feature].mean(), rel=0.01)
    grouped = draw(model.explain(windows[0], groups={"both": ["f0", "f1"]}))
    both = next(step for step in groups(grouped, "step") if step.get("data-feature") == "both")
    assert len(both.findall(f"{SVG}text")) == 2


def test_pictures_and_pages_state_their_source(model, windows):
    """Model, checkpoint and time are below every picture, and at the end of every page."""
    results = [
        model.explain(windows[0]),
        model.what_if(windows[0], "f0"),
        model.importance(),
        model.topology(fidelity=0.9),
        model.edge("head:0:0:0"),
        model.report(),
    ]
    for result in results:
        assert result.source.startswith("weather, checkpoint 0123456789ab")
        assert result.source in result.html().removesuffix("</p></div></body></html>\n")[-400:]
        if hasattr(result, "svg"):
            assert any(text.text == result.source for text in draw(result).iter(f"{SVG}text"))
    frame = {f"f{number}": windows[0, :, number] for number in range(4)}
    assert model.what_if(frame).source == "weather, checkpoint 0123456789ab"
    assert replace(results[1], times=("2026-01-01",)).source.endswith(", window of 2026-01-01")
    assert results[2].source.endswith(f", reference: {model.importance().reference}".split(";")[0])
    assert Model.of(make_model()).origin == "model, not saved"


def test_drift_draws_each_effect_and_each_share_of_a_bin(model):
    """Bars of effects lead from one mean forecast to the other, and bins are as high as their shares."""
    before = make_windows(model, 200, 5)
    found = model.drift(before, before[:40] + np.array([0, 3, 0, 0]))
    picture = draw(found)
    steps = groups(picture, "step")
    named = {each.name: each.effect for each in found.use}
    assert [step.get("data-feature") for step in steps] == sorted(named, key=lambda name: -abs(named[name]))
    rects = [next(step.iter(f"{SVG}rect")) for step in steps]
    ends = [(float(rect.get("x")), float(rect.get("x")) + float(rect.get("width"))) for rect in rects]
    lengths = np.array([end - start for start, end in ends])
    effects = np.array([abs(named[step.get("data-feature")]) for step in steps])
    np.testing.assert_allclose(lengths / lengths[0], effects / effects[0], atol=0.02)
    (panel,) = (panel for panel in groups(picture, "panel") if panel.get("data-feature") == "f1")
    shares = found.current.total().inputs[0, 1] / 40
    heights = np.array([float(rect.get("height")) for rect in panel.iter(f"{SVG}rect")])
    np.testing.assert_allclose(heights / heights.max(), shares / shares.max(), atol=0.01)
    first, *_ = groups(picture, "answer")
    assert first.find(f"{SVG}title").text == f"Did the inputs move? {found.answers['inputs']}"


@pytest.mark.parametrize(("low", "high", "count", "expected"), [(-4, 4, 2, [-4, 0, 4]), (1, 9.04, 4, [4, 8])])
def test_an_axis_has_two_ticks_or_more(low, high, count, expected):
    """Where the usual steps leave one tick, a shorter one is taken, of few values too."""
    assert Scale(low, high, 0, 100).ticks(count) == expected
    rng = np.random.default_rng(0)
    for length, start in zip(10 ** rng.uniform(-6, 6, 500), rng.standard_normal(500), strict=True):
        assert 2 <= len(Scale(start * length, (start + 1) * length, 0, 100).ticks(count)) <= count + 1


def test_titles_lose_whole_words():
    """A title that is too long ends at a word; one without a break that would keep half of it is cut in the middle."""
    assert abbreviate_words("Width of the 80 % interval (percentage points)", 33) == "Width of the 80 % interval …"
    assert abbreviate_words("temperature_of_the_northern_station", 20) == abbreviate(
        "temperature_of_the_northern_station", 20
    )
    assert abbreviate_words("short", 20) == "short"


def test_the_legend_of_a_narrow_band_stays_in_the_picture():
    """Of three pictures beside each other the line below the band has room."""
    panel = Band("Forecasts", [1.0, 2.0], [0.0, 1.0], [2.0, 3.0], [1.0, 2.0], "1 Jan", "2 Jan", "K")
    picture = ElementTree.fromstring(draw_panel(panel, "light", n_beside=3))
    legend = max((text.text for text in picture.iter(f"{SVG}text")), key=len)
    assert len(legend) * 5.4 < float(picture.get("width"))  # as measured in a browser
