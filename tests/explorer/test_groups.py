"""Groups of inputs: the checkpoint's and those of the address, with what they contribute in two senses."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import expect

MODEL = "/v1/models/nyc-weather"
SHOWN = "forecast?model=nyc-weather&window=ref:100&ask=parts"


def row_of(page, name):
    return page.locator("table.parts tbody tr", has=page.get_by_role("rowheader", name=name, exact=True))


def cells(page, name):
    texts = row_of(page, name).locator("td.number").all_inner_texts()
    return [float(text.split(" ")[0].replace("−", "-")) for text in texts]


def test_the_groups_of_the_checkpoint_have_the_figures_of_the_api(server, open_tab):
    """Contribution, Shapley value and both effects of the pressures together, and of an input alone."""
    page = open_tab(server).show(SHOWN)
    expect(row_of(page, "pressure")).to_be_visible()
    instance = server.get(f"{MODEL}/reference/100").json()["instance"]
    answer = server.post(f"{MODEL}:explain", json={"instances": [instance], "effects": True}).json()["explanations"][0]
    sums, effect = answer["contributions_by_group"], answer["effects_by_group"]["pressure"]["all steps"]
    found = cells(page, "pressure")
    assert found[0] == pytest.approx(sums["pressure"]["all steps"], abs=0.051)
    assert found[2:] == [pytest.approx(effect["removed"], abs=0.051), pytest.approx(effect["alone"], abs=0.051)]
    assert cells(page, "temp_c")[0] == pytest.approx(sums["temp_c"]["all steps"], abs=0.051)
    shapley = [cells(page, name)[1] for name in page.locator("table.parts tbody th").all_inner_texts()]
    assert sum(shapley) == pytest.approx(answer["prediction"] - answer["baseline_prediction"], abs=0.051 * len(shapley))


def test_an_input_chooses_its_group(server, open_tab):
    """A new one, which the address has; the checkpoint's are a click away."""
    page = open_tab(server).show(SHOWN)
    page.get_by_role("combobox", name="Group of temp_c", exact=True).select_option("a new group")
    page.wait_for_url(re.compile("groups="))
    page.get_by_role("combobox", name="Group of dewp_c", exact=True).select_option("group 1")
    expect(row_of(page, "group 1").locator("select")).to_have_count(2)
    groups = json.loads(parse_qs(page.url.split("?", 1)[1])["groups"][0])
    assert groups["group 1"] == ["temp_c", "dewp_c"]
    page.get_by_role("button", name="The groups of the checkpoint").click()
    expect(row_of(page, "group 1")).to_have_count(0)
