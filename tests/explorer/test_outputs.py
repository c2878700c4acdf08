"""All outputs of one window in the explorer."""

from __future__ import annotations

import pytest
from factories import make_model, with_intervals
from playwright.sync_api import expect
from precision import write
from thorough import few_of

from kanmodel.checkpoint import save_checkpoint


@pytest.mark.parametrize("model", few_of(["two", "front"], ["two"], "the same of another model"))
def test_all_outputs_of_a_window_are_listed(server, open_tab, model):
    """Forecast, baseline and contributions of each are those of `:explain`, and its name links to the output."""
    tab = open_tab(server)
    page = tab.show(f"forecast?model={model}&window=ref:5&baseline=zero")
    path = f"/v1/models/{model}"
    window = server.get(f"{path}/reference/5").json()["instance"]
    outputs = server.get(path).json()["outputs"]
    body = {"instances": [window], "output": outputs, "baseline": "zero"}
    answer = server.post(f"{path}:explain", json=body).json()
    rows = page.locator("tr[data-output]")
    expect(rows).to_have_count(len(outputs))
    names = page.get_by_role("region", name="All outputs").locator("thead th").all_inner_texts()[3:]
    assert set(names) <= set(answer["explanations"][0]["contributions"]) and len(names) >= 3
    for number, explained in enumerate(answer["explanations"]):
        forecast, baseline, *contributions = rows.nth(number).locator("td").all_inner_texts()
        assert forecast.split(" ")[0] == write(explained["prediction"], explained)
        assert baseline == write(explained["baseline_prediction"], explained)
        assert contributions == [write(explained["contributions"][name], explained, sign="+") for name in names]
    page.get_by_role("link", name=outputs[1]).click()
    expect(page.locator("#output")).to_have_value(outputs[1])
    expect(page.locator(".summary")).to_contain_text("reference window 5")
    assert "baseline=zero" in page.url
    assert tab.problems == []


def test_a_model_of_one_output_has_no_such_list(server, open_tab):
    page = open_tab(server).show("forecast?model=head&window=ref:5")
    expect(page.locator(".summary")).to_be_visible()
    expect(page.get_by_text("All outputs of this window")).to_have_count(0)


@pytest.mark.thorough("starts a server of its own")
def test_the_steps_of_a_target_are_one_curve(serve, open_tab, tmp_path):
    """It has a band and a point for each step, which leads to its explanation; the table is asked for as it opens."""
    save_checkpoint(with_intervals(make_model(horizon=3)), tmp_path / "m.safetensors")
    with serve(tmp_path) as client:
        tab = open_tab(client)
        asked = []
        tab.page.on("request", lambda one: asked.append(one.post_data) if one.url.endswith(":explain") else None)
        page = tab.show("forecast?model=m&window=ref:5")
        steps = page.locator(".outputs figure a")
        expect(steps).to_have_count(3)
        expect(page.locator(".outputs")).to_contain_text("80 % interval")
        assert not any("y+2" in body for body in asked)
        page.get_by_text("What each of them is made of").click()
        expect(page.locator("tr[data-output]")).to_have_count(3)
        steps.nth(1).click(force=True)
        expect(page.locator("#output")).to_have_value("y+2")
        expect(page.locator(".summary")).to_contain_text("eference window 5")
        assert tab.problems == []
