"""A forecast can be selected on the chart of forecasts and actual values, by its error or by its date."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from factories import make_model, make_windows
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

MODEL = "/v1/models/nyc-weather"
SHOWN = "forecast?model=nyc-weather&window=ref:100"
WINDOW = Path(__file__).parents[2] / "tests" / "examples" / "window.json"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture(scope="module")
def windows(server):
    return server.get(f"{MODEL}/reference").json()["windows"]


@pytest.fixture(scope="module")
def errors(windows):
    return np.array([row["prediction"][0] - row["target"][0] for row in windows])


def chart(page):
    return page.get_by_role("slider", name=re.compile("^Forecasts over time"))


def heights(path):
    return np.array([pair.split(",")[1] for pair in re.findall(r"-?[\d.]+,-?[\d.]+", path)], dtype=float)


def test_the_chart_shows_forecasts_and_targets(server, open_tab, windows, errors):
    """The lines pass through predictions and targets of all reference windows, with gaps where time is missing."""
    tab = open_tab(server)
    page = tab.show(SHOWN)
    runs = 1 + sum(np.diff([np.datetime64(row["time"].removesuffix("Z")) for row in windows]) > np.timedelta64(3, "h"))
    for color, values in (
        ("--up", [row["prediction"][0] for row in windows]),
        ("--down", [row["target"][0] for row in windows]),
    ):
        lines = chart(page).locator(f'path[stroke="var({color})"], [stroke="var({color})"] path')
        expect(lines).to_have_count(int(runs))
        y = np.concatenate(
            [heights(line) for line in lines.evaluate_all("all => all.map(one => one.getAttribute('d'))")]
        )
        np.testing.assert_allclose(np.polyval(np.polyfit(values, y, 1), values), y, atol=0.01)
    expect(page.locator(".overview")).to_contain_text(
        f"Mean absolute error {np.abs(errors).mean():.3g} K in 512 windows"
    )
    assert tab.problems == []


def test_a_click_on_the_chart_explains_that_forecast(server, open_tab, windows):
    """Pointing shows its time and error; a click selects it; on a phone a tap does, and the chart scrolls."""
    for options in ({}, PHONE):
        page = open_tab(server, **options).show(SHOWN)
        expect(chart(page).locator("circle")).to_have_count(2)
        spot = chart(page).bounding_box()
        shown = page.locator(".overview .drawing").bounding_box()
        at = shown["x"] + 0.6 * min(shown["width"], spot["width"]) - spot["x"]
        chart(page).hover(position={"x": at, "y": 80})
        said = page.locator("#hint").inner_text()
        index = int(chart(page).get_attribute("aria-valuenow"))
        row = windows[index]
        assert row["time"].replace("T", " ").removesuffix("Z") in said
        error = row["prediction"][0] - row["target"][0]
        assert f"error {error:+.3g} K".replace("-", "−") in said
        chart(page).click(position={"x": at, "y": 80})
        page.wait_for_url(re.compile(f"window=ref:{index}"))
        expect(page.locator(".summary")).to_contain_text(f"reference window {index}")


def test_the_keyboard_chooses_on_the_chart(server, open_tab, windows):
    """Arrow keys move between windows and announce them, Enter selects one."""
    page = open_tab(server, **PHONE).show(SHOWN)
    chart(page).focus()
    for key in ("ArrowRight", "ArrowRight", "PageUp", "ArrowLeft"):
        page.keyboard.press(key)
    expect(chart(page)).to_have_attribute("aria-valuenow", "121")
    expect(page.locator("#hint")).to_contain_text(windows[121]["time"].replace("T", " ").removesuffix("Z"))
    page.keyboard.press("End")
    cursor = chart(page).locator(".cursor").bounding_box()
    assert 0 <= cursor["x"] <= 390  # scrolls to the window
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("window=ref:511"))


def test_the_largest_errors_are_listed(server, open_tab, windows, errors):
    """The largest errors in both directions, worst first, each with a link to its explanation."""
    page = open_tab(server).show(SHOWN)

    def listed():
        return page.locator("tr[data-worst]").evaluate_all("rows => rows.map(row => Number(row.dataset.worst))")

    for label, order in (("either way", -np.abs(errors)), ("too high", -errors), ("too low", errors)):
        page.get_by_label(label).check()
        assert listed() == np.argsort(order, kind="stable")[:20].tolist()
    page.locator("#baseline").select_option("zero")
    page.wait_for_url(re.compile("baseline=zero"))
    row = page.locator("tr[data-worst]").first
    index = int(errors.argmin())
    cells = [windows[index]["prediction"][0], windows[index]["target"][0]]
    texts = [f"{errors.min():+.3g}", *(f"{float(f'{value:.3g}'):g}" for value in cells)]
    assert row.locator("td").all_inner_texts() == [text.replace("-", "−") for text in texts]
    row.get_by_role("link").click()
    expect(page.locator(".summary")).to_contain_text(f"reference window {index}")
    assert "baseline=zero" in page.url


def test_the_nearest_reference_window_is_named(server, open_tab):
    """For a pasted or changed window: how like the reference windows it is, and the nearest with distance and link."""
    page = open_tab(server).show(SHOWN)
    nearest = page.locator(".nearest")
    expect(nearest).to_be_hidden()
    page.get_by_label("your own").check()
    page.locator("#window").fill(WINDOW.read_text())
    page.get_by_role("button", name="Explain it").click()
    instance = json.loads(WINDOW.read_bytes())["instances"][0]
    (found,) = server.post(f"{MODEL}:predict", json={"instances": [instance], "trust": True}).json()["trust"]
    near = found["nearest_reference"]
    expect(nearest).to_contain_text(found["sentence"])
    expect(nearest).to_contain_text(f"number {near['index']}, {near['distance']:.3g} standard deviations away")
    nearest.get_by_role("link").click()
    expect(page.locator(".summary")).to_contain_text(f"reference window {near['index']}")
    expect(nearest).to_be_hidden()


def test_reference_windows_that_are_not_shown_leave_the_rest(serve, open_tab, tmp_path):
    """If a setting disables reference windows, there is no chart, and pasted windows are still explained."""
    model = make_model("lstm", n_reference=130)
    save_checkpoint(model, tmp_path / "m.safetensors")
    with serve(tmp_path, KANSCOPE_REFERENCE_WINDOWS="false") as client:
        tab = open_tab(client)
        tab.page.goto(f"{tab.base}/explorer/#/forecast")
        expect(tab.page.get_by_role("alert")).to_contain_text("shows no windows of its own")
        with_window = open_tab(client)
        page = with_window.show("network")
        text = json.dumps(make_windows(model, 1)[0].tolist())
        packed = page.evaluate(
            "(text) => import('./windows.js').then(({ packWindow }) => packWindow(JSON.parse(text)))", text
        )
        page = with_window.show(f"forecast?window=z:{packed}")
        expect(page.locator(".summary")).to_contain_text("your own window")
        expect(page.locator(".overview")).to_be_hidden()


def test_models_without_targets_and_times_have_their_forecasts(serve, open_tab, tmp_path):
    """There is a line of forecasts by index, and no list of errors."""
    save_checkpoint(make_model("head", with_targets=False), tmp_path / "m.safetensors")
    with serve(tmp_path) as client:
        tab = open_tab(client)
        page = tab.show("forecast?window=ref:3")
        expect(page.locator(".overview")).to_contain_text("160 windows; the actual values are not known")
        expect(page.locator(".beside")).to_be_hidden()
        chart(page).focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#hint")).to_contain_text("window 4")
        page.keyboard.press("Enter")
        expect(page.locator(".summary")).to_contain_text("reference window 4")
        assert tab.problems == []
