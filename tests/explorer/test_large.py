"""Large models: the structure at once, names for a phone, levels of detail, and a heat map to zoom into."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from factories import make_chain, make_model
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint
from kanmodel.network.bases import BSpline
from kanmodel.network.network import Network
from kanmodel.training.training import plain_layers

PHONE = {"viewport": {"width": 390, "height": 844}}
NAME = "plant_hall_{:02d}_bearing_ring_celsius"
SMALLEST = """() => Math.min(...[...document.querySelectorAll(".stage text")].map((text) => {
  const { a, b } = text.getScreenCTM();
  return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
}))"""


@pytest.fixture(scope="module")
def large(serve, tmp_path_factory):
    """Features of long names over ninety steps, several outputs, and a model of one step."""
    folder = tmp_path_factory.mktemp("large")
    options = {"n_features": 22, "hidden_size": 8, "n_hidden": 4, "lookback": 90, "n_reference": 8}
    model = make_model("lstm", targets=tuple("abc"), **options)
    features = tuple(replace(feature, name=NAME.format(n)) for n, feature in enumerate(model.config.features))
    network = Network(replace(model.config, features=features))
    network.load_state_dict(model.network.state_dict())
    save_checkpoint(replace(model, network=network), folder / "large.safetensors")
    save_checkpoint(make_model("head"), folder / "single.safetensors")
    base = make_model("lstm").config
    for name, hidden in (("deep", [4] * 3), ("deepest", [3] * 9), ("wide", [50])):
        config = replace(base, head=plain_layers((5, *hidden, 1), BSpline(4, 3)))
        save_checkpoint(make_chain(config, seed=3, n_reference=160), folder / f"{name}.safetensors")
    with serve(folder) as client:
        yield client


def kept_edges(page):
    return page.locator("g.edge[data-kind=edge][data-kept=true]")


def test_the_structure_is_there_before_anything_is_computed(large, open_tab):
    """Its layers are drawn, work that takes long can be stopped and begun again, and answers are asked for once."""
    tab, asked = open_tab(large), Counter()
    page, held = tab.page, []

    def hold(route):
        asked[route.request.url, route.request.headers["accept"]] += 1
        if len(held) < 1:
            held.append(route)  # which is never answered
        else:
            route.continue_()

    page.route("**/topology?*", hold)
    page.goto(f"{tab.base}/explorer/#/network?model=large")
    expect(page.locator(".structure > li")).to_have_count(4)
    expect(page.locator(".structure")).to_contain_text("22 features at 90 steps")
    expect(page.locator(".structure")).to_contain_text("32 edges into them")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_contain_text("Stopped")
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")
    page.get_by_role("button", name="Compute it").click()
    expect(page.locator(".structure")).to_have_count(0)
    expect(kept_edges(page).first).to_be_attached()
    page.wait_for_load_state("networkidle")
    page.get_by_role("navigation").get_by_role("link", name="Edge").click()
    expect(page.locator("h1")).to_have_text("Edge")
    page.go_back()
    expect(kept_edges(page).first).to_be_attached()
    page.get_by_role("navigation").get_by_role("link", name="Forecast").click()
    expect(page.locator(".stage g.edge").first).to_be_attached()
    json = {url: n for (url, accept), n in asked.items() if accept == "application/json" and "threshold" not in url}
    assert sorted(json.values()) == [1, 2]  # all of it, and what is kept, which was stopped once
    assert tab.problems == []


def test_a_phone_shows_every_name_in_eleven_pixels(large, open_tab):
    """Layers are columns inside the screen, and names of features differ without what all have in common."""
    tab = open_tab(large, **PHONE)
    page = tab.show("network?model=large&detail=units")
    assert page.evaluate(SMALLEST) >= 10.9
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    stage = page.locator(".stage").evaluate("(stage) => [stage.scrollWidth, stage.clientWidth]")
    assert stage[0] <= stage[1]
    names = page.locator("g.node.feature text").all_text_contents()
    assert len(set(names)) == 22 and not any("celsius" in name for name in names)
    first = page.locator("g.node.feature").first.get_attribute("aria-label") or ""
    assert first.startswith(NAME.format(0))
    output = page.locator("g.node.output")
    shown = output.locator("text").first.text_content() or ""
    assert "…" not in shown or shown in (output.get_attribute("aria-label") or "")  # which is also what is said
    assert tab.problems == []


def test_the_network_is_zoomed_by_meaning(large, open_tab):
    """Zooming out leads from curves to units and to layers, whose strongest nodes lead to their curves."""
    tab = open_tab(large)
    page = tab.show("network?model=large&fidelity=0.5")
    page.get_by_label("curves").check()
    expect(page.locator(".stage .box").first).to_be_attached()
    out = page.get_by_role("button", name="Zoom out")
    out.click()
    page.wait_for_url("**detail=units**")
    expect(page.locator(".stage .box")).to_have_count(0)
    expect(kept_edges(page).first).to_be_attached()
    out.click()
    page.wait_for_url("**detail=layers**")
    expect(page.locator(".layers > li")).to_have_count(4)
    answer = large.get("/v1/models/large/topology", params={"output": "a+1", "fidelity": 0.5, "pruned": False}).json()
    units = [node for node in answer["nodes"] if node["kind"] == "lstm" and node["kept"]]
    expect(page.locator(".layers > li").nth(1)).to_contain_text(f"{len(units)} of 8 units kept")
    strongest = max(units, key=lambda unit: unit["contribution"])
    page.get_by_role("link", name=strongest["label"], exact=True).click()
    expect(page.locator(".paths")).to_contain_text("takes part in")
    expect(page.locator(".stage .box").first).to_be_attached()
    assert tab.problems == []


def test_weak_outputs_have_visible_edges(large, open_tab):
    """Of several outputs, whose scores are small, the strongest edge of each layer is opaque and none is invisible."""
    page = open_tab(large).show("network?model=large&output=c%2B1&fidelity=0.5&detail=curves")
    found = page.locator("g.edge[data-kind=edge]").evaluate_all(
        "(all) => all.map((edge) => [edge.dataset.layer, Number(edge.querySelector('.link').getAttribute('opacity'))])"
    )
    for layer in {layer for layer, _ in found}:
        opacities = [opacity for of, opacity in found if of == layer]
        assert max(opacities) == 1 and min(opacities) >= 0.25


def test_a_large_heat_map_has_the_first_features_and_zooms_into_time(large, open_tab):
    """Rows are the fifteen largest features and the others; cells sum up stretches, until dragged over."""
    tab = open_tab(large)
    page = tab.show("forecast?model=large&window=ref:0")
    answer = large.get("/v1/models/large/reference/0").json()["instance"]
    explained = large.post("/v1/models/large:explain", json={"instances": [answer], "output": "a+1", "detail": "flow"})
    steps = explained.json()["explanations"][0]["steps"]
    rects = page.locator(".cells rect")
    expect(page.locator(".cells")).to_contain_text("7 others")
    rows = len(set(rects.evaluate_all("(all) => all.map((rect) => rect.getAttribute('y'))")))
    assert rows == 16
    stretches = rects.count() // rows
    assert 90 / stretches >= 2
    rects.nth(rects.count() - 1).hover()  # the others, over the last steps
    expect(page.locator("#hint")).to_contain_text("7 others")
    largest = sorted(range(22), key=lambda index: -sum(abs(row[index]) for row in steps))[:15]
    size = -(-90 // stretches)
    rest = sum(value for row in steps[-size:] for index, value in enumerate(row) if index not in largest)
    expect(page.locator("#hint")).to_contain_text(f"added {rest:+.3g}".replace("-", "−"))

    def drag():
        ends = [rects.nth(rects.count() - back * rows).bounding_box() for back in (4, 1)]
        page.mouse.move(ends[0]["x"] + 2, ends[0]["y"] + 2)
        page.mouse.down()
        page.mouse.move(ends[1]["x"] + 2, ends[1]["y"] + 2, steps=3)
        page.mouse.up()
        page.wait_for_timeout(100)
        return rects.count() == rows * 4 * size

    assert any(drag() for _ in range(5))  # the map may move in between, as what is above it is drawn
    page.get_by_role("button", name="All steps").click()
    expect(rects).to_have_count(rows * stretches)
    page.locator(".cells").press("+")
    expect(page.locator("figure", has=page.locator(".cells"))).to_contain_text("45 of 90 steps")
    page = tab.show("forecast?model=single")
    expect(page.locator(".cells")).to_have_count(0)
    assert tab.problems == []


@pytest.mark.parametrize(("name", "level"), [("deep", "units"), ("deepest", "layers"), ("wide", "layers")])
def test_a_network_fits_on_a_phone(large, open_tab, name, level):
    """What would be wider than the screen, or many screens long, is drawn as units, or else as layers, unless asked."""
    tab = open_tab(large, **PHONE)
    page = tab.show(f"network?model={name}&fidelity=1")
    expect(page.get_by_role("radio", name=level)).to_be_checked()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    drawn = page.locator(".layers" if level == "layers" else ".stage svg")
    box = drawn.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and (level == "layers" or box["height"] < 1600)
    page.get_by_role("radio", name="units").check()
    expect(page.locator(".stage svg")).to_be_visible()
    assert tab.problems == []
