"""History, the ribbon and drift agree with what the API answers: of the reference windows, and of a file."""

from __future__ import annotations

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

MODEL = "/v1/models/nyc-weather"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
N_ROWS, GAP = 90, 40
NAMES = ["f0", "f1", "f2", "f3"]
DROP = """([text, name]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def windows(server):
    return server.get(f"{MODEL}/reference", params={"contributions": True}).json()["windows"]


@pytest.fixture(scope="module")
def errors(windows):
    return np.array([row["prediction"][0] - row["target"][0] for row in windows])


@pytest.fixture(scope="module")
def small(serve, tmp_path_factory):
    """A model with intervals whose rows are an hour apart, and one of two shops."""
    folder = tmp_path_factory.mktemp("small")
    model = with_intervals(make_model())
    timed = replace(model.config, time=TimeColumn("time", 3600.0, 1.5, True), ahead=1)
    save_checkpoint(model.with_config(timed), folder / "small.safetensors")
    shops = replace(timed, series=SeriesColumn("shop", ("a", "b")))
    save_checkpoint(model.with_config(shops), folder / "shops.safetensors")
    with serve(folder) as client:
        yield client


def make_columns(n=N_ROWS):
    """Rows an hour apart, with a gap of five hours, a column that is not read, and the target."""
    rows = np.round(make_windows(make_model(), -(-n // 6), seed=5).reshape(-1, len(NAMES))[:n], 4)
    times = [datetime(2026, 3, 2) + timedelta(hours=row + 5 * (row >= GAP)) for row in range(n)]
    names = {name: rows[:, number].tolist() for number, name in enumerate(NAMES)}
    actual = np.random.default_rng(1).normal(5, 3, n).round(3).tolist()
    return {"time": [f"{time:%Y-%m-%d %H:%M}" for time in times], "note": ["x"] * n, **names, "y": actual}


def csv_of(columns):
    return "\n".join(",".join(map(str, line)) for line in [[*columns], *zip(*columns.values(), strict=True)])


def drop(page, text, name="own.csv"):
    page.evaluate(DROP, [text, name])
    page.wait_for_url(re.compile(f"file={name[:3]}"))


def numbers(row):
    texts = row.locator("td.number").all_inner_texts()
    return [float(re.sub(r"[^\d.-]", "", text.replace("−", "-"))) for text in texts]


def strips(page):
    return page.get_by_role("slider", name=re.compile("^Forecasts over time"))


def ribbon(page):
    return page.get_by_role("slider", name=re.compile("^Window by time"))


def points_of(page, kind):
    paths = page.locator(f".strips path.{kind}").get_attribute("d")
    return np.array([[float(x), float(y)] for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", paths)])


def brush(page, start, end):
    box = strips(page).bounding_box()
    left, width, y = box["x"] + 56, box["width"] - 68, box["y"] + 100
    page.mouse.move(left + start * width, y)
    page.mouse.down()
    page.mouse.move(left + end * width, y, steps=3)
    page.mouse.up()


def test_reference_windows_are_told_and_drawn(server, open_tab, windows, errors):
    """One sentence has their errors and drivers; lines pass through forecasts and what came, broken at gaps."""
    tab = open_tab(server)
    page = tab.show("history?model=nyc-weather")
    lead = page.locator(".lead")
    expect(lead).to_contain_text(f"512 forecasts from {windows[0]['time'].replace('T', ' ').removesuffix('Z')}")
    expect(lead).to_contain_text(f"off by {np.abs(errors).mean():.1f} K on average")
    expect(lead).to_contain_text("Mainly driven by")
    for kind, of in (("forecast", "prediction"), ("actual", "target")):
        y = points_of(page, kind)[:, 1]
        known = [row[of][0] for row in windows]
        np.testing.assert_allclose(np.polyval(np.polyfit(known, y, 1), known), y, atol=0.01)
    times = np.array([row["time"].removesuffix("Z") for row in windows], dtype="datetime64[m]").astype(float)
    gaps = np.diff(times) > 3 * np.median(np.diff(times))
    assert page.locator(".strips path.forecast").get_attribute("d").count("M") == gaps.sum() + 1
    x = points_of(page, "forecast")[:, 0]
    per_minute = (np.diff(x) / np.diff(times))[~gaps]
    np.testing.assert_allclose(per_minute, per_minute[0], rtol=0.05)  # real time
    expect(page.locator(".strip")).to_have_count(8)  # the error, six inputs, and the rest
    shares = page.locator("tr[data-input]").evaluate_all("all => all.map((row) => row.dataset.input)")
    shown = page.locator(".strip").evaluate_all("all => all.map((one) => one.dataset.strip)")
    assert shown == ["error", *shares[:6], "rest"]
    fills = page.locator(".strip path").evaluate_all("all => all.map((one) => getComputedStyle(one).fill)")
    assert len(set(fills[1:7])) == 6 and not {"rgb(0, 114, 178)", "rgb(213, 94, 0)"} & set(fills)
    assert tab.problems == []


def test_a_span_is_compared_with_the_rest_or_another(server, open_tab, windows, errors):
    """What a brush chooses is in the address, with errors, forecasts, what came and mean contributions."""
    tab = open_tab(server)
    page = tab.show("history?model=nyc-weather")
    expect(page.locator(".strip")).to_have_count(8)
    brush(page, 0.2, 0.4)
    page.wait_for_url(re.compile(r"a=\d+-\d+"))
    first, last = map(int, re.search(r"a=(\d+)-(\d+)", page.url).groups())
    inside = (np.arange(512) >= first) & (np.arange(512) <= last)
    assert 60 < inside.sum() < 150
    told = page.get_by_role("region", name="What it was driven by")
    expect(told).to_contain_text(f"They were off by {np.abs(errors[inside]).mean():.1f} K")
    expect(told).to_contain_text(f"the rest by {np.abs(errors[~inside]).mean():.1f} K")
    for of in ("target", "prediction"):
        values = np.array([row[of][0] for row in windows])
        by = values[inside].mean() - values[~inside].mean()
        expect(told).to_contain_text(f"{abs(by):.1f} K {'lower' if by < 0 else 'higher'}")
    contributions, names = np.array([row["contributions"] for row in windows]), server.get(MODEL).json()["features"]
    place = [one["name"] for one in names].index("pressure_hpa")
    of = contributions[:, place]
    row = told.locator('tr[data-input="pressure_hpa"]')
    if row.count():
        means = [of[inside].mean() - of[~inside].mean(), of[inside].mean(), of[~inside].mean()]
        assert numbers(row) == pytest.approx(means, abs=0.051)
    brush(page, 0.7, 0.8)
    page.wait_for_url(re.compile(r"b=\d+-\d+"))
    expect(told).to_contain_text("A less B")
    page.get_by_role("button", name="Zoom in to A").click()
    page.wait_for_url(re.compile(rf"zoom={first}-{last}"))
    x = points_of(page, "forecast")[first : last + 1, 0]
    assert x.min() >= 50 and x.max() < 1280 and np.ptp(x) > 900
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("button", name=re.compile("^Leave out")).first.click()
    page.get_by_role("button", name=re.compile("^Leave out")).first.click()
    page.get_by_role("button", name="Choose the worst tenth").click()
    expect(told).to_contain_text(f"They were off by {np.sort(np.abs(errors))[::-1][:52].mean():.1f} K")
    assert tab.problems == []


def test_strips_and_errors_lead_to_forecasts(server, open_tab, windows, errors):
    """By pointer, by keyboard, by touch, and from the list of the largest errors."""
    tab = open_tab(server)
    page = tab.show("history?model=nyc-weather")
    expect(page.locator(".strip")).to_have_count(8)
    strips(page).hover(position={"x": 500, "y": 80})
    index = int(strips(page).get_attribute("aria-valuenow"))
    expect(page.locator(".readout")).to_contain_text(windows[index]["time"].replace("T", " ").removesuffix("Z"))
    expect(page.locator(".readout")).to_contain_text(f"error {errors[index]:+.1f} K".replace("-", "−"))
    strips(page).click(position={"x": 500, "y": 80})
    page.wait_for_url(re.compile(f"window=ref:{index}(&|$)"))
    page.mouse.move(0, 0)
    strips(page).focus()
    for key in ("End", "ArrowLeft", "PageUp", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url(re.compile("window=ref:486"))
    for label, order in (("either way", -np.abs(errors)), ("too high", -errors), ("too low", errors)):
        page.get_by_role("button", name=label).click()
        listed = page.locator("tr[data-worst]").evaluate_all("rows => rows.map((row) => row.dataset.worst)")
        assert listed == [f"ref:{place}" for place in np.argsort(order, kind="stable")[:20]]
    page.locator("tr[data-worst]").first.get_by_role("link").click()
    page.wait_for_url(re.compile(f"forecast.*window=ref:{errors.argmin()}"))
    phone = open_tab(server, **PHONE).show("history?model=nyc-weather")
    expect(phone.locator(".strip")).to_have_count(8)
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    strips(phone).tap(position={"x": 200, "y": 80})
    phone.wait_for_url(re.compile("window=ref:"))
    assert tab.problems == []


def test_the_ribbon_chooses_and_plays_windows(server, open_tab, windows, errors):
    """On every destination: by arrow keys, by dragging, to the newest, and one after another until a key."""
    tab = open_tab(server, viewport={"width": 1920, "height": 800})
    page = tab.show("model?model=nyc-weather&window=ref:100")
    expect(ribbon(page)).to_have_attribute("aria-valuenow", "100")
    expect(ribbon(page)).to_have_attribute(
        "aria-valuetext", re.compile(f"error {errors[100]:+.1f} K".replace("-", "−").replace("+", r"\+"))
    )
    dark = page.locator(".ribbon rect").evaluate_all(
        "all => all.map((one) => Number(one.getAttribute('fill-opacity')))"
    )
    assert len(dark) == 512 and np.corrcoef(dark, np.abs(errors))[0, 1] > 0.9
    ribbon(page).focus()
    for key, index in (("ArrowRight", 101), ("PageDown", 125), ("Home", 0)):
        page.keyboard.press(key)
        expect(ribbon(page)).to_have_attribute("aria-valuenow", str(index))
    box = ribbon(page).bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 15)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 15, steps=4)
    page.mouse.up()
    expect(ribbon(page)).to_have_attribute("aria-valuenow", re.compile("^2[0-9][0-9]$"))
    page.get_by_role("button", name="Play the windows").click()
    start = int(ribbon(page).get_attribute("aria-valuenow"))
    expect(ribbon(page)).not_to_have_attribute("aria-valuenow", re.compile(f"^({start}|{start + 1}|{start + 2})$"))
    page.keyboard.press("Shift")
    expect(page.get_by_role("button", name="Play the windows")).to_be_visible()
    page.get_by_role("button", name="Now", exact=True).click()
    expect(ribbon(page)).to_have_attribute("aria-valuenow", "511")
    assert tab.problems == []


def test_periods_have_their_errors(server, open_tab, windows, errors):
    """Each week from its Monday on, each month and each hour; a file's are those of :backtest."""
    page = open_tab(server).show("history?model=nyc-weather")
    times = np.array([row["time"].removesuffix("Z") for row in windows], dtype="datetime64[m]")
    days = times.astype("datetime64[D]")
    mondays = days - (days.astype(int) + 3) % 7
    rows = page.locator("tr[data-period]")
    expect(rows).to_have_count(len(np.unique(mondays)))
    expect(page.locator(".periods rect[data-tip]")).to_have_count(len(np.unique(mondays)))
    page.get_by_text("The same as a table").click()
    for number in (0, 3, 5):
        inside = mondays == np.unique(mondays)[number]
        wanted = [inside.sum(), np.abs(errors[inside]).mean(), errors[inside].mean()]
        assert numbers(rows.nth(number)) == pytest.approx(wanted, abs=0.051)
    page.get_by_role("button", name="Hour", exact=True).click()
    expect(rows).to_have_count(24)
    hours = (times - days).astype(int) // 60
    assert numbers(rows.nth(5))[1] == pytest.approx(np.abs(errors[hours == 5]).mean(), abs=0.051)


def test_a_file_is_forecast_compared_and_explained(small, open_tab):
    """As the API forecasts, compares and explains its rows; after a reload the file is asked for again."""
    tab = open_tab(small)
    page = tab.show("history?model=small")
    columns = make_columns()
    drop(page, csv_of(columns))
    body = {"series": {name: cells for name, cells in columns.items() if name != "note"}}
    found = small.post("/v1/models/small:backtest", json={**body, "detail": "rows"}).json()
    told = page.locator(".told")
    expect(told).to_contain_text("90 rows, 80 windows; 5 windows cross a gap in time.")
    expect(page.locator(".lead")).to_contain_text(f"off by {found['metrics']['mae']:.1f}")
    expect(page.locator(".lead")).to_contain_text(
        f"the 80 % interval held {100 * found['coverage'][0]['covered']:.0f} %"
    )
    page.get_by_role("button", name="Hour", exact=True).click()
    page.get_by_text("The same as a table").click()
    rows = page.locator("tr[data-period]")
    expect(rows).to_have_count(len(found["by"]["hour"]))
    for number, one in enumerate(found["by"]["hour"][:3]):
        wanted = [one["count"], one["mae"], one["bias"], *(100 * each["covered"] for each in one["coverage"])]
        assert numbers(rows.nth(number)) == pytest.approx(wanted, abs=0.51)
    series = {name: cells for name, cells in body["series"].items() if name != "y"}
    explained = small.post(
        "/v1/models/small:explain", json={"series": series, "gaps": "skip", "output": ["y+1"], "groups": None}
    ).json()["explanations"]
    expect(page.locator("tr[data-input]")).to_have_count(4)
    for name in NAMES:
        mean = np.mean([one["contributions"][name] for one in explained])
        assert numbers(page.locator(f'tr[data-input="{name}"]'))[0] == pytest.approx(mean, abs=0.051)
    expect(strips(page)).to_have_attribute("aria-valuemax", "79")
    assert page.locator(".strips path.forecast").get_attribute("d").count("M") == 2
    page.locator("tr[data-worst]").first.get_by_role("link").click()
    page.wait_for_url(re.compile("forecast.*window=row:own.csv"))
    page.go_back()
    page.reload()
    expect(page.get_by_role("alert").first).to_contain_text("own.csv is no longer in the memory of this tab: drop it")
    drop(page, csv_of(columns))
    expect(told).to_contain_text("90 rows, 80 windows")
    broken = csv_of({**columns, "f2": ["n/a!" if row == 15 else cell for row, cell in enumerate(columns["f2"])]})
    page.evaluate(DROP, [broken, "broken.csv"])
    expect(page.get_by_text("Line 17, f2, is “n/a!”, which is no number.")).to_be_visible()
    expect(told).to_contain_text("90 rows, 80 windows")  # the view stays
    assert tab.problems == []


def test_what_drives_a_model_without_skill_is_not_told(server, open_tab):
    """The sentence opens with the verdict and names no input."""
    tab = open_tab(server)

    def spoil(route):
        found = route.fetch().json()
        route.fulfill(
            json={**found, "skill": {**found["skill"], "verdict": "red", "reason": "It has learned nothing."}}
        )

    tab.page.route(re.compile(f"{MODEL}$"), spoil)
    page = tab.show("history?model=nyc-weather")
    expect(page.locator(".lead")).to_have_text(re.compile("^It has learned nothing. 512 forecasts from "))
    expect(page.get_by_text("The model has no skill, so do not read what drove it.")).to_be_visible()
    expect(page.locator(".lead")).not_to_contain_text("Mainly driven by")


def test_each_series_has_its_history(small, open_tab):
    """Of mixed rows of two shops one is shown, and another chosen."""
    page = open_tab(small).show("history?model=shops")
    columns = make_columns(60)
    mixed = {name: [cell for cell in cells for _ in "ab"] for name, cells in columns.items()} | {"shop": [*"ba"] * 60}
    drop(page, csv_of(mixed), "shops.csv")
    expect(page.locator(".lead")).to_contain_text("50 forecasts")
    choice = page.get_by_label("Series")
    other = "a" if choice.input_value() == "b" else "b"
    choice.select_option(other)
    page.wait_for_url(re.compile(f"series={other}"))
    expect(page.locator(".lead")).to_contain_text(f"50 forecasts of {other} from ")


def test_drift_answers_three_questions(serve, open_tab, tmp_path):
    """What was counted is compared; where nothing was, or nothing is counted, it says what to do."""
    model = make_model(n_reference=130)
    save_checkpoint(model, tmp_path / "m.safetensors")
    moved = (make_windows(model, 40, seed=3) + 4).tolist()
    with serve(tmp_path, KANSCOPE_MONITOR_SHARE="1", KANSCOPE_MONITOR_CPU="1") as client:
        tab = open_tab(client)
        page = tab.show("history?model=m&view=drift")
        expect(page.locator(".lead")).to_contain_text("No forecast has been counted since then")
        answer = client.post("/v1/models/m:predict", json={"instances": moved, "receipts": True}).json()
        outcomes = [{"receipt": one, "values": {"y+1": 90.0}} for one in answer["receipts"]]
        client.post("/v1/models/m:outcomes", json={"outcomes": outcomes})
        counts = page.get_by_role("button", name="Count again")
        for _ in range(20):
            counts.click()
            page.wait_for_timeout(500)
            found = client.get("/v1/models/m/drift").json()
            if found["explained"] and found["errors"]:
                break
        counts.click()
        expect(page.locator(".lead")).to_contain_text("40 forecasts since")
        for one in found["verdicts"]:
            said = page.locator(f'[data-question="{one["question"]}"] h2')
            expect(said).to_contain_text({None: "Not known yet", True: "Yes", False: "No"}[one["alarm"]])
        expect(page.locator('[data-question="errors"]')).to_contain_text(f"{found['errors']['mae']:.1f}")
        assert tab.problems == []
    with serve(tmp_path, KANSCOPE_MONITOR="off") as client:
        page = open_tab(client).show("history?model=m&view=drift")
        expect(page.locator(".lead")).to_contain_text("Forecasts are not counted here: start the service")


def test_hidden_reference_windows_leave_files(serve, open_tab, tmp_path):
    """If a setting hides them, the view says so, and takes a file."""
    save_checkpoint(make_model(n_reference=130), tmp_path / "m.safetensors")
    with serve(tmp_path, KANSCOPE_REFERENCE_WINDOWS="false") as client:
        page = open_tab(client).show("history")
        expect(page.get_by_role("alert").first).to_contain_text("Drop a file with rows of your own here")
        drop(page, csv_of(make_columns()))
        expect(page.locator(".lead")).to_contain_text("forecasts")
