"""The explorer opens on one forecast as a story, whose numbers are the API's."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from factories import make_model, with_intervals
from playwright.sync_api import expect

import kanmodel
from kanmodel.checkpoint import save_checkpoint

MODEL = "/v1/models/nyc-weather"


@pytest.fixture(scope="module")
def kinds(serve, tmp_path_factory):
    """Serves a model that forecasts one of its features at four steps with intervals, and a classifier."""
    folder = tmp_path_factory.mktemp("models")
    ahead = make_model("lstm", targets=("f1",), horizon=4)
    save_checkpoint(with_intervals(ahead), folder / "ahead.safetensors")
    save_checkpoint(with_intervals(ahead, "constant"), folder / "constant.safetensors")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2), torch.nn.Softmax(1)
    ).double()
    windows = np.random.default_rng(0).normal(size=(60, 3))
    classifier = kanmodel.from_torch(net, windows=windows, features=["a", "b", "c"], outputs=["no", "yes"])
    classifier.save(folder / "classes.safetensors")
    with serve(folder) as client:
        yield client


def kelvin(value, sign=False):
    text = f"{value:+.1f}" if sign else f"{value:.1f}"
    return f"{text} K".replace("-", "−")


def test_the_explorer_opens_on_the_newest_forecast(server, open_tab):
    """A sentence has the forecast, its causes and usual error; the actual value and three reasons follow."""
    tab = open_tab(server)
    tab.page.goto(f"{tab.base}/explorer")
    page = tab.page
    page.locator("main[aria-busy=false]").wait_for()
    page = tab.show("story?model=nyc-weather")
    page.wait_for_url(re.compile("window=ref:511"))
    window = server.get(f"{MODEL}/reference/511").json()
    answer = server.post(f"{MODEL}:explain", json={"instances": [window["instance"]]}).json()["explanations"][0]
    windows = server.get(f"{MODEL}/reference", params={"limit": 1000}).json()["windows"]
    errors = [abs(one["prediction"][0] - one["target"][0]) for one in windows]
    said = page.locator("h1").inner_text()
    assert said.startswith(
        f"Newark's temperature change over the next six hours will be {kelvin(answer['prediction'])}, "
    )
    assert said.endswith(f"usually off by {kelvin(np.mean(errors))}.")
    came = window["target"][0]
    error = answer["prediction"] - came
    off = f"{kelvin(abs(error))} too {'high' if error > 0 else 'low'}"
    expect(page.locator(".came")).to_have_text(f"The actual value was {kelvin(came)}: the forecast was {off}.")
    groups = {name: of["all steps"] for name, of in answer["contributions_by_group"].items()}
    named = sorted(groups, key=lambda name: -abs(groups[name]))[:3]
    assert page.locator(".reasons strong").all_inner_texts() == [*named, f"{len(groups) - 3} others together"]
    for number, name in enumerate(named):
        verb = "raises" if groups[name] > 0 else "lowers"
        item = page.locator(".reasons li").nth(number)
        expect(item).to_contain_text(f"{verb} it by {kelvin(abs(groups[name]))}")
    assert page.locator(".history svg circle").count() > 20
    expect(page.locator(".trust")).to_contain_text("On the 512 reference windows")
    assert tab.problems == []


def test_what_would_change_it_is_a_forecast(server, open_tab):
    """A feature that is a standard deviation higher at every step gives the forecast that `:predict` gives."""
    page = open_tab(server).show("story?model=nyc-weather&window=ref:100")
    features = server.get(MODEL).json()["features"]
    window = np.array(server.get(f"{MODEL}/reference/100").json()["instance"])
    row = page.locator(".change tr[data-feature=wind_v_ms]")
    place = next(index for index, feature in enumerate(features) if feature["name"] == "wind_v_ms")
    window[:, place] += features[place]["std"]
    expected = server.post(f"{MODEL}:predict", json={"instances": [window.tolist()]}).json()["predictions"][0][0]
    expect(row.locator("td").nth(1)).to_contain_text(kelvin(expected))
    assert "hour" not in page.locator(".change table").first.inner_text()  # an hour is no lower or higher
    page.get_by_label("Wanted forecast", exact=True).fill("2")
    page.get_by_label("The forecast should be").select_option("at most")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".change [data-answer]").first).to_be_visible()
    assert "hour" not in page.locator(".change [role=region]").inner_text()


def test_a_changed_window_says_what_it_was(server, open_tab):
    """The forecast as it was and the difference stand in place of the actual value, which is of another window."""
    page = open_tab(server).show("forecast?model=nyc-weather&window=ref:100")
    page.get_by_label("Feature", exact=True).select_option("temp_c")
    page.get_by_label("Shift all its steps by").fill("9")
    page.get_by_role("button", name="Shift", exact=True).click()
    page.wait_for_url(re.compile("window=z:"))
    page.locator("#tabs").get_by_role("link", name="Story").click()
    instance = server.get(f"{MODEL}/reference/100").json()["instance"]
    hot = [[value + 9 * (place == 0) for place, value in enumerate(row)] for row in instance]
    body = {"instances": [instance, hot]}
    (before,), (after,) = server.post(f"{MODEL}:predict", json=body).json()["predictions"]
    change = f"{kelvin(abs(after - before))} {'lower' if after < before else 'higher'}"
    expect(page.locator(".came")).to_have_text(
        f"The window was changed: as it was, the forecast was {kelvin(before)}; the change makes it {change}."
    )
    expect(page.locator("h1")).to_contain_text(kelvin(after))


def test_it_is_printed_on_one_page(server, open_tab):
    """On A4, whatever the width of the screen."""
    for width in (390, 1280):
        page = open_tab(server, viewport={"width": width, "height": 800}).show("story?model=nyc-weather")
        assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))) == 1, width


def test_many_outputs_are_one_curve(kinds, open_tab):
    """The steps ahead follow the history of their feature, in their band; a click explains another step."""
    tab = open_tab(kinds)
    page = tab.show("story?model=ahead&window=ref:7")
    expect(page.locator("h1")).to_contain_text("f1+1 will be")
    expect(page.locator(".history h2")).to_contain_text("f1")
    expect(page.locator(".history .key")).to_contain_text("80 % interval")
    page.get_by_role("link", name=re.compile(r"f1\+3: ")).click()
    expect(page.locator("h1")).to_contain_text("f1+3 will be")
    expect(page.locator("#output")).to_have_value("f1+3")
    assert tab.problems == []


def test_what_no_input_moves_has_no_reasons(kinds, open_tab):
    """A constant width is the same whatever the inputs, and nothing would change it."""
    page = open_tab(kinds).show("story?model=constant&output=f1%2B2:width@0.8")
    expect(page.locator("h1")).to_have_text(
        re.compile(r"^The width of the 80 % interval of f1\+2 .*whatever the inputs\.$")
    )
    expect(page.locator(".why")).to_contain_text("No input moves it")
    expect(page.locator(".reasons")).to_have_count(0)


def test_classes_have_percentages(kinds, open_tab):
    """Each class has a bar and its share; nothing actual is spoken of where nothing is known."""
    tab = open_tab(kinds)
    page = tab.show("story?model=classes&output=yes%2B1")
    instance = kinds.get("/v1/models/classes/reference/59").json()["instance"]
    shares = kinds.post("/v1/models/classes:predict", json={"instances": [instance]}).json()["predictions"][0]
    expect(page.locator("h1")).to_contain_text(f"The chance of yes is {100 * shares[1]:.1f} %")
    rows = dict(zip(("no", "yes"), shares, strict=True))
    for row in page.locator(".classes tr").all():
        assert row.locator("td").last.inner_text() == f"{100 * rows[row.locator('th').inner_text()]:.1f} %"
    expect(page.locator("main")).not_to_contain_text(re.compile("actual value was"))
    assert tab.problems == []


def test_without_reference_windows_it_asks_for_one(serve, open_tab, tmp_path):
    """Where the service hides them, the first view leads to one's own window rather than to an error."""
    save_checkpoint(make_model("lstm", n_reference=130), tmp_path / "m.safetensors")
    with serve(tmp_path, KANSCOPE_REFERENCE_WINDOWS="false") as client:
        page = open_tab(client).show("story")
        expect(page.locator(".came")).to_contain_text("This service shows no windows of its own")
        expect(page.locator(".why")).to_be_hidden()
