"""Windows can be edited by cell, by feature and by dragging, and all results follow."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

import numpy as np
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

MODEL = "/v1/models/nyc-weather"
SHOWN = "forecast?model=nyc-weather&window=ref:100"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture(scope="module")
def window(server):
    return server.get(f"{MODEL}/reference/100").json()["instance"]


@pytest.fixture(scope="module")
def features(server):
    return server.get(MODEL).json()["features"]


def figure(page, name):
    return page.locator(f'[data-figure="{name}"] strong')


def say(value):
    return f"{value:.2f} K".replace("-", "−")


def forecast(server, window):
    return say(server.post(f"{MODEL}:predict", json={"instances": [window]}).json()["predictions"][0][0])


def values_of(page):
    """The values in the address."""
    return {name: value for name, (value,) in parse_qs(page.url.split("?")[1]).items()}


def window_in(page, server):
    """The window in the address."""
    unpack = """([packed, model]) => import("./windows.js").then(({ unpackWindow }) => unpackWindow(packed, model))"""
    packed = values_of(page)["window"].removeprefix("z:")
    return page.evaluate(unpack, [packed, server.get(MODEL).json()])


def changed(window, index, steps, change):
    """The window with one feature changed at some steps."""
    return [
        [change(value) if place == index and step in steps else value for place, value in enumerate(row)]
        for step, row in enumerate(window)
    ]


def line_of(page, name):
    return page.get_by_role("slider", name=re.compile(f"^{name} over the steps"))


def point_of(page, name, step):
    """The screen position of a point on a feature's line."""
    dot = line_of(page, name).locator("circle").nth(step)
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_value_is_changed_and_everything_follows(server, open_tab, window):
    """Forecast, waterfall and heat map are those of the changed window; the address restores it, a button resets it."""
    tab = open_tab(server)
    page = tab.show(SHOWN)
    page.get_by_label("Feature", exact=True).select_option("temp_c")
    page.get_by_label("Step, the newest is 0").fill("-3")
    page.get_by_label("Step, the newest is 0").press("Enter")
    before = page.get_by_label("Value", exact=True).input_value()
    assert float(before) == pytest.approx(window[20][0], rel=1e-5)
    page.get_by_label("Value", exact=True).fill("21.5")
    wanted = changed(window, 0, [20], lambda _: 21.5)
    expect(figure(page, "forecast")).to_have_text(forecast(server, wanted))
    page.get_by_label("Value", exact=True).press("Enter")
    page.wait_for_url(re.compile("window=z:"))
    assert values_of(page)["from"] == "ref:100"
    assert window_in(page, server) == wanted
    answer = server.post(f"{MODEL}:explain", json={"instances": [wanted]}).json()["explanations"][0]
    said = f"{answer['contributions']['temp_c']:+.2f}".replace("-", "−")
    expect(page.locator(f"figure rect[aria-label^='temp_c: {said} K']")).to_have_count(1)
    page.locator(".cells rect.chosen").hover()
    expect(page.locator("#hint")).to_contain_text("temp_c, 3 Mar, 09:00")
    expect(page.locator("#hint")).to_contain_text("was 21.5")
    expect(page.locator(".summary")).to_contain_text("changed from reference window 100")
    was = f"{window[20][0]:.1f}".replace("-", "−")
    said = f"1 value is changed: temp_c at 3 Mar, 09:00 from {was} °C to 21.5 °C."
    expect(page.locator(".changes")).to_contain_text(said)
    expect(figure(page, "as it was")).to_have_text(forecast(server, window))
    expect(figure(page, "by the change")).to_have_text(re.compile("^[+−]"))
    expect(figure(page, "actual")).to_have_count(0)  # it was of the other window
    other = open_tab(server).page
    other.goto(page.url)
    expect(figure(other, "forecast")).to_have_text(forecast(server, wanted))
    page.get_by_role("button", name="Back to the window as it was").click()
    expect(figure(page, "forecast")).to_have_text(forecast(server, window))
    expect(page.get_by_role("button", name="Back to the window as it was")).to_be_hidden()
    assert values_of(page).get("from") is None and values_of(page)["window"] == "ref:100"
    page.go_back()
    expect(figure(page, "forecast")).to_have_text(forecast(server, wanted))
    assert tab.problems == []


def test_a_feature_is_shifted_and_held(server, open_tab, window, features):
    """All steps move by one amount, or are held at the training mean, the oldest value or that of a step."""
    page = open_tab(server).show(SHOWN)
    index = next(place for place, feature in enumerate(features) if feature["name"] == "wind_v_ms")
    page.get_by_label("Feature", exact=True).select_option("wind_v_ms")
    page.get_by_label("Shift all its steps by").fill("-2.5")
    page.get_by_role("button", name="Shift", exact=True).click()
    page.wait_for_url(re.compile("window=z:"))
    wanted = changed(window, index, range(24), lambda value: value - 2.5)
    np.testing.assert_allclose(window_in(page, server), wanted, rtol=1e-5)
    expect(figure(page, "forecast")).to_have_text(forecast(server, wanted))
    held = page.get_by_label("Hold it at every step at")
    for choice, value in (
        ("its training mean", features[index]["mean"]),
        ("its oldest value", window[0][index] - 2.5),
    ):
        page.get_by_role("button", name="Back to the window as it was").click()
        expect(figure(page, "forecast")).to_have_text(forecast(server, window))
        if choice != "its training mean":  # back to its original value
            value = window[0][index]
        held.select_option(label=held.locator("option", has_text=choice).inner_text())
        page.get_by_role("button", name="Hold").click()
        page.wait_for_url(re.compile("window=z:"))
        wanted = changed(window, index, range(24), lambda _, value=value: value)
        np.testing.assert_allclose(window_in(page, server), wanted, rtol=1e-5)
        expect(figure(page, "forecast")).to_have_text(forecast(server, wanted))


def test_the_changed_window_is_compared_with_the_original(server, open_tab, window):
    """A button makes the original window the baseline, so that only the change is explained."""
    page = open_tab(server).show(SHOWN)
    page.get_by_label("Feature", exact=True).select_option("hour_sin")
    page.get_by_label("Shift all its steps by").fill("-0.5")
    page.get_by_role("button", name="Shift", exact=True).click()
    page.get_by_role("button", name="Compare with it").click()
    expect(page.locator(".summary")).to_contain_text("compared with reference window 100")
    expect(figure(page, "baseline")).to_have_text(forecast(server, window))
    bars = page.locator("figure rect[aria-label*=', to ']")
    values = bars.evaluate_all("bars => bars.map(bar => [bar.ariaLabel, bar.width.baseVal.value])")
    assert [label for label, width in values if width > 1.5] == [values[0][0]]
    assert values[0][0].startswith("hour: ")  # the group of hour_sin


def test_the_reference_index_is_not_kept_for_another_model(server, open_tab):
    """The changed window is kept for another model, as a window of its own, without its reference index."""
    page = open_tab(server).show("report?model=head")
    model = server.get("/v1/models/head").json()
    carried = page.evaluate(
        """(model) => import("./state.js").then(({ carry }) =>
          carry({ window: "z:abc", from: "ref:3", baseline: "ref:4", target: "at_least:1" }, model, model))""",
        model,
    )
    assert carried == {"window": "z:abc", "baseline": "ref:4", "target": "at_least:1"}


def test_a_point_is_dragged_and_the_forecast_follows_at_once(server, open_tab, window, features):
    """While dragging, the forecast is that of the current point; at rest the nearest window is asked for too."""
    tab = open_tab(server)
    page = tab.show(SHOWN)
    name = page.locator(".line").nth(3).get_attribute("aria-label").split(" ")[0]
    index = next(place for place, feature in enumerate(features) if feature["name"] == name)
    x, y = point_of(page, name, 22)
    page.wait_for_load_state("networkidle")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    before = page.url
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 25, steps=8)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # all arrived
    value = line_of(page, name).get_attribute("aria-valuenow")
    assert float(value) > window[22][index] + 0.1 * features[index]["std"]
    wanted = changed(window, index, [22], lambda _: float(value))
    expect(figure(page, "forecast")).to_have_text(forecast(server, wanted))
    assert page.url == before
    assert asked and {url.split(":")[-1] for url in asked} <= {"explain", "whatif", "predict"}
    page.mouse.up()
    page.wait_for_url(re.compile("window=z:"))
    assert window_in(page, server) == wanted
    page.go_back()
    expect(figure(page, "forecast")).to_have_text(forecast(server, window))
    assert tab.problems == []


def test_a_point_is_dragged_by_touch(server, open_tab, window):
    """A tap selects a point, whose handle can be dragged without scrolling the page."""
    page = open_tab(server, **PHONE).show(SHOWN)
    line = page.locator(".line").first
    name = line.get_attribute("aria-label").split(" ")[0]
    x, y = point_of(page, name, 12)
    page.touchscreen.tap(x, y)
    expect(line).to_have_attribute("aria-valuetext", re.compile("3 Mar, 01:00"))
    assert values_of(page)["window"] == "ref:100"
    page.wait_for_load_state("networkidle")  # nothing above grows after that
    x, y = point_of(page, name, 12)
    before = line.bounding_box()["y"]
    touch = page.context.new_cdp_session(page)
    for kind, dy in (("touchStart", 0), ("touchMove", 8), ("touchMove", 16), ("touchMove", 22), ("touchEnd", None)):
        points = [] if dy is None else [{"x": x, "y": y + dy}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_url(re.compile("window=z:"))
    found = np.array(window_in(page, server)) != np.array(window)
    assert found.sum() == 1 and found[12].any()
    assert line.bounding_box()["y"] == pytest.approx(before, abs=5)  # dragged by 22 pixels


def test_the_keyboard_changes_cells_and_points(server, open_tab, window, features):
    """Arrow keys move through the map, Enter edits the value; on a line they select a step and change its value."""
    page = open_tab(server).show(SHOWN)
    page.get_by_role("group", name=re.compile("^Cells of feature by step")).focus()
    for key in ("ArrowDown", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    expect(page.locator("#hint")).to_contain_text("3 Mar, 10:00")
    name = page.locator("#hint strong").inner_text().split(",")[0]
    page.keyboard.press("Enter")
    expect(page.get_by_label("Value", exact=True)).to_be_focused()
    expect(page.get_by_label("Feature", exact=True)).to_have_value(name)
    expect(page.get_by_label("Step, the newest is 0")).to_have_value("-2")
    line = line_of(page, name)
    line.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    index = next(place for place, feature in enumerate(features) if feature["name"] == name)
    page.wait_for_url(re.compile("window=z:"))
    expect(line).to_be_focused()
    found = window_in(page, server)
    wanted = changed(window, index, [20], lambda value: value + 0.2 * features[index]["std"])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    expect(figure(page, "forecast")).to_have_text(forecast(server, found))
    page.keyboard.press("ArrowUp")
    page.wait_for_url(lambda url: "from=ref" in url)
    expect(figure(page, "forecast")).to_have_text(
        forecast(server, changed(window, index, [20], lambda value: value + 0.3 * features[index]["std"]))
    )


def test_of_many_changes_the_last_wins(server, open_tab, window):
    """After rapid changes, the page and the address have the forecast of the last one."""
    page = open_tab(server).show(SHOWN)
    page.get_by_label("Feature", exact=True).select_option("hour_sin")
    page.get_by_label("Value", exact=True).evaluate(
        """async (input) => {
          for (let number = 0; number < 60; number += 1) {
            input.value = String(-number / 60);
            input.dispatchEvent(new Event("input", { bubbles: true }));
            await new Promise((resolve) => setTimeout(resolve, number % 7));
          }
        }"""
    )
    page.wait_for_url(re.compile("window=z:"))
    names = [feature["name"] for feature in server.get(MODEL).json()["features"]]
    wanted = changed(window, names.index("hour_sin"), [23], lambda _: -59 / 60)
    expect(figure(page, "forecast")).to_have_text(forecast(server, wanted))
    np.testing.assert_allclose(window_in(page, server), wanted, rtol=1e-12)


def test_a_change_without_explanation_can_be_undone(server, open_tab, window):
    """The old forecast disappears, and the window can still be edited."""
    page = open_tab(server).show(SHOWN)
    page.get_by_label("Feature", exact=True).select_option("temp_c")
    page.get_by_label("Value", exact=True).fill("1e30")
    expect(page.locator(".wrong")).to_contain_text("values too far out to be explained")
    expect(page.locator(".summary")).to_be_hidden()
    page.get_by_label("Value", exact=True).fill("8")
    expect(page.locator(".summary")).to_be_visible()
    expect(page.locator(".wrong")).to_be_hidden()
    expect(figure(page, "forecast")).to_have_text(forecast(server, changed(window, 0, [23], lambda _: 8.0)))


def test_the_curves_are_those_of_the_api(server, open_tab, window, features):
    """Each passes through the forecasts of `:whatif`, the window's own at no shift; a click applies the shift."""
    page = open_tab(server).show(SHOWN)
    curves = page.locator(".response")
    expect(curves).to_have_count(12)
    page.get_by_role("button", name="All 20 features").click()
    expect(curves).to_have_count(20)
    index = next(place for place, feature in enumerate(features) if feature["name"] == "pressure_hpa")
    reach = 2 * features[index]["std"]
    body = {
        "instances": [window],
        "features": ["pressure_hpa"],
        "shift": {"from": -reach, "to": reach, "points": 21},
    }
    ((curve,),) = server.post(f"{MODEL}:whatif", json=body).json()["curves"]
    button = page.get_by_role("button", name=re.compile(r"^pressure_hpa shifted by"))
    path = button.locator("path[stroke-dasharray], [stroke-dasharray] path").first.get_attribute("d")
    x, y = np.array([pair.split(",") for pair in re.findall(r"-?[\d.]+,-?[\d.]+", path)], dtype=float).T
    for pixels, values in ((x, curve["values"]), (y, curve["predictions"])):
        np.testing.assert_allclose(np.polyval(np.polyfit(values, pixels, 1), values), pixels, atol=0.02)
    dot = button.locator("circle")
    assert float(dot.get_attribute("cx")) == pytest.approx(np.interp(0, curve["values"], x), abs=0.1)
    assert float(dot.get_attribute("cy")) == pytest.approx(y[10], abs=0.1)
    box = button.bounding_box()
    button.click(position={"x": box["width"] * 0.8, "y": box["height"] / 2})
    page.wait_for_url(re.compile("window=z:"))
    found = np.array(window_in(page, server)) - np.array(window)
    assert (np.abs(found[:, np.arange(20) != index]) == 0).all()
    assert np.ptp(found[:, index]) < 0.02 and 0 < found[0, index] < reach
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Shift all its steps by")).to_be_focused()
    expect(page.get_by_label("Feature", exact=True)).to_have_value("pressure_hpa")


def counterfactual(server, window, **options):
    """Of all features but the sines and cosines of the calendar, which cannot be changed alone."""
    names = [feature["name"] for feature in server.get(MODEL).json()["features"]]
    body = {"instances": [window], "features": [name for name in names if name[-4:] not in ("_sin", "_cos")], **options}
    answer = server.post(f"{MODEL}:counterfactual", json=body).json()
    return answer["counterfactuals"][0]


def search(page, kind, *bounds):
    page.get_by_label("The forecast should be").select_option(kind)
    page.get_by_label("Wanted forecast", exact=True).fill(str(bounds[0]))
    for bound in bounds[1:]:
        page.get_by_label("Wanted forecast, at most").fill(str(bound))
    page.get_by_role("button", name="Search").click()


def test_counterfactuals_are_listed_and_drawn(server, open_tab, window):
    """The API's results and those of single features have forecast and distance; each can become the window."""
    tab = open_tab(server)
    page = tab.show(SHOWN)
    wanted = 4.9
    best = counterfactual(server, window, target={"at_least": wanted})
    search(page, "at_least", wanted)
    rows = page.locator("tr[data-answer]")
    reaching = [one for one in best["single_features"] if one["shift"]]
    alone = len(best["changes"]) == 1
    expect(rows).to_have_count(1 + min(5, len(reaching) - alone))
    assert best["reached"] and len(reaching) > 1
    for change in best["changes"]:
        expect(rows.first).to_contain_text(change["feature"])
        expect(rows.first).to_contain_text(f"({change['shift_in_std']:+.3g} std)".replace("-", "−"))
    expect(rows.first.locator("td").nth(0)).to_have_text(say(best["new_prediction"]))
    expect(rows.first.locator("td").nth(1)).to_have_text(f"{best['distance']:.3g}")
    expect(page.get_by_role("status").filter(has_text="smallest changes found")).to_contain_text(
        f"{best['nearest_reference']['distance']:.3g} standard deviations from the nearest reference window"
    )
    shown = line_of(page, best["changes"][0]["feature"])
    drawn = shown.locator('path[stroke-dasharray="7 3"], [stroke-dasharray="7 3"] path').get_attribute("d")
    heights = [float(pair.split(",")[1]) for pair in re.findall(r"-?[\d.]+,-?[\d.]+", drawn)]
    names = [feature["name"] for feature in server.get(MODEL).json()["features"]]
    values = np.array(best["instance"])[:, names.index(best["changes"][0]["feature"])]
    np.testing.assert_allclose(np.polyval(np.polyfit(values, heights, 1), values), heights, atol=0.1)
    other = rows.nth(1)
    feature = other.locator("th").inner_text().split(" ")[0]
    other.get_by_role("radio").check()
    expect(line_of(page, feature).locator('[stroke-dasharray="7 3"]')).to_have_count(1)
    said = other.locator("td").first.inner_text()
    other.get_by_role("button", name="Use as the window").click()
    page.wait_for_url(re.compile("window=z:"))
    expect(figure(page, "forecast")).to_have_text(said)
    single = next(one for one in reaching if one["feature"] == feature)
    index = names.index(feature)
    np.testing.assert_allclose(
        window_in(page, server), changed(window, index, range(24), lambda value: value + single["shift"]), rtol=1e-9
    )
    expect(page.get_by_text("is already")).to_contain_text("The forecast is already at least 4.9 K.")
    assert tab.problems == []


def test_the_address_restores_a_search(server, open_tab, window):
    """An interval is restored from the address; if it is out of reach, the best result is shown as such."""
    page = open_tab(server).show(SHOWN)
    search(page, "between", -1, -0.5)
    best = counterfactual(server, window, target={"between": [-1.0, -0.5]})
    expect(page.locator("tr[data-answer] td").first).to_have_text(say(best["new_prediction"]))
    other = open_tab(server).page
    other.goto(page.url)
    expect(other.locator("tr[data-answer] td").first).to_have_text(say(best["new_prediction"]))
    expect(other.get_by_label("Wanted forecast, at most")).to_have_value("-0.5")
    search(other, "at_least", 1000)
    best = counterfactual(server, window, target={"at_least": 1000.0})
    assert not best["reached"]
    expect(other.get_by_role("status").filter(has_text="No change found")).to_contain_text(
        f"at least 1000 K; the nearest is {say(best['new_prediction'])}, from {say(best['prediction'])}"
    )
    other.get_by_label("Wanted forecast", exact=True).fill("")
    other.get_by_role("button", name="Search").click()
    expect(other.locator(".refused").filter(has_text="as a number")).to_be_visible()
    other.get_by_role("button", name="Clear").click()
    expect(other.locator("tr[data-answer]")).to_have_count(0)


def test_answers_follow_the_window(server, open_tab, window):
    """Results for one window are not shown for another."""
    page = open_tab(server).show(f"{SHOWN}&target=at_least:6.1&most=1")
    expect(page.locator("tr[data-answer]").first).to_be_visible()
    page.get_by_role("button", name="Next window").click()
    expect(page.locator(".summary")).to_contain_text("reference window 101")
    instance = server.get(f"{MODEL}/reference/101").json()["instance"]
    best = counterfactual(server, instance, target={"at_least": 6.1}, max_features=1)
    expect(page.locator("tr[data-answer] td").first).to_have_text(say(best["new_prediction"]))
    expect(page.locator("tr[data-answer] td").nth(1)).to_have_text(f"{best['distance']:.3g}")
