"""What follows: the forecasts of all steps in their band after the past of the target, and classes by their chances."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from factories import make_model, with_intervals
from playwright.sync_api import expect

import kanmodel
from kanmodel.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def kinds(serve, tmp_path_factory):
    """Serves a model that forecasts one of its features at 24 steps with intervals, and a classifier."""
    folder = tmp_path_factory.mktemp("models")
    ahead = make_model("lstm", targets=("f1",), horizon=24)
    save_checkpoint(with_intervals(ahead), folder / "ahead.safetensors")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2), torch.nn.Softmax(1)
    ).double()
    windows = np.random.default_rng(0).normal(size=(60, 3))
    classifier = kanmodel.from_torch(net, windows=windows, features=["a", "b", "c"], outputs=["no", "yes"])
    classifier.save(folder / "classes.safetensors")
    with serve(folder) as client:
        yield client


def test_many_steps_are_one_curve_in_a_band(kinds, open_tab):
    """24 steps follow the past of their feature; a click explains another step."""
    page = open_tab(kinds).show("forecast?model=ahead&window=ref:5")
    chart = page.locator(".outlook svg")
    steps = chart.locator('g[fill="var(--forecast)"]').first.locator("circle")
    expect(steps).to_have_count(24)
    expect(chart.locator('g[fill="var(--band)"] path')).to_have_count(1)
    expect(page.locator(".outlook .key")).to_contain_text("80 % interval")
    steps.nth(11).click(force=True)
    page.wait_for_url(re.compile(r"output=f1%2B12(&|$)"))
    instance = kinds.get("/v1/models/ahead/reference/5").json()["instance"]
    forecasts = kinds.post("/v1/models/ahead:predict", json={"instances": [instance]}).json()["predictions"][0]
    expect(page.locator("h1")).to_contain_text("12 steps ahead")
    value = float(page.locator("h1 .figure").inner_text().split(" ")[0].replace("−", "-"))
    assert value == pytest.approx(forecasts[11], abs=0.051)


def test_the_windows_around_show_what_came(server, open_tab):
    """Where the window does not hold the target, its forecast stands among those of others; the worst are listed."""
    page = open_tab(server).show("forecast?model=nyc-weather&window=ref:100")
    for name in ("actual", "forecast"):
        expect(page.locator(f'.outlook svg g[stroke="var(--{name})"] path')).to_have_count(1)
    expect(page.locator(".outlook .key")).to_contain_text("what came")
    page.get_by_role("button", name="Largest errors").click()
    windows = server.get("/v1/models/nyc-weather/reference", params={"limit": 1000}).json()["windows"]
    worst = max(windows, key=lambda one: abs(one["prediction"][0] - one["target"][0]))
    page.locator(".worst button").first.click()
    page.wait_for_url(re.compile(f"window=ref:{worst['index']}(&|$)"))


def test_other_targets_are_a_click_away(server, open_tab):
    """Their forecasts stand below, each with its name."""
    page = open_tab(server).show("forecast?model=two&output=a%2B1")
    page.locator(".others button").first.click()
    page.wait_for_url(re.compile(r"output=b%2B1"))


def test_classes_have_percentages(kinds, open_tab):
    """Each class has a bar and its share, the likeliest first; another is explained by a click."""
    page = open_tab(kinds).show("forecast?model=classes&window=ref:3")
    instance = kinds.get("/v1/models/classes/reference/3").json()["instance"]
    shares = kinds.post("/v1/models/classes:predict", json={"instances": [instance]}).json()["predictions"][0]
    told = [f"{100 * share:.1f} %" for share in sorted(shares, reverse=True)]
    expect(page.locator(".classes .number")).to_have_text(told)
    expect(page.locator("h1")).to_contain_text("The chance of ")
    page.locator(".classes button[aria-pressed=false]").click()
    page.wait_for_url(re.compile("output="))
