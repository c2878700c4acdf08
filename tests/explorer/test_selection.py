"""One selection in all of the page: a feature, a step, a node or an edge is lit wherever it is shown."""

from __future__ import annotations

import re

from playwright.sync_api import expect

MODEL = "/v1/models/nyc-weather"
SHARES = """(parts) => Object.fromEntries(parts.map((part) => [
  part.dataset.node ?? part.dataset.feature ?? `${part.dataset.source} ${part.dataset.target}`,
  part.classList.contains("apart") ? 0 : Number(part.style.getPropertyValue("--share") || 1),
]))"""


def test_a_feature_is_lit_in_every_picture(server, open_tab):
    """Under the pointer its cells, units that read it and the edges from these are lit by its share, others fade."""
    tab = open_tab(server)
    page = tab.show("forecast?model=nyc-weather")
    nodes = server.get(f"{MODEL}/topology", params={"pruned": False}).json()["nodes"]
    profiles = {node["id"]: node["profile"].get("temp_c", 0) for node in nodes if "profile" in node}
    page.locator('.cells rect[data-feature="temp_c"][data-step="-3"]').hover()
    cells = page.locator(".cells rect.linked").evaluate_all("(all) => all.map((one) => ({ ...one.dataset }))")
    assert all(cell["feature"] == "temp_c" or cell["step"] == "-3" for cell in cells)
    page.locator('.stage g.node[data-node="feature:temp_c"]').dispatch_event("pointerover")
    shares = page.locator('.stage g.node[data-node^="lstm:"]').evaluate_all(SHARES)
    most = max(profiles.values())
    assert shares == {unit: round(profiles[unit] / most, 3) for unit in shares}
    edges = page.locator(".stage g.edge[data-kind=edge]").evaluate_all(SHARES)
    assert edges == {ends: round(profiles[ends.split()[0]] / most, 3) for ends in edges}
    expect(page.locator('.cells rect[data-feature="temp_c"].linked')).to_have_count(24)
    assert page.locator('.cells rect[data-feature="wind_ms"]:not(.apart)').count() == 0
    page.locator("h1").dispatch_event("pointerover")
    expect(page.locator(".linked, .apart")).to_have_count(0)
    assert tab.problems == []


def test_what_is_chosen_stays_chosen_in_every_view(server, open_tab):
    """A click writes `pick` into the address and all links, a reload restores it, and Escape clears it."""
    tab = open_tab(server)
    page = tab.show("forecast?model=nyc-weather")
    page.locator('.cells rect[data-feature="temp_c"][data-step="0"]').click()
    page.wait_for_url(re.compile(r"pick=step:0,feature:temp_c"))
    expect(page.locator("#picked")).to_contain_text("temp_c, the newest step")
    page.get_by_role("navigation").get_by_role("link", name="Network").click()
    expect(page.locator("h1")).to_have_text("Network")
    expect(page.locator('g.node[data-node="feature:temp_c"]')).to_have_class(re.compile("linked"))
    expect(page.locator('g.node[data-node="feature:wind_ms"]')).to_have_class(re.compile("apart"))
    other = open_tab(server).page
    other.goto(page.url)
    expect(other.locator('g.node[data-node="feature:temp_c"]')).to_have_class(re.compile("linked"))
    page.get_by_role("link", name="its paths").click()
    page.wait_for_url(re.compile(r"through=feature:temp_c"))
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".linked, .apart")).to_have_count(0)
    expect(page.locator("#picked")).to_be_hidden()
    assert "pick" not in page.url
    assert tab.problems == []


def test_a_group_is_lit_with_its_features(server, open_tab):
    """Its bar lights the rows of its features and the units that read them, and a feature lights the group's bar."""
    tab = open_tab(server)
    page = tab.show("forecast?model=nyc-weather")
    nodes = server.get(f"{MODEL}/topology", params={"pruned": False}).json()["nodes"]
    members = ("hour_sin", "hour_cos")
    shares = {node["id"]: sum(node["profile"].get(name, 0) for name in members) for node in nodes if "profile" in node}
    group = page.locator('.waterfall rect[data-key="/hour"]')
    group.hover()
    expect(
        page.locator('.cells rect[data-feature="hour_sin"].linked, .cells rect[data-feature="hour_cos"].linked')
    ).to_have_count(48)
    expect(page.locator('.cells rect[data-feature="temp_c"].linked')).to_have_count(0)
    found = page.locator('.stage g.node[data-node^="lstm:"]').evaluate_all(SHARES)
    assert found == {unit: round(shares[unit] / max(shares.values()), 3) for unit in found}
    page.locator('.cells rect[data-feature="hour_cos"]').first.hover()
    expect(group).to_have_class(re.compile("linked"))
    expect(page.locator('.waterfall rect[data-key="/season"]')).to_have_class(re.compile("apart"))
    page = tab.show("story?model=nyc-weather&window=ref:511")
    page.locator(".reasons li", has_text="hour").first.click()
    expect(page.locator("#picked")).to_contain_text("hour_sin, hour_cos")
    reason = page.locator(".reasons li.linked")
    expect(reason).to_have_count(1)
    page.reload()
    expect(reason).to_have_count(1)
    assert tab.problems == []
