"""Models whose network is a graph, in the explorer: branches and skips are drawn, and nothing logs an error."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from wired import FEATURES, make_wired, random_walks

import kanmodel
from kanmodel.show.network import N_LINKS

VIEWS = ["network", "edge", "forecast", "features", "compare", "model", "report"]


@pytest.fixture(scope="module")
def graphs(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    for name in ("SkipAroundHead", "RevIN", "Attention"):
        model = kanmodel.from_torch(make_wired(name), windows=random_walks(), features=list(FEATURES))
        model.save(folder / f"{name}.safetensors")
    with serve(folder) as client:
        yield client


@pytest.mark.thorough("draws a graph in a browser")
def test_a_skip_is_drawn(graphs, open_tab):
    """Its link is among the edges, its title says what it is, and its source leads to the paths through it."""
    tab = open_tab(graphs)
    page = tab.show("network?model=SkipAroundHead&output=y1%2B1")
    answer = graphs.get("/v1/models/SkipAroundHead/topology", params={"output": "y1+1"}).json()
    links = [edge for edge in answer["edges"] if edge["kind"] == "link"]
    assert 0 < len(links) < N_LINKS
    expect(page.locator("g.edge[data-kind=link]")).to_have_count(len(links))
    page.locator('g.node[data-node="head:3:0"] rect').first.click()
    page.wait_for_url("**through=head:3:0**")
    expect(page.locator("g.edge[data-kind=link]")).to_have_count(1)
    assert tab.problems == []


@pytest.mark.thorough("every view of three graphs")
@pytest.mark.parametrize("name", ["SkipAroundHead", "RevIN", "Attention"])
def test_every_view_of_a_graph_shows(graphs, open_tab, name):
    """The flow states at which nodes contributions are conserved, and the model's card what the graph is made of."""
    tab = open_tab(graphs)
    for view in VIEWS:
        page = tab.show(f"{view}?model={name}&output=y1%2B1")
        expect(page.locator("h1")).to_have_text(view.capitalize())
        assert tab.problems == [], view
        if view == "model":
            expect(page.locator(".facts").first).to_contain_text("recurrent parts, in")
        if view == "forecast":
            expect(page.locator("main")).to_contain_text("At every node listed")
