"""Prediction intervals in the explorer: a forecast in its bands, and a width explained as a forecast is."""

from __future__ import annotations

import re

import pytest
from factories import make_model, with_intervals
from playwright.sync_api import expect
from precision import write

from kanmodel.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def sure(serve, tmp_path_factory):
    """Serves a model of two targets with intervals."""
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(with_intervals(make_model("lstm", targets=("a", "b"))), folder / "sure.safetensors")
    with serve(folder) as client:
        yield client


def explain(server, window, output):
    body = {"instances": [window], "output": output}
    return server.post("/v1/models/sure:explain", json=body).json()["explanations"][0]


def test_a_forecast_stands_in_its_intervals(sure, open_tab):
    """In the summary, the waterfall and the table of outputs they are those of `:predict`; its width is an output."""
    tab = open_tab(sure)
    page = tab.show("forecast?model=sure&window=ref:5&output=b%2B1")
    window = sure.get("/v1/models/sure/reference/5").json()["instance"]
    answer = sure.post("/v1/models/sure:predict", json={"instances": [window], "intervals": "all"}).json()
    ends = [[each[bound][0][1] for bound in ("lower", "upper")] for each in answer["intervals"]]
    explanation = explain(sure, window, "b+1")
    for level, (low, high) in zip((80, 95), ends, strict=True):
        text = f"{write(low, explanation, 'K')} to {write(high, explanation, 'K')}"
        expect(page.locator(f'[data-figure="{level} % interval"] strong')).to_have_text(text)
        expect(page.get_by_role("img", name=f"{level} % interval: {text}")).to_have_count(1)
    row = page.locator('tr[data-output="b+1"]')
    expect(row).to_have_count(1)
    assert row.locator("td").all_inner_texts()[1:3] == [
        f"{write(low, explanation)} to {write(high, explanation)}" for low, high in ends
    ]

    names = page.locator("#output optgroup option").all_inner_texts()
    assert names == [f"b+1:{kind}@{level}" for level in (0.8, 0.95) for kind in ("lower", "upper", "width")]
    page.locator("#output").select_option("b+1:width@0.8")
    width = ends[0][1] - ends[0][0]
    expect(page.locator('[data-figure="forecast"] strong')).to_have_text(
        write(width, explain(sure, window, "b+1:width@0.8"), "K")
    )
    expect(page.locator('[data-figure="forecast"]')).to_contain_text("width of the 80 % interval")
    expect(page.locator('[data-figure="80 % interval"]')).to_have_count(0)
    expect(page.locator("#output")).to_have_value("b+1:width@0.8")
    page.locator("#tabs").get_by_role("link", name="Network").click()
    page.wait_for_url(re.compile("network.*output=b.*width"))
    page.locator("main[aria-busy=false] svg").first.wait_for()
    tab.show("model?model=sure")
    expect(page.locator("main")).to_contain_text("80 %, 95 %, calibrated on 100 windows")
    assert tab.problems == []
