"""The network at rest: pruning scrubs along its cost, edges go by hand, and another model is laid over it."""

from __future__ import annotations

import re

import pytest
from factories import make_model
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint

MODEL = "/v1/models/nyc-weather"
SVG = "svg.picture"
FADED = f"{SVG} g.edge[data-edge].faded"


def show(tab, address):
    page = tab.show(address)
    page.locator(f"{SVG} .curve").first.wait_for(state="attached")
    page.wait_for_load_state("networkidle")
    return page


def topology(server, **rule):
    return server.get(f"{MODEL}/topology", params={"pruned": False, **rule}).json()


def price(graph):
    change = graph["fidelity"]["mae"] / graph["fidelity"]["mae_full"] - 1
    return f"{graph['edges']['kept']} edges, error {'up' if change > 0 else 'down'} by {abs(change) * 100:.1f} %"


def places(page):
    return page.locator(f"{SVG} g.edge").evaluate_all("(cards) => cards.map((card) => card.getAttribute('transform'))")


def cards(page):
    return page.locator(f"{SVG} g.edge[data-edge]").evaluate_all(
        "(cards) => cards.map((card) => [card.dataset.edge, card.classList.contains('faded')])"
    )


def test_pruning_scrubs_along_its_cost(server, open_tab):
    """Edges fade by rank while the slider moves, nothing else does; let go, price and edges are those of the API."""
    tab = open_tab(server)
    page = show(tab, "model?model=nyc-weather&at=network")
    slider = page.get_by_role("slider", name=re.compile("Edges kept"))
    expect(page.locator(".price")).to_contain_text(price(topology(server)["graph"]))
    before, faded = places(page), page.locator(FADED).count()
    curve = server.get(f"{MODEL}/topology/fidelity", params={"metric": "contribution"}).json()["curve"]
    slider.focus()
    slider.evaluate("(range) => { range.value = '4'; range.dispatchEvent(new Event('input', { bubbles: true })); }")
    point = sorted(curve, key=lambda one: one["edges"])[4]
    expect(page.locator(".price")).to_contain_text(f"{point['edges']} edges, error up by")
    expect(page.locator(f"{FADED}")).not_to_have_count(faded)
    assert "fidelity" not in page.url
    slider.evaluate("(range) => range.dispatchEvent(new Event('change', { bubbles: true }))")
    page.wait_for_url(re.compile("fidelity="))
    fidelity = re.search(r"fidelity=([\d.]+)", page.url)[1]
    answer = topology(server, fidelity=fidelity)
    expect(page.locator(".price")).to_contain_text(price(answer["graph"]))
    kept = {
        f"{edge['stage']}/{edge['layer']}/{edge['i']}/{edge['j']}": edge["kept"]
        for edge in answer["edges"]
        if edge["kind"] == "edge"
    }
    assert all(faded != kept[key] for key, faded in cards(page))
    assert places(page) == before
    assert tab.problems == []


def test_an_edge_is_removed_by_hand_and_put_back(server, open_tab):
    """From its panel; the address restores it, and the price is that of the API without it."""
    tab = open_tab(server)
    page = show(tab, "model?model=nyc-weather&at=network&edge=head/0/7/3")
    page.get_by_role("button", name="Remove this edge").click()
    page.wait_for_url(re.compile("without=head:0:7:3"))
    expect(page.locator(".price")).to_contain_text(price(topology(server, without="head:0:7:3")["graph"]))
    expect(page.locator(f'{SVG} g.edge[data-edge="head/0/7/3"]')).to_have_class(re.compile("faded"))
    removed = page.get_by_role("list", name="Edges removed by hand")
    expect(removed.get_by_role("listitem")).to_have_count(1)
    removed.get_by_role("button").click()
    page.wait_for_url(re.compile("^(?!.*without=)"))
    expect(page.locator(".price")).to_contain_text(price(topology(server)["graph"]))
    assert tab.problems == []


def test_opacity_is_that_of_the_topology_and_amounts_are_means(server, open_tab):
    """tanh(3 x score), which the legend says; at rest each amount is the mean size that the importance has."""
    page = show(open_tab(server), "model?model=nyc-weather&at=network")
    expect(page.locator(".flow-legend")).to_contain_text("tanh(3 × score)")
    edges = {
        f"{edge['stage']}/{edge['layer']}/{edge['i']}/{edge['j']}": edge
        for edge in topology(server)["edges"]
        if edge["kind"] == "edge"
    }
    for card in page.locator(f"{SVG} g.edge[data-edge]").all():
        edge = edges[card.get_attribute("data-edge")]
        assert float(card.locator(".curve").get_attribute("stroke-opacity")) == pytest.approx(
            edge["opacity"], abs=0.001
        )
        assert float(card.locator(".amount").text_content().removesuffix(" K")) == pytest.approx(
            edge["contribution"], abs=0.051
        )
    groups = '{"hour": ["hour_sin", "hour_cos"]}'
    rows = server.get(f"{MODEL}/attributions", params={"groups": groups}).json()["groups"]
    hour = next(row["mean_abs_contribution"] for row in rows if row["name"] == "hour")
    node = page.locator(f'{SVG} [data-node^="input:hour"]')
    expect(node).to_have_attribute("data-value", re.compile(f"^{hour:.4f}"[:6]))


@pytest.fixture(scope="module")
def pair(serve, tmp_path_factory):
    """Two models of the same inputs."""
    folder = tmp_path_factory.mktemp("pair")
    for name, seed in (("one", 1), ("other", 2)):
        save_checkpoint(make_model("lstm", seed=seed, n_reference=130), folder / f"{name}.safetensors")
    with serve(folder) as client:
        yield client


def test_another_model_lies_over_this_one(pair, open_tab):
    """On the places of this one: new edges are marked, those that went are ghosts, and bent curves have two tones."""
    tab = open_tab(pair)
    alone = show(tab, "forecast?model=one&window=ref:0")
    before = places(alone)
    page = show(tab, "forecast?model=one&versus=other&window=ref:0")
    answer = pair.get("/v1/models/one/comparison", params={"against_model": "other"}).json()
    expect(page.get_by_text("Beside other (dashed)")).to_be_visible()
    assert places(page) == before
    states = {}
    for edge in answer["edges"]:
        kept, against, apart = edge["kept"], edge["against_kept"], edge["curve_difference"] or 0
        state = (
            "came"
            if kept and not against
            else "ghost"
            if against and not kept
            else "bent"
            if kept and apart > 0.1
            else "same"
        )
        states[f"{edge['stage']}/{edge['layer']}/{edge['i']}/{edge['j']}"] = state
    shown = page.locator(f"{SVG} g.edge[data-edge]").evaluate_all(
        """(cards) => cards.map((card) =>
          [card.dataset.edge, [...card.classList], card.querySelectorAll('.other').length])"""
    )
    assert len(shown) > 4
    for key, classes, others in shown:
        assert states[key] in classes, key
        assert others == (states[key] in ("bent", "ghost"))
    assert tab.problems == []
