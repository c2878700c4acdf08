"""Groups of features in the explorer: the checkpoint's and user-defined ones."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.thorough("steps through one view; test_explorer loads every view")

MODEL = "/v1/models/nyc-weather"
WINDOW = "window=ref:100"


def settled(page):
    page.locator("main[aria-busy=false]").wait_for()


def groups_of(page):
    """The groups in the address."""
    return parse_qs(page.url.partition("?")[2]).get("groups", [None])[0]


def rows_of(page):
    """The groups that are shown, with their features."""
    return {
        row.get_attribute("data-group"): row.locator(".members").inner_text().split(", ")
        for row in page.locator("tr[data-group]").all()
    }


def bars_of(page):
    """The names of the waterfall's bars and their contributions, in order."""
    labels = page.locator("figure rect[aria-label*=', to ']").evaluate_all("bars => bars.map(bar => bar.ariaLabel)")
    return {label.rpartition(": ")[0]: label.rpartition(": ")[2].partition(" K")[0] for label in labels}


def shorten(value):
    return f"{value:+.2f}".replace("-", "−")


def test_the_features_view_shows_the_groups_of_the_checkpoint(server, open_tab):
    """Each with its features, verdict and share from the API; ungrouped features are not among them."""
    tab = open_tab(server)
    page = tab.show("features?model=nyc-weather")
    answer = server.get(f"{MODEL}/attributions").json()
    known = server.get(MODEL).json()["groups"]
    groups = [row for row in answer["groups"] if row["name"] in known]
    assert rows_of(page) == {row["name"]: row["members"] for row in groups}
    for row in groups:
        shown = page.locator(f"tr[data-group={row['name']}]")
        expect(shown.locator(".verdict")).to_have_text(row["verdict"])
        expect(shown.locator(".share > span")).to_have_text(f"{row['share'] * 100:.1f} %")
    assert page.get_by_label("Group of hour_sin").input_value() == "hour"
    assert page.get_by_label("Group of temp_c").input_value() == ""
    assert groups_of(page) is None and tab.problems == []


def test_a_feature_chooses_its_group(server, open_tab):
    """A feature can be moved to a new or another group, and the figures are those of the API for these groups."""
    tab = open_tab(server)
    page = tab.show("features?model=nyc-weather")
    page.get_by_label("Group of temp_c").select_option("a new group …")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("temperature")
    dialog.get_by_role("button", name="Make it").click()
    expect(page.locator("tr[data-group=temperature] .members")).to_have_text("temp_c")
    page.get_by_label("Group of dewp_c").focus()
    page.get_by_label("Group of dewp_c").select_option("temperature")
    expect(page.locator("tr[data-group=temperature] .members")).to_have_text("temp_c, dewp_c")
    expect(page.get_by_label("Group of dewp_c")).to_be_focused()
    page.get_by_label("Group of hour_sin").select_option("none")
    expect(page.locator("tr[data-group=hour] .members")).to_have_text("hour_cos")
    page.get_by_label("Group of hour_cos").select_option("temperature")
    expect(page.locator("tr[data-group=hour]")).to_have_count(0)  # a group without features does not exist
    settled(page)
    groups = json.loads(groups_of(page))
    assert groups["temperature"] == ["temp_c", "dewp_c", "hour_cos"] and set(groups) == {
        *("temperature", "weekday", "season", "pressure")
    }
    answer = server.get(f"{MODEL}/attributions", params={"groups": json.dumps(groups)}).json()
    row = next(row for row in answer["groups"] if row["name"] == "temperature")
    expect(page.locator("tr[data-group=temperature] .share > span")).to_have_text(f"{row['share'] * 100:.1f} %")
    assert tab.problems == []


def test_groups_are_dissolved_and_brought_back(server, open_tab):
    """Groups are removed one at a time or all at once; without groups in the address the checkpoint's are shown."""
    page = open_tab(server).show("features?model=nyc-weather")
    page.get_by_role("button", name="Dissolve hour").click()
    expect(page.locator("tr[data-group=hour]")).to_have_count(0)
    settled(page)
    assert page.get_by_label("Group of hour_sin").input_value() == ""
    page.get_by_role("button", name="No groups").click()
    expect(page.locator("tr[data-group]")).to_have_count(0)
    settled(page)
    assert groups_of(page) == "null"
    page.go_back()
    expect(page.locator("tr[data-group]")).to_have_count(3)
    page.get_by_role("button", name="The model’s groups").click()
    expect(page.locator("tr[data-group=hour]")).to_have_count(1)
    settled(page)
    assert groups_of(page) is None


def test_a_name_that_a_group_cannot_have_is_refused(server, open_tab):
    """An empty name and a feature's name are refused; Escape and Cancel change nothing."""
    page = open_tab(server).show("features?model=nyc-weather")
    choice, dialog = page.get_by_label("Group of temp_c"), page.get_by_role("dialog")
    for leave in ("Escape", "Cancel"):
        choice.select_option("a new group …")
        for name in ("", "  ", "dewp_c"):
            dialog.get_by_label("Name").fill(name)
            dialog.get_by_role("button", name="Make it").click()
            expect(dialog).to_be_visible()
        if leave == "Escape":
            page.keyboard.press("Escape")
        else:
            dialog.get_by_role("button", name="Cancel").click()
        expect(choice).to_have_value("")  # the dialog is hidden before its close event
        assert groups_of(page) is None


def test_the_waterfall_has_a_bar_for_each_group(server, open_tab):
    """The bars are the API's sums for groups and ungrouped features, or the features if selected."""
    page = open_tab(server).show(f"forecast?model=nyc-weather&{WINDOW}")
    window = server.get(f"{MODEL}/reference/100").json()["instance"]
    answer = server.post(f"{MODEL}:explain", json={"instances": [window]}).json()["explanations"][0]
    alone = answer["contributions"]
    grouped = {name: of["all steps"] for name, of in answer["contributions_by_group"].items()}

    def expected(contributions):
        largest = sorted(contributions, key=lambda name: -abs(contributions[name]))[:14]
        return {name: shorten(contributions[name]) for name in largest}

    def shown():
        settled(page)
        return {name: value for name, value in bars_of(page).items() if not name.endswith(" others")}

    assert shown() == expected(grouped) and "hour" in grouped and "hour_sin" not in grouped
    page.get_by_label("features", exact=True).check()
    page.wait_for_url(re.compile("bars=features"))
    assert shown() == expected(alone)
    page.reload()
    assert shown() == expected(alone)
    page.get_by_label("groups", exact=True).check()
    page.wait_for_url(re.compile("forecast(?!.*bars=)"))
    assert shown() == expected(grouped)


def test_nested_groups_of_an_address_count_once(server, open_tab):
    """Only outermost groups have bars, so that the bars sum to the forecast."""
    groups = json.dumps({"time": ["clock", "doy_sin"], "clock": ["hour_sin", "hour_cos"]})
    page = open_tab(server).show(f"forecast?model=nyc-weather&{WINDOW}&groups={groups}")
    assert "time" in bars_of(page) and not {"clock", "hour_sin", "doy_sin"} & set(bars_of(page))


def test_groups_stay_across_views_outputs_and_models(server, open_tab):
    """Groups are kept in other views and outputs, and dropped for a model with other features."""
    page = open_tab(server).show("features?model=two")
    page.get_by_label("Group of f0").select_option("a new group …")
    page.get_by_role("dialog").get_by_label("Name").fill("pair")
    page.keyboard.press("Enter")
    expect(page.locator("tr[data-group=pair]")).to_have_count(1)
    page.get_by_label("Group of f3").select_option("pair")
    expect(page.locator("tr[data-group=pair] .members")).to_have_text("f0, f3")
    page.get_by_role("link", name="Forecast").click()
    expect(page.locator("figure rect[aria-label^='pair: ']")).to_have_count(1)
    page.locator("#output").select_option("b+1")
    page.wait_for_url(re.compile("output=b"))
    expect(page.locator("figure rect[aria-label^='pair: ']")).to_have_count(1)
    page.locator("#model").select_option("front")
    page.wait_for_url(re.compile("model=front"))
    settled(page)
    assert json.loads(groups_of(page)) == {"pair": ["f0", "f3"]}
    page.locator("#model").select_option("nyc-weather")
    page.wait_for_url(re.compile("model=nyc-weather"))
    expect(page.locator("figure rect[aria-label^='hour: ']")).to_have_count(1)
    settled(page)
    assert groups_of(page) is None


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ("hour", "The groups of this address are not JSON."),
        ('{"hour":["z"]}', "groups.hour has no feature 'z'"),
        ('{"hour":["hour"]}', "groups.hour is a member of itself"),
    ],
)
def test_an_address_with_invalid_groups_has_an_error(server, open_tab, groups, says):
    """The error is shown in the view."""
    page = open_tab(server).show(f"forecast?model=nyc-weather&groups={groups}")
    expect(page.locator("#view [role=alert]").first).to_contain_text(says)
