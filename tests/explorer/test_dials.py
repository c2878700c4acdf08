"""Inputs are dragged, typed and moved by keys along values that exist, and the forecast is that of the API."""

from __future__ import annotations

import math
import re

import pytest
from playwright.sync_api import expect

MODEL = "/v1/models/nyc-weather"
SHOWN = "forecast?model=nyc-weather&window=ref:511"


@pytest.fixture
def instance(server):
    return server.get(f"{MODEL}/reference/511").json()["instance"]


@pytest.fixture
def names(server):
    return [one["name"] for one in server.get(MODEL).json()["features"]]


def predict(server, instance):
    return server.post(f"{MODEL}:predict", json={"instances": [instance]}).json()["predictions"][0][0]


def shifted(instance, place, by):
    return [[value + by * (index == place) for index, value in enumerate(row)] for row in instance]


def figure(page):
    return float(page.locator("h1 .figure").inner_text().split(" ")[0].replace("−", "-"))


def told(tab, hash):
    """The page of a forecast, as soon as its reasons are told."""
    page = tab.show(hash)
    page.locator("h1 .reasons").wait_for()
    return page


def exact(page):
    """What is dragged was let go, and its exact answer is there."""
    page.wait_for_function("() => !document.querySelector('main [aria-live=off]')")
    expect(page.locator("main")).to_contain_text("As recorded it was")


def slider(page, name):
    return page.get_by_role("slider", name=name, exact=True)


def edit(page):
    return float(re.search(r"edit=temp_c:([-\d.]+)", page.url)[1])


def test_an_input_is_dragged_and_the_forecast_follows(server, open_tab, instance, names):
    """While it is dragged the forecast moves; let go, it is that of `:predict`, and can be undone."""
    page = told(open_tab(server), SHOWN)
    expect(page.locator("h1 .reasons")).to_be_visible()
    before, dial = figure(page), slider(page, "temp_c")
    old = dial.get_attribute("aria-valuetext")
    box = dial.bounding_box()
    with page.expect_response(lambda answer: ":explain" in answer.url):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 9)
        page.mouse.down()
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 9, steps=4)
    expect(page.locator("h1 .figure")).not_to_have_text(re.compile(f"^{before}".replace("-", "−")))
    assert "edit" not in page.url
    page.mouse.up()
    page.wait_for_url(re.compile("edit=temp_c"))
    expected = predict(server, shifted(instance, names.index("temp_c"), edit(page)))
    exact(page)
    assert figure(page) == pytest.approx(expected, abs=0.051)
    page.keyboard.press("Control+z")
    expect(dial).to_have_attribute("aria-valuetext", old)
    page.keyboard.press("Control+Shift+z")
    page.wait_for_url(re.compile("edit=temp_c"))
    page.get_by_role("button", name="Reset temp_c").click()
    expect(page).not_to_have_url(re.compile("edit="))


def test_an_hour_moves_by_hours(server, open_tab, instance, names):
    """An arrow key moves a calendar value to the next that exists, at all steps, as one rotation of sine and cosine."""
    page = told(open_tab(server), SHOWN)
    dial = slider(page, "hour")
    hour = int(dial.get_attribute("aria-valuetext")[:2])
    dial.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(dial).to_have_attribute("aria-valuetext", f"{hour - 2:02d}:00")
    page.wait_for_url(re.compile("edit=hour:-2"))
    sine, cosine = names.index("hour_sin"), names.index("hour_cos")
    turned = []
    for row in instance:
        phase = math.atan2(row[sine], row[cosine]) - 2 * math.pi * 2 / 24
        new = list(row)
        new[sine], new[cosine] = math.sin(phase), math.cos(phase)
        turned.append(new)
    expected = predict(server, turned)
    exact(page)
    assert figure(page) == pytest.approx(expected, abs=0.051)


def test_a_value_is_typed(server, open_tab, instance, names):
    """A number by Enter; a level or an hour is chosen; Escape leaves it as it was."""
    page = told(open_tab(server), SHOWN)
    value = page.get_by_role("button", name=re.compile("^temp_c: "))
    value.press("Enter")
    expect(page.get_by_role("spinbutton", name="temp_c")).to_be_focused()
    page.get_by_role("spinbutton", name="temp_c").fill("20")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("edit=temp_c"))
    expect(slider(page, "temp_c")).to_have_attribute("aria-valuetext", "20.0 °C")
    place = names.index("temp_c")
    exact(page)
    expected = predict(server, shifted(instance, place, 20 - instance[-1][place]))
    assert figure(page) == pytest.approx(expected, abs=0.051)
    page.get_by_role("button", name=re.compile("^hour: ")).click()
    page.get_by_role("combobox", name="hour").select_option("06:00")
    expect(slider(page, "hour")).to_have_attribute("aria-valuetext", "06:00")
    page.get_by_role("button", name="Reset all 2").click()
    expect(page).not_to_have_url(re.compile("edit="))
    page.get_by_role("button", name=re.compile("^temp_c: ")).click()
    expect(page.get_by_role("spinbutton", name="temp_c")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name=re.compile("^temp_c: "))).to_be_visible()


def test_an_input_is_dragged_by_touch(server, open_tab):
    """A tap on the track sets the value."""
    page = told(open_tab(server, has_touch=True, viewport={"width": 390, "height": 844}), SHOWN)
    dial = slider(page, "temp_c")
    dial.scroll_into_view_if_needed()
    dial.tap()
    page.wait_for_url(re.compile("edit=temp_c"))


def test_the_curves_are_those_of_the_api(server, open_tab, instance):
    """Each is drawn from what `:whatif` and `:predict` say; a click sets the input to a value that exists."""
    tab = open_tab(server)
    asked = []
    tab.page.on("request", lambda request: ":whatif" in request.url and asked.append(request.post_data_json))
    page = told(tab, f"{SHOWN}&ask=whatif")
    curve = page.locator(".curve", has_text="hour").first
    expect(curve.locator("figure")).to_have_accessible_name(re.compile("The forecast over hour: .* to "))
    temperature = page.locator(".curve", has=page.get_by_text("temp_c", exact=True)).locator("figure")
    expect(temperature).to_be_visible()
    body = next(one for one in asked if one["features"] == ["temp_c"])
    predictions = server.post(f"{MODEL}:whatif", json=body).json()["curves"][0][0]["predictions"]
    ends = re.findall(r"[−\d.]+(?= K)", temperature.get_attribute("aria-label"))
    assert [float(each.replace("−", "-")) for each in ends] == [
        pytest.approx(end, abs=0.051) for end in (min(predictions), max(predictions))
    ]
    curve.locator("svg").click()
    page.wait_for_url(re.compile(r"edit=hour:-?\d+(&|$)"))
    expect(slider(page, "hour")).to_have_attribute("aria-valuetext", re.compile(r"^\d\d:00$"))


def test_what_nobody_can_change_says_so(server, open_tab):
    """A fixed input moves as a what-if, and says that it is one."""

    def fix(route):
        answer = route.fetch()
        body = answer.json()
        features = [{**one, "fixed": one["name"].startswith("wind_u")} for one in body["features"]]
        route.fulfill(response=answer, json={**body, "features": features})

    tab = open_tab(server)
    tab.page.route(re.compile(r"/v1/models/nyc-weather(\?.*)?$"), fix)
    page = told(tab, f"{SHOWN}&edit=wind_u_ms:3")
    dial = page.locator(".dial", has=slider(page, "wind_u_ms"))
    expect(dial).to_contain_text("nobody can change this")
