"""The shell of the explorer in a real browser: the bar, the palette, undo, and files that are given to it."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import TimeoutError, expect
from thorough import few_of

ROOT = Path(__file__).parents[2]
WINDOW = ROOT / "tests" / "examples" / "window.json"
AXE = Path(sys.prefix) / "clients" / "node_modules" / "axe-core" / "axe.min.js"  # `make test` sets it up
MODEL = "/v1/models/nyc-weather"
PLACES = ["forecast", "model", "history"]
SHAPES = ("classifier", "deep", "graph", "long", "many", "shop")  # of the fixture `shapes`
WIDTHS = (390, 820, 1280, 1920)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
RUN = "() => axe.run({ rules: { 'label-content-name-mismatch': { enabled: true } } })"
DROP = """([text, name]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name));
  document.body.dispatchEvent(new DragEvent("dragover", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
PASTE = """(text) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}"""


def settled(page):
    """Waits for what is in view, but not for what takes long, such as the search for formulas."""
    page.locator("main[aria-busy=false]").wait_for()
    with suppress(TimeoutError):
        page.wait_for_load_state("networkidle", timeout=5000)


def palette(page):
    return page.get_by_role("dialog", name="Find")


@pytest.mark.parametrize("look", few_of(["light", "dark"], ["light"], "every destination once more"))
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("place", PLACES)
def test_every_destination_is_accessible(server, open_tab, place, width, look):
    """axe finds no violation of names, roles, contrasts, landmarks and the like, and nothing logs an error."""
    if not AXE.exists():
        pytest.skip("axe-core is missing: make test installs it where there is npm")
    tab = open_tab(server, viewport={"width": width, "height": 844}, color_scheme=look)
    page = tab.show(f"{place}?model=nyc-weather")
    settled(page)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(RUN)["violations"]
    assert [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in found] == []
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_role("link", name=place.capitalize(), exact=True)).to_have_attribute("aria-current", "page")
    assert page.title() == f"{place.capitalize()} of nyc-weather · Kanscope"
    assert tab.problems == []


@pytest.mark.thorough("every destination of models of all shapes, at four widths")
@pytest.mark.parametrize("name", SHAPES)
def test_no_page_scrolls_sideways(shapes, open_tab, name):
    """From a phone to a large screen, whatever the names, the number of outputs, and the depth."""
    tab = open_tab(shapes)
    for place in PLACES:
        page = tab.show(f"{place}?model={name}")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            settled(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (place, width)
    assert [
        one for one in tab.problems if "422" not in one
    ] == []  # which is how the service says that it has no formula


def test_what_floats_is_accessible_and_fits_a_phone(server, open_tab):
    """The palette, the menu, the verdict on skill, the keys and the paste dialog."""
    if not AXE.exists():
        pytest.skip("axe-core is missing: make test installs it where there is npm")
    tab = open_tab(server, **PHONE)
    page = tab.show("forecast?model=nyc-weather")
    settled(page)
    page.evaluate(AXE.read_text(encoding="utf-8"))

    def check(shown):
        expect(shown).to_be_visible()
        box = shown.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        found = page.evaluate(RUN)["violations"]
        assert [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in found] == []
        page.keyboard.press("Escape")
        expect(shown).to_have_count(0)

    page.keyboard.press("/")
    check(palette(page))
    page.locator("button.chip").tap()
    check(page.locator(".panel"))
    page.get_by_role("button", name="More", exact=True).tap()
    check(page.locator(".panel"))
    for action, title in (("Show the keys", "Keys"), ("Paste a window or table", "A window or a table of your own")):
        page.get_by_role("button", name="More", exact=True).tap()
        page.get_by_role("button", name=action).tap()
        check(page.get_by_role("dialog", name=title))
    assert tab.problems == []


def test_another_destination_has_the_focus_and_its_title(server, open_tab):
    """The address, the title and the browser's history say where one is, and what was chosen stays."""
    page = open_tab(server).show("forecast?model=head&window=ref:7")
    page.get_by_role("link", name="Model", exact=True).click()
    expect(page).to_have_title("Model of head · Kanscope")
    assert page.evaluate("document.activeElement.id") == "page"
    assert page.url.endswith("#/model?model=head&window=ref:7")
    page.go_back()
    expect(page).to_have_title("Forecast of head · Kanscope")
    page.go_forward()
    expect(page).to_have_title("Model of head · Kanscope")


def test_the_skip_link_leads_to_the_page(server, open_tab):
    page = open_tab(server).show("model?model=head")
    address = page.url
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "page"
    assert page.url == address


def test_without_an_address_the_first_model_shows(server, open_tab):
    tab = open_tab(server)
    tab.page.goto(f"{tab.base}/explorer")
    first = server.get("/v1/models").json()["models"][0]
    expect(tab.page.get_by_role("combobox", name="Model")).to_have_value(first)
    expect(tab.page).to_have_title(f"Forecast of {first} · Kanscope")
    assert tab.problems == []


def test_at_a_second_visit_no_file_is_sent(server, open_tab):
    """All modules are asked for at once, not by those that import them, and then kept by the browser."""
    page = open_tab(server).show("forecast?model=nyc-weather")
    read = """() => performance.getEntriesByType("resource").map(({ name, initiatorType, transferSize }) =>
      ({ name: new URL(name).pathname, initiatorType, transferSize }))"""
    files = [one for one in page.evaluate(read) if "/explorer/" in one["name"]]
    late = [one["name"] for one in files if one["initiatorType"] == "script"]
    assert [name.rsplit("/", 1)[1] for name in late] == ["app.js"]
    page.reload()
    settled(page)
    again = [one for one in page.evaluate(read) if "/explorer/" in one["name"]]
    assert len(again) == len(files) > 25
    assert sum(one["transferSize"] for one in again) == 0


@pytest.mark.parametrize(
    ("asked", "found", "address"),
    [
        ("humid", "input", r"forecast\?.*pick=input:humid"),
        ("2013-05-24", "date", r"window=ref:\d+"),
        ("lstm 7", "node", "pick=unit:lstm:7"),
        ("head", "model", "model=head"),
        ("drift", "question", "#/history"),
        ("go hist", "go to", "#/history"),
    ],
)
def test_the_palette_leads_to_everything(server, open_tab, asked, found, address):
    """By a few letters and the keyboard alone."""
    tab = open_tab(server)
    page = tab.show("model?model=nyc-weather")
    settled(page)
    page.keyboard.press("Control+k")
    field = palette(page).get_by_role("combobox")
    expect(field).to_be_focused()
    page.keyboard.type(asked)
    option = palette(page).get_by_role("option", selected=True)
    expect(option).to_contain_text(found)
    assert field.get_attribute("aria-activedescendant") == option.get_attribute("id")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(address))
    expect(palette(page)).to_have_count(0)
    assert tab.problems == []


def test_the_palette_moves_by_arrows_and_closes_by_escape(server, open_tab):
    page = open_tab(server).show("model?model=nyc-weather")
    page.keyboard.press("/")
    options = palette(page).get_by_role("option")
    first = options.first.inner_text()
    page.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowUp")
    assert palette(page).get_by_role("option", selected=True).inner_text() == first
    page.keyboard.type("qqqqq")
    expect(palette(page)).to_contain_text("Nothing is called “qqqqq”")
    page.keyboard.press("Enter")  # chooses nothing
    page.keyboard.press("Escape")
    expect(palette(page)).to_have_count(0)
    assert page.url.endswith("#/model?model=nyc-weather")


def test_every_change_is_undone(server, open_tab):
    """Ctrl+Z returns to the address before, Ctrl+Shift+Z repeats; in a text field both are the browser's."""
    page = open_tab(server).show("forecast?model=nyc-weather")
    start = page.url
    page.get_by_role("combobox", name="Model").select_option("two")
    page.wait_for_url(re.compile("model=two"))
    settled(page)
    page.get_by_role("combobox", name="Output").select_option("b+1")
    page.wait_for_url(re.compile("output=b"))
    changed = page.url
    page.locator("main").focus()
    page.keyboard.press("Control+z")
    page.wait_for_url(re.compile("model=two$"))
    page.keyboard.press("Control+z")
    page.wait_for_url(start)
    expect(page.get_by_role("combobox", name="Model")).to_have_value("nyc-weather")
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+Shift+z")
    page.wait_for_url(changed)
    expect(page.get_by_role("combobox", name="Output")).to_have_value("b+1")


def window_of():
    return json.loads(WINDOW.read_bytes())["instances"][0]


def table_of(server, rows):
    names = [feature["name"] for feature in server.get(MODEL).json()["features"]]
    written = io.StringIO()
    csv.writer(written).writerows([["note", *reversed(names)], *(["t", *reversed(row)] for row in rows)])
    return written.getvalue()


@pytest.mark.parametrize("kind", ["JSON", "CSV"])
@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_window_is_shown_that_is_dropped_or_pasted(server, open_tab, kind, way):
    """Anywhere; a reload shows it again, as it is in the address, and undo the one before."""
    tab = open_tab(server)
    page = tab.show("model?model=nyc-weather")
    start = page.url
    text = WINDOW.read_text() if kind == "JSON" else table_of(server, window_of())
    page.evaluate(DROP, [text, f"rows.{kind.lower()}"]) if way == "drop" else page.evaluate(PASTE, text)
    page.wait_for_url(re.compile(r"#/forecast\?.*window=z:"))
    kept = "async (name) => (await import('./windows.js')).loadWindow(undefined, name)"
    name = re.search(r"window=(z:[^&]+)", page.url)[1]
    assert page.evaluate(kept.replace("./", f"{page.evaluate('location.pathname')}"), name)["instance"] == window_of()
    page.keyboard.press("Control+z")
    page.wait_for_url(start)
    assert tab.problems == []


def test_what_can_not_be_read_is_said_and_the_view_stays(server, open_tab):
    """A dropped file says it in a line, a pasted text where it can be mended."""
    page = open_tab(server).show("forecast?model=nyc-weather&window=ref:9")
    settled(page)
    start, shown = page.url, page.locator("main").inner_text()
    page.evaluate(DROP, ["temp_c\n1\n2", "rows.csv"])
    alert = page.locator(".said[role=alert]")
    expect(alert).to_contain_text("dewp_c")
    page.evaluate(PASTE, "[[1, 2]]")
    dialog = page.get_by_role("dialog", name="A window or a table of your own")
    expect(dialog.get_by_role("alert")).not_to_be_empty()
    assert page.url == start and page.locator("main").inner_text() == shown
    expect(dialog.get_by_role("textbox")).to_have_value("[[1, 2]]")
    dialog.get_by_role("textbox").fill(WINDOW.read_text())
    dialog.get_by_role("button", name="Show it").click()
    page.wait_for_url(re.compile("window=z:"))
    expect(dialog).to_have_count(0)


def test_the_requests_in_view_are_copied_and_saved(server, open_tab):
    """Each as a command that gives the same, and its answer as JSON and CSV."""
    tab = open_tab(server, permissions=["clipboard-read", "clipboard-write"])
    page = tab.show("model?model=nyc-weather")
    settled(page)
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("button", name="Copy the model as curl").click()
    expect(page.locator(".said[role=status]")).to_have_text("The request is copied.")
    program, quiet, url, *options = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert (program, quiet, options) == ("curl", "-s", [])
    assert server.get(url).json() == server.get(MODEL).json()
    saved = {}
    for kind in ("JSON", "CSV"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save the model as {kind}").click()
        assert download.value.suggested_filename == f"nyc-weather-model.{kind.lower()}"
        saved[kind] = Path(download.value.path()).read_text(encoding="utf-8")
    answer = server.get(MODEL).json()
    assert json.loads(saved["JSON"])["checkpoint"] == answer["checkpoint"]
    assert [row["name"] for row in csv.DictReader(io.StringIO(saved["CSV"]))] == [
        one["name"] for one in answer["features"]
    ]
    assert tab.problems == []


def test_the_report_is_saved(server, open_tab):
    page = open_tab(server).show("model?model=head")
    page.get_by_role("button", name="More", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the report as Markdown").click()
    query = {"output": server.get("/v1/models/head").json()["outputs"][0]}
    answer = server.get("/v1/models/head/report", params=query, headers={"Accept": "text/markdown"})
    assert Path(download.value.path()).read_text(encoding="utf-8") == answer.text


def test_a_wrong_address_has_an_error(server, open_tab):
    """The error is that of the service, with a link to continue."""
    page = open_tab(server).show("model?model=nothing")
    alert = page.get_by_role("alert").filter(has_text="This can't be shown")
    expect(alert).to_contain_text("nothing")
    alert.get_by_role("link", name="head").click()
    expect(page).to_have_title("Forecast of head · Kanscope")
    expect(alert).to_have_count(0)
