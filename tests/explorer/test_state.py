"""The explorer's state across views, and its behaviour while the service is slow, failing or unreachable."""

from __future__ import annotations

import json
import re

import pytest
from factories import make_model, make_windows
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

MODEL = "/v1/models/nyc-weather"


@pytest.fixture(scope="module")
def first():
    return make_model("lstm", n_reference=130)


@pytest.fixture(scope="module")
def several(serve, first, tmp_path_factory):
    """A model twice, one with other features and two outputs, and an invalid file."""
    folder = tmp_path_factory.mktemp("several")
    for name in ("first", "second"):
        save_checkpoint(first, folder / f"{name}.safetensors")
    save_checkpoint(make_model("lstm", n_features=3, targets=("a", "b"), n_reference=130), folder / "two.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no checkpoint")
    with serve(folder) as client:
        yield client


def settled(page):
    page.locator("main[aria-busy=false]").wait_for()


def test_choices_are_kept_across_views_outputs_and_models(several, first, open_tab):
    """A pasted window, a baseline and a rule are kept in other views, outputs and models."""
    tab = open_tab(several)
    page = tab.show("forecast?model=first&fidelity=0.9&baseline=zero")
    page.get_by_label("your own").check()
    page.locator("#window").fill(json.dumps(make_windows(first, 1)[0].tolist()))
    page.get_by_role("button", name="Explain it").click()
    expect(page.locator(".summary")).to_contain_text("your own window")
    given = page.locator("[data-figure=forecast] strong").inner_text()
    page.get_by_role("link", name="Network").click()
    expect(page.locator("#view h1")).to_have_text("Network")
    expect(page.locator("output[for=prune]")).to_have_text("R² ≥ 0.9")
    page.locator("#model").select_option("second")
    page.wait_for_url(re.compile("model=second"))
    page.get_by_role("link", name="Forecast").click()
    expect(page.locator(".summary")).to_contain_text("your own window")
    expect(page.locator("[data-figure=forecast] strong")).to_have_text(given)
    expect(page.locator("#baseline")).to_have_value("zero")
    page.locator("#model").select_option("two")  # has other features, so that the window does not fit
    expect(page.locator(".summary")).to_contain_text("reference window 0")
    expect(page.locator("#baseline")).to_have_value("zero")
    page.locator("#index-window").fill("7")
    page.locator("#index-window").press("Enter")
    expect(page.locator(".summary")).to_contain_text("reference window 7")
    page.locator("#output").select_option("b+1")
    page.wait_for_url(re.compile("output=b"))
    settled(page)
    expect(page.locator(".summary")).to_contain_text("reference window 7")
    assert {"fidelity=0.9", "baseline=zero"} <= set(page.url.split("?")[1].split("&"))
    assert tab.problems == []


NAMES = ("constructor", "toString", "__proto__", "hasOwnProperty")  # of what every object in JavaScript inherits


@pytest.mark.parametrize("name", NAMES)
def test_an_address_may_hold_what_objects_inherit(several, open_tab, name):
    """As a view, a setting or a column such a name is one that does not exist."""
    tab = open_tab(several)
    page = tab.show(f"{name}?model=first&{name}=1")
    expect(page.locator("#view h1")).to_contain_text("will be")
    page.locator("#model").select_option("two")  # another model, for which settings are looked up
    page.wait_for_url(re.compile("model=two"))
    settled(page)
    expect(page.locator("#view h1")).to_contain_text("will be")
    page = tab.show(f"features?model=first&sort={name}:up")
    expect(page.locator("#view h1")).to_have_text("Features")
    added = "async (name) => (await import('./groups.js')).withMember({}, 'f0', name)[name]"
    assert page.evaluate(added, name) == ["f0"]
    page = tab.show(f"forecast?model=first&target={name}:1")
    expect(page.get_by_text("enter the wanted forecast as a number")).to_be_visible()
    assert tab.problems == []


def test_moves_of_the_slider_and_of_the_window_are_in_the_history(server, open_tab):
    """Back undoes each of them, and Forward repeats it."""
    page = open_tab(server).show("network?model=nyc-weather")
    page.locator("#prune").press("ArrowLeft")
    page.wait_for_url(re.compile("fidelity="))
    moved = page.locator("output[for=prune]").inner_text()
    page.go_back()
    expect(page.locator("output[for=prune]")).to_have_text("R² ≥ 0.99")
    page.go_forward()
    expect(page.locator("output[for=prune]")).to_have_text(moved)
    page.get_by_role("link", name="Forecast").click()
    expect(page.locator(".summary")).to_contain_text("reference window 0")
    page.get_by_role("button", name="Next window").click()
    expect(page.locator(".summary")).to_contain_text("reference window 1")
    page.go_back()
    expect(page.locator(".summary")).to_contain_text("reference window 0")


@pytest.mark.parametrize("start", ["fidelity=0.5", "threshold=0"])
def test_every_stop_of_the_slider_changes_something(server, open_tab, start):
    """Each stop keeps a different number of edges."""
    page = open_tab(server).show(f"network?model=nyc-weather&{start}")
    page.locator("figure.chart svg").wait_for()
    settled(page)
    page.wait_for_load_state("networkidle")
    page.locator("#prune").press("Home")
    stops = int(page.locator("#prune").get_attribute("max"))
    assert stops > 5
    counts = []
    for number in range(stops + 1):
        page.locator("#prune").evaluate(
            "(slider, number) => { slider.value = number; slider.dispatchEvent(new Event('input')); }", number
        )
        said = page.locator("output[for=prune]").inner_text()
        value = re.search(r"[\d.]+$", said)[0]
        query = {"fidelity": value} if "fidelity" in start else {"edge_threshold": value}
        counts.append(server.get(f"{MODEL}/topology", params=query).json()["graph"]["edges"]["kept"])
    assert len(set(counts)) == len(counts)


def test_moving_the_slider_early_keeps_its_stops(server, open_tab):
    """While some stops are still loading, a move of the slider keeps those that are known."""
    tab = open_tab(server)
    tab.page.route("**/topology/fidelity?*metric=forward_u*", lambda _: None)  # never answered
    page = tab.show("network?model=nyc-weather")
    page.locator("figure.chart svg").wait_for()
    page.wait_for_timeout(1500)  # has the others
    before = page.locator("#prune").get_attribute("max")
    page.locator("#prune").press("ArrowLeft")
    page.wait_for_url(re.compile("fidelity="))
    settled(page)
    assert page.locator("#prune").get_attribute("max") == before == "19"


def test_the_skip_link_focuses_the_view(server, open_tab):
    """It moves the focus to the view and keeps the address."""
    page = open_tab(server).show("features?model=head")
    address = page.url
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "view"
    assert page.url == address
    expect(page.locator("#view h1")).to_have_text("Features")
    expect(page.locator("#model")).to_have_value("head")


@pytest.mark.parametrize(
    ("model", "reason"), [("broken", "could not be loaded"), ("nothing", "nothing"), ("two/9", "9")]
)
def test_the_address_of_a_failed_or_unknown_model_has_an_error(several, open_tab, model, reason):
    """The reason is shown, and ready models can be selected in the card and in the list."""
    page = open_tab(several).show(f"features?model={model}")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(reason)
    if model == "broken":
        details = {one["name"]: one for one in several.get("/v1/models").json()["details"]}
        expect(alert).to_contain_text(details["broken"]["reason"])
        expect(page.locator("#model option[value=broken]")).to_have_text("broken (failed)")
    assert alert.get_by_role("link").all_inner_texts() == ["first", "second", "two"]
    page.locator("#model").select_option("two")
    expect(page.locator("#view h1")).to_have_text("Features")
    page.go_back()
    expect(alert).to_contain_text(reason)
    alert.get_by_role("link", name="second").click()
    expect(page.locator("#view h1")).to_have_text("Features")


def test_failed_requests_are_retried(server, open_tab):
    """If the service is not ready or unreachable, the page retries; meanwhile the old view is dimmed."""
    tab = open_tab(server)
    page = tab.show("network?model=nyc-weather")
    answers = ["503", "gone"]

    def fail(route):
        if not answers:
            route.continue_()
        elif answers.pop(0) == "503":
            body = {"error": "the model is being read", "code": "not_ready"}
            route.fulfill(status=503, headers={"Retry-After": "1"}, body=json.dumps(body))
        else:
            route.abort()

    page.route("**/v1/models/nyc-weather/attributions**", fail)
    page.get_by_role("link", name="Features").click()
    expect(page.locator("#status")).to_contain_text("the model is being read")
    expect(page.locator("main")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#status")).to_contain_text("the service does not answer")
    expect(page.locator("main > .view")).to_have_css("opacity", "0.45")
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("tr[data-feature]:not([data-group])")).to_have_count(20)
    expect(page.locator("#status")).to_be_hidden()
    expect(page.locator("main > .view")).to_have_css("opacity", "1")
    assert answers == []


def test_a_view_that_could_not_be_loaded_is_loaded_later(server, open_tab):
    """While the service is away, the page says so in words, and asks again for the view's own file."""
    page = open_tab(server).show("story?model=nyc-weather")
    page.route("**/views/model.js*", lambda route: route.abort())
    page.get_by_role("navigation").get_by_role("link", name="Model").click()
    expect(page.locator("#status")).to_contain_text("the service does not answer")
    page.unroute("**/views/model.js*")
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("h1")).to_have_text("Model")


def test_slow_requests_show_elapsed_seconds(server, open_tab):
    """While the service computes, the page shows the seconds and dims the old picture."""
    page = open_tab(server).show("network?model=nyc-weather")
    waiting, slow = [], [True]
    page.route("**/topology?*fidelity=0.9&*", lambda route: waiting.append(route) if slow[0] else route.continue_())
    page.evaluate("location.hash = '#/network?model=nyc-weather&fidelity=0.9'")
    expect(page.locator("#status")).to_contain_text(re.compile("computing; [1-9] s so far"))
    expect(page.locator("main > .view")).to_have_css("opacity", "0.45")
    slow[0] = False
    for route in waiting:
        route.continue_()
    settled(page)
    expect(page.locator("#status")).to_be_hidden()


def test_no_figure_is_minus_zero(server, open_tab):
    """A negative number that rounds to zero has no sign."""
    page = open_tab(server).show("report?model=nyc-weather")
    said = page.evaluate(
        """() => import("./figures.js").then(({ fixed, percent, amount }) =>
          [fixed(-0.00001, 4), fixed(-0, 4), percent(-0.0000001), amount(-0), fixed(-0.5, 1)])"""
    )
    assert said == ["0.0000", "0.0000", "0.0 %", "0", "−0.5"]
