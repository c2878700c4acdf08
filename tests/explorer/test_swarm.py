"""The contributions of all reference windows, with the selected one marked."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import expect

MODEL = "/v1/models/nyc-weather"
SHOWN = "features?model=nyc-weather&window=ref:100"
N_ROWS = 14


@pytest.fixture(scope="module")
def windows(server):
    return server.get(f"{MODEL}/reference", params={"contributions": True}).json()["windows"]


@pytest.fixture(scope="module")
def names(server):
    return [feature["name"] for feature in server.get(MODEL).json()["features"]]


def swarm(page):
    return page.get_by_role("group", name=re.compile("^Contributions of all windows"))


def strongest(windows):
    sizes = np.abs([row["contributions"] for row in windows]).mean(axis=0)
    return np.argsort(-sizes, kind="stable")[:N_ROWS]


@pytest.mark.thorough("reads every dot of a picture in a browser")
def test_every_window_has_a_dot_for_each_of_the_strongest_features(server, open_tab, windows, names):
    """Dots are at the API's contributions, coloured by value; rings mark the window shown."""
    tab = open_tab(server)
    page = tab.show(SHOWN)
    dots = swarm(page).locator("circle:not([data-ring])")
    expect(dots).to_have_count(N_ROWS * len(windows))
    # Marks of one group have one order: a dot's row is the one whose middle is nearest.
    found = dots.evaluate_all(
        "all => all.map(dot => [dot.cx.baseVal.value, dot.cy.baseVal.value, dot.getAttribute('fill')])"
    )
    rings = swarm(page).locator("[data-ring]")
    features = strongest(windows)
    assert rings.evaluate_all("all => all.map(ring => ring.dataset.ring)") == [names[place] for place in features]
    centers = rings.evaluate_all("all => all.map(ring => [ring.cx.baseVal.value, ring.cy.baseVal.value])")
    x, y = np.array([dot[:2] for dot in found]).T
    rows = np.abs(y[:, None] - np.array(centers)[:, 1]).argmin(axis=1)
    wanted = np.array([row["contributions"] for row in windows])
    span = wanted[:, features].min(), wanted[:, features].max()
    for row, place in enumerate(features):
        drawn = np.sort(x[rows == row])
        np.testing.assert_allclose(drawn, np.interp(np.sort(wanted[:, place]), span, (x.min(), x.max())), atol=0.01)
        assert centers[row][0] == pytest.approx(np.interp(wanted[100, place], span, (x.min(), x.max())), abs=0.2)
    assert len({dot[2] for dot in found}) > 50
    assert tab.problems == []


def test_a_dot_has_a_hint_and_a_link(server, open_tab, windows, names):
    """By pointer and keyboard: feature, time, contribution and value; a click or Enter opens the window."""
    page = open_tab(server).show(SHOWN)
    place = strongest(windows)[0]
    order = np.argsort([row["contributions"][place] for row in windows], kind="stable")
    dots = swarm(page).locator("circle:not([data-ring])")
    expect(dots).to_have_count(N_ROWS * len(windows))
    swarm(page).focus()
    page.keyboard.press("ArrowRight")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    hint = page.locator("#hint")
    expect(hint).to_contain_text(names[place])
    said = hint.inner_text()
    before = next(row for row in windows if f"{row['time']}".replace("T", " ").removesuffix("Z") in said)
    assert f"added {before['contributions'][place]:+.3g} K".replace("-", "−") in said
    value = float(f"{before['newest'][place]:.3g}")
    assert f"was {value:g}".replace("-", "−") in said
    page.keyboard.press("ArrowRight")
    after = windows[order[list(order).index(before["index"]) + 1]]
    expect(hint).to_contain_text(after["time"].replace("T", " ").removesuffix("Z"))
    page.keyboard.press("ArrowDown")
    expect(hint).to_contain_text(names[strongest(windows)[1]])
    expect(hint).to_contain_text(after["time"].replace("T", " ").removesuffix("Z"))
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"forecast.*window=ref:{after['index']}"))
    expect(page.locator(".summary")).to_contain_text(f"reference window {after['index']}")
    page.go_back()
    dots.first.hover(force=True)
    expect(hint).to_contain_text(names[place])
    dots.first.click(force=True)
    page.wait_for_url(re.compile("forecast.*window=ref:"))


def test_there_are_rings_for_the_window_of_the_address_alone(server, open_tab, names):
    """A reference window has one on each row; a window of one's own is none of the dots."""
    tab = open_tab(server)
    rings = swarm(tab.page).locator("[data-ring]")
    tab.show(SHOWN)
    expect(rings).to_have_count(N_ROWS)
    tab.show("features?model=nyc-weather")
    expect(swarm(tab.page).locator("circle").first).to_be_visible()
    expect(rings).to_have_count(0)
    assert tab.problems == []
