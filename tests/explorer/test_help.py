"""Help: each term has an explanation, and first-time visitors get a tour."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
FURTHER = pytest.mark.thorough("the same of further views")
PLACES = [
    pytest.param(*("network", ["R²", "MAE", "contribution", "score", "opacity"]), marks=FURTHER),
    pytest.param(*("edge", ["contribution", "score", "price", "profile"]), marks=FURTHER),
    pytest.param(*("forecast", ["error", "residual"]), marks=FURTHER),
    ("features", ["verdict", "share", "contribution"]),
    pytest.param(*("formula", ["R²", "MAE", "complexity", "profile"]), marks=FURTHER),
]


def question(page, term):
    return page.get_by_role("button", name=f"What does “{term}” mean?").first


@pytest.mark.parametrize(("view", "terms"), PLACES)
def test_a_question_mark_explains_the_term(server, open_tab, view, terms):
    """A click or Enter opens it beside the term, inside the window; Escape or a click elsewhere closes it."""
    tab = open_tab(server)
    page = tab.show(f"{view}?model=nyc-weather")
    note = page.get_by_role("note")
    for term in terms:
        button = question(page, term)
        button.focus()
        page.keyboard.press("Enter")
        expect(note).to_contain_text(term)
        assert len(note.locator("p").inner_text()) > 40
        box = note.bounding_box()
        assert box["x"] >= 0 and box["y"] >= 0
        assert box["x"] + box["width"] <= 1280 and box["y"] + box["height"] <= 800
        expect(button).to_have_attribute("aria-expanded", "true")
        page.keyboard.press("Escape")
        expect(note).to_have_count(0)
        expect(button).to_have_attribute("aria-expanded", "false")
        expect(button).to_be_focused()
    button.click()
    expect(note).to_be_visible()
    page.locator("h1").click()
    expect(note).to_have_count(0)
    assert tab.problems == []


def test_a_term_is_explained_by_touch(server, open_tab):
    """On a phone a tap opens it and another closes it, and it fits the screen."""
    page = open_tab(server, **PHONE).show("features?model=nyc-weather")
    question(page, "verdict").tap()
    note = page.get_by_role("note")
    expect(note).to_contain_text("verdict")
    box = note.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    question(page, "verdict").tap()
    expect(note).to_have_count(0)


def as_a_person(page):
    """A browser that does not report automation."""
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'webdriver', { get: () => false })")


def test_only_a_first_visit_gets_the_tour(server, open_tab):
    """Five steps by keyboard alone, each beside its element; the tour is not repeated, even if left early."""
    tab = open_tab(server)
    as_a_person(tab.page)
    page = tab.show("story?model=nyc-weather")
    tour = page.get_by_role("dialog")
    seen = []
    for number in range(1, 6):
        expect(tour).to_contain_text(f"{number} of 5")
        expect(page.locator(".shown-round")).to_have_count(1)
        seen.append(tour.locator("h2").inner_text())
        page.keyboard.press("Enter")
    expect(tour).to_have_count(0)
    expect(page.locator(".shown-round")).to_have_count(0)
    assert len(set(seen)) == 5
    page = tab.show("story?model=nyc-weather")
    expect(tour).to_have_count(0)
    early = open_tab(server)
    as_a_person(early.page)
    page = early.show("story?model=nyc-weather")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page = early.show("story?model=nyc-weather")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert tab.problems == early.problems == []


@pytest.mark.thorough("the tour once more")
def test_the_tour_continues_while_the_page_is_used(server, open_tab):
    """Another window keeps the step; opening another view ends the tour."""
    tab = open_tab(server)
    as_a_person(tab.page)
    page = tab.show("story?model=nyc-weather")
    tour = page.get_by_role("dialog")
    tour.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Previous window").click()
    page.wait_for_url("**/*window=ref:510*")
    page.locator("main[aria-busy=false]").wait_for()
    expect(tour).to_contain_text("2 of 5")
    page.get_by_role("link", name="Features").click()
    expect(tour).to_have_count(0)


@pytest.mark.thorough("the tour once more")
def test_automated_browsers_get_the_tour_only_on_request(server, open_tab):
    """Automated browsers see no tour unless the address or the model's card asks for it."""
    tab = open_tab(server)
    page = tab.show("story?model=nyc-weather")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page = tab.show("model?model=nyc-weather")
    page.get_by_role("link", name="Show me round the explorer").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 of 5")
    page.get_by_role("button", name="Leave").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert "tour" not in page.url
