"""Forecasts over time: of the reference windows and of a file, in spans and weeks, agree with what the API answers."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from factories import make_model, make_windows, with_intervals
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.table import SeriesColumn

THOROUGH = pytest.mark.thorough("another walk through the view; the first and the file are quick")
MODEL = "/v1/models/nyc-weather"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
LOOKBACK, N_ROWS, GAP, BAD = 6, 90, 40, 60
NAMES = ["f0", "f1", "f2", "f3"]


@pytest.fixture(scope="module")
def windows(server):
    return server.get(f"{MODEL}/reference", params={"contributions": True}).json()["windows"]


@pytest.fixture(scope="module")
def errors(windows):
    return np.array([row["prediction"][0] - row["target"][0] for row in windows])


@pytest.fixture(scope="module")
def groups(server, windows):
    """The mean contributions of each window by outermost group, (n, n_groups), and their names."""
    model = server.get(MODEL).json()
    names, known = [feature["name"] for feature in model["features"]], model["groups"]
    single = [name for name in names if not any(name in members for members in known.values())]
    columns = np.array([row["contributions"] for row in windows])
    outer = {**known, **{name: [name] for name in single}}
    sums = [columns[:, [names.index(member) for member in members]].sum(axis=1) for members in outer.values()]
    return np.stack(sums, axis=1), [*outer]


@pytest.fixture(scope="module")
def small(serve, tmp_path_factory):
    """A model with intervals whose rows are an hour apart, and one of more outputs without anything known."""
    folder = tmp_path_factory.mktemp("small")
    model = with_intervals(make_model())
    timed = replace(model.config, time=TimeColumn("time", 3600.0, 1.5, True))
    save_checkpoint(model.with_config(timed), folder / "small.safetensors")
    shops = replace(timed, series=SeriesColumn("shop", ("a", "b")))
    save_checkpoint(model.with_config(shops), folder / "shops.safetensors")
    save_checkpoint(make_model("head", with_targets=False), folder / "plain.safetensors")
    with serve(folder) as client:
        yield client


def rows_of(n=N_ROWS):
    walks = make_windows(make_model(), -(-n // LOOKBACK), seed=5).reshape(-1, len(NAMES))
    return np.round(walks[:n], 4)


def columns_of(rows, gap=GAP):
    """The columns of a file with a gap in time, or none, the target's among them."""
    times = [
        datetime(2026, 3, 2) + timedelta(hours=row + 5 * (gap is not None and row >= gap)) for row in range(len(rows))
    ]
    actual = np.random.default_rng(1).normal(5, 3, len(rows)).round(3)
    names = {name: rows[:, number].tolist() for number, name in enumerate(NAMES)}
    return {
        "time": [f"{time:%Y-%m-%d %H:%M}" for time in times],
        "note": ["x"] * len(rows),
        **names,
        "y": actual.tolist(),
    }


def csv_of(columns):
    lines = [[*columns], *zip(*columns.values(), strict=True)]
    return "\n".join(",".join(map(str, line)) for line in lines)


def give(page, text, name="own.csv"):
    page.get_by_label("a file", exact=True).check()
    page.locator("#series").set_input_files({"name": name, "mimeType": "text/csv", "buffer": text.encode()})
    page.wait_for_url(re.compile("file=own"))


def saved(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    return list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))


def chart(page):
    return page.get_by_role("slider", name=re.compile("^Forecasts over time"))


def drag(page, start, end):
    """Brushes the chart between two shares of the width of its strips."""
    chart(page).evaluate("one => one.scrollIntoView()")
    line = chart(page).locator(".zero").first.bounding_box()
    place = [line["x"] + share * line["width"] for share in (start, end)]
    y = chart(page).bounding_box()["y"] + 100
    page.mouse.move(place[0], y)
    page.mouse.down()
    page.mouse.move(place[1], y, steps=3)
    page.mouse.up()


def numbers(row):
    texts = row.locator("td.number").all_inner_texts()
    return [float(text.replace("−", "-").replace(" %", "").replace(",", "")) for text in texts]


def test_the_reference_windows_are_summed_up_and_drawn(server, open_tab, windows, errors, groups):
    """One sentence has their errors and what drives them; lines pass through forecasts and actual values in ink."""
    tab = open_tab(server)
    page = tab.show("time?model=nyc-weather")
    values, names = groups
    lead = page.locator(".lead")
    expect(lead).to_contain_text(f"512 forecasts from {windows[0]['time'].replace('T', ' ').removesuffix('Z')}")
    expect(lead).to_contain_text(f"off by {np.abs(errors).mean():.1f} K on average")
    shares = np.abs(values).mean(axis=0) / np.abs(values).mean(axis=0).sum()
    strongest = np.argsort(-shares)
    expect(lead).to_contain_text(f"Mainly driven by {names[strongest[0]]} ({100 * shares[strongest[0]]:.1f} %)")
    for color, of in (("--forecast", "prediction"), ("--actual", "target")):
        lines = chart(page).locator(f'path[stroke="var({color})"], [stroke="var({color})"] path')
        paths = lines.evaluate_all("all => all.map(one => one.getAttribute('d'))")
        y = np.array([float(pair.split(",")[1]) for path in paths for pair in re.findall(r"-?[\d.]+,-?[\d.]+", path)])
        known = [row[of][0] for row in windows]
        np.testing.assert_allclose(np.polyval(np.polyfit(known, y, 1), known), y, atol=0.01)
    labels = "all => all.map(one => one.getAttribute('aria-label'))"
    parts = page.locator(".stacked path[data-feature]")
    wanted = [*(names[place] for place in strongest[:6]), "all others"]
    assert [label.split(":")[0] for label in parts.evaluate_all(labels)] == wanted
    shades = parts.evaluate_all("all => all.map(one => getComputedStyle(one).fill)")
    key = page.locator(".kind rect").evaluate_all("all => all.map(one => getComputedStyle(one).fill)")
    assert shades == key and len(set(shades)) == 7  # none of them that of what raises or lowers
    assert not {"rgb(0, 114, 178)", "rgb(213, 94, 0)"} & set(shades)
    steps = re.findall(r"[ML][\d.]+,([\d.]+)H", page.locator(".stacked .sum").get_attribute("d") or "")
    known = [row["prediction"][0] for row in windows]  # which is the sum of the contributions and the baseline
    y = np.array(steps, float)
    np.testing.assert_allclose(np.polyval(np.polyfit(known, y, 1), known), y, atol=0.05)
    expect(page.locator("th:empty")).to_have_count(0)  # a reader of tables hears what each column is
    rows = [row.locator("td").all_inner_texts() for row in page.locator("tr[data-worst]").all()]
    for column in zip(*rows, strict=True):  # decimals stand below each other
        assert len({len(text.partition(".")[2]) for text in column}) == 1
    page.get_by_label("one below another").check()
    page.wait_for_url("**parts=strips*")
    expect(page.locator(".strip")).to_have_count(8)
    strips = page.locator(".strip").evaluate_all(labels)
    assert strips[0].startswith("error: forecast − actual: mean")
    assert [strip.split(":")[0] for strip in strips[1:]] == wanted
    assert tab.problems == []


def test_a_span_is_compared_with_the_rest(server, open_tab, windows, errors, groups):
    """What a brush chooses is in the address, with its errors, forecasts, actual values and mean contributions."""
    tab = open_tab(server)
    page = tab.show("time?model=nyc-weather")
    expect(page.locator(".stacked .sum")).to_be_visible()
    drag(page, 0.2, 0.4)
    page.wait_for_url(re.compile(r"a=\d+-\d+"))
    first, last = map(int, re.search(r"a=(\d+)-(\d+)", page.url).groups())
    assert (first, last) == pytest.approx((102, 204), abs=2)
    inside = np.arange(len(windows))
    inside = (first <= inside) & (inside <= last)
    told = page.get_by_role("region", name="What it was driven by")
    expect(told).to_contain_text(f"They were off by {np.abs(errors[inside]).mean():.1f} K")
    expect(told).to_contain_text(f"the rest by {np.abs(errors[~inside]).mean():.1f} K")
    actual, forecast = (np.array([row[of][0] for row in windows]) for of in ("target", "prediction"))
    for values in (forecast, actual):
        by = values[inside].mean() - values[~inside].mean()
        expect(told).to_contain_text(f"{abs(by):.1f} K {'lower' if by < 0 else 'higher'}")
    values, names = groups
    means = np.stack([values[inside].mean(axis=0), values[~inside].mean(axis=0)])
    rows = told.locator("tr[data-feature]")
    order = np.argsort(-np.abs(means[0] - means[1]))
    assert rows.evaluate_all("all => all.map(row => row.dataset.feature)") == [names[place] for place in order[:10]]
    for number, place in enumerate(order[:10]):
        assert numbers(rows.nth(number)) == pytest.approx(
            [means[0, place] - means[1, place], *means[:, place]], abs=0.051
        )
    assert tab.problems == []


@THOROUGH
def test_two_sets_of_spans_are_compared(server, open_tab, windows, errors):
    """Spans are added to either set, named by their times, taken out again, and zoomed into; the worst are a set."""
    page = open_tab(server).show("time?model=nyc-weather&a=10-19")
    page.get_by_label("one span more").check()
    drag(page, 0.5, 0.6)
    page.get_by_label("what it is compared with").check()
    drag(page, 0.8, 0.9)
    page.wait_for_url(re.compile("b="))
    spans = [re.findall(r"(\d+)-(\d+)", re.search(f"{key}=([^&]*)", page.url)[1]) for key in "ab"]
    assert spans[0][0] == ("10", "19") and [len(found) for found in spans] == [2, 1]
    chosen = [np.concatenate([errors[int(start) : int(end) + 1] for start, end in found]) for found in spans]
    told = page.get_by_role("region", name="What it was driven by")
    expect(told).to_contain_text(f"They were off by {np.abs(chosen[0]).mean():.1f} K")
    expect(told).to_contain_text(f"; B by {np.abs(chosen[1]).mean():.1f} K")
    ends = [windows[place]["time"].replace("T", " ").removesuffix("Z") for place in (10, 19)]
    expect(page.locator(".chip").first).to_contain_text(f"A: {ends[0]} to {ends[1]}")
    page.get_by_role("button", name=f"Leave out {ends[0]} to {ends[1]}").click()
    expect(page.locator(".chip")).to_have_count(2)
    page.get_by_role("button", name="Zoom in").click()
    (start, end) = map(int, spans[0][1])
    expect(chart(page)).to_have_attribute("aria-valuemax", str(end - start))
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".chip")).to_have_count(0)
    page.get_by_role("button", name="Choose the worst tenth").click()
    worst = np.sort(np.abs(errors))[::-1][:52]
    expect(told).to_contain_text(f"They were off by {worst.mean():.1f} K")


@THOROUGH
def test_the_chart_leads_to_each_forecast(server, open_tab, windows, errors):
    """By pointer with a hint, by keyboard, by touch, and from the list of the largest errors."""
    tab = open_tab(server)
    page = tab.show("time?model=nyc-weather&baseline=zero")
    expect(page.locator(".stacked .sum")).to_be_visible()
    chart(page).hover(position={"x": 500, "y": 80})
    index = int(chart(page).get_attribute("aria-valuenow"))
    hint = page.locator("#hint")
    expect(hint).to_contain_text(windows[index]["time"].replace("T", " ").removesuffix("Z"))
    expect(hint).to_contain_text(f"error {errors[index]:+.1f} K".replace("-", "−"))
    chart(page).click(position={"x": 500, "y": 80})
    page.wait_for_url(re.compile(f"forecast.*window=ref:{index}"))
    page.go_back()
    expect(page.locator(".stacked .sum")).to_be_visible()
    chart(page).focus()
    for key in ("End", "ArrowLeft", "PageDown", "ArrowRight", "Shift+ArrowLeft", "Shift+ArrowLeft", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url(re.compile("a=489-491"))
    expect(page.locator(".chip")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("forecast.*window=ref:489"))
    page = tab.show("time?model=nyc-weather&baseline=zero")
    for label, order in (("either way", -np.abs(errors)), ("too high", -errors), ("too low", errors)):
        page.get_by_label(label).check()
        listed = page.locator("tr[data-worst]").evaluate_all("rows => rows.map(row => Number(row.dataset.worst))")
        assert listed == np.argsort(order, kind="stable")[:20].tolist()
    page.locator("tr[data-worst]").first.get_by_role("link").click()
    page.wait_for_url(re.compile(f"forecast.*window=ref:{errors.argmin()}"))
    assert "baseline=zero" in page.url and tab.problems == []
    phone = open_tab(server, **PHONE).show("time?model=nyc-weather")
    for region in phone.locator(".halves .scroll").all():  # nothing is cut off
        assert region.evaluate("one => one.scrollWidth <= one.clientWidth")
    expect(phone.locator(".stacked .sum")).to_be_visible()
    chart(phone).tap(position={"x": 200, "y": 80})
    phone.wait_for_url(re.compile("forecast.*window=ref:"))


@THOROUGH
def test_a_week_has_its_errors_and_shares(server, open_tab, windows, errors, groups):
    """Of each, from its Monday on, and it can be chosen."""
    page = open_tab(server).show("time?model=nyc-weather")
    days = np.array([row["time"][:10] for row in windows], dtype="datetime64[D]")
    mondays = days - (days.astype(int) + 3) % 7
    rows = page.locator("tr[data-week]")
    expect(rows).to_have_count(len(np.unique(mondays)))
    values, _ = groups
    for number in (0, 3, 5):
        monday = np.unique(mondays)[number]
        inside = mondays == monday
        sizes = np.abs(values[inside]).mean(axis=0)
        overall = np.argsort(-np.abs(values).mean(axis=0))[:4]
        wanted = [
            inside.sum(),
            np.abs(errors[inside]).mean(),
            errors[inside].mean(),
            *100 * sizes[overall] / sizes.sum(),
        ]
        assert numbers(page.locator(f'tr[data-week="{monday}"]')) == pytest.approx(wanted, abs=0.051)
    page.locator(f'tr[data-week="{monday}"]').get_by_role("button").click()
    page.wait_for_url(re.compile(f"a={np.flatnonzero(inside)[0]}-{np.flatnonzero(inside)[-1]}"))


def test_a_file_is_forecast_compared_and_explained(small, open_tab):
    """All windows but those across a gap or a cell that is no number; after a reload the file is asked for again."""
    tab = open_tab(small)
    page = tab.show("time?model=small")
    columns = columns_of(rows_of())
    columns["f2"][BAD] = "n/a!"
    give(page, csv_of(columns))
    expect(page.locator(".told")).to_contain_text("90 rows, of which 74 end 6 whole ones without a gap")
    expect(page.locator(".told").get_by_role("alert")).to_have_text(
        f"line {BAD + 2}, f2, is “n/a!”, which is no number and counts as missing."
    )
    columns["f2"][BAD] = None
    series = {name: cells for name, cells in columns.items() if name != "note"}
    body = {"series": series, "detail": "rows"}
    found = small.post("/v1/models/small:backtest", json=body).json()
    lead = page.locator(".lead")
    expect(lead).to_contain_text(f"{len(found['rows'])} forecasts")
    expect(lead).to_contain_text("Mainly driven by")
    expect(page.locator(".progress")).to_be_hidden()
    for one in found["coverage"]:
        expect(lead).to_contain_text(f"the {100 * one['level']:.0f} % interval held {100 * one['covered']:.1f} %")
    table = [row for row in saved(page) if row["prediction"] != "NaN"]
    for row, one in zip(table, found["rows"], strict=True):
        assert (row["time"], float(row["actual"])) == (one["time"], one["actual"])
        assert float(row["prediction"]) == pytest.approx(one["prediction"], rel=1e-4)
        assert float(row["lower@0.8"]) == pytest.approx(one["intervals"][0]["lower"], rel=1e-4)
    assert np.mean([abs(float(row["error"])) for row in table]) == pytest.approx(found["metrics"]["mae"], rel=1e-4)
    alone = {name: cells[:30] for name, cells in series.items() if name != "y"}
    explained = small.post("/v1/models/small:explain", json={"series": alone}).json()["explanations"]
    for row, one in zip(table, explained, strict=False):
        for name, value in one["contributions"].items():
            assert float(row[f"contribution_{name}"]) == pytest.approx(value, abs=1e-6)
    drag(page, 0.1, 0.5)
    page.wait_for_url(re.compile("a="))
    page.reload()
    alert = page.locator(".told").get_by_role("alert")
    expect(alert).to_contain_text("own.csv is no longer in the memory of this tab: choose the file again")
    expect(page.locator(".timeline")).to_be_hidden()
    columns["f2"][BAD] = "n/a!"
    give(page, csv_of(columns))
    expect(page.locator(".chip")).to_have_count(1)
    assert "a=" in page.url and tab.problems == []


def test_a_file_of_many_series_is_forecast_by_series(small, open_tab):
    """Also where their rows are mixed; no window has rows of two, and lines are those of the file."""
    tab = open_tab(small)
    page = tab.show("time?model=shops")
    columns = columns_of(rows_of(30), gap=None)
    other = {name: cells if name in ("time", "note") else cells[::-1] for name, cells in columns.items()}
    mixed = {name: [cell for pair in zip(columns[name], other[name], strict=True) for cell in pair] for name in columns}
    mixed |= {"shop": ["a", "b"] * 30}
    mixed["f2"][58] = "n/a!"
    give(page, csv_of(mixed))
    expect(page.locator(".told")).to_contain_text("60 rows, of which 49 end 6 whole ones without a gap")
    expect(page.locator(".told").get_by_role("alert")).to_contain_text("line 60, f2, is “n/a!”")
    mixed["f2"][58] = None
    body = {"series": {name: cells for name, cells in mixed.items() if name != "note"}, "detail": "rows"}
    found = small.post("/v1/models/shops:backtest", json=body).json()["rows"]
    expect(page.locator(".lead")).to_contain_text(f"{len(found)} forecasts")
    expect(page.locator(".progress")).to_be_hidden()
    table = [row for row in saved(page) if row["prediction"] != "NaN"]
    assert [row["time"] for row in table] == [one["time"] for one in found]
    for row, one in zip(table, found, strict=True):
        assert float(row["prediction"]) == pytest.approx(one["prediction"], rel=1e-4)
        assert float(row["actual"]) == one["actual"]
    assert "NaN" not in {row[f"contribution_{NAMES[0]}"] for row in table} and tab.problems == []


@THOROUGH
def test_a_long_file_comes_in_parts_and_can_be_stopped(small, open_tab):
    """Forecasts come first; after Stop nothing is asked, and it goes on from there, or when the view is shown again."""
    page = open_tab(small).show("time?model=small")
    asked = []

    def hold(route):
        asked.append(route)
        if len(asked) != 2:
            route.continue_()

    page.route("**/small:explain", hold)
    give(page, csv_of(columns_of(rows_of(700), gap=None)))
    progress = page.get_by_role("progressbar", name="Forecasts explained")
    expect(page.locator(".progress")).to_contain_text("256 of 695")
    expect(page.locator(".lead")).to_contain_text("695 forecasts")
    expect(progress).to_have_js_property("value", 256)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".progress")).to_contain_text("stopped")
    assert len(asked) == 2
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".progress")).to_be_hidden()
    page.get_by_role("link", name="Features", exact=True).click()
    page.locator("main[aria-busy=false]").wait_for()
    page.get_by_role("link", name="Over time", exact=True).click()
    expect(page.locator(".lead")).to_contain_text("695 forecasts")
    assert len(asked) == 4


@THOROUGH
@pytest.mark.parametrize("name", ["small", "plain"])
def test_the_sample_file_is_one_that_is_read(small, open_tab, name):
    """What is downloaded can be chosen: its first window is a reference window, with its actual value."""
    page = open_tab(small).show(f"time?model={name}")
    page.get_by_label("a file", exact=True).check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download a sample file").click()
    text = download.value.path().read_text(encoding="utf-8")
    give(page, text)
    expect(page.locator(".told")).to_contain_text("rows, of which")
    expect(page.locator(".lead")).to_contain_text("Mainly driven by")
    expect(page.locator(".progress")).to_be_hidden()
    (first, *_) = small.get(f"/v1/models/{name}/reference", params={"limit": 1}).json()["windows"]
    table = saved(page)
    assert len(table) > 100
    assert float(table[0]["prediction"]) == pytest.approx(first["prediction"][0], rel=1e-3, abs=1e-3)
    if name == "small":
        assert float(table[0]["actual"]) == pytest.approx(first["target"][0])
        assert table[0]["time"] == first["time"][:16].replace("T", " ")


@THOROUGH
def test_a_file_that_is_no_table_of_the_model_says_why(small, open_tab):
    """Missing columns are named, beside those that there are."""
    page = open_tab(small).show("time?model=small")
    page.get_by_label("a file", exact=True).check()
    text = "time,f0,f1,temp\n2026-01-01,1,2,3"
    page.locator("#series").set_input_files({"name": "own.csv", "mimeType": "text/csv", "buffer": text.encode()})
    alert = page.locator(".told").get_by_role("alert")
    expect(alert).to_have_text("own.csv has no column f2, f3; it has time, f0, f1, temp.")


@THOROUGH
def test_windows_without_targets_and_times_have_forecasts_and_contributions(small, open_tab):
    """There is no list of errors, no weeks, and the windows have numbers."""
    tab = open_tab(small)
    page = tab.show("time?model=plain")
    expect(page.locator(".lead")).to_contain_text("160 forecasts; the actual values are not known")
    expect(page.get_by_role("region", name="Largest errors")).to_be_hidden()
    expect(page.get_by_role("region", name="By week")).to_be_hidden()
    chart(page).focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#hint")).to_contain_text("window 1")
    assert tab.problems == []


def test_the_windows_of_a_table_are_stepped_through(small, open_tab):
    """Each is named by its newest line; a long one stays out of the address; errors count the header."""
    tab = open_tab(small)
    page = tab.show("forecast?model=small")
    columns = columns_of(rows_of(GAP))
    page.get_by_label("your own").check()
    page.locator("#window").fill(csv_of(columns))
    page.get_by_role("button", name="Explain it").click()
    expect(page.locator(".summary")).to_contain_text("line 41 of pasted.csv")
    expect(page.locator(".own")).to_contain_text("of 35 windows in pasted.csv")
    page.get_by_role("button", name="Previous window of the table").click()
    expect(page.locator(".summary")).to_contain_text(f"line 40 of pasted.csv, {columns['time'][38]}")
    page.get_by_label("Newest line").fill("9")
    page.get_by_label("Newest line").press("Enter")
    expect(page.locator(".summary")).to_contain_text("line 9 of pasted.csv")
    assert len(page.url) < 200
    series = {name: columns[name][2:8] for name in NAMES}
    answer = small.post("/v1/models/small:predict", json={"series": series}).json()
    expect(page.locator('[data-figure="forecast"] strong')).to_contain_text(
        f"{answer['predictions'][0][0]:.2g}"[:3].replace("-", "−")
    )
    page.get_by_role("link", name="Story", exact=True).click()
    expect(page.locator("h1")).to_contain_text(" will be ")
    page.get_by_role("link", name="Forecast", exact=True).click()
    expect(page.locator(".own")).to_contain_text("of 35 windows in pasted.csv")
    one = {name: [*columns[name][:LOOKBACK]] for name in NAMES}
    one["f2"][3] = "x"
    page.locator("#window").fill(csv_of(one))
    page.get_by_role("button", name="Explain it").click()
    expect(page.locator(".wrong")).to_contain_text("line 5, f2, is not a number")
    assert tab.problems == []


def test_several_windows_are_explained_into_one_table(small, open_tab):
    """Windows that are pasted or chosen as JSON open over time, each in its row, and lead to their explanations."""
    tab = open_tab(small)
    page = tab.show("forecast?model=small")
    given = make_windows(make_model(), 7, seed=8).round(4).tolist()
    page.get_by_label("your own").check()
    page.locator("#window").fill(json.dumps({"instances": given}))
    page.get_by_role("button", name="Explain it").click()
    page.wait_for_url(re.compile("/time.*file=pasted.json"))
    expect(page.locator(".told")).to_contain_text("7 windows, whose times and actual values are not known.")
    expect(page.locator(".lead")).to_contain_text(
        "7 forecasts from window 1 to window 7; the actual values are not known"
    )
    expect(page.locator(".progress")).to_be_hidden()
    explained = small.post("/v1/models/small:explain", json={"instances": given}).json()["explanations"]
    for row, one in zip(saved(page), explained, strict=True):
        assert float(row["prediction"]) == pytest.approx(one["prediction"], rel=1e-6)
        assert float(row["contribution_f0"]) == pytest.approx(one["contributions"]["f0"], rel=1e-6)
    chart(page).focus()
    for key in ("Home", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(".summary")).to_contain_text("window 2 of pasted.json")
    page.get_by_role("button", name="Next window of the table").click()
    expect(page.locator(".summary")).to_contain_text("window 3 of pasted.json")
    expect(page.get_by_label("Window", exact=True)).to_have_value("3")
    tab.show("time?model=small")
    give(page, json.dumps(given[:2]), "own.json")
    expect(page.locator(".told")).to_contain_text("2 windows")
    given[1][3][2] = "x"
    tab.show("time?model=small")
    page.get_by_label("a file", exact=True).check()
    broken = json.dumps(given).encode()
    page.locator("#series").set_input_files({"name": "own.json", "mimeType": "application/json", "buffer": broken})
    expect(page.locator(".told").get_by_role("alert")).to_have_text("window 2: row 4, f2, is not a number.")
    assert tab.problems == []


@THOROUGH
def test_a_window_too_long_for_a_link_stays_in_the_tab(serve, open_tab, tmp_path):
    """Its address has a name of it; after a reload it is asked for again."""
    model = make_model(n_features=24, lookback=40)
    save_checkpoint(model, tmp_path / "m.safetensors")
    with serve(tmp_path) as client:
        page = open_tab(client).show("forecast?model=m")
        page.get_by_label("your own").check()
        text = json.dumps(make_windows(model, 1)[0].tolist())
        page.locator("#window").fill(text)
        page.get_by_role("button", name="Explain it").click()
        expect(page.locator(".summary")).to_contain_text("your own window")
        assert len(page.url) < 200
        page.reload()
        expect(page.locator(".wrong")).to_contain_text("is no longer in the memory of this tab: paste it again")
        page.locator("#window").fill(text)
        page.get_by_role("button", name="Explain it").click()
        expect(page.locator(".summary")).to_contain_text("your own window")


@THOROUGH
def test_reference_windows_that_are_not_shown_leave_files(serve, open_tab, tmp_path):
    """If a setting hides them, the view says so, and takes a file."""
    save_checkpoint(make_model(n_reference=130), tmp_path / "m.safetensors")
    with serve(tmp_path, KANSCOPE_REFERENCE_WINDOWS="false") as client:
        page = open_tab(client).show("time")
        expect(page.locator(".told").get_by_role("alert")).to_contain_text("reference windows are not shown here")
        give(page, csv_of(columns_of(rows_of())))
        expect(page.locator(".lead")).to_contain_text("forecasts")
