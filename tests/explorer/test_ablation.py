"""Edges can be removed and restored by hand; the cost and the forecast follow."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

MODEL = "/v1/models/nyc-weather"
EDGE = 'g.edge[data-source="lstm:7"][data-target="head:1:3"]'


def figure(page, name):
    return page.locator(f'[data-figure="{name}"] strong')


def graph_of(server, **rule):
    return server.get(f"{MODEL}/topology", params=rule).json()["graph"]


def shows(page, graph):
    """Picture, figures and table agree with a graph."""
    kept = graph["edges"]["kept"]
    expect(page.locator("g.edge[data-kind=edge][data-kept=true]")).to_have_count(kept)
    expect(figure(page, "edges")).to_have_text(str(kept))
    expect(figure(page, "R²")).to_have_text(f"{graph['fidelity']['r2']:.4f}")
    expect(figure(page, "MAE")).to_have_text(f"{graph['fidelity']['mae']:.3g} K")
    expect(page.locator("main tbody tr")).to_have_count(kept)


def test_an_edge_is_removed_by_a_click_and_put_back(server, open_tab):
    """In remove mode a click removes an edge, updates the cost and the address; otherwise it opens the edge."""
    tab = open_tab(server)
    page = tab.show("network?model=nyc-weather")
    page.get_by_label("removes it").check()
    page.wait_for_url(re.compile("click=remove"))
    page.locator(f"{EDGE} .box").hover()
    expect(page.locator("#hint")).to_contain_text("to remove it")
    page.locator(f"{EDGE} .box").click()
    page.wait_for_url(re.compile("without=head:0:7:3"))
    less = graph_of(server, without="head:0:7:3")
    shows(page, less)
    removed = page.get_by_role("list", name="Edges removed by hand")
    expect(removed).to_contain_text("lstm 7 → head 1:3")
    other = open_tab(server).page
    other.goto(page.url)
    shows(other, less)
    other.get_by_role("button", name="Put back lstm 7 → head 1:3").click()
    shows(other, graph_of(server))
    assert "without" not in other.url
    other.get_by_label("opens its function").check()
    other.wait_for_url(re.compile("^(?!.*click=)"))
    other.locator(f"{EDGE} .box").click()
    expect(other.locator("h1")).to_have_text("Edge")
    page.go_back()
    shows(page, graph_of(server))
    assert tab.problems == []


def test_edges_are_removed_with_the_keyboard_alone(server, open_tab):
    """From the table, where focus moves to the next button, and in the picture; one button restores all."""
    tab = open_tab(server)
    page = tab.show("network?model=nyc-weather&fidelity=1&click=remove")
    buttons = page.get_by_role("region", name="Edges").get_by_role("button", name=re.compile("^Remove "))
    names = [buttons.nth(place).get_attribute("aria-label").removeprefix("Remove ") for place in (1, 2)]
    buttons.nth(0).focus()
    page.keyboard.press("ArrowDown")
    for name in names:
        expect(page.get_by_role("button", name=f"Remove {name}")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=f"Put back {name}")).to_be_visible()
        page.locator("main[aria-busy=false]").wait_for()
    page.locator(EDGE).focus() if page.locator(EDGE).count() else page.locator("g.edge[data-kind=edge]").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Put back "))).to_have_count(3)
    ids = re.search("without=([^&]+)", page.url)[1].split(",")
    assert len(ids) == 3
    shows(page, graph_of(server, fidelity=1, without=ids))
    page.get_by_role("button", name="Put all edges back").focus()
    page.keyboard.press("Enter")
    shows(page, graph_of(server, fidelity=1))
    assert "without" not in page.url
    assert tab.problems == []


def test_edges_are_removed_faster_than_the_page_follows(server, open_tab):
    """Consecutive clicks each remove their edge, even before a response has arrived."""
    tab = open_tab(server)
    page = tab.show("network?model=nyc-weather&fidelity=1")
    page.locator("main tbody button").evaluate_all("(all) => all.slice(3, 6).forEach((one) => one.click())")
    expect(page.get_by_role("button", name=re.compile("^Put back "))).to_have_count(3)
    ids = re.search("without=([^&]+)", page.url)[1].split(",")
    shows(page, graph_of(server, fidelity=1, without=ids))
    assert tab.problems == []


def test_the_forecast_that_is_shown_follows(server, open_tab):
    """The forecasts by the full and the pruned model are those of :ablate, also after the window changes."""
    tab = open_tab(server)
    page = tab.show("network?model=nyc-weather&window=ref:5&without=head:0:7:3")
    window = server.get(f"{MODEL}/reference/5").json()["instance"]

    def tells(**rule):
        answer = server.post(f"{MODEL}:ablate", json={"instances": [window], **rule}).json()["ablations"][0]
        minus = str.maketrans("-", "−")
        told = page.locator('[data-figure="this forecast"]')
        expect(told).to_contain_text(f"{answer['ablated_prediction']:.3g} K".translate(minus))
        expect(told).to_contain_text(f"{answer['prediction']:.3g} K of the full model".translate(minus))

    tells(without=["head:0:7:3"])
    page.get_by_role("button", name="Remove lstm 1 → head 1:3").click()
    tells(without=["head:0:7:3", "head:0:1:3"])
    page.get_by_label("threshold", exact=True).check()
    tells(edge_threshold=0.03, without=["head:0:7:3", "head:0:1:3"])
    page.get_by_role("button", name="What does “ablation” mean?").click()
    expect(page.get_by_role("note")).to_contain_text("mean over the reference windows")
    page = tab.show("network?model=nyc-weather")
    page.get_by_role("link", name="Choose a window").click()
    expect(page.locator("h1")).to_have_text("Forecast")
    assert tab.problems == []


def test_removed_edges_stay_where_they_mean_the_same(server, open_tab):
    """Another output of the same network keeps the edges, another network does not; unknown edges are reported."""
    tab = open_tab(server)
    page = tab.show("network?model=two&without=head:0:1:2")
    expect(page.get_by_role("list", name="Edges removed by hand")).to_contain_text("lstm 1 → head 1:2")
    page.locator("#output").select_option("b+1")
    expect(page.locator("#output")).to_have_value("b+1")
    assert "without=head:0:1:2" in page.url
    page.locator("#model").select_option("nyc-weather")
    page.wait_for_url(re.compile("^(?!.*without)"))
    expect(page.get_by_role("list", name="Edges removed by hand")).to_have_count(0)
    page = tab.show("network?model=nyc-weather&without=head:9:0:0")
    expect(page.get_by_role("alert")).to_contain_text("there is no edge (head, 9, 0, 0)")
