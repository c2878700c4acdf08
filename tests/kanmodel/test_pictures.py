"""The geometry of pictures is that of the numbers of their results."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from factories import make_model, make_windows

from kanmodel import Model

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"-?[\d.]+")


@pytest.fixture(scope="module")
def model():
    return Model(replace(make_model(), sha256="0123456789abcdef" * 4), "weather")


@pytest.fixture(scope="module")
def windows(model):
    return make_windows(model.loaded, 5)


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


def test_many_panels_do_not_overlap():
    """Of 61 features those that move the forecast most have a panel, and the rest is counted."""
    wide = Model(make_model(n_features=61))
    picture = draw(wide.what_if(make_windows(wide.loaded, 1)))
    shown = groups(picture, "panel")
    assert len(shown) == 24 and "37 more features move it less" in picture.find(f"{SVG}desc").text
    corners = [points_of(line)[:, 0] for panel in shown for line in list(panel.iter(f"{SVG}polyline"))[:1]]
    assert len({tuple(corner) for corner in corners}) == 24


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
    assert Model(make_model()).origin == "model, not saved"
