"""Help: each term has an explanation, and the keys are listed."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def question(page, term):
    return page.get_by_role("button", name=f"What does “{term}” mean?").first


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_a_question_mark_explains_the_term(server, open_tab, options):
    """Enter, a click or a tap opens it beside the term, inside the window; Escape or a click elsewhere closes it."""
    tab = open_tab(server, **options)
    page = tab.show("model?model=nyc-weather")
    button = question(page, "skill")
    button.focus()
    page.keyboard.press("Enter")
    note = page.locator(".panel")
    expect(note).to_contain_text("skill")
    assert len(note.locator("p").inner_text()) > 40
    box, size = note.bounding_box(), page.viewport_size
    assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
    assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"]
    expect(button).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(note).to_have_count(0)
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(button).to_be_focused()
    button.tap() if options else button.click()
    expect(note).to_be_visible()
    page.locator("h1").first.click()
    expect(note).to_have_count(0)
    assert tab.problems == []


def test_a_part_under_the_pointer_or_with_the_focus_has_its_tip(server, open_tab):
    """Escape hides it."""
    page = open_tab(server).show("model?model=nyc-weather")
    tip, find = page.get_by_role("tooltip"), page.get_by_role("button", name="Find (Ctrl K)")
    find.hover()
    expect(tip).to_have_text("Find: Ctrl K or /")
    page.mouse.move(5, 400)
    expect(tip).to_be_hidden()
    find.focus()
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_the_keys_are_listed(server, open_tab):
    page = open_tab(server).show("model?model=head")
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("button", name="Show the keys").click()
    keys = page.get_by_role("dialog", name="Keys")
    expect(keys).to_contain_text("undo the last change")
    keys.get_by_role("button", name="Close").click()
    expect(keys).to_have_count(0)
