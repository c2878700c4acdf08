"""Pictures and charts of the explorer fit the screen, and can be saved, printed, and used by touch and keyboard."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from factories import make_model
from PIL import Image
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint
from kanmodel.network.network import Network

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

MODEL = "/v1/models/nyc-weather"
NAME = "a_sensor_with_a_very_long_name_that_goes_on_and_on_for_ever_{}"
DARK = {"color_scheme": "dark"}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def saved(page, button):
    with page.expect_download() as download:
        button.click()
    return Path(download.value.path()).read_bytes()


@pytest.mark.skipif(
    shutil.which("rsvg-convert") is None, reason="rsvg-convert is missing: apt-get install librsvg2-bin"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_saved_as_they_look(server, open_tab, scheme):
    """Waterfall, heat map, flow and table have their colours in librsvg, and as PNG."""
    tab = open_tab(server, color_scheme=scheme)
    page = tab.show("forecast?model=nyc-weather")
    names = ["From the baseline to the forecast", "Feature by step", "Through the network"]
    files = {
        name: [saved(page, page.get_by_role("button", name=f"{name} as {kind}")) for kind in ("SVG", "PNG")]
        for name in names
    }
    page = tab.show("features?model=nyc-weather")
    files["features"] = [saved(page, page.get_by_role("button", name=kind, exact=True)) for kind in ("SVG", "PNG")]
    for name, (text, png) in files.items():
        done = subprocess.run(["rsvg-convert", "--format", "png"], input=text, capture_output=True, check=True)
        if name != "features":  # its SVG follows the colour scheme of the reader
            assert b"var(" not in text and b"<style" not in text and b"oklab" not in text
        for file in (done.stdout, png) if name != "features" else (png,):
            with Image.open(io.BytesIO(file)) as image:
                pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
            colorful = (np.ptp(pixels, axis=1) > 60).mean()
            assert colorful > 0.002, name
            paper = np.median(pixels, axis=0)
            assert (paper > 200).all() if scheme == "light" else (paper < 70).all(), name
    assert tab.problems == []


@pytest.mark.thorough("three sizes of screen")
@pytest.mark.parametrize("width", [390, 1440, 2560])
def test_a_network_fits_its_place_and_uses_it(server, open_tab, width):
    """The whole network is visible at first at any screen width; it can be zoomed, moved and fitted again."""
    page = open_tab(server, viewport={"width": width, "height": 1000}).show(
        "network?model=nyc-weather&fidelity=1&detail=curves"
    )
    picture, stage = page.locator(".stage svg"), page.locator(".stage")

    def box(locator):
        found = locator.bounding_box()
        return np.array([found["x"], found["y"], found["x"] + found["width"], found["y"] + found["height"]])

    inside = page.evaluate("""() => {
      const stage = document.querySelector(".stage").getBoundingClientRect();
      const parts = [...document.querySelectorAll(".stage g.node, .stage g.edge")];
      const boxes = parts.map((part) => part.getBoundingClientRect());
      return boxes.every((b) => b.left >= stage.left - 1 && b.right <= stage.right + 1
        && b.top >= stage.top - 1 && b.bottom <= stage.bottom + 1);
    }""")
    assert inside
    assert box(stage)[2] - box(stage)[0] > (0.9 if width < 1000 else 0.7) * width
    fitted = box(picture)
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator(".stage svg")).to_have_attribute("style", re.compile(r"scale\(1\.5\)"))
    near = box(picture)
    assert near[2] - near[0] == pytest.approx(1.5 * (fitted[2] - fitted[0]), rel=0.01)
    page.mouse.move(*(box(stage)[:2] + 60))
    page.mouse.down()
    page.mouse.move(*(box(stage)[:2] + 100), steps=3)
    page.mouse.up()
    assert (box(picture)[:2] > near[:2] + 20).all()
    page.get_by_role("button", name="Fit into the view").click()
    expect(page.locator(".stage svg")).to_have_attribute("style", re.compile(r"scale\(1\)"))
    assert box(picture) == pytest.approx(fitted, abs=1)


def test_parts_of_other_outputs_do_not_count_as_pruned(server, open_tab):
    """Counts, lists and pictures refer to the shown output, and no other output is drawn."""
    page = open_tab(server).show("network?model=two&output=b%2B1&fidelity=1")
    graph = server.get("/v1/models/two/topology", params={"output": "b+1", "fidelity": 1}).json()["graph"]
    listed = server.get("/v1/models/two/topology", params={"output": "b+1", "pruned": False}).json()
    assert "output:a+1" not in {node["id"] for node in listed["nodes"]}
    functions = [edge for edge in listed["edges"] if edge["kind"] == "edge"]
    assert {edge["target"] for edge in functions if edge["target"].startswith("output:")} == {"output:b+1"}
    assert graph["edges"]["total"] == len(functions)
    expect(page.locator('[data-figure="edges"]')).to_contain_text(f"of {graph['edges']['total']}")
    expect(page.locator(".stage")).not_to_contain_text("more output")
    expect(page.locator(".stage")).to_contain_text("1 of 1 kept")


def test_a_negative_r2_is_drawn_below_zero(server, open_tab):
    """The cost curve goes below 0 where R2 does, and clipped values are labelled."""
    page = open_tab(server).show("report?model=nyc-weather")
    heights = page.evaluate("""() => import("./charts.js").then(({ drawCost }) => {
      const curve = [1, 0.9, 0, -0.5, -40].map((r2, index) => ({ edges: 40 - 10 * index, r2 }));
      return [curve.slice(0, 4), curve].map((points) => {
        const chart = drawCost(points, 40, 1);
        const d = chart.querySelector("path[stroke='var(--ink)'], [stroke='var(--ink)'] path").getAttribute("d");
        return [d.match(/[\\d.]+,[\\d.]+/g).map((pair) => Number(pair.split(",")[1])), chart.textContent];
      });
    })""")
    (ys, text), (_, cut) = heights
    assert all(below > above + 1 for above, below in pairwise(ys))  # each lower than the one before
    assert "down to" not in text and "down to −40" in cut


@pytest.fixture(scope="module")
def long_names(serve, tmp_path_factory):
    """A model whose feature and target names have sixty characters."""
    model = make_model("lstm", targets=("t" * 60,))
    features = tuple(replace(feature, name=NAME.format(n)) for n, feature in enumerate(model.config.features))
    network = Network(replace(model.config, features=features))
    network.load_state_dict(model.network.state_dict())
    folder = tmp_path_factory.mktemp("long")
    save_checkpoint(replace(model, network=network), folder / "long.safetensors")
    with serve(folder) as client:
        yield client


def test_long_names_are_shortened(long_names, open_tab):
    """On a phone no view is wider than the screen; labels keep what differs of a name, hints have all."""
    tab = open_tab(long_names, **PHONE)
    for view in ("network", "edge", "forecast", "features", "report"):
        page = tab.show(view)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
        outside = page.evaluate("""() => [...document.querySelectorAll("main svg.plot text")]
          .filter((text) => text.getBoundingClientRect().right > innerWidth).map((text) => text.textContent)""")
        assert outside == [], view
    page = tab.show("forecast")
    labels = page.locator('svg[aria-label^="Contribution of each feature"] text').all_text_contents()
    shown = [text for text in labels if re.search(r"_\d$", text)]
    assert len(set(shown)) == len(shown) == 4
    assert {text[-1] for text in shown} == {"0", "1", "2", "3"}
    page.locator('svg[aria-label^="Contribution of each feature"] rect').first.tap()
    expect(page.locator("#hint")).to_contain_text(re.compile(NAME.format(r"\d")))


def test_a_cell_of_the_heat_map_is_read_by_touch(server, open_tab):
    """A tap shows the feature's contribution and value at that step, beside the cell."""
    page = open_tab(server, **PHONE).show("forecast?model=nyc-weather")
    cell = page.locator('svg[aria-label^="Contribution of each feature"] rect').nth(30)
    cell.tap()
    hint = page.locator("#hint")
    expect(hint).to_contain_text("added ")
    expect(hint).to_contain_text("was ")
    spot, said = cell.bounding_box(), hint.bounding_box()
    assert (
        said["y"] >= spot["y"] + spot["height"]
        or said["y"] + said["height"] <= spot["y"]
        or said["x"] >= spot["x"] + spot["width"]
        or said["x"] + said["width"] <= spot["x"]
    )


def test_a_hint_does_not_cover_its_part(server, open_tab):
    """Wherever a node or an edge is, its box stays visible."""
    page = open_tab(server).show("network?model=nyc-weather")
    for part in page.locator(".stage g.node rect, .stage g.edge .box").all():
        part.dispatch_event("pointerover")
        overlap = part.evaluate("""(part) => {
          const a = part.getBoundingClientRect(), b = document.querySelector("#hint").getBoundingClientRect();
          const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
          const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          return b.width > 0 && Math.max(0, width) * Math.max(0, height);
        }""")
        assert overlap == 0


@pytest.mark.thorough("views once more, on paper")
@pytest.mark.parametrize("view", ["forecast", "features", "network", "report"])
def test_paper_is_light_and_holds_all_columns(server, open_tab, view):
    """Printed from the dark theme, text is dark on white, and no region is wider than a page."""
    page = open_tab(server, **DARK).show(f"{view}?model=nyc-weather")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 minus usual margins
    page.emulate_media(media="print", color_scheme="dark")
    found = page.evaluate("""() => {
      const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 765;
      const text = [...document.querySelectorAll("main text, main td, main p")].filter((e) => e.checkVisibility());
      const dark = (e) => light(getComputedStyle(e)[e instanceof SVGElement ? "fill" : "color"]) < 0.55;
      const onSolid = (e) => e.closest(".solid, .on-solid") !== null;
      return [
        text.length, text.filter((e) => !dark(e) && !onSolid(e)).map((e) => e.textContent),
        [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
          .filter((e) => !(e instanceof SVGElement) && e.checkVisibility()).map((e) => e.className || e.tagName),
      ];
    }""")
    assert found[0] > 0
    assert found[1:] == [[], []]
