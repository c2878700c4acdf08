"""The explorer in a real browser agrees with the API."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from playwright.sync_api import Request, expect
from thorough import few_of

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "screenshots"
WINDOW = ROOT / "tests" / "examples" / "window.json"
AXE = Path(sys.prefix) / "clients" / "node_modules" / "axe-core" / "axe.min.js"  # `make test` sets it up
VIEWS = ["story", "network", "edge", "forecast", "time", "features", "formula", "compare", "model", "report"]
TITLES = {"story": re.compile(" will be "), "time": "Over time"}  # of views whose title is not their name
MODEL = "/v1/models/nyc-weather"
FURTHER = pytest.mark.thorough("the same of further views")
DESK = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}
DARK = {**DESK, "color_scheme": "dark"}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "has_touch": True}


def figure(page, name):
    return page.locator(f'[data-figure="{name}"] strong')


def kept_edges(page):
    return page.locator("g.edge[data-kind=edge][data-kept=true]")


def window_of(server):
    return json.loads(WINDOW.read_bytes())["instances"][0]


def explain(server, instance, **options):
    return server.post(f"{MODEL}:explain", json={"instances": [instance], **options}).json()["explanations"][0]


@pytest.mark.parametrize("look", few_of(["desk", "dark", "phone"], ("desk",), "every view once more"))
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_loads_without_an_error(server, open_tab, view, look):
    """No view logs an error; on a phone only scrolled regions are wider than the screen; axe finds no violation.

    axe checks names, roles, contrasts and landmarks for assistive technology.
    """
    if not AXE.exists():
        pytest.skip("axe-core is missing: make test installs it where there is npm")
    tab = open_tab(server, **{"desk": DESK, "dark": DARK, "phone": PHONE}[look])
    page = tab.show(f"{view}?model=nyc-weather")
    expect(page.locator("h1")).to_have_text(TITLES.get(view, view.capitalize()))
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{view}-{look}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert tab.problems == []
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run()")["violations"]
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in serious] == []


@pytest.mark.thorough("every view of two more models")
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("model", ["front", "head"])
def test_every_shape_of_model_shows(server, open_tab, model, view):
    """Models with a front, product nodes, several outputs or no LSTM load in every view."""
    tab = open_tab(server)
    page = tab.show(f"{view}?model={model}")
    expect(page.locator("h1")).to_have_text(TITLES.get(view, view.capitalize()))
    assert tab.problems == []


def test_without_an_address_the_story_of_the_first_model_shows(server, open_tab):
    """/explorer opens a forecast of the first model."""
    tab = open_tab(server)
    tab.page.goto(f"{tab.base}/explorer")
    expect(tab.page.locator("h1")).to_contain_text("will be")
    expect(tab.page.locator("#model")).to_have_value(server.get("/v1/models").json()["models"][0])


def test_the_first_view_waits_for_as_little_as_it_can(server, open_tab):
    """Modules and answers are asked for before what needs them is there, and at a second visit no file is sent."""
    tab, held = open_tab(server), {}
    page = tab.page
    for name in ("**/v1/models", "**/views/story.js"):
        page.route(name, lambda route: held.setdefault(route.request.url.rsplit("/", 1)[1], route))
    with page.expect_request("**/v1/models/nyc-weather"):
        page.goto(f"{tab.base}/explorer/#/story?model=nyc-weather", wait_until="commit")
    while len(held) < 2:
        page.wait_for_timeout(10)
    with page.expect_request("**/reference/511"), page.expect_request("**/reference?*"):
        held["models"].continue_()
    held["story.js"].continue_()
    expect(page.locator(".why li").first).to_be_visible()
    page.unroute_all()
    tab.show("story?model=nyc-weather")
    read = """() => performance.getEntriesByType("resource").map(({ name, initiatorType, transferSize }) =>
      ({ name: new URL(name).pathname, initiatorType, transferSize }))"""
    files = [one for one in page.evaluate(read) if "/explorer/" in one["name"]]
    late = [one["name"] for one in files if one["initiatorType"] == "script"]
    assert [name.rsplit("/", 1)[1] for name in late] == ["app.js"]  # others would be asked for by what imports them
    page.reload()
    page.locator("main[aria-busy=false]").wait_for()
    again = [one for one in page.evaluate(read) if "/explorer/" in one["name"]]
    assert len(again) == len(files) > 25
    assert sum(one["transferSize"] for one in again) == 0


def test_the_slider_prunes_as_the_api_does(server, open_tab):
    """Moving the slider changes the picture's edges and the figures to those of the API for the same rule."""
    page = open_tab(server).show("network?model=nyc-weather")
    before = kept_edges(page).count()
    expect(page.locator("#prune")).not_to_have_attribute("max", "19")  # stops without effect are removed
    page.locator("#prune").focus()
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    fidelity = page.locator("#prune").get_attribute("aria-valuetext").removeprefix("R² ≥ ")
    page.wait_for_url(re.compile(rf"fidelity={re.escape(fidelity)}(&|$)"))
    graph = server.get(f"{MODEL}/topology", params={"fidelity": fidelity}).json()["graph"]
    assert float(fidelity) < 0.99
    assert graph["edges"]["kept"] < before
    expect(kept_edges(page)).to_have_count(graph["edges"]["kept"])
    expect(figure(page, "edges")).to_have_text(str(graph["edges"]["kept"]))
    expect(figure(page, "R²")).to_have_text(f"{graph['fidelity']['r2']:.4f}")
    expect(figure(page, "MAE")).to_have_text(f"{graph['fidelity']['mae']:.3g} K")
    expect(page.locator("main tbody tr")).to_have_count(graph["edges"]["kept"])


def test_pruning_by_a_threshold_is_the_api_s(server, open_tab):
    """The other mode of the slider sends the threshold of edges."""
    page = open_tab(server).show("network?model=nyc-weather")
    page.get_by_label("threshold", exact=True).check()
    graph = server.get(f"{MODEL}/topology", params={"edge_threshold": 0.03}).json()["graph"]
    expect(kept_edges(page)).to_have_count(graph["edges"]["kept"])
    expect(figure(page, "R²")).to_have_text(f"{graph['fidelity']['r2']:.4f}")


def test_pruned_parts_can_be_shown(server, open_tab):
    """Pruned parts are counted when folded and drawn when shown."""
    page = open_tab(server).show("network?model=nyc-weather")
    total = server.get(f"{MODEL}/topology").json()["graph"]["edges"]["total"]
    expect(page.locator("g.folded").first).to_contain_text("more")
    page.get_by_label("shown").check()
    expect(page.locator("g.edge[data-kind=edge]")).to_have_count(total)


def test_hovering_over_an_edge_shows_its_figures(server, open_tab):
    """The hint has the edge's name, contribution with interval, and score from the API."""
    page = open_tab(server).show("network?model=nyc-weather")
    edges = server.get(f"{MODEL}/topology").json()["edges"]
    edge = next(edge for edge in edges if edge["source"] == "lstm:7" and edge["target"] == "head:1:3")
    page.locator('g.edge[data-source="lstm:7"][data-target="head:1:3"] .box').hover()
    hint = page.locator("#hint")
    expect(hint).to_contain_text("lstm 7 → head 1:3")
    expect(hint).to_contain_text(f"mean |contribution| {edge['contribution']:.3g} K")
    expect(hint).to_contain_text("95 % interval {:.3g} to {:.3g}".format(*edge["interval"]))
    expect(hint).to_contain_text(f"score {edge['scores']['backward']:.3g}")


def test_an_edge_opens_with_the_curve_of_the_api(server, open_tab):
    """A click opens the function, and its line passes through the values of the API."""
    tab = open_tab(server)
    page = tab.show("network?model=nyc-weather")
    page.locator('g.edge[data-source="lstm:7"][data-target="head:1:3"] .box').click()
    expect(page.locator("h1")).to_have_text("Edge")
    answer = server.get(f"{MODEL}/edges/0/7/3", params={"formulas": True}).json()
    drawn = page.locator(".kanscope polyline.main").get_attribute("points")
    x, y = np.array([point.split(",") for point in drawn.split()], dtype=float).T
    for pixels, values in ((x, answer["x"]), (y, answer["y"])):
        scale, offset = np.polyfit(values, pixels, 1)
        np.testing.assert_allclose(np.polyval([scale, offset], values), pixels, atol=0.02)
    expect(page.locator(".kanscope .bin")).to_have_count(len(answer["support"]["histogram"]["counts"]))
    assert page.locator("code").all_inner_texts() == [formula["expression"] for formula in answer["formulas"]]
    assert tab.problems == []


def test_the_bars_of_a_waterfall_lead_from_the_baseline_to_the_forecast(server, open_tab):
    """Each bar starts where the previous one ends, and the last ends at the API's forecast."""
    page = open_tab(server).show("forecast?model=nyc-weather&window=ref:100&bars=features")
    window = server.get(f"{MODEL}/reference/100").json()["instance"]
    answer = explain(server, window)
    expect(figure(page, "forecast")).to_have_text(f"{answer['prediction']:.2f} K")
    bars = page.locator("figure rect[aria-label*=', to ']").evaluate_all(
        "bars => bars.map(bar => [bar.x.baseVal.value, bar.width.baseVal.value, bar.ariaLabel])"
    )
    assert len(bars) == 15
    first, last = page.locator("figure line[stroke-dasharray], figure g[stroke-dasharray] line").evaluate_all(
        "lines => lines.slice(0, 2).map(line => line.x1.baseVal.value)"
    )
    at = first
    for left, width, label in bars:
        up = ": −" not in label
        begin, end = (left, left + width) if up else (left + width, left)
        assert begin == pytest.approx(at, abs=1.1), label  # bars overlap by half a pixel on each side
        at = end
    assert at == pytest.approx(last, abs=1.1)
    pixels_a_kelvin = (last - first) / (answer["prediction"] - answer["baseline_prediction"])
    hour_sin = next(width for _, width, label in bars if label.startswith("hour_sin:"))
    assert hour_sin == pytest.approx(abs(answer["contributions"]["hour_sin"]) * pixels_a_kelvin, abs=1.1)


def test_the_heat_map_and_the_flow_are_those_of_the_forecast(server, open_tab):
    """The map has a cell per feature and step, and at every node incoming and outgoing contributions are equal."""
    page = open_tab(server).show("forecast?model=nyc-weather&window=ref:7")
    answer = explain(server, server.get(f"{MODEL}/reference/7").json()["instance"], detail="flow")
    expect(page.locator('svg[aria-label^="Contribution of each feature"] rect')).to_have_count(24 * 20)
    page.locator("summary", has_text="at each node").click()
    rows = {
        row.get_attribute("data-node"): [
            float(text.replace("−", "-").split()[0]) for text in row.locator("td").all_inner_texts()
        ]
        for row in page.locator("tr[data-node]").all()
    }
    (lstm,) = (layer["nodes"] for layer in answer["layers"] if layer["stage"] == "lstm")
    assert set(rows) == {
        *(f"lstm:{u}" for u in range(12)),
        *(f"head:1:{j}" for j in range(5)),
        "output:dtemp_6h+1",
    }
    for unit, value in enumerate(lstm):
        assert rows[f"lstm:{unit}"][0] == pytest.approx(value, rel=6e-3)
    for came_in, went_out, _ in rows.values():
        assert came_in == pytest.approx(went_out, rel=0.01, abs=2 * answer["tolerance"])


def test_a_pasted_window_is_explained(server, open_tab):
    """JSON in the form of :predict is accepted, and its address restores it in another browser."""
    tab = open_tab(server)
    page = tab.show("forecast?model=nyc-weather")
    page.get_by_label("your own").check()
    page.locator("#window").fill(WINDOW.read_text())
    page.get_by_role("button", name="Explain it").click()
    answer = explain(server, window_of(server))
    expect(figure(page, "forecast")).to_have_text(f"{answer['prediction']:.2f} K")
    expect(page.locator(".summary")).to_contain_text("your own window")
    other = open_tab(server).page
    other.goto(page.url)
    expect(figure(other, "forecast")).to_have_text(f"{answer['prediction']:.2f} K")
    assert tab.problems == []


@pytest.mark.parametrize("way", few_of(["choose", "drop"], ["drop"], "opens the same file"))
def test_a_csv_file_is_explained(server, open_tab, tmp_path, way):
    """The header names the features, in any order and among other columns; the last rows are the window."""
    page = open_tab(server).show("forecast?model=nyc-weather")
    names = [feature["name"] for feature in server.get(MODEL).json()["features"]]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["note", *reversed(names)])
        table.writerows([["t", *reversed(row)] for row in [[0.0] * 20, *window_of(server)]])
    page.get_by_label("your own").check()
    if way == "choose":
        page.locator("#file").set_input_files(tmp_path / "rows.csv")
    else:
        transfer = page.evaluate_handle(
            """text => {
              const transfer = new DataTransfer();
              transfer.items.add(new File([text], "rows.csv", { type: "text/csv" }));
              return transfer;
            }""",
            (tmp_path / "rows.csv").read_text(),
        )
        page.locator("#window").dispatch_event("drop", {"dataTransfer": transfer})
    expect(figure(page, "forecast")).to_have_text(f"{explain(server, window_of(server))['prediction']:.2f} K")


def test_an_invalid_window_has_its_reason(server, open_tab):
    """Each invalid text is refused with its own reason, and the view stays."""
    page = open_tab(server).show("forecast?model=nyc-weather")
    page.get_by_label("your own").check()
    for text, problem in (
        ("", "there is nothing to read"),
        ("[[1, 2]]", "a window has 24 rows"),
        ("[" + ",".join(["[1]"] * 24) + "]", "row 1 must have 20 values"),
        ("temp_c\n1", "the column dewp_c is missing"),
        ("{", "JSON"),
    ):
        page.locator("#window").fill(text)
        page.get_by_role("button", name="Explain it").click()
        expect(page.locator(".wrong")).to_contain_text(problem)
        expect(page.locator("h1")).to_have_text("Forecast")


def test_the_features_can_be_sorted(server, open_tab):
    """A click on a header sorts by its column, a second one in reverse, and the address keeps it."""
    page = open_tab(server).show("features?model=nyc-weather")
    features = server.get(f"{MODEL}/attributions").json()["features"]

    def names():
        return page.locator("tr[data-feature]:not([data-group])").evaluate_all(
            "rows => rows.map(row => row.dataset.feature)"
        )

    assert names() == [feature["name"] for feature in features]
    by_error = sorted(features, key=lambda feature: -feature["permutation_mae_increase"])
    page.get_by_role("button", name="Error when shuffled").click()
    expect(page.locator("[aria-sort=descending]")).to_contain_text("Error when shuffled")
    assert names() == [feature["name"] for feature in by_error]
    page.get_by_role("button", name="Error when shuffled").click()
    expect(page.locator("[aria-sort=ascending]")).to_contain_text("Error when shuffled")
    assert names() == [feature["name"] for feature in reversed(by_error)]
    page.reload()
    expect(page.locator("[aria-sort=ascending]")).to_contain_text("Error when shuffled")


def test_a_phone_has_all_of_each_feature(server, open_tab):
    """Each feature is a card with all of its columns, nothing is beside the screen, and its name leads to its paths."""
    tab = open_tab(server, **PHONE)
    page = tab.show("features?model=head")
    features = server.get("/v1/models/head/attributions").json()["features"]
    cards = page.get_by_role("region", name="Features").locator("[data-feature]")
    assert cards.count() == len(features)
    for card, feature in zip(cards.all(), features, strict=True):
        text = card.inner_text()
        assert feature["verdict"] in text and f"{100 * feature['share']:.1f} %" in text
        labels = card.locator("td:visible").evaluate_all("cells => cells.map((cell) => cell.dataset.label)")
        assert {"Mean |contribution|", "Mean, signed", "Error when shuffled", "Group"} <= {*labels}
        right = card.locator("*").evaluate_all("all => Math.max(...all.map((e) => e.getBoundingClientRect().right))")
        assert right <= 390
    assert page.locator(".lead").inner_text().startswith(f"{features[0]['name']} moves the forecast most")
    page.get_by_label("Sorted by").select_option("Mean, signed")
    expect(cards.first).to_have_attribute("data-feature", max(features, key=lambda f: f["mean_contribution"])["name"])
    cards.first.get_by_role("link").tap()
    expect(page.locator("h1")).to_have_text("Network")
    assert "through=feature:" in page.url and tab.problems == []


@pytest.mark.thorough("every view once more")
def test_each_finding_of_the_report_has_a_link(server, open_tab):
    """All findings are shown in the words of the API, each with a link to a view that loads."""
    tab = open_tab(server)
    page = tab.show("report?model=nyc-weather")
    findings = server.get(f"{MODEL}/report").json()["findings"]
    assert page.locator("[id^=finding-]").all_inner_texts() == [finding["question"] for finding in findings]
    for finding in findings:
        shown = plain(page.locator(f"[aria-labelledby=finding-{finding['id']}]").text_content())
        for line in finding["answer"].splitlines():
            assert plain(line.removeprefix("- ")) in shown
    links = page.locator(".finding a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert len(links) == len(findings)
    for link in links:
        tab.show(link.removeprefix("#/"))
    assert tab.problems == []


def plain(text):
    """A text without spaces, marks of names and kinds of minus."""
    return re.sub(r"[\s`]", "", text).replace("−", "-")


def test_the_report_is_read_answer_first(server, open_tab):
    """Figures stand first, each answer begins with its first sentence, its pictures beside it, its evidence folded."""
    tab = open_tab(server)
    page = tab.show("report?model=head")
    findings = {each["id"]: each for each in server.get("/v1/models/head/report").json()["findings"]}
    told = [what for finding in findings.values() for what in finding["headlines"]]
    assert told and [*map(plain, page.locator(".headlines li").all_text_contents())] == [
        plain("".join(w)) for w in told
    ]
    for id, finding in findings.items():
        shown = page.locator(f"[aria-labelledby=finding-{id}]")
        answer = plain(finding["brief"] or finding["answer"])
        first = plain(shown.locator(".lead, li").first.inner_text())
        assert answer.removeprefix("-").startswith(first)
        expect(shown.locator("figure svg")).to_have_count(len(finding["pictures"]))
        assert shown.locator("details").get_attribute("open") is None and not shown.locator(".evidence").is_visible()
    text, figure = (page.locator(f".pictured {part}").first.bounding_box() for part in (".stack", "figure"))
    assert figure["x"] >= text["x"] + text["width"] and abs(figure["y"] - text["y"]) < 2
    for width in (390, 820, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        scales = page.locator(".pictures svg").evaluate_all("all => all.map((one) => one.getScreenCTM().a)")
        assert min(scales) * 11 > 10.95  # pixels of text
        inside = """all => all.every((one) => {
          const [box, card] = [one, one.closest(".card")].map((element) => element.getBoundingClientRect());
          return box.left >= card.left + 12 && box.right <= card.right - 12;
        })"""  # of the padding
        assert page.locator(".pictures svg").evaluate_all(inside)
    assert tab.problems == []


@pytest.mark.parametrize(
    ("hash", "selector"),
    [
        ("network?model=nyc-weather&fidelity=0.9&color=contribution&pruned=show", ".cost, .drawing desc"),
        pytest.param("edge?model=nyc-weather&edge=head/1/3/0&range=grid", ".facts, .drawing", marks=FURTHER),
        pytest.param("forecast?model=nyc-weather&window=ref:200&baseline=zero", ".summary", marks=FURTHER),
        ("features?model=nyc-weather&sort=name:down", "tbody"),
        pytest.param("network?model=front&output=b%2B1", ".cost", marks=FURTHER),
    ],
)
def test_an_address_restores_its_view(server, open_tab, hash, selector):
    """The same address shows the same view in another browser, and its parameters matter."""
    first = open_tab(server).show(hash)
    second = open_tab(server)
    second.page.goto(first.url)
    second.page.locator("main[aria-busy=false]").wait_for()
    shown = first.locator(selector).all_text_contents()
    assert second.page.locator(selector).all_text_contents() == shown
    view = hash.split("?")[0]
    assert open_tab(server).show(f"{view}?model=nyc-weather").locator(selector).all_text_contents() != shown


def test_back_opens_the_previous_view(server, open_tab):
    """Each view has an entry in the browser's history."""
    page = open_tab(server).show("network?model=nyc-weather")
    page.get_by_role("link", name="Features").click()
    expect(page.locator("h1")).to_have_text("Features")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Network")


def test_the_keyboard_alone_reaches_everything(server, open_tab):
    """Tab stops at every control and once at the picture, where arrows reach every part; Enter opens an edge.

    The buttons of the table's rows are a single stop too, and each stop has a name and a focus ring.
    """
    page = open_tab(server).show("network?model=nyc-weather")
    reached = []

    def press(key):
        page.keyboard.press(key)
        return page.evaluate(
            """() => {
              const at = document.activeElement;
              if (at === document.body) return null;
              const label = at.ariaLabel || at.labels?.[0]?.innerText || at.innerText;
              const marked = at.matches(":focus-visible");
              return [at.tagName.toLowerCase(), at.getAttribute("class") ?? "", at.id, label, marked];
            }"""
        )

    stops = 0
    while (stop := press("Tab")) is not None:
        reached.append(stop)
        stops += 1
        if stop[0] == "g":
            reached.append(press("Home"))
            while (stop := press("ArrowRight")) != reached[-1]:
                reached.append(stop)
            reached = [stop for number, stop in enumerate(reached) if stop[0] != "g" or stop not in reached[:number]]
    controls = page.evaluate(
        """() => {
          const all = document.querySelectorAll("a[href], button, select, input, summary, [tabindex='0']");
          const seen = [...all].filter((one) => one.checkVisibility() && one.tabIndex >= 0);
          return new Set(seen.map((one) => (one.type === "radio" ? one.name : one))).size;
        }"""
    )
    assert stops == controls < 50
    tags = [(tag, id or name.split(" ")[0]) for tag, name, id, _, _ in reached]
    graph = server.get(f"{MODEL}/topology").json()["graph"]
    assert tags.count(("g", "edge")) == graph["edges"]["kept"]
    assert tags.count(("g", "node")) == graph["nodes"]["kept"]
    assert {("input", "prune"), ("select", "model")} <= set(tags)
    assert {label for tag, _, _, label, _ in reached if tag == "button"} == {
        *("Copy as curl", "JSON", "CSV", "SVG", "PNG"),
        *("Zoom in", "Zoom out", "Fit into the view"),
        "Remove head 1:3 → dtemp_6h+1",
        *(f"What does “{term}” mean?" for term in ("R²", "MAE", "opacity", "contribution", "score")),
    }
    assert {"Network", "Edge", "Forecast", "Features", "Formula", "Compare", "Model", "Report"} <= {
        label for tag, _, _, label, _ in reached if tag == "a"
    }
    assert [stop for stop in reached if not (stop[3] and stop[4])] == []
    page.locator('g.edge[data-source="lstm:7"][data-target="head:1:3"]').focus()
    expect(page.locator("#hint")).to_contain_text("lstm 7 → head 1:3")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Edge")


def test_the_command_that_is_copied_gives_the_same(server, open_tab):
    """The copied command is the request of the view."""
    tab = open_tab(server, permissions=["clipboard-read", "clipboard-write"])
    page = tab.show("forecast?model=nyc-weather&window=ref:3")
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator(".said")).to_have_text("copied")
    program, quiet, url, *options = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert (program, quiet, options[::2]) == ("curl", "-s", ["-H", "-d"])
    header, body = options[1::2]
    name, value = header.split(": ")
    answer = server.post(url, content=body, headers={name: value}).json()
    expect(figure(page, "forecast")).to_have_text(f"{answer['predictions'][0][0]:.2f} K")


@pytest.mark.parametrize(
    ("view", "path", "n_rows"),
    [
        pytest.param("network", "/topology?fidelity=0.99&pruned=true", 151, marks=FURTHER),
        ("edge", "/edges/1/3/0?formulas=true", 101),
        pytest.param("features", "/attributions", 20, marks=FURTHER),
    ],
)
def test_the_data_of_a_view_can_be_saved(server, open_tab, view, path, n_rows):
    """JSON is the API's response, CSV a table of it."""
    page = open_tab(server).show(f"{view}?model=nyc-weather")
    answer = server.get(MODEL + path).json()
    saved = {}
    for kind in ("JSON", "CSV"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind, exact=True).click()
        assert download.value.suggested_filename.endswith(f".{kind.lower()}")
        saved[kind] = Path(download.value.path()).read_text(encoding="utf-8")
    assert json.loads(saved["JSON"]) == answer
    rows = list(csv.DictReader(io.StringIO(saved["CSV"])))
    assert len(rows) == n_rows == len(answer.get("edges", answer.get("x", answer.get("features"))))


def test_the_picture_of_a_view_can_be_saved(server, open_tab):
    """The saved picture is that of the API, as it was drawn for this screen."""
    tab, asked = open_tab(server), list[Request]()
    tab.page.on("request", lambda request: asked.append(request))
    page = tab.show("network?model=nyc-weather")
    with page.expect_download() as download:
        page.get_by_role("button", name="SVG").click()
    saved = Path(download.value.path()).read_bytes()
    drawn = [request for request in asked if request.headers.get("accept") == "image/svg+xml"][-1]
    assert saved == server.get(drawn.url, headers={"Accept": "image/svg+xml"}).content
    ElementTree.fromstring(saved)


def test_a_wrong_address_has_an_error(server, open_tab):
    """The error is that of the service, with a link to continue."""
    page = open_tab(server).show("network?model=nothing")
    expect(page.get_by_role("alert")).to_contain_text("nothing")
    page = open_tab(server).show("edge?model=nyc-weather&edge=head/9/9/9")
    expect(page.get_by_role("alert")).to_contain_text("head layer 0: i 0 to 11")
    page.get_by_role("link", name="Network").click()
    expect(page.locator("h1")).to_have_text("Network")
