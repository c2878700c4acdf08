"""The forecast view has its answer first, bars that unfold by keyboard, and words where nothing is to be had."""

from __future__ import annotations

import re

import pytest
from factories import make_model
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint

MODEL = "/v1/models/nyc-weather"


def points(text):
    return float(text.replace("−", "-"))


def test_the_answer_comes_first(server, open_tab):
    """The forecast, the actual value and the error stand at the top of a desktop and of a phone."""
    window = server.get(f"{MODEL}/reference/100").json()
    for size, most in (({"width": 1280, "height": 900}, 200), ({"width": 390, "height": 844}, 300)):
        tab = open_tab(server, viewport=size)
        page = tab.show("forecast?model=nyc-weather&window=ref:100")
        assert page.locator('[data-figure="forecast"]').bounding_box()["y"] < most
        expect(page.locator('[data-figure="actual"] strong')).to_have_text(f"{window['target'][0]:.2f} K")
        expect(page.locator(".kinds")).to_contain_text("smallest and largest value of the training")
        choice = page.get_by_label("Compared with").bounding_box()
        assert choice["x"] + choice["width"] <= size["width"] and choice["width"] > 200  # all of what is chosen
        assert tab.problems == []


def test_a_group_unfolds_into_its_features(server, open_tab):
    """By keyboard alone: its members follow, sum to it, and are read with units; Enter folds it again."""
    page = open_tab(server).show("forecast?model=nyc-weather&window=ref:100")
    group = page.get_by_role("button", name=re.compile("^hour: "))
    expect(group).to_have_attribute("aria-expanded", "false")
    before = page.locator(".waterfall rect[data-key]").count()
    group.focus()
    expect(page.locator("#hint")).to_contain_text(re.compile(r"raises the forecast by [\d.]+ K, to "))
    page.keyboard.press("Enter")
    expect(group).to_have_attribute("aria-expanded", "true")
    expect(group).to_be_focused()
    expect(page.locator(".waterfall rect[data-key]")).to_have_count(before + 2)
    labels = page.locator(".waterfall rect[data-key]").evaluate_all(
        "bars => bars.slice(0, 3).map((bar) => bar.ariaLabel)"
    )
    whole, *parts = [points(re.search(r": (\S+) K", label)[1]) for label in labels]
    assert sum(parts) == pytest.approx(whole, abs=0.011)
    expect(page.locator(".waterfall")).to_contain_text(re.compile(r"· hour_(sin|cos) = "))
    page.keyboard.press("Enter")
    expect(page.locator(".waterfall rect[data-key]")).to_have_count(before)


def test_what_does_not_answer_is_said_in_words(server, open_tab):
    """No error of the browser itself is shown, and the view is there as soon as the service answers again."""
    page = open_tab(server).page
    page.route("**/*:whatif*", lambda route: route.abort())
    page.goto(f"{server.base_url}/explorer/#/forecast?model=nyc-weather")
    expect(page.locator(".refused", has_text="the service does not answer")).to_be_visible()
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.locator("#status")).to_contain_text("Not ready yet: the service does not answer")
    expect(page.locator("body")).not_to_contain_text("Failed to fetch")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try now").click()
    expect(page.locator('[data-figure="forecast"]')).to_be_visible()


def test_a_window_of_one_step_has_no_map(server, open_tab):
    """Without steps there are neither cells nor lines over them."""
    page = open_tab(server).show("forecast?model=head")
    expect(page.locator(".waterfall svg")).to_be_visible()
    expect(page.locator(".cells, .line")).to_have_count(0)


def test_without_reference_windows_it_asks_for_one(serve, open_tab, tmp_path):
    """Where the service hides them, there is the place to give one's own."""
    save_checkpoint(make_model("lstm", n_reference=130), tmp_path / "m.safetensors")
    with serve(tmp_path, KANSCOPE_REFERENCE_WINDOWS="false") as client:
        page = open_tab(client).show("forecast")
        expect(page.get_by_text("This service shows no windows of its own; explain one of yours.")).to_be_visible()
        expect(page.locator("textarea")).to_be_visible()
        expect(page.locator(".summary")).to_be_hidden()
