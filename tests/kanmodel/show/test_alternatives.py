"""Pictures of other values draw each forecast and each change at its place."""

import numpy as np
import pytest
from factories import make_model, make_windows, with_intervals
from pictures import SVG, draw, groups, points_of, scale_of

from kanmodel import Model


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
