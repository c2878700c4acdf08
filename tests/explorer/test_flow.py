"""The picture of what flows through a network: its numbers are those of :explain, and only values move in it."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from xml.etree import ElementTree

import pytest
from playwright.sync_api import expect
from thorough import few_of

MODEL = "/v1/models/nyc-weather"
SVG = "svg.picture"
# What is drawn: of each strand the width of its ribbons at both ends, and the values of nodes and cards.
DRAWN = """(svg) => {
  const numbers = (text) => text.match(/-?[\\d.]+/g).map(Number);
  const width = (path) => {
    const d = path.getAttribute("d");
    if (!d) return [0, 0];
    const values = numbers(d); // M, C with three points, L, C with three points
    const across = (place) => values[place - Boolean(svg.closest(".down-flow"))];
    return [across(15) - across(1), across(9) - across(7)];
  };
  return {
    scale: Number(svg.dataset.scale),
    strands: [...svg.querySelectorAll("g.strand")].map((strand) => ({
      from: strand.dataset.from, to: strand.dataset.to, up: width(strand.children[0]), down: width(strand.children[1]),
    })),
    nodes: Object.fromEntries(
      [...svg.querySelectorAll("g.place")].map(({ dataset: { node, value } }) => [node, Number(value)]),
    ),
    places: [...svg.querySelectorAll("g.edge")].map((card) => card.getAttribute("transform")),
  };
}"""
# Labels that cover a card, one another, or leave the picture; and how many labels there are.
COVERED = """(svg) => {
  const boxes = (selector) => [...svg.querySelectorAll(selector)].filter((one) => one.getBoundingClientRect().width)
    .map((one) => ({ ...one.getBoundingClientRect().toJSON(), of: one.closest("g"), text: one.textContent }));
  const [labels, cards, all] = [boxes("g.place > text"), boxes(".card-ground"), svg.getBoundingClientRect()];
  const meet = (a, b) =>
    Math.min(a.right - b.left, b.right - a.left) > 2 && Math.min(a.bottom - b.top, b.bottom - a.top) > 4;
  const found = labels.filter((label, index) =>
    cards.some((card) => meet(label, card)) || label.left < all.left - 1 || label.right > all.right + 1 ||
    labels.slice(index + 1).some((other) => other.of !== label.of && meet(label, other)));
  return { count: labels.length, covered: found.map(({ text }) => text) };
}"""
MODULE = "(name) => import(new URL(name, document.querySelector('script[type=module]').src).href)"


def show(tab, address):
    page = tab.show(address)
    page.locator(f"{SVG} .curve").first.wait_for(state="attached")
    page.locator(f"{SVG} .forecast-value", has_text=re.compile(r"\d")).wait_for()
    return page


def drawn(page):
    return page.locator(SVG).evaluate(DRAWN)


def explain(server, model="nyc-weather", window=0, output=None):
    """The ledger of a reference window, with what each unit gets from each feature."""
    instance = server.get(f"/v1/models/{model}/reference/{window}").json()["instance"]
    body = {"instances": [instance], "detail": "links", **({"output": [output]} if output else {})}
    return server.post(f"/v1/models/{model}:explain", json=body).json()["explanations"][0]


def by_key(explanation):
    """Contributions of all functions, by the key of the edge."""
    return {
        f"{layer['stage']}/{layer['layer']}/{edge['i']}/{edge['j']}": edge["contribution"]
        for layer in explanation["layers"]
        for edge in layer.get("edges", [])
    }


@pytest.mark.parametrize("width", [1280, 1600])
def test_the_numbers_of_the_picture_are_those_of_explain(server, open_tab, width):
    """Ribbons are as wide as contributions, at every node what enters is what leaves, and all sums to the forecast."""
    tab = open_tab(server, viewport={"width": width, "height": 900})
    page = show(tab, "forecast?model=nyc-weather&window=ref:0")
    found, ledger = drawn(page), explain(server)
    edges, scale = by_key(ledger), drawn(page)["scale"]
    close = {"abs": 0.02 / scale}  # ribbons are drawn to hundredths of a pixel
    cards = page.locator(f"{SVG} g.edge[data-edge]")
    keys = cards.evaluate_all("(cards) => cards.map((card) => card.dataset.edge)")
    assert len(keys) > 5
    for strand in found["strands"]:
        for key in {strand["from"], strand["to"]} & set(keys):
            up, down = (strand[sign][end] / scale for sign in ("up", "down") for end in (0,))
            assert up - down == pytest.approx(edges[key], **close), key
        for sign in ("up", "down"):
            assert strand[sign][0] == pytest.approx(strand[sign][1], abs=0.02)
    entering, leaving = defaultdict(float), defaultdict(float)
    for strand in found["strands"]:
        net = (strand["up"][0] - strand["down"][0]) / scale
        entering[strand["to"]] += net
        leaving[strand["from"]] += net
    for node, value in found["nodes"].items():
        loose = {"abs": 0.2 / scale}  # the hairlines that are too thin to draw
        if node.startswith("input:") or node == "more:0":
            assert leaving[node] == pytest.approx(value, **loose), node
        elif node.startswith("output:"):
            assert entering[node] == pytest.approx(value, **loose)
        else:
            assert entering[node] == pytest.approx(value, **loose), node
            assert leaving[node] == pytest.approx(value, **loose), node
    change = ledger["prediction"] - ledger["baseline_prediction"]
    assert found["nodes"]["output:dtemp_6h+1"] == pytest.approx(change, abs=2 * ledger["tolerance"])
    said = page.locator(f"{SVG} .forecast-value").text_content()
    assert float(re.search(r"[−\d.]+", said)[0].replace("−", "-")) == pytest.approx(ledger["prediction"], abs=0.051)
    inputs = {node: value for node, value in found["nodes"].items() if node.startswith("input:") or node == "more:0"}
    assert sum(inputs.values()) == pytest.approx(change, abs=2 * ledger["tolerance"])
    assert tab.problems == []


def test_beads_are_where_the_window_is_on_each_curve(server, open_tab):
    """Across at the node's value, within the reference range; and the amount beside it is what the edge adds."""
    page = show(open_tab(server), "forecast?model=nyc-weather&window=ref:3")
    ledger = explain(server, window=3)
    values = {
        layer["layer"]: layer["values"] for layer in ledger["layers"] if layer["stage"] == "head" and "values" in layer
    }
    seen = 0
    for card in page.locator(f"{SVG} g.edge[data-edge]").all():
        _, layer, i, j = card.get_attribute("data-edge").split("/")
        curve = server.get(f"{MODEL}/edges/{layer}/{i}/{j}", params={"range": "reference"}).json()
        (low, high), width = (curve["x"][0], curve["x"][-1]), float(card.locator(".card-ground").get_attribute("width"))
        share = (min(max(values[int(layer)][int(i)], low), high) - low) / (high - low)
        assert float(card.locator(".bead").get_attribute("cx")) == pytest.approx(6 + share * (width - 12), abs=0.1)
        seen += 1
    assert seen > 5


def test_what_is_dragged_moves_at_once_and_is_exact_where_it_was_asked(server, open_tab):
    """Each frame takes a fraction of 16 ms on the bundled model; on release the exact answer takes its place."""
    tab = open_tab(server)
    page = show(tab, "forecast?model=nyc-weather&window=ref:0")
    found = page.evaluate(
        f"""async () => {{
      const load = {MODULE};
      const names = ["draft.js", "model.js", "flow/picture.js", "inputs.js"];
      const [draft, {{ Model }}, {{ painted }}, {{ valueOf, change }}] = await Promise.all(names.map(load));
      const get = async (path) => (await fetch(`/v1/models/nyc-weather${{path}}`)).json();
      const model = new Model(await get(""), "nyc-weather");
      const {{ instance }} = await get("/reference/0");
      const input = model.inputs.find(({{ features }}) => features[0] === "temp_c");
      const from = valueOf(input, instance.at(-1));
      draft.begin(model, instance, input.name);
      draft.draft.value = {{ input: input.name, value: from }};
      const pending = draft.isPending.value;
      while (!draft.preview.value) await new Promise((done) => setTimeout(done, 20));
      const at = () => [...document.querySelectorAll("svg.picture .bead")].map((bead) => bead.getAttribute("cx"));
      const before = at();
      const frames = [];
      for (let step = 0; step <= 100; step += 1) {{
        draft.draft.value = {{ input: input.name, value: from + 0.08 * step }};
        frames.push(painted.value);
        await new Promise(requestAnimationFrame);
      }}
      const moved = at().filter((cx, index) => cx !== before[index]).length;
      const [low] = [model.info.features[input.places[0]].min];
      draft.draft.value = {{ input: input.name, value: low }};
      const preview = draft.preview.value;
      const asked = change(instance, model.inputs, {{ [input.name]: low - from }});
      draft.draft.value = undefined;
      return {{ pending, moved, frames, prediction: preview.prediction, contributions: preview.contributions, asked }};
    }}"""
    )
    assert found["pending"]
    assert found["moved"] > 5
    assert statistics.median(found["frames"]) < 16
    body = {"instances": [found["asked"]], "detail": "flow"}
    exact = server.post(f"{MODEL}:explain", json=body).json()["explanations"][0]
    assert found["prediction"] == pytest.approx(exact["prediction"], abs=1e-6)
    assert found["contributions"] == pytest.approx(exact["contributions"], abs=1e-6)
    assert tab.problems == []


@pytest.mark.parametrize("name", few_of(["nyc-weather", "front", "two"], ["nyc-weather"], "pictures of other shapes"))
def test_no_label_covers_a_card_or_another(server, open_tab, name):
    """From 1280 pixels on the bundled model flows from left to right, on a phone down, where nothing is negative."""
    tab = open_tab(server)
    page = show(tab, f"forecast?model={name}")
    for width in (1280, 1920, 820, 390, 150):
        page.set_viewport_size({"width": width, "height": 900})
        is_down = re.compile("down-flow")
        if name == "nyc-weather" and width in (1280, 390):
            flow = expect(page.locator(".flow"))
            flow.to_have_class(is_down) if width == 390 else flow.not_to_have_class(is_down)
        found = page.locator(SVG).evaluate(COVERED)
        assert found["count"] > 10
        if width > 150:
            assert found["covered"] == [], width
    page.emulate_media(media="print")
    assert tab.problems == []


def test_the_network_is_sketched_before_it_is_measured(server, open_tab):
    """Its inputs with what they add, its units and nodes, and the forecast are there before the topology is."""
    tab = open_tab(server)
    held = []
    tab.page.route("**/topology*", lambda route: held.append(route))
    page = tab.show("forecast?model=nyc-weather&window=ref:0")
    ledger = explain(server)
    hour = ledger["contributions"]["hour_sin"] + ledger["contributions"]["hour_cos"]
    node = page.locator(f'{SVG} [data-node="input:hour"]')
    expect(node.locator(".amount")).to_have_text(f"{hour:+.1f}".replace("-", "−"))
    expect(page.locator(f"{SVG} g.place.lstm")).to_have_count(12)
    expect(page.locator(f"{SVG} g.place.head")).to_have_count(5)
    expect(page.locator(f"{SVG} .forecast-value")).to_contain_text("K")
    for route in held:
        route.continue_()
    page.locator(f"{SVG} .curve").first.wait_for(state="attached")
    expect(page.get_by_text("Computing what flows")).to_have_count(0)
    assert tab.problems == []


def test_places_follow_from_the_model_alone(server, open_tab):
    """Another window moves no card and no node, and a narrower picture of the same is no wider than its screen."""
    tab = open_tab(server)
    page = show(tab, "forecast?model=nyc-weather&window=ref:0")
    first = drawn(page)
    second = drawn(show(tab, "forecast?model=nyc-weather&window=ref:200"))
    assert first["places"] == second["places"]
    assert list(first["nodes"]) == list(second["nodes"])
    assert first["nodes"] != second["nodes"]
    phone = show(open_tab(server, viewport={"width": 390, "height": 844}), "forecast?model=nyc-weather&window=ref:0")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    inside = phone.locator(SVG).bounding_box()
    cards = [card.bounding_box() for card in phone.locator(f"{SVG} .card-ground").all()]
    assert all(
        box["x"] >= inside["x"] - 1 and box["x"] + box["width"] <= inside["x"] + inside["width"] + 1 for box in cards
    )


def test_an_edge_opens_in_the_picture(server, open_tab):
    """Enter opens it with its line and formulas, the address restores it, and Escape returns to its card."""
    tab = open_tab(server)
    page = show(tab, "forecast?model=nyc-weather&window=ref:0")
    card = page.locator(f"{SVG} g.edge[data-edge]").first
    key = card.get_attribute("data-edge")
    card.focus()
    page.keyboard.press("Enter")
    panel = page.locator(".edge-panel")
    _, layer, i, j = key.split("/")
    edge = server.get(f"{MODEL}/edges/{layer}/{i}/{j}", params={"formulas": True, "range": "reference"}).json()
    expect(panel.locator("table tbody tr")).to_have_count(len(edge["formulas"]))
    expect(panel).to_contain_text(f"R² {edge['line']['r2']:.3f}")
    expect(panel.get_by_role("heading")).to_be_focused()
    again = show(open_tab(server), page.url.split("#/")[1])
    expect(again.locator(".edge-panel h2")).to_have_text(panel.locator("h2").inner_text())
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    expect(card).to_be_focused()
    assert tab.problems == []


def test_arrows_walk_along_the_flow_and_light_its_paths(server, open_tab):
    """From a card to the node that it enters and back; what has the focus lights its way up and down, others fade."""
    tab = open_tab(server)
    page = show(tab, "forecast?model=nyc-weather&window=ref:0")
    card = page.locator(f'{SVG} g.edge[data-edge^="head/0"]').first
    j = card.get_attribute("data-edge").split("/")[3]
    card.focus()
    page.keyboard.press("ArrowRight")
    node = page.locator(f'{SVG} [data-node="head:1:{j}"]')
    expect(node).to_be_focused()
    expect(node).to_have_class(re.compile("lit"))
    expect(page.locator(f"{SVG} g.output")).to_have_class(re.compile("lit"))
    lit = page.locator(f"{SVG} g.edge.lit[data-edge]").evaluate_all("(cards) => cards.map((card) => card.dataset.edge)")
    assert {key for key in lit if key.startswith("head/0")} == {
        key for key in lit if key.startswith("head/0") and key.endswith(f"/{j}")
    }
    page.keyboard.press("ArrowLeft")
    expect(page.locator(f"{SVG} g.edge:focus")).to_have_count(1)
    page.locator(f"{SVG} g.place.input").first.hover()
    expect(page.locator(SVG)).to_have_class(re.compile("has-lit"))
    assert tab.problems == []


def test_zooming_shows_more_and_wheels_scroll_the_page(server, open_tab):
    """From names to curves to axes and formulas; the wheel alone does not; one y-scale per layer, or each its own."""
    tab = open_tab(server)
    page = show(tab, "forecast?model=nyc-weather&window=ref:0")
    svg = page.locator(SVG)
    expect(svg).to_have_attribute("data-zoom", "curve")
    svg.hover()
    page.mouse.wheel(0, 120)
    expect(svg).to_have_attribute("data-zoom", "curve")
    expect(page.locator(f"{SVG} .axes").first).to_be_hidden()
    for _ in range(3):
        page.get_by_role("button", name="Zoom in").click()
    expect(svg).to_have_attribute("data-zoom", "near")
    formula = page.locator(f"{SVG} .near-formula").first
    expect(formula).to_be_visible()
    _, layer, i, j = formula.locator("xpath=ancestor::*[@data-edge]").get_attribute("data-edge").split("/")
    edge = server.get(f"{MODEL}/edges/{layer}/{i}/{j}", params={"formulas": True, "range": "reference"}).json()
    best = edge["formulas"][0]
    assert formula.text_content().endswith(f", R² {best['r2']:.2f}")
    first = re.match(r"-?[\d.]+", best["expression"])
    assert not first or formula.text_content().startswith(first[0][:5])
    page.get_by_role("button", name="Fit into the view").click()
    expect(svg).to_have_attribute("data-zoom", "curve")
    expect(page.locator(f"{SVG} .near-formula")).to_have_count(0)
    for _ in range(2):
        page.get_by_role("button", name="Zoom out").click()
    expect(svg).to_have_attribute("data-zoom", "far")
    expect(page.locator(f"{SVG} .curve").first).to_be_hidden()
    expect(page.locator(f"{SVG} .place.input .name").first).to_be_visible()
    page.get_by_role("button", name="Fit into the view").click()
    spans = """(curves) => curves.map((curve) => curve.getBBox().height)"""
    layer = page.locator(f'{SVG} g.edge[data-edge^="head/0"] .curve')
    common = layer.evaluate_all(spans)
    keys = page.locator(f'{SVG} g.edge[data-edge^="head/0"]').evaluate_all(
        "(cards) => cards.map((card) => card.dataset.edge)"
    )
    edges = server.get(f"{MODEL}/edges", params={"range": "reference", "fidelity": 1}).json()["edges"]
    true = {f"head/{edge['layer']}/{edge['i']}/{edge['j']}": max(edge["y"]) - min(edge["y"]) for edge in edges}
    assert [height / max(common) for height in common] == pytest.approx(
        [true[key] / max(true[k] for k in keys) for key in keys], abs=0.05
    )
    page.get_by_role("button", name="Each its own").click()
    expect(page.locator(".flow-legend")).to_contain_text("can't be compared")
    assert min(layer.evaluate_all(spans)) > 0.9 * max(common)
    assert tab.problems == []


@pytest.mark.parametrize("width", [390, 1280])
def test_long_names_are_cut_so_that_they_differ(shapes, open_tab, width):
    """Of 61 inputs whose names begin and end alike, in the picture and in what it reads."""
    page = show(open_tab(shapes, viewport={"width": width, "height": 900}), "forecast?model=long&window=ref:0")
    for names in (".place.input .name", ".dial button.name"):
        texts = page.locator(names).all_text_contents()
        assert len(texts) > 2
        assert len(set(texts)) == len(texts), names


def test_a_forecast_prints_on_one_page(server, open_tab):
    """A4, with its sentence, picture, and what was read and follows; nothing is cut off at the side."""
    page = show(open_tab(server), "forecast?model=nyc-weather&window=ref:0")
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", page.pdf(format="A4"))) == 1
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 711, "height": 1040})
    assert page.evaluate("document.documentElement.scrollWidth") <= 711
    for part in (".sentence", SVG, ".dials", ".outlook"):
        expect(page.locator(part)).to_be_visible()


@pytest.mark.parametrize("kind", ["picture", "slide", "a4"])
def test_the_picture_is_a_file_that_needs_nothing_else(server, open_tab, kind):
    """Its colours are literal, and a slide and a page name the model, its checkpoint and the day."""
    tab = open_tab(server, color_scheme="dark")
    page = show(tab, "forecast?model=nyc-weather&window=ref:0")
    text = page.evaluate(f"async (kind) => (await ({MODULE})('flow/export.js')).writePicture(kind)", kind)
    root = ElementTree.fromstring(text)
    assert not re.search(r"var\(|class=|style=|<script|<style|href=", text)
    assert len(root.findall(".//{*}path")) > 30
    if kind != "picture":
        width, height = (float(root.get(side)) for side in ("width", "height"))
        assert width / height == pytest.approx(16 / 9 if kind == "slide" else 297 / 210, abs=0.01)
        checkpoint = server.get(MODEL).json()["checkpoint"]
        foot = "".join(root.itertext())
        assert "nyc-weather" in foot
        assert checkpoint[:19] in foot
        assert re.search(r"20\d\d-\d\d-\d\d", foot)
    with page.expect_download() as saved:
        page.evaluate(f"async (kind) => (await ({MODULE})('flow/export.js')).exportPng(kind)", kind)
    assert saved.value.path().read_bytes().startswith(b"\x89PNG")
    assert tab.problems == []


@pytest.mark.parametrize("name", ["deep", "graph", "long", "classifier"])
def test_every_shape_of_network_is_drawn(shapes, open_tab, name):
    """The forecast of each sums at the output, and what no ledger has says so."""
    tab = open_tab(shapes)
    page = show(tab, f"forecast?model={name}&window=ref:0")
    output = shapes.get(f"/v1/models/{name}").json()["outputs"][0]
    ledger = explain(shapes, name, 0, output)
    found = drawn(page)
    assert found["nodes"][f"output:{output}"] == pytest.approx(
        ledger["prediction"] - ledger["baseline_prediction"], abs=2 * ledger["tolerance"]
    )
    entering = sum(
        strand["up"][0] - strand["down"][0] for strand in found["strands"] if strand["to"].startswith("output:")
    )
    assert entering / found["scale"] == pytest.approx(found["nodes"][f"output:{output}"], abs=0.3 / found["scale"])
    expect(page.get_by_text("Thin grey links")).to_have_count(1 if name == "graph" else 0)
    assert len(found["places"]) <= 60
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert tab.problems == []
