"""User-supplied windows in the explorer: formats, errors and warnings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

MODEL = "/v1/models/nyc-weather"
WINDOW = Path(__file__).parents[2] / "tests" / "examples" / "window.json"


@pytest.fixture(scope="module")
def window():
    return json.loads(WINDOW.read_bytes())["instances"][0]


@pytest.fixture(scope="module")
def names(server):
    return [feature["name"] for feature in server.get(MODEL).json()["features"]]


def figure(page, name):
    return page.locator(f'[data-figure="{name}"] strong')


def give(page, text):
    page.get_by_label("your own").check()
    page.locator("#window").fill(text)
    page.get_by_role("button", name="Explain it").click()


def forms_of(window, names):
    """The same window in the usual formats."""
    records = [dict(zip(names, row, strict=True)) for row in window]
    columns = {name: [row[index] for row in window] for index, name in enumerate(names)}
    yield "instances", json.dumps({"instances": [window]})
    yield "rows", json.dumps(window)
    yield "columns of :predict", json.dumps({"columns": {name: [values] for name, values in columns.items()}})
    yield "pandas, orient=split", json.dumps({"columns": names, "index": list(range(24)), "data": window})
    yield "pandas, orient=records", json.dumps(records)
    yield "pandas, orient=list", json.dumps(columns)
    numbered = {name: {str(step): value for step, value in enumerate(values)} for name, values in columns.items()}
    yield "pandas, orient=columns", json.dumps(numbered)
    for mark, comma in ((",", "."), (";", "."), (";", ","), ("\t", ".")):
        lines = [["time", *names], *([f"t{step}", *row] for step, row in enumerate(window))]
        text = "\r\n".join(mark.join(str(field).replace(".", comma) for field in line) for line in lines)
        yield f"a table with {mark!r} and 1{comma}5", "\ufeff" + text


def test_a_window_is_read_in_every_usual_format(server, open_tab, window, names):
    """JSON as in the API and in pandas, and tables with commas, semicolons or tabs, give the same numbers."""
    page = open_tab(server).show("report?model=nyc-weather")
    model = server.get(MODEL).json()
    read = """([text, model]) => import("./windows.js").then(({ readWindow }) => readWindow(text, model))"""
    for name, text in forms_of(window, names):
        assert page.evaluate(read, [text, model]) == window, name


def test_an_invalid_window_is_refused_with_its_reason(server, open_tab, window, names):
    """Several windows, too few rows, missing columns and non-numeric values each have their reason."""
    page = open_tab(server).show("report?model=nyc-weather")
    model = server.get(MODEL).json()
    read = """([text, model]) => import("./windows.js").then(({ readWindow }) => readWindow(text, model))
      .then(() => "read", (error) => error.message)"""
    records = [dict(zip(names, row, strict=True)) for row in window]
    for text, problem in (
        (json.dumps({"instances": [window, window, window]}), "there are 3 windows"),
        (json.dumps([window, window]), "there are 2 windows"),
        (json.dumps({"columns": {name: [[0.0] * 24] * 2 for name in names}}), "there are 2 windows"),
        (json.dumps({"columns": names, "data": window[:5]}), "24 rows are needed, but there are 5"),
        (json.dumps(records[:3]), "24 rows are needed, but there are 3"),
        (json.dumps([{name: 1.0 for name in names[1:]}] * 24), f"the column {names[0]} is missing"),
        (json.dumps([{**record, "humid_pct": "wet"} for record in records]), "row 1, humid_pct, is not a number"),
        (json.dumps([{**record, "humid_pct": None} for record in records]), "row 1, humid_pct, is not a number"),
        (";".join(names) + "\n" + ";".join(["1"] * 20), "24 rows are needed, but there are 1"),
        ('{"instances": 3}', "must be an array"),
        ("{}", f"the column {names[0]} is missing"),
        ("null", f"the column {names[0]} is missing"),
    ):
        assert problem in page.evaluate(read, [text, model]), text[:60]


def test_a_rejected_window_leaves_nothing_of_the_one_before(server, open_tab, window):
    """The old forecast disappears, nothing can be exported, and the next valid window is shown."""
    tab = open_tab(server, permissions=["clipboard-read", "clipboard-write"])
    page = tab.show("forecast?model=nyc-weather")
    give(page, json.dumps(window))
    expect(page.locator(".summary")).to_contain_text("your own window")
    give(page, json.dumps(window[:3]))
    expect(page.locator(".wrong")).to_contain_text("a window has 24 rows")
    expect(page.locator(".summary")).to_be_hidden()
    for name in ("Copy as curl", "JSON", "CSV"):
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.locator(".said")).to_have_text("nothing is shown")
    give(page, json.dumps(window))
    expect(page.locator(".summary")).to_be_visible()
    expect(page.locator(".wrong")).to_be_hidden()
    assert tab.problems == []


def test_values_outside_the_training_range_give_a_warning_or_an_error(server, open_tab, window):
    """526 °C has a warning beside the forecast; 1e30 has no explanation, and the reason is shown."""
    page = open_tab(server).show("forecast?model=nyc-weather")
    expect(page.locator(".warnings")).to_be_hidden()
    hot = [[*row] for row in window]
    hot[20][0] = 526.0
    give(page, json.dumps(hot))
    expect(page.locator(".warnings")).to_contain_text(
        "temp_c at step −3: 526 is outside the training range [-8.9, 37.8]"
    )
    hot[20][0] = 1e30
    give(page, json.dumps(hot))
    expect(page.locator(".wrong")).to_contain_text("values too far out to be explained")
    expect(page.locator(".summary")).to_be_hidden()


def test_two_windows_are_compared(server, open_tab, window):
    """With another window as the baseline, the waterfall runs from its forecast to this one's; both are drawn."""
    page = open_tab(server).show("forecast?model=nyc-weather&window=ref:100")
    page.locator("#baseline").select_option("window")
    expect(page.locator(".summary")).to_contain_text("compared with reference window 100")
    page.locator("#index-window").fill("124")
    page.locator("#index-window").press("Enter")
    expect(page.locator(".summary")).to_contain_text("reference window 124")
    instances = [server.get(f"{MODEL}/reference/{index}").json()["instance"] for index in (100, 124)]
    (before,), (after,) = server.post(f"{MODEL}:predict", json={"instances": instances}).json()["predictions"]
    expect(figure(page, "baseline")).to_have_text(f"{before:.2f} K".replace("-", "−"))
    expect(figure(page, "forecast")).to_have_text(f"{after:.2f} K".replace("-", "−"))
    expect(
        page.locator(".series svg").first.locator('path[stroke-dasharray="4 3"], [stroke-dasharray="4 3"] path')
    ).to_have_count(1)
    give(page, json.dumps(window))
    expect(page.locator(".summary")).to_contain_text("your own window; compared with reference window 100")
    page.get_by_role("button", name="The window shown").click()
    expect(figure(page, "contributions")).to_have_text("0.00 K")


def test_a_window_is_chosen_by_its_date(server, open_tab):
    """A date selects its first reference window."""
    page = open_tab(server).show("forecast?model=nyc-weather")
    times = [server.get(f"{MODEL}/reference/{index}").json()["time"] for index in (0, 200, 511)]
    day = times[1][:10]
    page.get_by_label("Date of the window").fill(day)
    expect(page.locator(".summary")).to_contain_text(day)
    index = int(page.locator("#index-window").input_value())
    around = [server.get(f"{MODEL}/reference/{number}").json()["time"] for number in (index - 1, index)]
    assert around[0] < day <= around[1]
