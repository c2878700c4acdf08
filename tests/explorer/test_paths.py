"""Large networks: a node can be found and its paths isolated, and many edges stay readable."""

from __future__ import annotations

import re

import pytest
from factories import make_model
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

MODEL = "/v1/models/nyc-weather"


def kept_edges(page):
    return page.locator("g.edge[data-kind=edge][data-kept=true]")


def functions(server, **query):
    answer = server.get(f"{MODEL}/topology", params=query).json()
    return [edge for edge in answer["edges"] if edge["kind"] == "edge"]


def test_the_paths_through_a_node_are_isolated(server, open_tab):
    """A click hides other paths, the address keeps the choice, and Escape shows all again."""
    tab = open_tab(server)
    page = tab.show("network?model=nyc-weather")
    whole = kept_edges(page).count()
    page.locator('g.node[data-node="lstm:7"] rect').first.click()
    page.wait_for_url(re.compile("through=lstm:7"))
    part = functions(server, through="lstm:7")
    assert 0 < len(part) < whole
    expect(kept_edges(page)).to_have_count(len(part))
    expect(page.locator("main tbody tr")).to_have_count(len(part))
    expect(page.locator('g.node[data-node^="lstm:"]')).to_have_count(1)
    expect(page.locator(".paths")).to_contain_text(f"takes part in {len(part)} of 65 edges")
    other = open_tab(server).page
    other.goto(page.url)
    expect(kept_edges(other)).to_have_count(len(part))
    page.keyboard.press("Escape")
    expect(kept_edges(page)).to_have_count(whole)
    assert "through" not in page.url
    page.go_back()
    expect(kept_edges(page)).to_have_count(len(part))
    page.get_by_role("button", name="Show all").click()
    expect(kept_edges(page)).to_have_count(whole)
    assert tab.problems == []


def test_a_node_is_chosen_with_the_keyboard(server, open_tab):
    """Enter on a node of the picture shows its paths, and the node keeps the focus."""
    page = open_tab(server).show("network?model=nyc-weather")
    page.locator('g.node[data-node="head:1:3"]').focus()
    page.keyboard.press("Enter")
    expect(kept_edges(page)).to_have_count(len(functions(server, through="head:1:3")))
    expect(page.locator('g.node[data-node="head:1:3"]')).to_be_focused()


@pytest.mark.parametrize(
    ("text", "node"), [("humid", "feature:humid_pct"), ("LSTM 3", "lstm:3"), ("head:1:0", "head:1:0")]
)
def test_a_node_is_found_by_its_name(server, open_tab, text, node):
    """A node is found by its name, a prefix or a part, in any case; no match is reported."""
    page = open_tab(server).show("network?model=nyc-weather")
    page.locator("#find").fill(text)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"through={re.escape(node)}"))
    expect(page.locator(".paths")).to_contain_text("takes part in")
    expect(kept_edges(page)).to_have_count(len(functions(server, through=node)))
    page.locator("#find").fill("no such thing")
    page.keyboard.press("Enter")
    expect(page.locator(".paths")).to_contain_text("No node or feature has “no such thing”")


def test_a_feature_and_its_edges_are_linked(server, open_tab):
    """Each edge is listed with the feature's share of its input, and links back to the features."""
    page = open_tab(server).show("network?model=nyc-weather&through=feature:temp_c")
    answer = server.get(f"{MODEL}/topology", params={"through": "feature:temp_c"}).json()
    profiles = {node["id"]: node.get("profile", {}) for node in answer["nodes"]}
    edges = sorted((e for e in answer["edges"] if e["kind"] == "edge"), key=lambda edge: -edge["contribution"])
    expect(page.get_by_role("heading", name="Edges that temp_c takes part in")).to_be_visible()
    shares = page.locator("main tbody tr td:last-child").all_inner_texts()
    assert shares == [f"{profiles[edge['source']]['temp_c'] * 100:.1f} %" for edge in edges]
    page.locator("main tbody a").first.click()
    expect(page.locator("h1")).to_have_text("Edge")
    first = profiles[edges[0]["source"]]
    rows = page.get_by_role("region", name="Features of its input").locator("tbody tr")
    expect(rows).to_have_count(len(first))
    expect(rows.first).to_contain_text(f"{max(first.values()) * 100:.1f} %")
    (source,) = (node for node in answer["nodes"] if node["id"] == edges[0]["source"])
    newest, oldest = (source["lags"][max(first, key=first.get)][end] for end in ("newest", "oldest"))
    expect(rows.first).to_contain_text(f"at lags {newest} to {oldest}")
    rows.get_by_role("link", name="hour_cos").click()
    expect(page.locator("h1")).to_have_text("Network")
    page.wait_for_url(re.compile("through=feature:hour_cos"))


def test_a_pruned_node_has_a_notice(server, open_tab):
    """A pruned node has no paths, and a link shows the whole network."""
    pruned = next(
        node["id"]
        for node in server.get(f"{MODEL}/topology", params={"pruned": False}).json()["nodes"]
        if node["id"].startswith("lstm:") and not node["kept"]
    )
    tab = open_tab(server)
    page = tab.show(f"network?model=nyc-weather&through={pruned}&pruned=show")
    assert kept_edges(page).count() > 0
    page.get_by_label("folded").check()
    expect(kept_edges(page)).to_have_count(0)
    expect(page.locator(".paths")).to_contain_text("is pruned: no kept path")
    page.get_by_role("button", name="Show all").click()
    expect(kept_edges(page)).not_to_have_count(0)
    assert tab.problems == []


@pytest.fixture(scope="module")
def many(serve, tmp_path_factory):
    """A model of 1,040 edges: 64 units, 16 nodes, 20 features."""
    folder = tmp_path_factory.mktemp("many")
    model = make_model("lstm", n_features=20, hidden_size=64, n_hidden=16, lookback=2, n_reference=20)
    save_checkpoint(model, folder / "many.safetensors")
    with serve(folder) as client:
        yield client


def test_a_thousand_edges_are_read_and_their_curves_are_there_on_demand(many, open_tab):
    """All edges are links at first, a selected node's have curves; a highlight touches parts a few times at most."""
    tab = open_tab(many)
    page = tab.show("network?model=many&fidelity=1")
    page.wait_for_load_state("networkidle")  # the requests for the slider come last
    total = kept_edges(page).count()
    assert total > 300
    expect(page.locator(".stage .box")).to_have_count(0)
    changes = page.evaluate("""() => {
      const nodes = [...document.querySelectorAll(".stage g.node")];
      const watcher = new MutationObserver(() => {});
      watcher.observe(document.body, { subtree: true, attributes: true, childList: true, characterData: true });
      return nodes.map((node) => {
        node.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
        return watcher.takeRecords().length;
      });
    }""")
    assert max(changes) < 3 * page.locator(".stage g.edge, .stage g.node").count()
    page.locator('g.node[data-node="head:1:3"] rect').first.click()
    expect(page.locator(".stage .box").first).to_be_visible()
    boxes = page.locator(".stage .box").count()
    assert 0 < boxes == kept_edges(page).count() < 100
    assert tab.problems == []
